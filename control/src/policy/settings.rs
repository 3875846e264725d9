//! Single values in force, each with who says so. Must never say a value that nodes are not told.

use std::time::Duration;

use weir_api::v1::{self, session_persistence::Carrier};
use weir_core::{limits::RETRY_PAUSE, retry::BudgetSettings, timeouts::Timeouts, words};

use crate::{
    index::Index,
    objects::{
        HttpRoute, Kind, Name, ObjectName, RouteRule, Service, ServicePort,
        annotation::{OPAQUE_PORTS, balancer, breaker, retry, timeouts},
    },
    snapshot::{self, Declared, Said},
};

/// Nothing, in settings.
const NONE: &str = "none";
/// Lets requests say how they are sent again; an option of control.
const L5D_OPTION: &str = "--allow-l5d-request-headers";

/// One rule of a route.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a ObjectName,
    pub(crate) route: &'a HttpRoute,
    pub(crate) rule: &'a RouteRule,
    /// Index of the rule.
    pub(crate) at: usize,
}

impl Place<'_> {
    /// Where the object says something that a rule says; none where a profile does not.
    fn field(&self, field: &str) -> Option<String> {
        if self.rule.of_profile.is_none() {
            return Some(format!("spec.rules[{}].{field}", self.at));
        }
        let of_profile = match field {
            "timeouts.request" => "timeout",
            "retry" if self.rule.retry.as_ref().is_some_and(|retry| retry.limit > 0) => "isRetryable",
            _unsaid => return None,
        };
        Some(format!("spec.routes[{}].{of_profile}", self.at))
    }
}

fn setting(name: &str, value: impl Into<String>, source: Option<v1::Source>) -> v1::Setting {
    v1::Setting { name: name.to_owned(), value: value.into(), source }
}

fn source(object: Option<v1::ObjectRef>, field: impl Into<String>) -> Option<v1::Source> {
    Some(v1::Source { object, field: field.into() })
}

fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match (millis, millis % 1000) {
        (0, _) => NONE.to_owned(),
        (_, 0) => format!("{}s", millis / 1000),
        _broken => format!("{millis}ms"),
    }
}

fn millis(millis: u64) -> String {
    duration(Duration::from_millis(millis))
}

/// Of a thousand, as a decimal fraction.
fn part(permille: u32) -> String {
    (f64::from(permille) / 1000.0).to_string()
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let all = items.collect::<Vec<_>>().join(",");
    if all.is_empty() { NONE.to_owned() } else { all }
}

/// Of a Service's own annotations.
struct Own<'a> {
    object: v1::ObjectRef,
    annotated: &'a [&'static str],
}

