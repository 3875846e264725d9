//! One series each of requests and of connections. The hot path: relaxed atomics on what the caller already holds.
//!
//! Must never lock or allocate per request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use weir_core::{classify::Classification, inbound::InboundPlan, snapshot::PodRef};

use super::{
    decisions::Decisions,
    histogram::{BUCKETS, Histogram},
    labels::{Direction, HttpLabels, TcpLabels},
    slots::Slots,
};
use crate::limits;

/// What a series is about.
#[derive(Clone, Debug)]
pub(crate) enum Subject<L> {
    /// Exactly these labels.
    Exact(Arc<L>),
    /// All that came after a bound was reached: of one workload, or of the whole node.
    Overflow {
        /// As in the labels that it stands for.
        direction: Direction,
        /// Whose bound; none: the node's.
        workload: Option<Arc<PodRef>>,
    },
}

/// How one response ended: part of the labels of `response_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseKind {
    /// HTTP status.
    pub(crate) status: u16,
    /// As the policy of the route says.
    pub(crate) success: bool,
    /// gRPC status, codes that gRPC does not define counted as UNKNOWN.
    pub(crate) grpc_status: Option<u8>,
    /// Why the proxy itself failed it.
    pub(crate) error: Option<&'static str>,
}

/// Requests that share their labels.
#[derive(Debug)]
pub struct HttpSeries {
    pub(crate) subject: Subject<HttpLabels>,
    requests: AtomicU64,
    responses: Slots<ResponseKind>,
    decisions: Decisions,
    // Responses whose kind found no slot: failures, successes.
    other: [AtomicU64; 2],
    latency: Histogram,
    seen: Mutex<HttpCounts>,
}

/// Counts of an HTTP series, or their growth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpCounts {
    /// Requests begun.
    pub(crate) requests: u64,
    /// Responses ended well.
    pub(crate) success: u64,
    /// Responses ended badly.
    pub(crate) failure: u64,
    /// Per bucket, not cumulative.
    pub(crate) latency: [u64; BUCKETS],
}

impl HttpSeries {
    pub(crate) fn new(subject: Subject<HttpLabels>) -> HttpSeries {
        HttpSeries {
            subject,
            requests: AtomicU64::new(0),
            responses: Slots::new(limits::RESPONSE_KINDS),
            decisions: Decisions::default(),
            other: Default::default(),
            latency: Histogram::default(),
            seen: Mutex::default(),
        }
    }

    /// A request began.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Policy decided about a request.
    pub fn decided(&self, plan: &InboundPlan) {
        self.decisions.count(plan);
    }

    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// A response ended. `ttfb`: from the request's arrival to the response's head.
    pub fn response(
        &self,
        status: u16,
        classification: Classification,
        grpc_status: Option<u32>,
        error: Option<&'static str>,
        ttfb: Duration,
    ) {
        let success = classification == Classification::Success;
        // The peer chooses the number: 16 is the last that gRPC defines, 2 is UNKNOWN.
        let grpc_status = grpc_status.map(|code| if code <= 16 { code as u8 } else { 2 });
        if !self.responses.add(ResponseKind { status, success, grpc_status, error }) {
            self.other[usize::from(success)].fetch_add(1, Relaxed);
        }
        self.latency.observe(ttfb);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn responses(&self) -> impl Iterator<Item = (ResponseKind, u64)> + '_ {
        self.responses.iter()
    }

    /// Responses whose kind found no slot: (success, count).
    pub(crate) fn other_responses(&self) -> impl Iterator<Item = (bool, u64)> + '_ {
        [false, true].into_iter().zip(&self.other).map(|(success, count)| (success, count.load(Relaxed)))
    }

    pub(super) fn latency(&self) -> &Histogram {
        &self.latency
    }

    fn counts(&self) -> HttpCounts {
        let mut counts =
            HttpCounts { requests: self.requests(), latency: self.latency.counts(), ..HttpCounts::default() };
        let known = self.responses().map(|(kind, count)| (kind.success, count));
        for (success, count) in known.chain(self.other_responses()) {
            if success {
                counts.success += count;
            } else {
                counts.failure += count;
            }
        }
        counts
    }
}

/// Connections that share their labels.
#[derive(Debug)]
pub struct TcpSeries {
    pub(crate) subject: Subject<TcpLabels>,
    opened: AtomicU64,
    open: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    closed: Slots<i32>,
    decisions: Decisions,
    closed_other: AtomicU64,
    seen: Mutex<TcpCounts>,
}

/// Counts of a TCP series, or their growth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpCounts {
    /// Connections opened.
    pub(crate) opened: u64,
    /// Bytes read.
    pub(crate) read: u64,
    /// Bytes written.
    pub(crate) written: u64,
    /// Connections closed.
    pub(crate) closed: u64,
}

