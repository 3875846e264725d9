//! How control ends when it is told to: not before its nodes have somebody else to hear from.
//!
//! Must never keep a process that nobody needs, nor outlast the time that kubelet gives it.

use std::time::Instant;

use tokio::time::timeout;

use crate::{limits, plane::Plane, replicas::Replicas};

/// Why control need not stay any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No node is connected, nor was one for a while.
    Deserted,
    /// Another replica is ready, and has been for long enough that nodes find it.
    Succeeded,
    /// The time is up. Nodes go on with what they know.
    Late,
}

/// What control has seen around it since it was told to end.
#[derive(Debug)]
struct Leaving {
    begun: Instant,
    /// Since when no node is connected.
    deserted: Option<Instant>,
    /// Since when another replica is ready.
    succeeded: Option<Instant>,
}

impl Leaving {
    fn begin(now: Instant) -> Leaving {
        Leaving { begun: now, deserted: None, succeeded: None }
    }

    /// Whether it may end by what is seen at this moment.
    fn look(&mut self, now: Instant, has_nodes: bool, has_successor: bool) -> Option<Reason> {
        let since = |before: Option<Instant>, is_so: bool| is_so.then(|| before.unwrap_or(now));
        let lasts = |since: Option<Instant>| since.is_some_and(|since| since + limits::SUCCESSION <= now);
        // A node whose stream just broke is about to be back, and replicas come and go.
        self.deserted = since(self.deserted, !has_nodes);
        self.succeeded = since(self.succeeded, has_successor);
        match () {
            () if lasts(self.deserted) => Some(Reason::Deserted),
            () if lasts(self.succeeded) => Some(Reason::Succeeded),
            () if self.begun + limits::LEAVING <= now => Some(Reason::Late),
            () => None,
        }
    }
}

/// Waits until control may end. On a drained node its successor only starts when this one is told to end: what changed between the two
/// (endpoints of all the other pods that leave that node) would reach no proxy in time.
pub async fn may_end(plane: &Plane, replicas: &Replicas) -> Reason {
    let mut changes = plane.changes();
    let mut leaving = Leaving::begin(Instant::now());
    loop {
        if let Some(reason) = leaving.look(Instant::now(), !plane.nodes().is_empty(), replicas.has_successor()) {
            return reason;
        }
        // Whatever changed: a look is cheap.
        let _changed = timeout(limits::LEAVING_LOOK, changes.changed()).await;
    }
}

#[cfg(test)]
mod tests;
