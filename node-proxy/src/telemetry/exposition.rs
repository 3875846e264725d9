//! A scrape, made piece by piece while the scraper reads it.
//!
//! Must never hold the whole text: thousands of series with 27 buckets each are more than the proxy's memory budget.

use std::sync::Arc;

use super::{
    ConnectionSeries, HttpSeries, LATENCY_BOUNDS_MS, MirrorSeries, RetryEvent, RouteSeries, TcpSeries, Telemetry,
    decisions::Decisions,
    durations::ROUTE_BOUNDS,
    errno,
    families::{self, Family},
    gauges,
    labels::{Direction, LabelText, Labels, write_pod},
    routes::Ending,
    series::{ResponseKind, Series as _, Subject},
    state::NodeState,
    text::{Format, Text},
};
use crate::limits;
use weir_core::{
    classify::Classification,
    inbound::{Authorization, Ruler, Ruling},
};

type Write<S> = fn(&mut Text, &'static Family, &str, &S);

static HTTP: [(&Family, Write<HttpSeries>); 6] = [
    (&families::REQUESTS, write_requests),
    (&families::RESPONSES, write_responses),
    (&families::LATENCY, write_latency),
    (&families::HTTP_ALLOWED, |text, family, labels, series| {
        write_allowed(text, family, labels, &series.subject, series.decisions());
    }),
    (&families::HTTP_DENIED, |text, family, labels, series| {
        write_denied(text, family, labels, &series.subject, series.decisions());
    }),
    (&families::HTTP_UNROUTED, |text, family, labels, series| {
        let count = series.decisions().unrouted();
        if count > 0 {
            text.sample(family, labels, &[], count);
        }
    }),
];

static TCP: [(&Family, Write<TcpSeries>); 8] = [
    (&families::TCP_OPEN, |text, family, labels, series| text.sample(family, labels, &[], series.opened())),
    (&families::TCP_OPEN_NOW, |text, family, labels, series| text.sample(family, labels, &[], series.open_now())),
    (&families::TCP_READ, |text, family, labels, series| text.sample(family, labels, &[], series.read())),
    (&families::TCP_WRITE, |text, family, labels, series| text.sample(family, labels, &[], series.written())),
    (&families::TCP_CLOSE, write_closes),
    (&families::TCP_ALLOWED, |text, family, labels, series| {
        write_allowed(text, family, labels, &series.subject, series.decisions());
    }),
    (&families::TCP_DENIED, |text, family, labels, series| {
        write_denied(text, family, labels, &series.subject, series.decisions());
    }),
    (&families::TCP_TERMINATED, |text, family, labels, series| {
        let count = series.decisions().terminated();
        if count > 0 {
            text.sample(family, labels, &[], count);
        }
    }),
];

static ROUTES: [(&Family, Write<RouteSeries>); 6] = of_routes([
    &families::ROUTE_STATUSES,
    &families::ROUTE_DURATION,
    &families::ROUTE_RETRIES,
    &families::ROUTE_RETRY_SUCCESSES,
    &families::ROUTE_RETRY_LIMIT,
    &families::ROUTE_RETRY_OVERFLOW,
]);

static CALL_ROUTES: [(&Family, Write<RouteSeries>); 6] = of_routes([
    &families::CALL_ROUTE_STATUSES,
    &families::CALL_ROUTE_DURATION,
    &families::CALL_ROUTE_RETRIES,
    &families::CALL_ROUTE_RETRY_SUCCESSES,
    &families::CALL_ROUTE_RETRY_LIMIT,
    &families::CALL_ROUTE_RETRY_OVERFLOW,
]);

static BACKENDS: [(&Family, Write<RouteSeries>); 3] =
    of_backends([&families::BACKEND_REQUESTS, &families::BACKEND_STATUSES, &families::BACKEND_DURATION]);

static CALL_BACKENDS: [(&Family, Write<RouteSeries>); 3] =
    of_backends([&families::CALL_BACKEND_REQUESTS, &families::CALL_BACKEND_STATUSES, &families::CALL_BACKEND_DURATION]);

const fn of_routes(families: [&'static Family; 6]) -> [(&'static Family, Write<RouteSeries>); 6] {
    let [statuses, duration, retries, successes, limit, overflow] = families;
    [
        (statuses, write_endings),
        (duration, write_durations),
        (retries, |text, family, labels, series| {
            text.sample(family, labels, &[], series.retries(RetryEvent::Request));
        }),
        (successes, |text, family, labels, series| {
            text.sample(family, labels, &[], series.retries(RetryEvent::Success));
        }),
        (limit, |text, family, labels, series| {
            text.sample(family, labels, &[], series.retries(RetryEvent::LimitExceeded));
        }),
        (overflow, |text, family, labels, series| {
            text.sample(family, labels, &[], series.retries(RetryEvent::Overflow));
        }),
    ]
}

const fn of_backends(families: [&'static Family; 3]) -> [(&'static Family, Write<RouteSeries>); 3] {
    let [requests, statuses, duration] = families;
    [
        (requests, |text, family, labels, series| text.sample(family, labels, &[], series.requests())),
        (statuses, write_endings),
        (duration, write_durations),
    ]
}

static PROFILES: [(&Family, Write<RouteSeries>); 4] = [
    (&families::PROFILE_REQUESTS, |text, family, labels, series| {
        text.sample(family, &of_profile(labels, series), &[], series.requests());
    }),
    (&families::PROFILE_RESPONSES, write_profile_responses),
    (&families::PROFILE_LATENCY, write_profile_latency),
    (&families::PROFILE_RETRYABLE, |text, family, labels, series| {
        let labels = of_profile(labels, series);
        text.sample(family, &labels, &[("skipped", "")], series.retries(RetryEvent::Request));
        text.sample(family, &labels, &[("skipped", "no_budget")], series.retries(RetryEvent::Overflow));
    }),
];

static PROFILE_BACKENDS: [(&Family, Write<RouteSeries>); 3] = [
    (&families::PROFILE_ATTEMPTS, |text, family, labels, series| {
        text.sample(family, &of_profile(labels, series), &[], series.requests());
    }),
    (&families::PROFILE_ATTEMPT_RESPONSES, write_profile_responses),
    (&families::PROFILE_ATTEMPT_LATENCY, write_profile_latency),
];

static MIRRORS: [(&Family, Write<MirrorSeries>); 1] = [(&families::MIRRORED, |text, family, labels, series| {
    for (how, count) in series.ends().filter(|(_, count)| *count > 0) {
        text.sample(family, labels, &[("result", how.label())], count);
    }
})];

static TLS_CONNECTIONS: [(&Family, Write<ConnectionSeries>); 2] =
    of_connections([&families::TLS_ROUTE_OPEN, &families::TLS_ROUTE_CLOSE]);

static TCP_CONNECTIONS: [(&Family, Write<ConnectionSeries>); 2] =
    of_connections([&families::TCP_ROUTE_OPEN, &families::TCP_ROUTE_CLOSE]);

const fn of_connections(families: [&'static Family; 2]) -> [(&'static Family, Write<ConnectionSeries>); 2] {
    let [open, close] = families;
    [
        (open, |text, family, labels, series| text.sample(family, labels, &[], series.opened())),
        (close, |text, family, labels, series| {
            for (how, count) in series.ends().filter(|(_, count)| *count > 0) {
                text.sample(family, labels, &[("error", how.label())], count);
            }
        }),
    ]
}

/// An iterator over the pieces of one scrape.
pub struct Exposition {
    http: Vec<Arc<HttpSeries>>,
    tcp: Vec<Arc<TcpSeries>>,
    routes: Vec<Arc<RouteSeries>>,
    backends: Vec<Arc<RouteSeries>>,
    // The same of GRPCRoutes.
    call_routes: Vec<Arc<RouteSeries>>,
    call_backends: Vec<Arc<RouteSeries>>,
    // Those of `routes` and `backends` that are ServiceProfiles': once more, in Linkerd's classic families.
    profiles: Vec<Arc<RouteSeries>>,
    profile_backends: Vec<Arc<RouteSeries>>,
    mirrors: Vec<Arc<MirrorSeries>>,
    tls_connections: Vec<Arc<ConnectionSeries>>,
    tcp_connections: Vec<Arc<ConnectionSeries>>,
    text: Text,
    // Families written whole and series written of the next one.
    family: usize,
    series: usize,
    // Small enough to be made at once, when the scrape begins.
    rest: Option<String>,
}

impl Exposition {
    pub(super) fn new(telemetry: &Telemetry, state: &dyn NodeState, format: Format) -> Exposition {
        let (http, tcp) = (telemetry.http.all(), telemetry.tcp.all());
        let (routes, backends) = (telemetry.routes.all(), telemetry.backends.all());
        let (mirrors, connections) = (telemetry.mirrors.all(), telemetry.connections.all());
        let mut rest = Text::new(format);
        telemetry.counters.write(&mut rest);
        gauges::write(
            telemetry,
            [http.len(), tcp.len(), routes.len(), backends.len(), mirrors.len(), connections.len()],
            state,
            &mut rest,
        );
        rest.end();
        let is_profiled = |series: &&Arc<RouteSeries>| series.profiled().is_some();
        let profiles = routes.iter().filter(is_profiled).cloned().collect();
        let profile_backends = backends.iter().filter(is_profiled).cloned().collect();
        let of_calls = |series: &Arc<RouteSeries>| series.is_of_calls();
        let (call_routes, routes) = routes.into_iter().partition(of_calls);
        let (call_backends, backends) = backends.into_iter().partition(of_calls);
        let (tls_connections, tcp_connections) = connections.into_iter().partition(|series| series.is_of_tls());
        Exposition {
            http,
            tcp,
            routes,
            backends,
            call_routes,
            call_backends,
            profiles,
            profile_backends,
            mirrors,
            tls_connections,
            tcp_connections,
            text: Text::new(format),
            family: 0,
            series: 0,
            rest: Some(rest.take()),
        }
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.text.len() < limits::SCRAPE_CHUNK {
            let (text, next) = (&mut self.text, &mut self.series);
            let mut at = self.family;
            let over = if let Some((family, write)) = HTTP.get(at) {
                write_one(text, family, *write, &self.http, next)
            } else if let Some((family, write)) = TCP.get(past(&mut at, HTTP.len())) {
                write_one(text, family, *write, &self.tcp, next)
            } else if let Some((family, write)) = ROUTES.get(past(&mut at, TCP.len())) {
                write_one(text, family, *write, &self.routes, next)
            } else if let Some((family, write)) = BACKENDS.get(past(&mut at, ROUTES.len())) {
                write_one(text, family, *write, &self.backends, next)
            } else if let Some((family, write)) = CALL_ROUTES.get(past(&mut at, BACKENDS.len())) {
                write_one(text, family, *write, &self.call_routes, next)
            } else if let Some((family, write)) = CALL_BACKENDS.get(past(&mut at, CALL_ROUTES.len())) {
                write_one(text, family, *write, &self.call_backends, next)
            } else if let Some((family, write)) = PROFILES.get(past(&mut at, CALL_BACKENDS.len())) {
                write_one(text, family, *write, &self.profiles, next)
            } else if let Some((family, write)) = PROFILE_BACKENDS.get(past(&mut at, PROFILES.len())) {
                write_one(text, family, *write, &self.profile_backends, next)
            } else if let Some((family, write)) = MIRRORS.get(past(&mut at, PROFILE_BACKENDS.len())) {
                write_one(text, family, *write, &self.mirrors, next)
            } else if let Some((family, write)) = TLS_CONNECTIONS.get(past(&mut at, MIRRORS.len())) {
                write_one(text, family, *write, &self.tls_connections, next)
            } else if let Some((family, write)) = TCP_CONNECTIONS.get(past(&mut at, TLS_CONNECTIONS.len())) {
                write_one(text, family, *write, &self.tcp_connections, next)
            } else {
                break;
            };
            if over {
                self.family += 1;
                self.series = 0;
            }
        }
        if self.text.len() > 0 { Some(self.text.take()) } else { self.rest.take() }
    }
}

/// The place in the next table of families.
fn past(at: &mut usize, table: usize) -> usize {
    *at -= table;
    *at
}

/// Writes the next series of a family. True when there is none left.
fn write_one<S: HasSubject>(
    text: &mut Text,
    family: &'static Family,
    write: Write<S>,
    all: &[Arc<S>],
    next: &mut usize,
) -> bool {
    if *next == 0 {
        text.family(family);
    }
    let Some(series) = all.get(*next) else { return true };
    let mut labels = LabelText::default();
    series.write_labels(&mut labels);
    write(text, family, labels.as_str(), series);
    *next += 1;
    *next == all.len()
}

trait HasSubject {
    fn write_labels(&self, text: &mut LabelText);
}

impl HasSubject for HttpSeries {
    fn write_labels(&self, text: &mut LabelText) {
        write_subject(&self.subject, text);
    }
}

impl HasSubject for ConnectionSeries {
    fn write_labels(&self, text: &mut LabelText) {
        write_subject(self.subject(), text);
    }
}

impl HasSubject for TcpSeries {
    fn write_labels(&self, text: &mut LabelText) {
        write_subject(&self.subject, text);
    }
}

impl HasSubject for RouteSeries {
    fn write_labels(&self, text: &mut LabelText) {
        write_subject(self.subject(), text);
    }
}

impl HasSubject for MirrorSeries {
    fn write_labels(&self, text: &mut LabelText) {
        write_subject(self.subject(), text);
    }
}

fn write_subject<L: Labels>(subject: &Subject<L>, text: &mut LabelText) {
    match subject {
        Subject::Exact(labels) => labels.write(text),
        Subject::Overflow { direction, workload } => {
            text.push("direction", direction.label());
            if let Some(workload) = workload {
                write_pod(text, "", workload);
            }
            text.push("overflow", "true");
        }
    }
}

fn write_requests(text: &mut Text, family: &'static Family, labels: &str, series: &HttpSeries) {
    text.sample(family, labels, &[], series.requests());
}

fn write_responses(text: &mut Text, family: &'static Family, labels: &str, series: &HttpSeries) {
    for (kind, count) in series.responses() {
        let ResponseKind { status, success, grpc_status, error } = kind;
        let (status, grpc) = (status.to_string(), grpc_status.map(|code| code.to_string()));
        let mut extra = vec![("status_code", status.as_str()), ("classification", classification(success))];
        extra.extend(grpc.as_deref().map(|code| ("grpc_status", code)));
        extra.extend(error.map(|error| ("error", error)));
        text.sample(family, labels, &extra, count);
    }
    for (success, count) in series.other_responses().filter(|(_, count)| *count > 0) {
        let extra = [("status_code", "overflow"), ("classification", classification(success))];
        text.sample(family, labels, &extra, count);
    }
}

fn write_endings(text: &mut Text, family: &'static Family, labels: &str, series: &RouteSeries) {
    let name = if series.is_of_calls() { "grpc_status" } else { "http_status" };
    for (ending, count) in without_class(series) {
        let Some(Ending { status, error, .. }) = ending else {
            text.sample(family, labels, &[(name, "overflow"), ("error", "")], count);
            continue;
        };
        let number = status.map(|status| status.to_string()).unwrap_or_default();
        let status = match status {
            Some(code) if series.is_of_calls() => weir_core::grpc::code_name(code),
            _ => &number,
        };
        text.sample(family, labels, &[(name, status), ("error", error.unwrap_or_default())], count);
    }
}

/// Endings that differ by their class alone are one.
fn without_class(series: &RouteSeries) -> Vec<(Option<Ending>, u64)> {
    let mut all: Vec<(Option<Ending>, u64)> = Vec::new();
    for (ending, count) in series.endings() {
        let ending = ending.map(|ending| Ending { class: None, ..ending });
        match all.iter_mut().find(|(known, _count)| *known == ending) {
            Some((_known, sum)) => *sum += count,
            None => all.push((ending, count)),
        }
    }
    all
}

/// The labels that classic families have beside those of routes.
fn of_profile(labels: &str, series: &RouteSeries) -> String {
    let mut classic = LabelText::default();
    classic.push("direction", Direction::Outbound.label());
    classic.push("dst", &series.profiled().unwrap_or_default());
    format!("{},{labels}", classic.as_str())
}

fn write_profile_responses(text: &mut Text, family: &'static Family, labels: &str, series: &RouteSeries) {
    let labels = of_profile(labels, series);
    for (ending, count) in series.endings() {
        let Some(Ending { status, error, class }) = ending else {
            text.sample(family, &labels, &[("status_code", "overflow"), ("classification", "")], count);
            continue;
        };
        let Some(class) = class else { continue };
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let classification = classification(class == Classification::Success);
        let mut extra = vec![("status_code", status.as_str()), ("classification", classification)];
        extra.extend(error.map(|error| ("error", error)));
        text.sample(family, &labels, &extra, count);
    }
}

fn write_profile_latency(text: &mut Text, family: &'static Family, labels: &str, series: &RouteSeries) {
    let (counts, sum) = series.durations().in_ms();
    text.histogram(family, &of_profile(labels, series), &LATENCY_BOUNDS_MS.map(f64::from), &counts, sum);
}

fn write_durations(text: &mut Text, family: &'static Family, labels: &str, series: &RouteSeries) {
    let (counts, sum) = series.durations().scraped();
    text.histogram(family, labels, &ROUTE_BOUNDS, &counts, sum);
}

fn classification(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}

fn write_latency(text: &mut Text, family: &'static Family, labels: &str, series: &HttpSeries) {
    let latency = series.latency();
    text.histogram(family, labels, &LATENCY_BOUNDS_MS.map(f64::from), &latency.counts(), latency.sum_ms());
}

fn write_closes(text: &mut Text, family: &'static Family, labels: &str, series: &TcpSeries) {
    for (errno, count) in series.closes() {
        let number = errno.map(|errno| errno.to_string()).unwrap_or_default();
        let name = match errno {
            Some(0) => "",
            Some(errno) => errno::name(errno).unwrap_or(&number),
            None => "overflow",
        };
        text.sample(family, labels, &[("errno", name)], count);
    }
}

/// Whether anything can have been decided, and by whom; in overflow series there are several.
fn policy_of<L: Labels>(subject: &Subject<L>) -> Option<Option<&Ruling>> {
    match subject {
        Subject::Exact(labels) => labels.policy().map(Some),
        Subject::Overflow { direction, .. } => (*direction == Direction::Inbound).then_some(None),
    }
}

/// What let in whom `ruling` is about: group, kind and name.
fn authorization_of(ruling: Option<&Ruling>) -> [&str; 3] {
    match ruling.map(|ruling| (&ruling.authorization, &ruling.ruler)) {
        Some((Some(object), _)) => [&object.group, &object.kind, &object.name],
        Some((None, Ruler::Default(policy))) => ["", "default", policy.name()],
        Some((None, Ruler::Server(_) | Ruler::Unknown(_))) | None => ["", "default", "overflow"],
    }
}

fn write_allowed<L: Labels>(
    text: &mut Text,
    family: &'static Family,
    labels: &str,
    subject: &Subject<L>,
    decisions: &Decisions,
) {
    let Some(policy) = policy_of(subject) else { return };
    for (authorization, count) in decisions.allowed().into_iter().filter(|(_, count)| *count > 0) {
        let [group, kind, name] = match authorization {
            Authorization::Policy => authorization_of(policy),
            Authorization::Probe => ["", "default", "probe"],
        };
        text.sample(family, labels, &[("authz_group", group), ("authz_kind", kind), ("authz_name", name)], count);
    }
}

fn write_denied<L: Labels>(
    text: &mut Text,
    family: &'static Family,
    labels: &str,
    subject: &Subject<L>,
    decisions: &Decisions,
) {
    let count = decisions.denied();
    if count > 0 && policy_of(subject).is_some() {
        text.sample(family, labels, &[], count);
    }
}
