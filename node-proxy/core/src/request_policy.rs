//! What a request says of its own retries and time limits: Linkerd's `l5d-retry-*` and `l5d-*-timeout`, and the deadline that it carries.
//!
//! Must never be asked for the former where the operator has not allowed it: anybody's request could ask for more work than its own.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    limits,
    retry::{AskedRetry, Retry},
    timeouts::{OwnLimits, Timeouts},
    words,
};

const RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");
const TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");
/// The time that is left for a request; `grpc-timeout` of requests that are not gRPC.
const DEADLINE: HeaderName = HeaderName::from_static("weir-timeout");

/// What one request says; what it says in words that are not known is as good as unsaid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestPolicy {
    retry: AskedRetry,
    request: Option<Duration>,
    response: Option<Duration>,
}

impl RequestPolicy {
    /// Takes it out of the headers: it is for the first proxy alone. None where it says nothing.
    pub fn take(headers: &mut HeaderMap) -> Option<RequestPolicy> {
        let mut take = |name: HeaderName| headers.remove(name);
        let limit = |value: HeaderValue| words::duration(value.to_str().ok()?);
        let policy = RequestPolicy {
            retry: AskedRetry {
                statuses: take(RETRY_HTTP).and_then(|value| statuses(&value)),
                codes: take(RETRY_GRPC).and_then(|value| codes(&value)),
                limit: take(RETRY_LIMIT).and_then(|value| attempts(&value)),
                timeout: take(RETRY_TIMEOUT).and_then(limit),
            },
            // The longer name stands above the shorter one.
            request: [take(TIMEOUT), take(REQUEST_TIMEOUT)].into_iter().flatten().filter_map(limit).next_back(),
            response: take(RESPONSE_TIMEOUT).and_then(limit),
        };
        (policy != RequestPolicy::default()).then_some(policy)
    }

    /// How the request is sent again, where it would be as `given` says otherwise.
    pub fn retry(&self, given: Option<&Retry>) -> Option<Retry> {
        Retry::asked(given, &self.retry)
    }

    /// Its limits, over those that there are otherwise; 0 lifts one. Which of them are its own?
    pub fn limit(&self, limits: &mut Timeouts) -> OwnLimits {
        let replace = |limit: &mut Option<Duration>, own: Option<Duration>| {
            if let Some(own) = own {
                *limit = Some(own).filter(|own| !own.is_zero());
            }
            own.is_some_and(|own| !own.is_zero())
        };
        OwnLimits {
            request: replace(&mut limits.request, self.request),
            response: replace(&mut limits.response, self.response),
            retry: self.retry.timeout.is_some(),
            ..OwnLimits::default()
        }
    }
}

/// What is left of a client's time for a request that is not gRPC: a word of [`words::duration`].
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    words::duration(headers.get(DEADLINE)?.to_str().ok()?)
}

/// Writes it in whole milliseconds; never longer than `left`.
pub fn set_deadline(headers: &mut HeaderMap, left: Duration) {
    if let Ok(value) = HeaderValue::from_str(&format!("{}ms", left.as_millis())) {
        headers.insert(DEADLINE, value);
    }
}

/// Those of a list that are known; a list of none says nothing. (With Linkerd it takes all away.)
fn statuses(value: &HeaderValue) -> Option<Box<[(u16, u16)]>> {
    let known = value.to_str().ok()?.split(',').filter_map(words::statuses);
    Some(known.take(limits::RETRY_STATUSES).collect::<Box<[_]>>()).filter(|known| !known.is_empty())
}

fn codes(value: &HeaderValue) -> Option<u32> {
    let known = value.to_str().ok()?.split(',').filter_map(words::code);
    Some(known.fold(0, |bits, code| bits | 1 << code)).filter(|bits| *bits != 0)
}

fn attempts(value: &HeaderValue) -> Option<u16> {
    value.to_str().ok()?.trim().parse().ok().filter(|limit| *limit <= limits::RETRIES)
}

#[cfg(test)]
mod tests {
    use weir_api::v1;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn taken(fields: &[(&'static str, &'static str)]) -> Option<RequestPolicy> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let policy = RequestPolicy::take(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
        policy
    }

    #[test]
    fn a_request_replaces_what_it_speaks_of_and_nothing_else() {
        let base = v1::Retry { codes: vec![14], limit: 5, timeout_ms: 100, ..v1::Retry::default() };
        let base = Retry::of_api(Some(&base)).unwrap().unwrap();
        let policy = taken(&[("l5d-retry-http", "5xx, nonsense,429"), ("l5d-retry-limit", "2")]).unwrap();
        for given in [None, Some(&base)] {
            let retry = policy.retry(given).unwrap();
            assert!(retry.is_for_response(503, None) && retry.is_for_response(429, None), "{retry:?}");
            assert!(!retry.is_for_response(404, None) && retry.limit == 2, "{retry:?}");
            assert_eq!(retry.is_for_response(200, Some(14)), given.is_some());
            assert_eq!(retry.timeout, given.map(|_| MS * 100));
        }
        assert_eq!(taken(&[("l5d-retry-limit", "0")]).unwrap().retry(Some(&base)), None);
        let once = taken(&[("l5d-retry-grpc", "internal")]).unwrap().retry(None).unwrap();
        assert!(once.limit == 1 && once.is_for_response(200, Some(13)) && !once.is_for_response(200, Some(14)));
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        for field in [
            ("l5d-retry-limit", "many"),
            ("l5d-retry-limit", "101"),
            ("l5d-timeout", "5"),
            ("l5d-response-timeout", ""),
            ("l5d-retry-http", "5xx;429"),
            ("l5d-retry-grpc", "unknown,14"),
        ] {
            assert_eq!(taken(&[field]), None, "{field:?}");
        }
        assert_eq!(taken(&[]), None);
    }

    #[test]
    fn limits_are_replaced_and_lifted() {
        let given =
            Timeouts { request: Some(MS * 9), response: Some(MS * 8), idle: Some(MS * 7), ..Timeouts::default() };
        let mut limits = given;
        let own = taken(&[("l5d-request-timeout", "2s"), ("l5d-timeout", "1s")]).unwrap().limit(&mut limits);
        assert_eq!(limits, Timeouts { request: Some(MS * 2000), ..given });
        assert_eq!(own, OwnLimits { request: true, ..OwnLimits::default() });
        let own = taken(&[("l5d-response-timeout", "0")]).unwrap().limit(&mut limits);
        assert!(limits.response.is_none() && own == OwnLimits::default(), "what is lifted limits nothing");
        let own = taken(&[("l5d-response-timeout", "3s")]).unwrap().limit(&mut limits);
        assert!(limits.response == Some(MS * 3000) && own == OwnLimits { response: true, ..OwnLimits::default() });
    }

    #[test]
    fn deadlines_are_written_as_they_are_read() {
        let mut headers = HeaderMap::new();
        set_deadline(&mut headers, Duration::from_micros(1_500_900));
        assert_eq!(deadline(&headers), Some(MS * 1500));
        headers.insert(DEADLINE, HeaderValue::from_static("soon"));
        assert_eq!(deadline(&headers), None);
    }
}
