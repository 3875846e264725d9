//! Lengths of time as people write and read them (`1m30s`). Must never accept a number without a unit.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Parses `500ms`, `30s`, `1m`, `1h30m`: whole numbers with units.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: write it as 30s, 1m or 1m30s");
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else { return Err(wrong()) };
        let Ok(number) = number.parse::<u64>() else { return Err(wrong()) };
        total = number.checked_mul(*factor).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// As `parse`, with bounds (inclusive).
pub(crate) fn parse_within(text: &str, (least, most): (Duration, Duration)) -> Result<Duration, String> {
    let duration = parse(text)?;
    if duration < least || duration > most {
        return Err(format!("{text:?} is out of range: {least:?} to {most:?}"));
    }
    Ok(duration)
}

/// The two largest units of a number of seconds: `3d4h`, `23h59m`, `12s`.
pub(crate) fn rough(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(unix: i64) -> String {
    let (days, rest) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_need_units() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "5", "m", "1x", "-1s", "1 s", "99999999999999999999s", "18446744073709551615h", "1é"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let bounds = (Duration::from_secs(1), Duration::from_secs(300));
        assert!(parse_within("1s", bounds).is_ok() && parse_within("5m", bounds).is_ok());
        assert!(parse_within("999ms", bounds).is_err() && parse_within("301s", bounds).is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(1_795_244_399), "2026-11-21T06:59:59Z");
    }

    #[test]
    fn rough_lengths() {
        let texts: Vec<String> = [12, 61, 86_399, 86_400 * 3 + 4 * 3_600].map(rough).into();
        assert_eq!(texts, ["12s", "1m1s", "23h59m", "3d4h"]);
    }
}
