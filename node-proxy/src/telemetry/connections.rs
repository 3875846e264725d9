//! Series of routes of connections: how many were opened, and how they ended (Linkerd's `outbound_tls_route_*` and `outbound_tcp_route_*`).
//! Must never be asked once a connection is open but at its end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use weir_core::proxy_error::ProxyError;

use super::{
    routes::RouteLabels,
    series::{Series, Subject},
};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    InvalidBackend,
    Unexpected,
}

impl Ended {
    const ALL: [Ended; 3] = [Ended::Well, Ended::InvalidBackend, Ended::Unexpected];

    /// Value of the label `error` (Linkerd's words).
    pub(super) fn label(self) -> &'static str {
        match self {
            Ended::Well => "",
            Ended::InvalidBackend => "invalid_backend",
            Ended::Unexpected => "unexpected",
        }
    }
}

/// Connections that share their route.
#[derive(Debug)]
pub struct ConnectionSeries {
    subject: Subject<RouteLabels>,
    opened: AtomicU64,
    ends: [AtomicU64; Ended::ALL.len()],
    seen: Mutex<u64>,
}

impl ConnectionSeries {
    /// Counts a connection that got its route.
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.opened.fetch_add(1, Relaxed);
        OpenConnection { series: Some(Arc::clone(self)) }
    }

    fn ended(&self, how: Ended) {
        if let Some(count) = self.ends.get(how as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Whether it is a TLSRoute's; what is over the bound counts as all others.
    pub(super) fn is_of_tls(&self) -> bool {
        match &self.subject {
            Subject::Exact(labels) => labels.route.as_ref().is_some_and(|route| &*route.kind == "TLSRoute"),
            Subject::Overflow { .. } => false,
        }
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = (Ended, u64)> + '_ {
        Ended::ALL.into_iter().zip(self.ends.iter().map(|count| count.load(Relaxed)))
    }
}

/// One open connection. Dropped, it ended unexpectedly.
#[derive(Debug)]
pub struct OpenConnection {
    series: Option<Arc<ConnectionSeries>>,
}

impl OpenConnection {
    /// It is over.
    pub fn ended(mut self, how: Result<(), ProxyError>) {
        self.end(match how {
            Ok(()) => Ended::Well,
            Err(ProxyError::BackendInvalid) => Ended::InvalidBackend,
            Err(_other) => Ended::Unexpected,
        });
    }

    fn end(&mut self, how: Ended) {
        if let Some(series) = self.series.take() {
            series.ended(how);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.end(Ended::Unexpected);
    }
}

impl Series for ConnectionSeries {
    type Labels = RouteLabels;
    type Growth = ();

    fn create(subject: Subject<RouteLabels>) -> ConnectionSeries {
        ConnectionSeries { subject, opened: AtomicU64::new(0), ends: Default::default(), seen: Mutex::default() }
    }

    fn subject(&self) -> &Subject<RouteLabels> {
        &self.subject
    }

    fn advance(&self) -> Option<()> {
        let now = self.opened() + self.ends().map(|(_, count)| count).sum::<u64>();
        let mut seen = self.seen.lock();
        (std::mem::replace(&mut *seen, now) != now).then_some(())
    }

    fn busy(&self) -> bool {
        self.opened() > self.ends().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_once() {
        let subject = Subject::Overflow { direction: super::super::Direction::Outbound, workload: None };
        let series = Arc::new(ConnectionSeries::create(subject));
        let open: Vec<_> = (0..4).map(|_| series.open()).collect();
        assert!(series.busy() && series.opened() == 4);
        for (open, how) in open.into_iter().zip([Ok(()), Err(ProxyError::BackendInvalid), Err(ProxyError::FailFast)]) {
            open.ended(how);
        }
        let ends: Vec<_> = series.ends().map(|(how, count)| (how.label(), count)).collect();
        assert_eq!(ends, [("", 1), ("invalid_backend", 1), ("unexpected", 2)], "one was dropped");
        assert!(!series.busy());
    }
}
