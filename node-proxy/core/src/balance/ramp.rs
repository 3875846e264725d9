//! Slow start: who became ready just now gets a share that grows. Must never keep a request from all endpoints.

use std::{sync::Arc, time::Duration};

use super::mix;
use crate::{limits, snapshot::Endpoint};

/// How the shares of new endpoints of one service grow.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    window: Duration,
    /// When the last one became ready.
    newest: Duration,
    /// When the first one did; none where this node does not know, as it was ready before.
    oldest: Option<Duration>,
}

impl Ramp {
    /// None where all were ready before this node knew of them.
    pub(super) fn new(window: Duration, ready: &[Arc<Endpoint>]) -> Option<Ramp> {
        let since = || ready.iter().map(|endpoint| endpoint.ready_since);
        let newest = since().flatten().max()?;
        // `None` is the least.
        let oldest = since().min().flatten();
        Some(Ramp { window, newest, oldest })
    }

    /// Whether anyone is still new.
    pub(super) fn is_on(&self, now: Duration) -> bool {
        now.saturating_sub(self.newest) < self.window
    }

    /// Whether an endpoint is passed over this time. `toss` is the request's own: within it the answer for one endpoint stays the same.
    pub(super) fn is_passed(&self, endpoint: &Endpoint, index: usize, now: Duration, toss: u64) -> bool {
        let Some(since) = endpoint.ready_since else { return false };
        let part = (mix(toss ^ index as u64) >> 11) as f64 / (1_u64 << 53) as f64;
        part >= self.share(since, now)
    }

    /// Of what the oldest one gets: where all are new, nobody stands back.
    fn share(&self, since: Duration, now: Duration) -> f64 {
        let of_oldest = self.oldest.map_or(1.0, |oldest| self.warmth(oldest, now));
        self.warmth(since, now) / of_oldest
    }

    /// From a little to 1, in a straight line.
    fn warmth(&self, since: Duration, now: Duration) -> f64 {
        let age = now.saturating_sub(since).as_secs_f64() / self.window.as_secs_f64();
        age.clamp(f64::from(limits::SLOW_START_PERMILLE) / 1000.0, 1.0)
    }
}
