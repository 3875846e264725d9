//! Linkerd's words for statuses, gRPC codes and durations, as annotations and request headers write them. Must never take what it does not
//! know for something near it.

use std::time::Duration;

/// Names of the gRPC codes that can be asked for again.
pub const CODES: [(&str, u32); 5] =
    [("cancelled", 1), ("deadline-exceeded", 4), ("internal", 13), ("resource-exhausted", 8), ("unavailable", 14)];

/// `503`, `500-504`, `5xx` or `gateway-error`: the first and the last status.
pub fn statuses(text: &str) -> Option<(u16, u16)> {
    let text = text.trim();
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..600).contains(status));
    match text.split_once('-') {
        _ if text.eq_ignore_ascii_case("5xx") => Some((500, 599)),
        _ if text.eq_ignore_ascii_case("gateway-error") => Some((502, 504)),
        Some((first, last)) => status(first).zip(status(last)).filter(|(first, last)| first <= last),
        None => status(text).map(|status| (status, status)),
    }
}

/// One of [`CODES`].
pub fn code(text: &str) -> Option<u32> {
    let text = text.trim();
    CODES.iter().find(|(name, _code)| text.eq_ignore_ascii_case(name)).map(|(_name, code)| *code)
}

/// Digits and one of ms, s, m, h, d; a bare 0. What is too long to be counted in milliseconds is as long as can be.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    let count: u64 = count.parse().ok()?;
    let millis = match unit {
        "" if count == 0 => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _other => return None,
    };
    Some(Duration::from_millis(count.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_and_what_is_not() {
        for (text, expected) in [
            ("503", Some((503, 503))),
            (" 500-504 ", Some((500, 504))),
            ("5XX", Some((500, 599))),
            ("Gateway-Error", Some((502, 504))),
            ("504-500", None),
            ("6xx", None),
            ("99", None),
            ("", None),
        ] {
            assert_eq!(statuses(text), expected, "{text}");
        }
        assert_eq!(
            [code("Unavailable"), code(" internal"), code("unknown"), code("14")],
            [Some(14), Some(13), None, None]
        );
        for (text, millis) in
            [("0", Some(0)), ("250ms", Some(250)), ("2m", Some(120_000)), ("5", None), ("1.5s", None), ("s", None)]
        {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
        assert_eq!(duration("18446744073709551615d"), Some(Duration::from_millis(u64::MAX)));
    }
}
