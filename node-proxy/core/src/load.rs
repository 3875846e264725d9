//! The load of one endpoint: peak EWMA of its latency times what is pending (Finagle's and Linkerd's measure).
//!
//! Must never lock: all workers of a node share it on the hot path. Races lose a sample at worst.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use weir_api::v1;

use crate::limits;

/// Latency estimate and open requests of one endpoint, shared by all clients of a node.
#[derive(Debug)]
pub struct Load {
    /// Seconds, bits of an `f64`.
    latency: AtomicU64,
    /// Nanoseconds since the epoch of `now`; 0 until somebody looks for the first time.
    updated: AtomicU64,
    pending: AtomicU32,
}

impl Default for Load {
    fn default() -> Load {
        Load::new(limits::DEFAULT_RTT)
    }
}

/// What an answer that refuses or fails adds to an endpoint's load, so that failing fast does not attract requests
/// (Linkerd 2.20: `balancer.alpha.linkerd.io/penalize-failures`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBias {
    /// It counts as an answer that took so long.
    pub penalty: Duration,
    /// Or as long as its `Retry-After` asks for, up to this.
    pub max_retry_after: Duration,
}

impl LoadBias {
    /// What control says.
    pub fn of_api(given: v1::LoadBias) -> LoadBias {
        let millis = |millis: u64| Duration::from_millis(millis).min(limits::PENALTY_MAX);
        LoadBias { penalty: millis(given.penalty_ms), max_retry_after: millis(given.max_retry_after_ms) }
    }

    /// As what such an answer counts.
    pub fn cost(&self, retry_after: Option<Duration>) -> Duration {
        retry_after.map_or(self.penalty, |after| self.penalty.max(after.min(self.max_retry_after)))
    }
}

/// At least 1: 0 stands for never.
fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl Load {
    /// An endpoint nothing is known about yet.
    pub fn new(default_rtt: Duration) -> Load {
        Load {
            latency: AtomicU64::new(default_rtt.as_secs_f64().to_bits()),
            updated: AtomicU64::new(0),
            pending: AtomicU32::new(0),
        }
    }

    /// A request begins.
    pub fn start(&self, _now: Duration) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// It ended (or its head came) after `rtt`: slower than expected counts at once, faster bit by bit.
    pub fn finish(&self, now: Duration, rtt: Duration) {
        self.leave();
        self.observe(now, rtt);
    }

    /// It ended, and how long it took says nothing.
    pub fn leave(&self) {
        // A request is finished once; a stray second call must not wrap the counter.
        let _never_below_zero =
            self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
    }

    /// As if an answer had taken so long.
    pub fn observe(&self, now: Duration, rtt: Duration) {
        let (rtt, estimate) = (rtt.as_secs_f64(), self.decayed(now, rtt.as_secs_f64()));
        self.latency.store(rtt.max(estimate).to_bits(), Ordering::Relaxed);
        // A response that took a minute says when its head came.
        self.updated.fetch_max(nanos(now), Ordering::Relaxed);
    }

    /// When the estimate was made. What is assumed of a new endpoint counts from the first look at it, not from the epoch:
    /// else it would be long forgotten, and all requests would go to the one endpoint that has answered none.
    fn updated(&self, now: u64) -> u64 {
        match self.updated.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_never) => now,
            Err(updated) => updated,
        }
    }

    /// The estimate at `now`, drawn towards `target` seconds since the last sample.
    fn decayed(&self, now: Duration, target: f64) -> f64 {
        let latency = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let since = Duration::from_nanos(nanos(now).saturating_sub(self.updated(nanos(now))));
        let weight = (-since.as_secs_f64() / limits::EWMA_DECAY.as_secs_f64()).exp();
        latency * weight + target * (1.0 - weight)
    }

    /// What the balancer compares; lower is better.
    pub fn score(&self, now: Duration) -> f64 {
        // An idle endpoint is forgiven down to zero, so that it gets a chance to show that it recovered.
        let latency = self.decayed(now, 0.0);
        latency * (f64::from(self.pending()) + 1.0)
    }

    /// The estimate in milliseconds.
    pub fn latency_ms(&self, now: Duration) -> f64 {
        self.decayed(now, 0.0) * 1000.0
    }

    /// Open requests.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let load = Load::new(MS);
        load.start(MS);
        load.finish(MS, MS * 100);
        assert!((load.latency_ms(MS) - 100.0).abs() < 0.01);
        load.finish(MS * 2, MS);
        assert!(load.latency_ms(MS * 2) > 99.0, "one fast answer does not undo a peak");
        let later: Vec<f64> = (1..60).map(|second| load.latency_ms(Duration::from_secs(second))).collect();
        assert!(later.windows(2).all(|pair| pair[1] < pair[0]), "monotone decay");
        assert!(later[40] < 2.0);
    }

    #[test]
    fn an_endpoint_that_has_answered_nothing_is_not_taken_for_a_fast_one() {
        let hour = Duration::from_secs(3600);
        let (fresh, known) = (Load::default(), Load::default());
        known.start(hour);
        known.finish(hour, MS);
        assert!((fresh.latency_ms(hour) - 30.0).abs() < 0.01, "{}", fresh.latency_ms(hour));
        fresh.start(hour);
        assert!(fresh.score(hour) > known.score(hour), "else every new request would go to the new endpoint");
    }

    #[test]
    fn pending_raises_the_score_and_never_wraps() {
        let load = Load::default();
        let idle = load.score(MS);
        load.start(MS);
        assert!(load.score(MS) > idle * 1.9);
        load.finish(MS, MS);
        load.finish(MS, MS);
        assert_eq!(load.pending(), 0);
    }
}
