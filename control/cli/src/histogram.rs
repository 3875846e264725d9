//! Latencies of many rows and nodes as quantiles. Must never panic or lie low on odd input: a row that makes no sense is left out.

use std::collections::BTreeMap;

use crate::limits;

/// Counts per bucket, by upper bound. Rows with different bounds merge: each count keeps its upper bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    // Key: bits of a positive finite f64, or of infinity; these sort as the numbers do.
    buckets: BTreeMap<u64, u64>,
}

impl Histogram {
    /// Adds a row: `counts` per bucket, not cumulative, one more than `bounds`. Returns whether the row made sense.
    pub(crate) fn add(&mut self, bounds: &[f64], counts: &[u64]) -> bool {
        let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let positive = bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0);
        if bounds.is_empty()
            || bounds.len() > limits::BUCKETS
            || counts.len() != bounds.len() + 1
            || !rising
            || !positive
        {
            return false;
        }
        for (bound, count) in bounds.iter().chain([&f64::INFINITY]).zip(counts) {
            let held = self.buckets.entry(bound.to_bits()).or_default();
            *held = held.saturating_add(*count);
        }
        true
    }

    /// Milliseconds below which a share `quantile` (0 to 1) of the values lies; linear inside a bucket. `None` without values.
    ///
    /// Values above the last bound count as that bound, as Prometheus does.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total: u128 = self.buckets.values().map(|count| u128::from(*count)).sum();
        if total == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * total as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bits, count) in &self.buckets {
            let (upper, count) = (f64::from_bits(*bits), *count as f64);
            if count > 0.0 && below + count >= rank {
                return Some(if upper.is_finite() {
                    lower + (upper - lower) * ((rank - below) / count)
                } else {
                    lower
                });
            }
            below += count;
            if upper.is_finite() {
                lower = upper;
            }
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bounds: &[f64], counts: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        assert!(histogram.add(bounds, counts));
        histogram
    }

    #[test]
    fn linear_inside_a_bucket() {
        let histogram = of(&[10.0, 20.0, 50.0], &[0, 100, 0, 0]);
        assert_eq!(histogram.quantile(0.5), Some(15.0));
        assert_eq!(histogram.quantile(1.0), Some(20.0));
        assert_eq!(of(&[10.0], &[4, 0]).quantile(0.5), Some(5.0));
    }

    #[test]
    fn rank_falls_into_the_right_bucket() {
        let histogram = of(&[1.0, 2.0, 3.0], &[90, 5, 4, 1]);
        assert_eq!(histogram.quantile(0.90), Some(1.0));
        assert_eq!(histogram.quantile(0.95), Some(2.0));
        assert_eq!(histogram.quantile(0.99), Some(3.0));
        assert_eq!(histogram.quantile(1.0), Some(3.0), "above all bounds: the last one");
    }

    #[test]
    fn rows_merge_even_with_other_bounds() {
        let mut histogram = of(&[10.0, 20.0], &[10, 0, 0]);
        assert!(histogram.add(&[5.0, 10.0, 20.0], &[0, 0, 10, 0]));
        assert_eq!(histogram.quantile(0.25), Some(7.5));
        assert_eq!(histogram.quantile(0.75), Some(15.0));
    }

    #[test]
    fn nonsense_is_left_out() {
        let mut histogram = Histogram::default();
        let nan = f64::NAN;
        for (bounds, counts) in [
            (&[][..], &[1][..]),
            (&[], &[]),
            (&[1.0], &[1]),
            (&[2.0, 1.0], &[1, 1, 1]),
            (&[nan], &[1, 1]),
            (&[-1.0], &[1, 1]),
            (&[f64::INFINITY], &[1, 1]),
        ] {
            assert!(!histogram.add(bounds, counts), "{bounds:?}");
        }
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        let mut histogram = of(&[1.0, 2.0], &[u64::MAX, u64::MAX, u64::MAX]);
        histogram.add(&[1.0, 2.0], &[u64::MAX, 0, 0]);
        assert!(histogram.quantile(0.5).is_some_and(|value| (1.0..=2.0).contains(&value)));
    }

    proptest! {
        #[test]
        fn quantiles_rise_and_stay_inside(counts in proptest::collection::vec(0u64..1000, 4), low in 0.0f64..1.0, high in 0.0f64..1.0) {
            let histogram = of(&[1.0, 5.0, 25.0], &counts);
            let (low, high) = (low.min(high), low.max(high));
            if let (Some(low), Some(high)) = (histogram.quantile(low), histogram.quantile(high)) {
                prop_assert!(low <= high + 1e-9 && low >= 0.0 && high <= 25.0);
            } else {
                prop_assert_eq!(counts.iter().sum::<u64>(), 0);
            }
        }
    }
}
