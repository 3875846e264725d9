//! What takes endpoints of a Service out that keep failing, or makes them less wanted: Linkerd's annotations, with those of its 2.20, and one
//! of ours. Must never turn what is not understood into a breaker that takes out more.

use std::{collections::BTreeMap, time::Duration};

use weir_api::v1;
use weir_core::limits;

use super::{FieldError, annotations::Annotations, quoted, timeouts};
use crate::objects::annotation::breaker::{
    BIAS, BIAS_MOST, JITTER, KIND, MAX_FAILURES, MAX_PENALTY, MIN_PENALTY, PANIC, PENALIZE, RATE, RATE_LEAST,
    RATE_WINDOW, RETRY_AFTER,
};

/// Linkerd's defaults.
const DEFAULT_MAX_FAILURES: u32 = 7;
const DEFAULT_MIN_PENALTY: Duration = Duration::from_secs(1);
const DEFAULT_MAX_PENALTY: Duration = Duration::from_secs(60);
const DEFAULT_JITTER_PERMILLE: u32 = 500;
const DEFAULT_RATE_PERMILLE: u32 = 800;
const DEFAULT_RATE_WINDOW: Duration = Duration::from_secs(10);
const DEFAULT_RATE_LEAST: u32 = 5;
const DEFAULT_BIAS: Duration = Duration::from_secs(5);
const DEFAULT_BIAS_MOST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Consecutive,
    Unified,
}