impl TcpSeries {
    pub(crate) fn new(subject: Subject<TcpLabels>) -> TcpSeries {
        TcpSeries {
            subject,
            opened: AtomicU64::new(0),
            open: AtomicU64::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            closed: Slots::new(limits::CLOSE_KINDS),
            decisions: Decisions::default(),
            closed_other: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// A policy that came later ended a connection.
    pub fn terminated(&self) {
        self.decisions.terminate();
    }

    /// Policy decided about a connection.
    pub fn decided(&self, plan: &InboundPlan) {
        self.decisions.count(plan);
    }

    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Counts a connection as open until the guard is closed or dropped.
    pub fn open(self: &Arc<Self>) -> TcpGuard {
        self.opened.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        TcpGuard { series: Arc::clone(self), closed: AtomicBool::new(false) }
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    pub(crate) fn open_now(&self) -> u64 {
        self.open.load(Relaxed)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Closes by errno; 0 for an orderly end, and `None` for what found no slot.
    pub(crate) fn closes(&self) -> impl Iterator<Item = (Option<i32>, u64)> + '_ {
        let other = Some((None, self.closed_other.load(Relaxed))).filter(|(_, count)| *count > 0);
        self.closed.iter().map(|(errno, count)| (Some(errno), count)).chain(other)
    }

    fn counts(&self) -> TcpCounts {
        TcpCounts {
            opened: self.opened(),
            read: self.read(),
            written: self.written(),
            closed: self.closes().map(|(_, count)| count).sum(),
        }
    }

    fn close(&self, errno: i32) {
        self.open.fetch_sub(1, Relaxed);
        if !self.closed.add(errno) {
            self.closed_other.fetch_add(1, Relaxed);
        }
    }
}

/// One open connection. Dropping it counts an orderly close.
#[derive(Debug)]
pub struct TcpGuard {
    series: Arc<TcpSeries>,
    closed: AtomicBool,
}

impl TcpGuard {
    /// Bytes that came from the peer of this connection.
    pub fn add_read(&self, bytes: u64) {
        self.series.read.fetch_add(bytes, Relaxed);
    }

    /// Bytes that went to the peer of this connection.
    pub fn add_write(&self, bytes: u64) {
        self.series.written.fetch_add(bytes, Relaxed);
    }

    /// The connection ended, `errno` when by an error of the operating system.
    pub fn close(self, errno: Option<i32>) {
        self.closed.store(true, Relaxed);
        self.series.close(errno.unwrap_or(0));
    }
}

impl Drop for TcpGuard {
    fn drop(&mut self) {
        if !*self.closed.get_mut() {
            self.series.close(0);
        }
    }
}

/// What a registry needs to know of a series.
pub(crate) trait Series {
    /// Labels of this kind of series.
    type Labels;
    /// Growth since the last call.
    type Growth;
    /// A series that has counted nothing.
    fn create(subject: Subject<Self::Labels>) -> Self;
    /// What it is about.
    fn subject(&self) -> &Subject<Self::Labels>;
    /// Growth since the last call; none when nothing changed.
    fn advance(&self) -> Option<Self::Growth>;
    /// Whether something is going on that will count later.
    fn busy(&self) -> bool;
}

impl Series for HttpSeries {
    type Labels = HttpLabels;
    type Growth = HttpCounts;

    fn create(subject: Subject<HttpLabels>) -> HttpSeries {
        HttpSeries::new(subject)
    }

    fn subject(&self) -> &Subject<HttpLabels> {
        &self.subject
    }

    fn advance(&self) -> Option<HttpCounts> {
        let mut seen = self.seen.lock();
        let now = self.counts();
        if now == *seen {
            return None;
        }
        // Relaxed counters never run backwards for one reader, so that no difference is negative.
        let growth = HttpCounts {
            requests: now.requests.saturating_sub(seen.requests),
            success: now.success.saturating_sub(seen.success),
            failure: now.failure.saturating_sub(seen.failure),
            latency: std::array::from_fn(|index| now.latency[index].saturating_sub(seen.latency[index])),
        };
        *seen = now;
        Some(growth)
    }

    fn busy(&self) -> bool {
        false
    }
}

impl Series for TcpSeries {
    type Labels = TcpLabels;
    type Growth = TcpCounts;

    fn create(subject: Subject<TcpLabels>) -> TcpSeries {
        TcpSeries::new(subject)
    }

    fn subject(&self) -> &Subject<TcpLabels> {
        &self.subject
    }

    fn advance(&self) -> Option<TcpCounts> {
        let mut seen = self.seen.lock();
        let now = self.counts();
        if now == *seen {
            return None;
        }
        let growth = TcpCounts {
            opened: now.opened.saturating_sub(seen.opened),
            read: now.read.saturating_sub(seen.read),
            written: now.written.saturating_sub(seen.written),
            closed: now.closed.saturating_sub(seen.closed),
        };
        *seen = now;
        Some(growth)
    }

    fn busy(&self) -> bool {
        self.open_now() > 0
    }
}
