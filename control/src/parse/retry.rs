//! What is sent again: Linkerd's annotations, Gateway API's `retry` (GEP-1731) and our own annotations for budgets. Must never turn
//! what is not understood into more attempts.

use std::{collections::BTreeMap, time::Duration};

use weir_api::v1;
use weir_core::{retry::BudgetSettings, words};

use super::{FieldError, annotations::Annotations, fields, quoted, timeouts};
use crate::objects::annotation::retry::{BUDGET_LEAST, BUDGET_RATIO, BUDGET_TTL, GRPC, HTTP, LIMIT, TIMEOUT};

/// The annotations of a Service or route; none when it has none of them.
pub(super) fn annotated(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::Retry> {
    let mut read = Annotations::new(annotations?, errors);
    let statuses = read.read(HTTP, |text| {
        let ranges = text.split(',').map(status_range).collect::<Result<Vec<_>, _>>()?;
        merged(ranges)
    });
    read_all(read, statuses)
}

/// The same of a GRPCRoute, on which Linkerd does not read what is about HTTP's statuses.
pub(super) fn annotated_of_calls(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::Retry> {
    read_all(Annotations::new(annotations?, errors), None)
}

fn read_all(mut read: Annotations<'_>, statuses: Option<Vec<v1::StatusRange>>) -> Option<v1::Retry> {
    let codes = read.read(GRPC, |text| text.split(',').map(code).collect::<Result<Vec<_>, _>>());
    let limit = read.read(LIMIT, |text| attempts(text.trim().parse().ok(), text));
    let timeout = read.read(TIMEOUT, timeouts::linkerd);
    read.is_any().then(|| v1::Retry {
        statuses: statuses.unwrap_or_default(),
        codes: codes.unwrap_or_default(),
        unanswered: false,
        limit: limit.unwrap_or(1),
        timeout_ms: millis(timeout),
        pause_ms: 0,
    })
}

/// `retry` of a rule.
pub(super) fn of_rule(
    field: &str,
    given: Option<&fields::HttpRouteRetry>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::Retry> {
    let given = given?;
    let field = |name: &str| format!("{field}.retry.{name}");
    let mut statuses = Vec::new();
    for (at, code) in given.codes.iter().flatten().enumerate() {
        match u32::try_from(*code).ok().filter(|code| (400..600).contains(code)) {
            Some(code) => statuses.push(v1::StatusRange { first: code, last: code }),
            None => {
                let reason = format!("{code} is no status to send a request again for (400 to 599)");
                errors.push(FieldError::new(field(&format!("codes[{at}]")), reason));
            }
        }
    }
    let statuses = merged(statuses).unwrap_or_else(|reason| {
        errors.push(FieldError::new(field("codes"), reason));
        Vec::new()
    });
    let limit = given.attempts.map_or(Ok(1), |count| attempts(u32::try_from(count).ok(), &count.to_string()));
    let limit = limit.unwrap_or_else(|reason| {
        errors.push(FieldError::new(field("attempts"), reason));
        0
    });
    let pause = given.backoff.as_deref().and_then(|text| match timeouts::gateway(text) {
        Ok(pause) => Some(pause),
        Err(reason) => {
            errors.push(FieldError::new(field("backoff"), reason));
            None
        }
    });
    Some(v1::Retry { statuses, codes: Vec::new(), unanswered: true, limit, timeout_ms: 0, pause_ms: millis(pause) })
}

/// The annotations of a Service; none where the default is in force.
pub(super) fn budget(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::RetryBudget> {
    let default = BudgetSettings::default();
    let mut read = Annotations::new(annotations?, errors);
    let ratio_permille = read.read(BUDGET_RATIO, ratio).unwrap_or(default.ratio_permille);
    let min_per_second = read.read(BUDGET_LEAST, per_second).unwrap_or(default.min_per_second);
    let ttl_ms = millis(Some(read.read(BUDGET_TTL, window).unwrap_or(default.ttl)));
    read.is_any().then_some(v1::RetryBudget { ratio_permille, min_per_second, ttl_ms })
}

pub(super) fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A status, `500-504`, `5xx` or `gateway-error`.
fn status_range(text: &str) -> Result<v1::StatusRange, String> {
    let range = words::statuses(text).map(|(first, last)| v1::StatusRange { first: first.into(), last: last.into() });
    range.ok_or_else(|| format!("{} is none of 5xx, gateway-error, a status and two with a dash", quoted(text.trim())))
}

/// Each status once. Nodes take so many ranges: one route must not make them refuse all of its Service.
fn merged(mut ranges: Vec<v1::StatusRange>) -> Result<Vec<v1::StatusRange>, String> {
    ranges.sort_by_key(|range| (range.first, range.last));
    let mut merged: Vec<v1::StatusRange> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.first <= last.last + 1) {
            Some(last) => last.last = last.last.max(range.last),
            None => merged.push(range),
        }
    }
    let most = weir_core::limits::RETRY_STATUSES;
    if merged.len() > most {
        return Err(format!("{} ranges of statuses, at most {most} are taken", merged.len()));
    }
    Ok(merged)
}

fn code(text: &str) -> Result<u32, String> {
    let names = || words::CODES.map(|(name, _code)| name).join(", ");
    words::code(text).ok_or_else(|| format!("{} is none of {}", quoted(text.trim()), names()))
}

fn attempts(count: Option<u32>, text: &str) -> Result<u32, String> {
    let most = u32::from(weir_core::limits::RETRIES);
    count.filter(|count| *count <= most).ok_or_else(|| format!("{} is no number up to {most}", quoted(text)))
}

/// As a decimal fraction: 0.2 is a retry for five requests.
fn ratio(text: &str) -> Result<u32, String> {
    let ratio = text.trim().parse::<f64>().ok().filter(|ratio| (0.0..=1000.0).contains(ratio));
    let wrong = || format!("{} is no part of the requests, such as 0.2 (0 to 1000)", quoted(text));
    ratio.map(|ratio| (ratio * 1000.0).round() as u32).ok_or_else(wrong)
}

fn per_second(text: &str) -> Result<u32, String> {
    let count = text.trim().parse::<u32>().ok().filter(|count| *count <= 1_000_000);
    count.ok_or_else(|| format!("{} is no number of retries for each second (0 to 1000000)", quoted(text)))
}

fn window(text: &str) -> Result<Duration, String> {
    let (least, most) = (weir_core::limits::RETRY_TTL_MIN, weir_core::limits::RETRY_TTL_MAX);
    let ttl = timeouts::linkerd(text)?;
    let wrong = || format!("{} is not between {} and {} seconds", quoted(text), least.as_secs(), most.as_secs());
    Some(ttl).filter(|ttl| (least..=most).contains(ttl)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn range(first: u32, last: u32) -> v1::StatusRange {
        v1::StatusRange { first, last }
    }

    #[test]
    fn linkerds_annotations() {
        let once = v1::Retry { limit: 1, ..v1::Retry::default() };
        for (pairs, expected) in [
            (&[][..], None),
            (
                &[(HTTP, "5xx,gateway-error, 429 ,500-504")],
                Some(v1::Retry { statuses: vec![range(429, 429), range(500, 599)], ..once.clone() }),
            ),
            (&[(GRPC, "unavailable,cancelled")], Some(v1::Retry { codes: vec![14, 1], ..once.clone() })),
            (&[(LIMIT, "3"), (TIMEOUT, "250ms")], Some(v1::Retry { limit: 3, timeout_ms: 250, ..once.clone() })),
            (&[(LIMIT, "0")], Some(v1::Retry::default())),
        ] {
            let mut errors = Vec::new();
            assert_eq!(annotated(Some(&map(pairs)), &mut errors), expected, "{pairs:?}");
            assert!(errors.is_empty(), "{errors:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named_and_no_attempt_more() {
        let many = (100..300).step_by(2).map(|status| status.to_string()).collect::<Vec<_>>().join(",");
        for (key, text) in [
            (HTTP, "6xx"),
            (HTTP, ""),
            (HTTP, "504-500"),
            (HTTP, "500,reset"),
            (GRPC, "unknown"),
            (HTTP, &many),
            (LIMIT, "-1"),
            (LIMIT, "101"),
            (LIMIT, "65536"),
            (TIMEOUT, "1.5s"),
        ] {
            let mut errors = Vec::new();
            let given = annotated(Some(&map(&[(key, text)])), &mut errors).unwrap();
            assert!(given.statuses.is_empty() && given.codes.is_empty() && given.limit == 1 && given.timeout_ms == 0);
            assert_eq!(errors.len(), 1, "{key}: {text}");
            assert_eq!(errors[0].field, format!("metadata.annotations.{key}"));
        }
        for (key, text) in [
            (BUDGET_RATIO, "-0.1"),
            (BUDGET_RATIO, "NaN"),
            (BUDGET_RATIO, "20%"),
            (BUDGET_LEAST, "1.5"),
            (BUDGET_TTL, "10ms"),
            (BUDGET_TTL, "1d"),
        ] {
            let mut errors = Vec::new();
            let given = budget(Some(&map(&[(key, text)])), &mut errors);
            let default = v1::RetryBudget { ratio_permille: 200, min_per_second: 10, ttl_ms: 10_000 };
            assert_eq!((given, errors.len()), (Some(default), 1), "{key}: {text}");
        }
    }

    #[test]
    fn budgets() {
        let given = map(&[(BUDGET_RATIO, "0.05"), (BUDGET_LEAST, "0"), (BUDGET_TTL, "1m")]);
        let expected = v1::RetryBudget { ratio_permille: 50, min_per_second: 0, ttl_ms: 60_000 };
        let mut errors = Vec::new();
        assert_eq!(budget(Some(&given), &mut errors), Some(expected));
        assert_eq!(budget(Some(&map(&[(HTTP, "5xx")])), &mut errors), None);
        assert!(errors.is_empty(), "{errors:?}");
    }
}
