//! Series of mirrors: what became of the copies of a route's requests. Must never lock or allocate per request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    routes::RouteLabels,
    series::{Series, Subject},
};
use crate::limits;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It arrived, and there was an answer, whatever it said.
    Sent,
    /// No endpoint, no connection, or one that broke.
    Failed,
    /// No answer in time.
    Late,
    /// The mirror took the body more slowly than the request's own server, by more than is kept.
    Behind,
    /// The request broke off, or was answered before its body was there.
    Cancelled,
    /// There were too many, or its endpoint could not be reached a moment ago.
    Dropped,
}

impl Mirrored {
    /// In the order of the scrape.
    pub(super) const ALL: [Mirrored; 6] =
        [Mirrored::Sent, Mirrored::Failed, Mirrored::Late, Mirrored::Behind, Mirrored::Cancelled, Mirrored::Dropped];

    /// Value of the label `result`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Mirrored::Sent => "sent",
            Mirrored::Failed => "failed",
            Mirrored::Late => "late",
            Mirrored::Behind => "behind",
            Mirrored::Cancelled => "cancelled",
            Mirrored::Dropped => "dropped",
        }
    }
}

/// Copies that share their route and mirror.
#[derive(Debug)]
pub struct MirrorSeries {
    subject: Subject<RouteLabels>,
    ends: [AtomicU64; Mirrored::ALL.len()],
    open: AtomicUsize,
    /// Microseconds since the node's epoch.
    rests_until: AtomicU64,
    seen: Mutex<u64>,
}

impl MirrorSeries {
    /// A copy ended, or was not made.
    pub fn ended(&self, how: Mirrored) {
        if let Some(count) = self.ends.get(how as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a copy as open; none where there are enough.
    pub fn open(self: &Arc<Self>) -> Option<OpenMirror> {
        let open = OpenMirror(Arc::clone(self));
        (self.open.fetch_add(1, Relaxed) < limits::MIRRORS_OF_ONE).then_some(open)
    }

    /// No copies are made until then: its endpoint could not be reached.
    pub fn rest(&self, until: Duration) {
        self.rests_until.fetch_max(u64::try_from(until.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether none are made now.
    pub fn is_resting(&self, now: Duration) -> bool {
        now.as_micros() < u128::from(self.rests_until.load(Relaxed))
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = (Mirrored, u64)> + '_ {
        Mirrored::ALL.into_iter().zip(self.ends.iter().map(|count| count.load(Relaxed)))
    }
}

/// One open copy.
#[derive(Debug)]
pub struct OpenMirror(Arc<MirrorSeries>);

impl Drop for OpenMirror {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Series for MirrorSeries {
    type Labels = RouteLabels;
    type Growth = ();

    fn create(subject: Subject<RouteLabels>) -> MirrorSeries {
        MirrorSeries {
            subject,
            ends: Default::default(),
            open: AtomicUsize::new(0),
            rests_until: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    fn subject(&self) -> &Subject<RouteLabels> {
        &self.subject
    }

    fn advance(&self) -> Option<()> {
        let now: u64 = self.ends().map(|(_, count)| count).sum();
        let mut seen = self.seen.lock();
        (std::mem::replace(&mut *seen, now) != now).then_some(())
    }

    fn busy(&self) -> bool {
        self.open.load(Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_open_than_the_bound_allows() {
        let subject = Subject::Overflow { direction: super::super::Direction::Outbound, workload: None };
        let series = Arc::new(MirrorSeries::create(subject));
        let open: Vec<_> = (0..limits::MIRRORS_OF_ONE).map(|_| series.open().unwrap()).collect();
        for _ in 0..3 {
            assert!(series.open().is_none());
        }
        assert!(series.busy());
        drop(open);
        assert!(!series.busy());
        series.ended(Mirrored::Late);
        assert_eq!(series.ends().find(|(_, count)| *count > 0), Some((Mirrored::Late, 1)));
        series.rest(Duration::from_millis(5));
        assert!(series.is_resting(Duration::from_millis(4)) && !series.is_resting(Duration::from_millis(5)));
    }
}
