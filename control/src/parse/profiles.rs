//! Linkerd's ServiceProfiles. Must never drop a condition: a profile that cannot be followed as it is written is refused whole.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use weir_api::v1::{self, condition::Is};
use weir_core::{limits::CONDITION_DEPTH, retry::BudgetSettings, timeouts::Timeouts};

use super::{FieldError, convert::Outcome, fields, quoted, retry, routes, settings, timeouts};
use crate::{
    limits,
    objects::{HttpRoute, Name, Override, ParentRef, PortSpec, Profile, ProfileRule, RouteRule},
};

/// The rule of requests that fall under no route (Linkerd's name for it).
const DEFAULT: &str = "[DEFAULT]";
/// gRPC's codes that are failures where the HTTP status does not say otherwise (`weir_core::classify`).
const FAILURES: [u32; 6] = [2, 4, 7, 13, 14, 15];

/// Reads one.
pub(super) fn service_profile(given: &fields::ServiceProfile) -> Outcome<FieldError> {
    let own = given.metadata.namespace.as_deref().unwrap_or("default");
    let name = given.metadata.name.as_deref().unwrap_or_default();
    let Some(service) = service_of(name) else {
        let reason = format!(
            "{} is no Service's name, such as web.shop.svc.cluster.local: profiles of other names are not followed",
            quoted(name)
        );
        return Err(vec![FieldError::new("metadata.name", reason)]);
    };
    let Some(spec) = &given.spec else { return Err(vec![FieldError::new("spec", "missing")]) };
    let (mut errors, mut flaws) = (Vec::new(), Vec::new());
    let mut rules: Vec<RouteRule> = Vec::new();
    for (at, given) in spec.routes.iter().flatten().enumerate() {
        rules.push(route(&format!("spec.routes[{at}]"), given, &mut errors));
    }
    let has_routes = !rules.is_empty();
    rules.push(default());
    let mut overrides = Vec::new();
    for (at, given) in spec.dst_overrides.iter().flatten().enumerate() {
        overrides.extend(dst_override(&format!("spec.dstOverrides[{at}]"), given, &mut errors));
    }
    few("spec.dstOverrides", overrides.len(), &mut errors);
    let retry_budget = spec.retry_budget.as_ref().map(|given| budget(given, &mut errors));
    let unheard = [
        ("spec.retryBudget", retry_budget.is_some()),
        ("spec.opaquePorts", spec.opaque_ports.as_ref().is_some_and(|ports| !ports.is_empty())),
    ];
    for (field, _given) in unheard.into_iter().filter(|(_field, is_given)| *is_given && *service.namespace != *own) {
        let reason =
            format!("is not followed: only a profile in namespace {}, the Service's, sets it", service.namespace);
        flaws.push(FieldError::new(field, reason));
    }
    if retry_budget.is_some() && *service.namespace == *own && !has_routes && overrides.is_empty() {
        let reason = "is not followed: a profile without routes and dstOverrides leaves requests to others, and has none to send again";
        flaws.push(FieldError::new("spec.retryBudget", reason));
    }
    let profile = Profile { overrides, opaque_ports: opaque_ports(spec, &mut errors), retry_budget, has_routes };
    let route = of_profile(&given.metadata, service, rules, profile);
    routes::checked(route, flaws, errors)
}

/// As many backends as one object may name.
pub(super) fn few(field: &str, count: usize, errors: &mut Vec<FieldError>) {
    if count > limits::OVERRIDES {
        let reason = format!("{count} of them; at most {} are taken", limits::OVERRIDES);
        errors.push(FieldError::new(field, reason));
    }
}

/// As a route, whose words stand instead of the Service's annotations (Linkerd).
pub(super) fn of_profile(
    metadata: &fields::Metadata,
    service: Name,
    rules: Vec<RouteRule>,
    profile: Profile,
) -> HttpRoute {
    HttpRoute {
        created: Arc::from(metadata.creation_timestamp.as_deref().unwrap_or_default()),
        generation: metadata.generation.unwrap_or_default(),
        parents: vec![ParentRef { service, port: None, section: None }],
        servers: Vec::new(),
        hostnames: Vec::new(),
        rules,
        level: v1::RouteLevel::Requests,
        timeouts: Some(Timeouts::default()),
        retry: None,
        annotated: Vec::new(),
        profile: Some(Box::new(profile)),
    }
}

