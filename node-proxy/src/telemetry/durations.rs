//! Durations of requests and attempts of routes: Linkerd's few buckets for scrapes, and finer ones for `weir`. Must never lock.

use super::LATENCY_BOUNDS_MS;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in seconds, as they are scraped: Linkerd's of backends, among which those of its routes are.
pub(super) const ROUTE_BOUNDS: [f64; 7] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
/// The same in milliseconds.
const SCRAPED_MS: [u32; 7] = [25, 50, 100, 250, 500, 1_000, 10_000];

/// Upper bounds in milliseconds, as they are counted: those of `response_latency_ms`, and what the former lack.
pub(crate) const DURATION_BOUNDS_MS: [u32; 27] = [
    1, 2, 3, 4, 5, 10, 20, 25, 30, 40, 50, 100, 200, 250, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000,
    20_000, 30_000, 40_000, 50_000,
];

/// Buckets: one per bound, and one for what took longer.
pub(crate) const DURATION_BUCKETS: usize = DURATION_BOUNDS_MS.len() + 1;

/// Counts per bucket, not cumulative.
#[derive(Debug, Default)]
pub(super) struct Durations {
    counts: [AtomicU64; DURATION_BUCKETS],
    sum_us: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub(super) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let is_within = |bound: &u32| us <= u64::from(*bound) * 1_000;
        let bucket = DURATION_BOUNDS_MS.iter().position(is_within).unwrap_or(DURATION_BOUNDS_MS.len());
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Counts per bucket.
    pub(super) fn counts(&self) -> [u64; DURATION_BUCKETS] {
        std::array::from_fn(|index| self.counts.get(index).map_or(0, |count| count.load(Relaxed)))
    }

    /// Counts per bucket of [`ROUTE_BOUNDS`], and the sum in seconds.
    pub(super) fn scraped(&self) -> ([u64; SCRAPED_MS.len() + 1], f64) {
        let mut scraped = [0; SCRAPED_MS.len() + 1];
        self.add_to(&SCRAPED_MS, &mut scraped);
        (scraped, self.sum_us.load(Relaxed) as f64 / 1e6)
    }

    /// Counts per bucket of [`LATENCY_BOUNDS_MS`], and the sum in milliseconds.
    pub(super) fn in_ms(&self) -> ([u64; LATENCY_BOUNDS_MS.len() + 1], f64) {
        let mut counts = [0; LATENCY_BOUNDS_MS.len() + 1];
        self.add_to(&LATENCY_BOUNDS_MS, &mut counts);
        (counts, self.sum_us.load(Relaxed) as f64 / 1e3)
    }

    fn add_to(&self, bounds: &[u32], counts: &mut [u64]) {
        for (index, count) in self.counts().into_iter().enumerate() {
            let bound = DURATION_BOUNDS_MS.get(index).copied().unwrap_or(u32::MAX);
            let bucket = bounds.iter().position(|scraped| bound <= *scraped).unwrap_or(bounds.len());
            if let Some(sum) = counts.get_mut(bucket) {
                *sum += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_of_a_scrape_is_made_of_whole_ones() {
        assert!(SCRAPED_MS.iter().chain(&LATENCY_BOUNDS_MS).all(|bound| DURATION_BOUNDS_MS.contains(bound)));
        assert!(DURATION_BOUNDS_MS.windows(2).all(|pair| pair[0] < pair[1]));
        let same = SCRAPED_MS.iter().zip(ROUTE_BOUNDS).all(|(ms, seconds)| f64::from(*ms) / 1e3 == seconds);
        assert!(same, "{SCRAPED_MS:?} {ROUTE_BOUNDS:?}");
    }

    #[test]
    fn bounds_are_inclusive() {
        let durations = Durations::default();
        for us in [0, 25_000, 25_001, 250_000, 10_000_000, 10_000_001, u64::MAX] {
            durations.observe(Duration::from_micros(us));
        }
        assert_eq!(durations.scraped().0, [2, 1, 0, 1, 0, 0, 1, 2]);
        assert_eq!(durations.in_ms().0.iter().sum::<u64>(), 7);
        let counts = durations.counts();
        assert_eq!((counts[0], counts[7], counts[8], counts[27]), (1, 1, 1, 1));
    }
}
