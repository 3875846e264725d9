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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::endpoints;

    const SECOND: Duration = Duration::from_secs(1);

    fn since(ages: &[Option<u64>]) -> Vec<Arc<Endpoint>> {
        let all = endpoints(u8::try_from(ages.len()).unwrap());
        let aged = |(endpoint, age): (&Arc<Endpoint>, &Option<u64>)| {
            Arc::new(Endpoint {
                ready_since: age.map(|age| SECOND * 1000 - SECOND * age as u32),
                ..Endpoint::clone(endpoint)
            })
        };
        all.iter().zip(ages).map(aged).collect()
    }

    /// How often each is passed over, of a hundred, at the thousandth second with a window of a hundred.
    fn passed(ages: &[Option<u64>]) -> Vec<u32> {
        let (ready, now) = (since(ages), SECOND * 1000);
        let Some(ramp) = Ramp::new(SECOND * 100, &ready).filter(|ramp| ramp.is_on(now)) else {
            return vec![0; ages.len()];
        };
        let times = |index: usize| {
            let is_passed = |toss: &u64| ramp.is_passed(&ready[index], index, now, mix(*toss));
            (0..10_000).filter(is_passed).count() as u32
        };
        (0..ages.len()).map(|index| (times(index) + 50) / 100).collect()
    }

    /// Seen to fail with shares that are not of the oldest one's.
    #[test]
    fn shares_are_of_the_oldest_ones() {
        for (ages, expected) in [
            (&[None, Some(0), Some(5), Some(50), Some(90), Some(100)][..], &[0, 90, 90, 50, 10, 0][..]),
            (&[Some(0), Some(0), Some(0)], &[0, 0, 0]),
            (&[Some(50), Some(25), Some(0)], &[0, 50, 80]),
            (&[None, Some(100)], &[0, 0]),
            (&[None, None], &[0, 0]),
            (&[], &[]),
        ] {
            let passed = passed(ages);
            let is_near = passed.iter().zip(expected).all(|(one, other): (&u32, &u32)| one.abs_diff(*other) <= 2);
            assert!(passed.len() == expected.len() && is_near, "{ages:?}: {passed:?}, not {expected:?}");
        }
    }
}