/// `name.namespace.svc.…`, whatever the cluster's domain is.
pub(super) fn service_of(text: &str) -> Option<Name> {
    let mut labels = text.trim_end_matches('.').split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    (labels.next()? == "svc" && !name.is_empty() && !namespace.is_empty()).then(|| Name::new(namespace, name))
}

/// The last rule: of all requests, once, without a limit.
pub(super) fn default() -> RouteRule {
    rule(DEFAULT, v1::Condition { is: Some(Is::All(v1::ConditionList::default())) }, None)
}

fn rule(name: &str, condition: v1::Condition, classes: Option<v1::ResponseClasses>) -> RouteRule {
    RouteRule {
        matches: Vec::new(),
        filters: Vec::new(),
        backends: None,
        timeouts: Timeouts::default(),
        // No attempts: else the Service's would be in force.
        retry: Some(v1::Retry::default()),
        sessions: None,
        of_profile: Some(ProfileRule { name: Arc::from(name), condition, classes }),
    }
}

fn route(field: &str, given: &fields::ProfileRoute, errors: &mut Vec<FieldError>) -> RouteRule {
    if given.name.is_empty() || given.name.len() > limits::PROFILE_ROUTE_NAME {
        let reason = format!("{} bytes long; 1 to {} are taken", given.name.len(), limits::PROFILE_ROUTE_NAME);
        errors.push(FieldError::new(format!("{field}.name"), reason));
    }
    let condition = match &given.condition {
        Some(given) => request_match(&format!("{field}.condition"), given, CONDITION_DEPTH, errors),
        None => {
            errors.push(FieldError::new(format!("{field}.condition"), "missing"));
            v1::Condition::default()
        }
    };
    let decided = given.response_classes.as_ref().map(|all| Statuses::of(field, all, errors));
    let statuses = decided.as_ref();
    let timeout = given.timeout.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
        timeouts::go(text).map_err(|reason| errors.push(FieldError::new(format!("{field}.timeout"), reason))).ok()
    });
    let retry = given.is_retryable.unwrap_or_default().then(|| retry_of(statuses.unwrap_or(&Statuses::default())));
    let mut rule = rule(&given.name, condition, statuses.map(Statuses::classes));
    rule.timeouts.request = timeout.filter(|timeout| !timeout.is_zero());
    rule.retry = retry.or(rule.retry);
    rule
}

/// All that it says has to hold (Linkerd's `RequestMatch`).
fn request_match(
    field: &str,
    given: &fields::RequestMatch,
    depth: usize,
    errors: &mut Vec<FieldError>,
) -> v1::Condition {
    let Some(below) = depth.checked_sub(1) else {
        errors.push(FieldError::new(field, format!("nested more than {CONDITION_DEPTH} deep")));
        return v1::Condition::default();
    };
    let mut list = |name: &str, all: &[fields::RequestMatch]| {
        let each = all.iter().enumerate();
        let conditions = each.map(|(at, one)| request_match(&format!("{field}.{name}[{at}]"), one, below, errors));
        v1::ConditionList { conditions: conditions.collect() }
    };
    let mut held = Vec::new();
    held.extend(given.all.as_deref().map(|all| Is::All(list("all", all))));
    held.extend(given.any.as_deref().map(|any| Is::Any(list("any", any))));
    if let Some(one) = &given.not {
        held.push(Is::Not(Box::new(request_match(&format!("{field}.not"), one, below, errors))));
    }
    let said =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    held.extend(said(&given.method).map(|method| Is::Method(method.to_ascii_uppercase())));
    held.extend(said(&given.path_regex).map(Is::PathPattern));
    if held.is_empty() {
        errors.push(FieldError::new(field, "says nothing: one of all, any, not, method, pathRegex is needed"));
    }
    match (held.pop(), held.is_empty()) {
        (only, true) => v1::Condition { is: only },
        (last, false) => {
            let conditions = held.into_iter().chain(last).map(|is| v1::Condition { is: Some(is) }).collect();
            v1::Condition { is: Some(Is::All(v1::ConditionList { conditions })) }
        }
    }
}