impl<'a> Own<'a> {
    fn service(name: &Name, service: &'a Service) -> Own<'a> {
        let name = ObjectName { kind: Kind::Service, name: name.clone() };
        Own { object: name.to_api(), annotated: &service.annotated }
    }

    fn route(place: Place<'a>) -> Own<'a> {
        Own { object: place.name.to_api(), annotated: &place.route.annotated }
    }

    /// None where the object has no such annotation: it is the default.
    fn annotation(&self, key: &str) -> Option<v1::Source> {
        let has = self.annotated.contains(&key);
        has.then(|| v1::Source { object: Some(self.object.clone()), field: format!("metadata.annotations.{key}") })
    }

    fn field(&self, field: impl Into<String>) -> Option<v1::Source> {
        source(Some(self.object.clone()), field)
    }
}

/// What is spoken on a port.
pub(crate) fn protocol(index: &Index, name: &Name, service: &Service, port: &ServicePort) -> v1::Setting {
    let (protocol, who) = snapshot::declared(index, name, service, port);
    let own = Own::service(name, service);
    let of_namespace = || v1::ObjectRef {
        kind: Kind::Namespace.as_str().to_owned(),
        name: name.namespace.to_string(),
        ..v1::ObjectRef::default()
    };
    let annotation = format!("metadata.annotations.{OPAQUE_PORTS}");
    let source = match who {
        Declared::Default => None,
        Declared::WellKnown => source(None, "well-known port"),
        Declared::AppProtocol => own.field("spec.ports.appProtocol"),
        Declared::Service => own.field(annotation),
        Declared::Namespace => source(Some(of_namespace()), annotation),
        Declared::Profile => {
            let profile = index.profile_of(name).map(|(own, _profile)| own.to_api());
            source(profile, "spec.opaquePorts")
        }
    };
    let value = match protocol {
        v1::Protocol::Detect => "detect",
        v1::Protocol::Http1 => "http/1",
        v1::Protocol::Http2 => "http/2",
        v1::Protocol::Opaque => "opaque",
        v1::Protocol::Tls => "tls",
    };
    setting("protocol", value, source)
}

/// Time limits and retries of a rule's requests; without a place of those that no rule decides about.
pub(crate) fn of_requests(name: &Name, service: &Service, place: Option<Place<'_>>) -> Vec<v1::Setting> {
    let own = Own::service(name, service);
    let of_route = place.map(Own::route);
    let from = |who: Said, key: &str, field: &str| match (who, &of_route, place) {
        (Said::Service, ..) => own.annotation(key),
        (Said::Route, Some(route), _) => route.annotation(key),
        (Said::Rule, Some(route), Some(place)) => place.field(field).and_then(|field| route.field(field)),
        _default => None,
    };
    let (route, rule) = place.map_or((None, Timeouts::default()), |place| (place.route.timeouts, place.rule.timeouts));
    let limits = snapshot::timeouts_in_force(service.timeouts, route, rule);
    let names = [
        ("timeouts.request", timeouts::REQUEST),
        ("timeouts.backendRequest", ""),
        ("timeouts.response", timeouts::RESPONSE),
        ("timeouts.idle", timeouts::IDLE),
    ];
    let limits = limits.into_iter().zip(names);
    let mut all: Vec<v1::Setting> = limits
        .map(|((limit, who), (name, key))| setting(name, duration(limit.unwrap_or_default()), from(who, key, name)))
        .collect();
    let (given, who) = match place {
        Some(place) => snapshot::retry_in_force(Some(service), place.route, place.rule),
        None => (service.retry.as_ref(), Said::Service),
    };
    all.extend(retries(given, |key, field| from(who, key, field)));
    all.extend(place.and_then(sessions));
    all
}

/// Of a rule that keeps them.
fn sessions(place: Place<'_>) -> Option<v1::Setting> {
    let given = place.rule.sessions.as_ref()?;
    let mut said = match given.carrier.as_ref()? {
        Carrier::Cookie(name) => format!("cookie:{name}"),
        Carrier::Header(name) => format!("header:{name}"),
    };
    let limits = [("absolute", given.absolute_timeout_ms), ("idle", given.idle_timeout_ms)];
    for (name, limit) in limits.into_iter().filter(|(_name, limit)| *limit > 0) {
        said += &format!(",{name}={}", millis(limit));
    }
    said += if given.permanent { ",permanent" } else { "" };
    let field = place.field("sessionPersistence").and_then(|field| Own::route(place).field(field));
    Some(setting("sessionPersistence", said, field))
}

fn retries(given: Option<&v1::Retry>, from: impl Fn(&str, &str) -> Option<v1::Source>) -> Vec<v1::Setting> {
    let Some(given) = given else { return vec![setting("retry.limit", "0", None)] };
    let limit = setting("retry.limit", given.limit.to_string(), from(retry::LIMIT, "retry"));
    if given.limit == 0 {
        return vec![limit];
    }
    let statuses = given.statuses.iter().map(|range| match (range.first, range.last) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    let code = |code: &u32| {
        let known = words::CODES.iter().find(|(_name, known)| *known == *code);
        known.map_or_else(|| code.to_string(), |(name, _code)| (*name).to_owned())
    };
    let pause = if given.pause_ms == 0 { RETRY_PAUSE } else { Duration::from_millis(given.pause_ms) };
    vec![
        setting("retry.http", list(statuses), from(retry::HTTP, "retry")),
        setting("retry.grpc", list(given.codes.iter().map(code)), from(retry::GRPC, "retry")),
        // Rules alone say this, and no annotation does.
        setting("retry.unanswered", yes(given.unanswered), from("", "retry")),
        limit,
        setting("retry.timeout", millis(given.timeout_ms), from(retry::TIMEOUT, "retry")),
        setting("retry.backoff", duration(pause), from("", "retry")),
    ]
}

/// All of a Service that is no rule's business: budget of retries, breaker, load, endpoints, and what requests may say.
pub(crate) fn of_service(index: &Index, name: &Name, service: &Service) -> Vec<v1::Setting> {
    let own = Own::service(name, service);
    let (budget, profile) = snapshot::retry_budget(index, name, service);
    let budget = BudgetSettings::of_api(budget.as_ref());
    let of_budget = |key: &str| match profile {
        Some(profile) => source(Some(profile.to_api()), "spec.retryBudget"),
        None => own.annotation(key),
    };
    let mut all = vec![
        setting("retry.budget.ratio", part(budget.ratio_permille), of_budget(retry::BUDGET_RATIO)),
        setting("retry.budget.minPerSecond", budget.min_per_second.to_string(), of_budget(retry::BUDGET_LEAST)),
        setting("retry.budget.ttl", duration(budget.ttl), of_budget(retry::BUDGET_TTL)),
    ];
    all.extend(breakers(&own, service.breaker.as_ref()));
    match &service.load_bias {
        None => all.push(setting("loadBias.penalty", NONE, own.annotation(breaker::PENALIZE))),
        Some(bias) => all.extend([
            setting(
                "loadBias.penalty",
                millis(bias.penalty_ms),
                own.annotation(breaker::BIAS).or_else(|| own.annotation(breaker::PENALIZE)),
            ),
            setting("loadBias.maxRetryAfter", millis(bias.max_retry_after_ms), own.annotation(breaker::BIAS_MOST)),
        ]),
    }
    all.extend(balancers(&own, service.balancer.as_ref()));
    let local = service.local_only.then(|| own.field("spec.internalTrafficPolicy")).flatten();
    all.push(setting("endpoints", if service.local_only { "client's node" } else { "all" }, local));
    let option = service.l5d_request_headers.then(|| source(None, L5D_OPTION)).flatten();
    all.push(setting("l5dRequestHeaders", if service.l5d_request_headers { "honored" } else { "ignored" }, option));
    all
}

fn balancers(own: &Own<'_>, given: Option<&v1::Balancer>) -> Vec<v1::Setting> {
    let given =
        given.cloned().unwrap_or(v1::Balancer { kind: v1::BalancerKind::PeakEwma.into(), ..v1::Balancer::default() });
    let kind =
        balancer::KINDS.into_iter().find(|(_name, kind)| *kind == given.kind()).map_or(NONE, |(name, _kind)| name);
    let mut all = vec![setting("balancer.kind", kind, own.annotation(balancer::KIND))];
    if let Some(key) = given.hash.and_then(|hash| hash.key) {
        let key = match key {
            v1::hash_key::Key::Header(name) => format!("header:{name}"),
            v1::hash_key::Key::Cookie(name) => format!("cookie:{name}"),
            v1::hash_key::Key::Source(_) => "source".to_owned(),
        };
        all.push(setting("balancer.hash", key, own.annotation(balancer::HASH)));
    }
    all.push(setting("balancer.slowStart", millis(given.slow_start_ms), own.annotation(balancer::SLOW_START)));
    let overflow = match given.zone_overflow {
        0 => NONE.to_owned(),
        open => open.to_string(),
    };
    all.push(setting("balancer.zoneOverflow", overflow, own.annotation(balancer::ZONE_OVERFLOW)));
    all
}

fn breakers(own: &Own<'_>, given: Option<&v1::CircuitBreaker>) -> Vec<v1::Setting> {
    let Some(given) = given else {
        // Said with a count of 0, or in words that are not understood, it is as good as unsaid.
        return vec![setting("breaker.kind", NONE, own.annotation(breaker::KIND))];
    };
    let kind = if given.success_rate.is_some() { "unified" } else { "consecutive" };
    let one = |name: &str, value: String, key: &str| setting(name, value, own.annotation(key));
    let mut all = vec![
        one("breaker.kind", kind.to_owned(), breaker::KIND),
        one("breaker.maxFailures", given.max_failures.to_string(), breaker::MAX_FAILURES),
        one("breaker.minPenalty", millis(given.min_penalty_ms), breaker::MIN_PENALTY),
        one("breaker.maxPenalty", millis(given.max_penalty_ms), breaker::MAX_PENALTY),
        one("breaker.jitter", part(given.jitter_permille), breaker::JITTER),
    ];
    if let Some(rate) = &given.success_rate {
        all.extend([
            one("breaker.successRate.threshold", part(rate.threshold_permille), breaker::RATE),
            one("breaker.successRate.window", millis(rate.window_ms), breaker::RATE_WINDOW),
            one("breaker.successRate.minRequests", rate.min_requests.to_string(), breaker::RATE_LEAST),
        ]);
    }
    all.extend([
        one("breaker.honorRetryAfter", yes(given.honor_retry_after).to_owned(), breaker::RETRY_AFTER),
        one("breaker.panicThreshold", part(given.panic_permille), breaker::PANIC),
    ]);
    all
}
