//! Latency histogram with Linkerd's buckets. Must never lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in milliseconds, as in Linkerd's proxy: dashboards and alerts are written for them.
pub const LATENCY_BOUNDS_MS: [u32; 25] = [
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000, 20_000,
    30_000, 40_000, 50_000,
];

/// Buckets: one per bound, and one for what took longer.
pub(crate) const BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

/// Counts per bucket, not cumulative.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.counts.get(bucket_of(us)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Counts per bucket, not cumulative.
    pub(super) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|index| self.counts.get(index).map_or(0, |count| count.load(Relaxed)))
    }

    /// Sum of all durations, milliseconds.
    pub(super) fn sum_ms(&self) -> f64 {
        self.sum_us.load(Relaxed) as f64 / 1_000.0
    }
}

fn bucket_of(us: u64) -> usize {
    // Most requests take a few milliseconds: the first bounds are looked at first.
    LATENCY_BOUNDS_MS.iter().position(|bound| us <= u64::from(*bound) * 1_000).unwrap_or(LATENCY_BOUNDS_MS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1_000), 0);
        assert_eq!(bucket_of(1_001), 1);
        assert_eq!(bucket_of(50_000_000), 24);
        assert_eq!(bucket_of(50_000_001), 25);
    }
}