/// What each status counts as, from 100, where something says so: the first class whose condition holds.
struct Statuses([Option<bool>; 500]);

impl Default for Statuses {
    fn default() -> Statuses {
        Statuses([None; 500])
    }
}

impl Statuses {
    fn of(field: &str, given: &[fields::ResponseClass], errors: &mut Vec<FieldError>) -> Statuses {
        let mut statuses = Statuses::default();
        for (at, class) in given.iter().enumerate() {
            let field = format!("{field}.responseClasses[{at}].condition");
            let Some(condition) = &class.condition else {
                errors.push(FieldError::new(field, "missing"));
                continue;
            };
            if let Err(error) = checked(&field, condition) {
                errors.push(error);
                continue;
            }
            for (status, decided) in (100..).zip(&mut statuses.0) {
                if decided.is_none() && holds(condition, status) {
                    *decided = Some(class.is_failure.unwrap_or_default());
                }
            }
        }
        statuses
    }

    fn ranges(&self, is_it: impl Fn(u32, Option<bool>) -> bool) -> Vec<v1::StatusRange> {
        let mut ranges: Vec<v1::StatusRange> = Vec::new();
        for (status, _decided) in (100..).zip(self.0).filter(|(status, decided)| is_it(*status, *decided)) {
            match ranges.last_mut().filter(|range| range.last + 1 == status) {
                Some(range) => range.last = status,
                None => ranges.push(v1::StatusRange { first: status, last: status }),
            }
        }
        ranges
    }

    fn classes(&self) -> v1::ResponseClasses {
        v1::ResponseClasses {
            failures: self.ranges(|_status, decided| decided == Some(true)),
            successes: self.ranges(|_status, decided| decided == Some(false)),
        }
    }
}

/// What is a failure is asked for again while the budget lasts (Linkerd).
fn retry_of(statuses: &Statuses) -> v1::Retry {
    let codes = match statuses.0[100] {
        // A call's HTTP status decides before its own.
        Some(true) => (0..=16).collect(),
        Some(false) => Vec::new(),
        None => FAILURES.to_vec(),
    };
    v1::Retry {
        statuses: statuses.ranges(|status, decided| decided.unwrap_or(status >= 500)),
        codes,
        limit: limits::PROFILE_RETRIES,
        ..v1::Retry::default()
    }
}

/// All that it says has to hold (Linkerd's `ResponseMatch`).
fn holds(given: &fields::ResponseMatch, status: u32) -> bool {
    let in_range =
        |range: &fields::StatusRange| (range.min.unwrap_or(100)..=range.max.unwrap_or(599)).contains(&status);
    given.all.iter().flatten().all(|one| holds(one, status))
        && given.any.as_ref().is_none_or(|any| any.iter().any(|one| holds(one, status)))
        && given.not.as_ref().is_none_or(|one| !holds(one, status))
        && given.status.as_ref().is_none_or(in_range)
}

fn checked(field: &str, given: &fields::ResponseMatch) -> Result<(), FieldError> {
    if given.all.is_none() && given.any.is_none() && given.not.is_none() && given.status.is_none() {
        return Err(FieldError::new(field, "says nothing: one of all, any, not, status is needed"));
    }
    if let Some(range) = &given.status {
        let (min, max) = (range.min.unwrap_or(100), range.max.unwrap_or(599));
        if !(100..600).contains(&min) || !(100..600).contains(&max) || min > max {
            return Err(FieldError::new(
                format!("{field}.status"),
                format!("{min} to {max} are no statuses (100 to 599)"),
            ));
        }
    }
    let lists = [("all", &given.all), ("any", &given.any)];
    for (name, list) in lists {
        for (at, one) in list.iter().flatten().enumerate() {
            checked(&format!("{field}.{name}[{at}]"), one)?;
        }
    }
    given.not.as_ref().map_or(Ok(()), |one| checked(&format!("{field}.not"), one))
}

