//! Time limits: Linkerd's annotations and Gateway API's durations. Must never round one to none.

use std::{collections::BTreeMap, time::Duration};

use weir_core::{timeouts::Timeouts, words};

use super::{FieldError, fields, quoted};
use crate::{
    limits,
    objects::annotation::timeouts::{IDLE, REQUEST, RESPONSE},
};

/// The annotations of a Service or route; none when it has none of them.
pub(super) fn annotated(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<Timeouts> {
    let annotations = annotations?;
    let mut read = |key: &str| {
        let text = annotations.get(key)?;
        match linkerd(text) {
            Ok(limit) => Some(Some(limit)),
            Err(reason) => {
                errors.push(FieldError::new(format!("metadata.annotations.{key}"), reason));
                Some(None)
            }
        }
    };
    let (request, response, idle) = (read(REQUEST), read(RESPONSE), read(IDLE));
    request.or(response).or(idle)?;
    Some(Timeouts {
        request: request.flatten(),
        backend_request: None,
        response: response.flatten(),
        idle: idle.flatten(),
        retry: None,
    })
}

/// `timeouts` of a rule.
pub(super) fn of_rule(
    field: &str,
    given: Option<&fields::HttpRouteTimeouts>,
    errors: &mut Vec<FieldError>,
) -> Timeouts {
    let Some(given) = given else { return Timeouts::default() };
    let mut read = |name: &str, text: Option<&String>| match gateway(text?) {
        Ok(limit) => Some(limit),
        Err(reason) => {
            errors.push(FieldError::new(format!("{field}.timeouts.{name}"), reason));
            None
        }
    };
    let request = read("request", given.request.as_ref());
    let backend_request = read("backendRequest", given.backend_request.as_ref());
    if let (Some(request), Some(backend)) = (request, backend_request)
        && !request.is_zero()
        && backend > request
    {
        let reason = format!("{backend:?} is longer than `request`, {request:?}");
        errors.push(FieldError::new(format!("{field}.timeouts.backendRequest"), reason));
    }
    Timeouts { request, backend_request, ..Timeouts::default() }
}

/// Linkerd's durations: digits and one of ms, s, m, h, d; a bare 0.
pub(super) fn linkerd(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration: a number and ms, s, m, h or d", quoted(text));
    within_bound(text, words::duration(text).ok_or_else(wrong)?)
}

/// Gateway API's durations (GEP-2257): one to four times up to five digits and one of h, m, s, ms.
pub(super) fn gateway(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration: such as 1h, 10s, 250ms or 1m30s", quoted(text));
    let (mut rest, mut millis) = (text, 0_u64);
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = rest.split_at_checked(digits).filter(|_| (1..=5).contains(&digits)).ok_or_else(wrong)?;
        let units = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(units).ok_or_else(wrong)?;
        let unit = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _other => return Err(wrong()),
        };
        millis += count.parse::<u64>().map_err(|_error| wrong())? * unit;
        rest = after;
        if rest.is_empty() {
            return within_bound(text, Duration::from_millis(millis));
        }
    }
    Err(wrong())
}

/// Go's durations, as ServiceProfiles write them (Go, `time.ParseDuration`): decimal numbers, each with one of ns, us, ms, s, m, h; a bare 0.
pub(super) fn go(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration: such as 300ms, 1.5s or 1m30s", quoted(text));
    let (mut rest, mut seconds) = (text.trim(), 0.0_f64);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (count, after) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let units = after.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(units).ok_or_else(wrong)?;
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _other => return Err(wrong()),
        };
        seconds += count.parse::<f64>().map_err(|_error| wrong())? * unit;
        rest = after;
    }
    let given = Duration::try_from_secs_f64(seconds).map_err(|_too_long| wrong())?;
    // Nodes count milliseconds, and none is no limit.
    let least = if seconds > 0.0 { Duration::from_millis(1) } else { Duration::ZERO };
    within_bound(text, given.max(least))
}

fn within_bound(text: &str, limit: Duration) -> Result<Duration, String> {
    let most = limits::TIMEOUT;
    let limit = Some(limit).filter(|limit| *limit <= most);
    limit.ok_or_else(|| format!("{} is longer than {} days", quoted(text), most.as_secs() / 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            (" 2s", 2000),
            ("3m", 180_000),
            ("1h", 3_600_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(linkerd(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1s1",
            "1m30s",
            "366d",
            "99999999999999999999s",
            "1\u{e9}",
            "9223372036854775807d",
        ] {
            assert!(linkerd(text).is_err(), "{text}");
        }
        for (text, millis) in
            [("0s", 0), ("10s", 10_000), ("1m30s", 90_000), ("1h1m1s1ms", 3_661_001), ("99999ms", 99_999)]
        {
            assert_eq!(gateway(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, micros) in [
            ("0", 0),
            ("300ms", 300_000),
            ("1.5s", 1_500_000),
            ("1m30s", 90_000_000),
            ("2h45m", 9_900_000_000),
            (".5s", 500_000),
            ("10us", 1_000),
            ("0.1ns", 1_000),
            ("0ms", 0),
            ("1500us", 1_500),
        ] {
            assert_eq!(go(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "10", "-1s", "1d", "s", ".s", "1.5.5s", "1s1", "1 s", "1\u{e9}", "9999999999999999999999h"] {
            assert!(go(text).is_err(), "{text}");
        }
        for text in ["", "0", "10", "1d", "100000s", "1s ", "1.5s", "1h1h1h1h1h", "s", "1\u{e9}", "99999h"] {
            assert!(gateway(text).is_err(), "{text}");
        }
    }
}
