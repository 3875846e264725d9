//! Series of routes: what became of requests by parent, route and backend (Linkerd's `outbound_http_route_*` and, of GRPCRoutes,
//! `outbound_grpc_route_*`).
//!
//! Must never lock or allocate per request.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use weir_core::{
    classify::Classification,
    grpc,
    inbound::Ruling,
    route::ObjectRef,
    snapshot::{PodRef, ServiceTarget},
};

use super::{
    durations::{DURATION_BUCKETS, Durations},
    labels::{Direction, LabelText, Labels, write_pod, written},
    series::{Series, Subject},
    slots::Slots,
};
use crate::limits;

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Port of the Service.
    pub port: u16,
}

impl ServiceRef {
    /// Of what requests are balanced over.
    pub fn of(service: &ServiceTarget) -> ServiceRef {
        ServiceRef { namespace: Arc::clone(&service.namespace), name: Arc::clone(&service.name), port: service.port }
    }

    fn write(&self, text: &mut LabelText, names: [&str; 6]) {
        let [group, kind, namespace, name, port, section] = names;
        text.push(group, "core");
        text.push(kind, "Service");
        text.push(namespace, &self.namespace);
        text.push(name, &self.name);
        text.display(port, self.port);
        text.push(section, "");
    }
}

/// What one series of a route is about.
#[derive(Clone, Debug)]
pub struct RouteLabels {
    /// Whose requests.
    pub workload: Arc<PodRef>,
    /// What was dialled.
    pub parent: ServiceRef,
    /// What decided; none where the parent has no routes for this workload.
    pub route: Option<Arc<ObjectRef>>,
    /// Of series of one backend.
    pub backend: Option<ServiceRef>,
}

impl RouteLabels {
    fn key(&self) -> impl Hash + Eq + '_ {
        (written(&self.workload), &self.parent, &self.route, &self.backend)
    }
}

impl PartialEq for RouteLabels {
    fn eq(&self, other: &RouteLabels) -> bool {
        self.key() == other.key()
    }
}

impl Eq for RouteLabels {}

impl Hash for RouteLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Labels for RouteLabels {
    fn direction(&self) -> Direction {
        Direction::Outbound
    }

    fn workload(&self) -> &Arc<PodRef> {
        &self.workload
    }

    fn policy(&self) -> Option<&Ruling> {
        None
    }

    fn write(&self, text: &mut LabelText) {
        let parent =
            ["parent_group", "parent_kind", "parent_namespace", "parent_name", "parent_port", "parent_section_name"];
        self.parent.write(text, parent);
        let [group, kind, namespace, name] = match &self.route {
            Some(route) => [&*route.group, &*route.kind, &*route.namespace, &*route.name],
            // Linkerd's name for what has no route.
            None => ["", "default", "", "http"],
        };
        text.push("route_group", group);
        text.push("route_kind", kind);
        text.push("route_namespace", namespace);
        text.push("route_name", name);
        if let Some(route) = self.route.as_ref().filter(|route| route.is_of_profile()) {
            text.push("rt_route", &route.rule);
        }
        if let Some(backend) = &self.backend {
            let names = [
                "backend_group",
                "backend_kind",
                "backend_namespace",
                "backend_name",
                "backend_port",
                "backend_section_name",
            ];
            backend.write(text, names);
        }
        write_pod(text, "", &self.workload);
    }
}

/// How a request or an attempt ended: labels of the counts of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// None when there was no response. Of a call the code of its gRPC status, always.
    pub(super) status: Option<u16>,
    /// Why there was none, or none to its end.
    pub(super) error: Option<&'static str>,
    /// None where nobody knows how it would have ended.
    pub(super) class: Option<Classification>,
}

/// What a response said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Status of the response.
    pub http: u16,
    /// Of its header or trailers.
    pub grpc: Option<u32>,
}

/// What became of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryEvent {
    /// A request is sent again.
    Request,
    /// One that was sent again ended well.
    Success,
    /// It ended as it began: no attempt was left.
    LimitExceeded,
    /// It was not sent again: the budget, the time or the size of the body did not allow it.
    Overflow,
}

/// What a series counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Requests, each with all its attempts.
    Requests,
    /// Attempts at one backend.
    Attempts,
}

/// Requests that share their route, or attempts that share their route and backend.
#[derive(Debug)]
pub struct RouteSeries {
    pub(crate) subject: Subject<RouteLabels>,
    requests: AtomicU64,
    endings: Slots<Ending>,
    other: AtomicU64,
    // By classification: failures, successes.
    classified: [AtomicU64; 2],
    durations: Durations,
    retries: [AtomicU64; 4],
    seen: Mutex<Seen>,
}

/// Counts of a series, or their growth, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteCounts {
    /// Ended well.
    pub(crate) success: u64,
    /// Ended badly. What its client gave up before there was an answer is neither.
    pub(crate) failure: u64,
    /// Met one of their time limits.
    pub(crate) timeouts: u64,
    /// Sent again.
    pub(crate) retries: u64,
    /// Per bucket of `DURATION_BOUNDS_MS`, not cumulative.
    pub(crate) durations: [u64; DURATION_BUCKETS],
}

#[derive(Debug, Default)]
struct Seen {
    // Of everything that is counted: whether a series is idle.
    all: u64,
    counts: RouteCounts,
}