fn budget(given: &fields::ProfileRetryBudget, errors: &mut Vec<FieldError>) -> v1::RetryBudget {
    let default = BudgetSettings::default();
    let mut wrong =
        |name: &str, reason: String| errors.push(FieldError::new(format!("spec.retryBudget.{name}"), reason));
    let ratio = given.retry_ratio.unwrap_or(f64::from(default.ratio_permille) / 1000.0);
    if !(0.0..=1000.0).contains(&ratio) {
        wrong("retryRatio", format!("{ratio} is no part of the requests, such as 0.2 (0 to 1000)"));
    }
    let ttl = given.ttl.as_deref().map_or(Ok(default.ttl), |text| {
        let (least, most) = (weir_core::limits::RETRY_TTL_MIN, weir_core::limits::RETRY_TTL_MAX);
        let ttl = timeouts::go(text)?;
        let outside = || format!("{} is not between {} and {} seconds", quoted(text), least.as_secs(), most.as_secs());
        Some(ttl).filter(|ttl| (least..=most).contains(ttl)).ok_or_else(outside)
    });
    let ttl = ttl.unwrap_or_else(|reason| {
        wrong("ttl", reason);
        default.ttl
    });
    v1::RetryBudget {
        ratio_permille: (ratio * 1000.0).round() as u32,
        min_per_second: given.min_retries_per_second.unwrap_or(default.min_per_second),
        ttl_ms: retry::millis(Some(ttl)),
    }
}

fn dst_override(field: &str, given: &fields::DstOverride, errors: &mut Vec<FieldError>) -> Option<Override> {
    let authority = given.authority.trim();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0))),
        None => (authority, None),
    };
    let service = service_of(host);
    if service.is_none() || port == Some(None) {
        let reason = format!("{} is no port of a Service, such as web-v2.shop.svc.cluster.local:80", quoted(authority));
        errors.push(FieldError::new(format!("{field}.authority"), reason));
    }
    let weight = weight(field, given.weight.as_ref(), errors);
    Some(Override { service: service?, port: port.flatten(), weight })
}

/// A quantity (Kubernetes) in thousandths: `1`, `500m`, `0.5`, `1k`.
pub(super) fn weight(field: &str, given: Option<&fields::Scalar>, errors: &mut Vec<FieldError>) -> u32 {
    let read = given.ok_or_else(|| "missing".to_owned()).and_then(|given| {
        let text = given.to_string();
        let (number, scale) = match text.strip_suffix('m') {
            Some(number) => (number, 1.0),
            None => text.strip_suffix('k').map_or((&*text, 1000.0), |number| (number, 1_000_000.0)),
        };
        let thousandths = number.parse::<f64>().ok().map(|number| (number * scale).ceil());
        let thousandths = thousandths.filter(|weight| (0.0..=1_000_000_000.0).contains(weight));
        thousandths.map(|weight| weight as u32).ok_or_else(|| format!("{} is no weight (0 to 1000000)", quoted(&text)))
    });
    read.unwrap_or_else(|reason| {
        errors.push(FieldError::new(format!("{field}.weight"), reason));
        0
    })
}

fn opaque_ports(spec: &fields::ServiceProfileSpec, errors: &mut Vec<FieldError>) -> Vec<PortSpec> {
    let mut ports = Vec::new();
    for (at, given) in spec.opaque_ports.iter().flatten().enumerate() {
        match settings::ports(&given.to_string(), weir_core::limits::PORT_RANGES) {
            Ok(specs) => ports.extend(specs),
            Err(reason) => errors.push(FieldError::new(format!("spec.opaquePorts[{at}]"), reason)),
        }
    }
    if ports.len() > weir_core::limits::PORT_RANGES {
        let reason = format!("{} ports and ranges; at most {} are taken", ports.len(), weir_core::limits::PORT_RANGES);
        errors.push(FieldError::new("spec.opaquePorts", reason));
    }
    ports
}
