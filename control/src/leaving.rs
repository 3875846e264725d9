//! How control ends when it is told to: not before its nodes have somebody else to hear from.
//!
//! Must never keep a process that nobody needs, nor outlast the time that kubelet gives it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

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

/// How long it waits, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At most, in all.
    pub longest: Duration,
    /// For this long a successor must have been ready, or no node connected.
    pub ready: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { longest: limits::LEAVING, ready: limits::SUCCESSION }
    }
}

/// Waits until control may end. On a drained node its successor only starts when this one is told to end: what changed between the two
/// (endpoints of all the other pods that leave that node) would reach no proxy in time.
pub async fn may_end(plane: &Plane, replicas: &Replicas, patience: Patience) -> Reason {
    let mut changes = plane.changes();
    let last = Instant::now() + patience.longest;
    let (mut since, mut empty) = (None, None);
    loop {
        let now = Instant::now();
        // A node whose stream just broke is about to be back.
        empty = if plane.nodes().is_empty() { empty.or(Some(now)) } else { None };
        if empty.is_some_and(|empty| empty + patience.ready <= now) {
            return Reason::Deserted;
        }
        // Others may come and go meanwhile.
        since = if replicas.has_successor() { since.or(Some(now)) } else { None };
        if since.is_some_and(|since| since + patience.ready <= now) {
            return Reason::Succeeded;
        }
        if last <= now {
            return Reason::Late;
        }
        let look = now + limits::LEAVING_LOOK;
        // Whatever changed: what is asked for above is cheap.
        let _changed = timeout_at(look.min(last), changes.changed()).await;
    }
}

#[cfg(test)]
mod tests;