/// The breaker of a Service; none where it has none.
pub(super) fn breaker(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::CircuitBreaker> {
    let before = errors.len();
    let mut read = Annotations::new(annotations?, errors);
    let kind = read.read(KIND, kind);
    let max_failures = read.read(MAX_FAILURES, count).unwrap_or(DEFAULT_MAX_FAILURES);
    let least = read.read(MIN_PENALTY, penalty).unwrap_or(DEFAULT_MIN_PENALTY);
    let most = read.read(MAX_PENALTY, penalty).unwrap_or(DEFAULT_MAX_PENALTY);
    let jitter_permille = read.read(JITTER, |text| permille(text, limits::JITTER_PERMILLE));
    let rate = v1::SuccessRate {
        threshold_permille: read.read(RATE, part).unwrap_or(DEFAULT_RATE_PERMILLE),
        window_ms: millis(read.read(RATE_WINDOW, window).unwrap_or(DEFAULT_RATE_WINDOW)),
        min_requests: read.read(RATE_LEAST, count).unwrap_or(DEFAULT_RATE_LEAST),
    };
    let honor_retry_after = read.read(RETRY_AFTER, yes).unwrap_or_default();
    let panic_permille = read.read(PANIC, part).unwrap_or_default();
    if least > most {
        read.refuse(MIN_PENALTY, format!("{least:?} is more than the greatest penalty, {most:?}"));
    }
    if read.is_any() && !annotations?.contains_key(KIND) {
        read.refuse(KIND, "missing: without it no endpoint is taken out, whatever the other annotations say");
    }
    // As with Linkerd, one that is not understood is as good as no breaker.
    let kind = kind.filter(|_| errors.len() == before)?;
    let success_rate = (kind == Kind::Unified).then_some(rate);
    // As with Linkerd, 0 is none.
    let is_breaker = max_failures > 0 || success_rate.is_some();
    is_breaker.then(|| v1::CircuitBreaker {
        max_failures,
        min_penalty_ms: millis(least),
        max_penalty_ms: millis(most),
        jitter_permille: jitter_permille.unwrap_or(DEFAULT_JITTER_PERMILLE),
        success_rate,
        honor_retry_after,
        panic_permille,
    })
}

/// What failures add to an endpoint's load; none where they add nothing.
pub(super) fn load_bias(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::LoadBias> {
    let mut read = Annotations::new(annotations?, errors);
    let penalize = read.read(PENALIZE, yes).unwrap_or_default();
    let penalty = read.read(BIAS, timeouts::linkerd).unwrap_or(DEFAULT_BIAS);
    let most = read.read(BIAS_MOST, timeouts::linkerd).unwrap_or(DEFAULT_BIAS_MOST);
    penalize.then_some(v1::LoadBias { penalty_ms: millis(penalty), max_retry_after_ms: millis(most) })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn kind(text: &str) -> Result<Kind, String> {
    match text.trim() {
        "consecutive" => Ok(Kind::Consecutive),
        "unified" => Ok(Kind::Unified),
        other => Err(format!("{} is neither consecutive nor unified", quoted(other))),
    }
}

fn yes(text: &str) -> Result<bool, String> {
    // As Go reads them, in which Linkerd is written.
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{} is neither true nor false", quoted(other))),
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_error| format!("{} is no count", quoted(text)))
}

fn penalty(text: &str) -> Result<Duration, String> {
    within(text, limits::PENALTY_MIN, limits::PENALTY_MAX)
}

fn window(text: &str) -> Result<Duration, String> {
    within(text, limits::RATE_WINDOW_MIN, limits::RATE_WINDOW_MAX)
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let given = timeouts::linkerd(text)?;
    let wrong = || format!("{} is not between {least:?} and {most:?}", quoted(text));
    Some(given).filter(|given| (least..=most).contains(given)).ok_or_else(wrong)
}

/// A part of all, from 0 to 1.
fn part(text: &str) -> Result<u32, String> {
    permille(text, 1000)
}

fn permille(text: &str, most: u32) -> Result<u32, String> {
    let range = 0.0..=f64::from(most) / 1000.0;
    let given = text.trim().parse::<f64>().ok().filter(|given| range.contains(given));
    let wrong = || format!("{} is no number from 0 to {}", quoted(text), range.end());
    given.map(|given| (given * 1000.0).round() as u32).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// What is read, and the fields that are not.
    fn read(pairs: &[(&str, &str)]) -> (Option<v1::CircuitBreaker>, Vec<String>) {
        let mut errors = Vec::new();
        let breaker = breaker(Some(&map(pairs)), &mut errors);
        (breaker, errors.into_iter().map(|error| error.field).collect())
    }

    const CONSECUTIVE: v1::CircuitBreaker = v1::CircuitBreaker {
        max_failures: 7,
        min_penalty_ms: 1000,
        max_penalty_ms: 60_000,
        jitter_permille: 500,
        success_rate: None,
        honor_retry_after: false,
        panic_permille: 0,
    };

    const RATED: v1::SuccessRate = v1::SuccessRate { threshold_permille: 800, window_ms: 10_000, min_requests: 5 };

    #[test]
    fn linkerds_annotations() {
        let all = [
            (KIND, "unified"),
            (MAX_FAILURES, "0"),
            (MIN_PENALTY, "500ms"),
            (MAX_PENALTY, "2m"),
            (JITTER, "1.25"),
            (RATE, "0.95"),
            (RATE_WINDOW, "30s"),
            (RATE_LEAST, "20"),
            (RETRY_AFTER, "true"),
            (PANIC, "0.5"),
        ];
        let whole = v1::CircuitBreaker {
            max_failures: 0,
            min_penalty_ms: 500,
            max_penalty_ms: 120_000,
            jitter_permille: 1250,
            success_rate: Some(v1::SuccessRate { threshold_permille: 950, window_ms: 30_000, min_requests: 20 }),
            honor_retry_after: true,
            panic_permille: 500,
        };
        for (pairs, expected) in [
            (&[][..], None),
            (&[(KIND, "consecutive")], Some(CONSECUTIVE)),
            (
                &[(KIND, "consecutive"), (MAX_FAILURES, "3")],
                Some(v1::CircuitBreaker { max_failures: 3, ..CONSECUTIVE }),
            ),
            (&[(KIND, "consecutive"), (MAX_FAILURES, "0")], None),
            (&[(KIND, "unified")], Some(v1::CircuitBreaker { success_rate: Some(RATED), ..CONSECUTIVE })),
            (&all, Some(whole)),
        ] {
            assert_eq!(read(pairs), (expected, Vec::new()), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named_and_takes_nothing_out() {
        for (key, text) in [
            (MAX_FAILURES, "-1"),
            (MIN_PENALTY, "1.5s"),
            (MIN_PENALTY, "0"),
            (MIN_PENALTY, "2m"),
            (MAX_PENALTY, "2d"),
            (JITTER, "-1"),
            (JITTER, "101"),
            (JITTER, "NaN"),
            (RATE, "80%"),
            (RATE, "1.1"),
            (RATE_WINDOW, "9ms"),
            (RATE_LEAST, "few"),
            (RETRY_AFTER, "yes"),
            (PANIC, "50"),
        ] {
            let expected = (None, vec![format!("metadata.annotations.{key}")]);
            assert_eq!(read(&[(KIND, "consecutive"), (key, text)]), expected, "{text}");
        }
        assert_eq!(read(&[(KIND, "some")]), (None, vec![format!("metadata.annotations.{KIND}")]));
        assert_eq!(read(&[(MAX_FAILURES, "3")]), (None, vec![format!("metadata.annotations.{KIND}")]));
    }

    #[test]
    fn load_biases() {
        let mut errors = Vec::new();
        let mut read = |pairs: &[(&str, &str)]| load_bias(Some(&map(pairs)), &mut errors);
        let given = v1::LoadBias { penalty_ms: 5000, max_retry_after_ms: 300_000 };
        assert_eq!((read(&[(PENALIZE, "true")]), read(&[(PENALIZE, "1")])), (Some(given), Some(given)));
        let given = v1::LoadBias { penalty_ms: 250, max_retry_after_ms: 0 };
        assert_eq!(read(&[(PENALIZE, "true"), (BIAS, "250ms"), (BIAS_MOST, "0")]), Some(given));
        assert_eq!(read(&[(PENALIZE, "false"), (BIAS, "250ms")]), None);
        assert_eq!(read(&[(BIAS, "250ms")]), None);
        assert_eq!(read(&[(PENALIZE, "yes")]), None);
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}