impl RouteSeries {
    /// A request, or an attempt, began.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// It ended after so long. `error` as the label of `response_total` has it; `class` is none where nobody knows how it would have ended.
    pub fn ended(
        &self,
        answered: Option<Answered>,
        error: Option<&'static str>,
        class: Option<Classification>,
        took: Duration,
    ) {
        let status = match answered {
            Some(Answered { http, .. }) if !self.is_of_calls() => Some(http),
            // By the word that is written, as errors are: of two with one word there must be one sample.
            answered if self.is_of_calls() => Some(grpc::known_code(answered.and_then(|answered| answered.grpc))),
            _unanswered => None,
        };
        // By the word that is written: of two errors with one word there must be one sample.
        if !self.endings.add(Ending { status, error: error.map(error_name), class }) {
            self.other.fetch_add(1, Relaxed);
        }
        if let Some(class) = class {
            self.classified[usize::from(class == Classification::Success)].fetch_add(1, Relaxed);
        }
        self.durations.observe(took);
    }

    /// A request was sent again, or not.
    pub fn retried(&self, event: RetryEvent) {
        if let Some(count) = self.retries.get(event as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Whether it is a GRPCRoute's.
    pub(super) fn is_of_calls(&self) -> bool {
        match &self.subject {
            Subject::Exact(labels) => labels.route.as_ref().is_some_and(|route| route.is_of_calls()),
            Subject::Overflow { .. } => false,
        }
    }

    /// What was dialled as Linkerd's classic families call it, where a ServiceProfile decided: its name and the port.
    pub(super) fn profiled(&self) -> Option<String> {
        let Subject::Exact(labels) = &self.subject else { return None };
        let profile = labels.route.as_ref().filter(|route| &*route.kind == "ServiceProfile")?;
        Some(format!("{}:{}", profile.name, labels.parent.port))
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// None for what found no slot.
    pub(super) fn endings(&self) -> impl Iterator<Item = (Option<Ending>, u64)> + '_ {
        let other = Some((None, self.other.load(Relaxed))).filter(|(_, count)| *count > 0);
        self.endings.iter().map(|(ending, count)| (Some(ending), count)).chain(other)
    }

    pub(super) fn durations(&self) -> &Durations {
        &self.durations
    }

    pub(super) fn retries(&self, event: RetryEvent) -> u64 {
        self.retries.get(event as usize).map_or(0, |count| count.load(Relaxed))
    }

    fn counts(&self) -> RouteCounts {
        let [failure, success] = self.classified.each_ref().map(|count| count.load(Relaxed));
        let is_timeout = |ending: &Option<Ending>| {
            ending.and_then(|ending| ending.error).is_some_and(|error| error.ends_with("_TIMEOUT"))
        };
        RouteCounts {
            success,
            failure,
            timeouts: self.endings().filter(|(ending, _)| is_timeout(ending)).map(|(_, count)| count).sum(),
            retries: self.retries(RetryEvent::Request),
            durations: self.durations.counts(),
        }
    }
}

impl RouteCounts {
    /// What came since. Relaxed counters never run backwards for one reader, so that no difference is negative.
    fn since(&self, seen: &RouteCounts) -> RouteCounts {
        let RouteCounts { success, failure, timeouts, retries, durations } = seen;
        let mut grown = self.durations;
        for (count, seen) in grown.iter_mut().zip(durations) {
            *count = count.saturating_sub(*seen);
        }
        RouteCounts {
            success: self.success.saturating_sub(*success),
            failure: self.failure.saturating_sub(*failure),
            timeouts: self.timeouts.saturating_sub(*timeouts),
            retries: self.retries.saturating_sub(*retries),
            durations: grown,
        }
    }
}

impl Series for RouteSeries {
    type Labels = RouteLabels;
    type Growth = RouteCounts;

    fn create(subject: Subject<RouteLabels>) -> RouteSeries {
        RouteSeries {
            subject,
            requests: AtomicU64::new(0),
            endings: Slots::new(limits::RESPONSE_KINDS),
            other: AtomicU64::new(0),
            classified: Default::default(),
            durations: Durations::default(),
            retries: Default::default(),
            seen: Mutex::default(),
        }
    }

    fn subject(&self) -> &Subject<RouteLabels> {
        &self.subject
    }

    fn advance(&self) -> Option<RouteCounts> {
        let retries: u64 = self.retries.iter().map(|count| count.load(Relaxed)).sum();
        let endings: u64 = self.endings().map(|(_, count)| count).sum();
        let all = self.requests() + endings + retries;
        let mut seen = self.seen.lock();
        let counts = self.counts();
        if seen.all == all && seen.counts == counts {
            return None;
        }
        let growth = counts.since(&seen.counts);
        *seen = Seen { all, counts };
        Some(growth)
    }

    fn busy(&self) -> bool {
        false
    }
}

/// Linkerd's words for what `response_total` calls by other names.
fn error_name(error: &str) -> &'static str {
    match error {
        "failfast" => "FAIL_FAST",
        "loadshed" => "LOAD_SHED",
        "request timeout" => "REQUEST_TIMEOUT",
        // Of an attempt: Linkerd's has the name of what it waits for.
        "retry timeout" | "backend request timeout" => "RESPONSE_HEADERS_TIMEOUT",
        "response timeout" => "RESPONSE_STREAM_TIMEOUT",
        "idle timeout" => "IDLE_TIMEOUT",
        "cancelled" => "CANCEL",
        "i/o" => "IO",
        _ => "UNKNOWN",
    }
}
