//! Numbers as Linkerd writes them. Must never write `NaN` or `inf`: no data is `-`.

/// What is shown where there is no data.
pub(crate) const NONE: &str = "-";

fn shown(value: Option<f64>, write: impl FnOnce(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| NONE.to_owned(), write)
}

/// A share (0 to 1) as `99.95%`. Rounded down, so that 100.00% means all.
pub(crate) fn percent(share: Option<f64>) -> String {
    shown(share, |share| format!("{:.2}%", (share * 10_000.0 + 1e-6).floor() / 100.0))
}

/// `3.2rps`.
pub(crate) fn rate(per_second: Option<f64>) -> String {
    shown(per_second, |rate| format!("{rate:.1}rps"))
}

/// Whole milliseconds, at least one: `12ms`.
pub(crate) fn latency(milliseconds: Option<f64>) -> String {
    shown(milliseconds, |value| format!("{:.0}ms", value.round().max(1.0)))
}

/// `1.2kB/s`, in powers of 1000.
pub(crate) fn bytes_per_second(rate: Option<f64>) -> String {
    shown(rate, |rate| {
        let mut value = rate;
        for unit in ["B/s", "kB/s", "MB/s", "GB/s"] {
            // Not 1000: 999.96 would be written as 1000.0.
            if value < 999.95 {
                return format!("{value:.1}{unit}");
            }
            value /= 1_000.0;
        }
        format!("{value:.1}TB/s")
    })
}

/// A number with at most three decimals, for JSON; no data is `null`.
pub(crate) fn three_decimals(value: Option<f64>) -> Option<f64> {
    value.map(|value| (value * 1_000.0).round() / 1_000.0).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_linkerd_writes_them() {
        assert_eq!(percent(Some(1.0)), "100.00%");
        assert_eq!(percent(Some(0.999_999)), "99.99%", "one failure in a million is not all");
        assert_eq!(percent(Some(2.0 / 3.0)), "66.66%");
        assert_eq!(rate(Some(3.24)), "3.2rps");
        assert_eq!(latency(Some(11.6)), "12ms");
        assert_eq!(latency(Some(0.2)), "1ms");
        assert_eq!(bytes_per_second(Some(0.0)), "0.0B/s");
        assert_eq!(bytes_per_second(Some(1_234.0)), "1.2kB/s");
        assert_eq!(bytes_per_second(Some(999_990.0)), "1.0MB/s");
        assert_eq!(bytes_per_second(Some(5e15)), "5000.0TB/s");
    }

    #[test]
    fn no_data_is_a_dash() {
        for value in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            assert_eq!(
                [percent(value), rate(value), latency(value), bytes_per_second(value)],
                ["-", "-", "-", "-"].map(str::to_owned)
            );
            assert_eq!(three_decimals(value), None);
        }
    }
}
