//! Time limits of a request: what they count from and which of them runs out next. Must never look at a clock.
//!
//! Gateway API (GEP-1742): `timeouts.request`, `timeouts.backendRequest`. Linkerd: `timeout.linkerd.io/request`, `response`, `idle`.

use std::{fmt, time::Duration};

use weir_api::v1;

/// The limits of one request; none of those that are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's arrival until the response has come whole, over all attempts.
    pub request: Option<Duration>,
    /// The same from when an attempt begins.
    pub backend_request: Option<Duration>,
    /// From when the request has been sent whole, or the response begins, until the response has come whole.
    pub response: Option<Duration>,
    /// Without a frame in either direction.
    pub idle: Option<Duration>,
    /// From when the request has been sent whole until its response begins; of attempts that another one may follow.
    pub retry: Option<Duration>,
}

/// Which limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Timeouts::request`]
    Request,
    /// [`Timeouts::backend_request`]
    BackendRequest,
    /// [`Timeouts::response`]
    Response,
    /// [`Timeouts::idle`]
    Idle,
    /// [`Timeouts::retry`]
    Retry,
}

/// How far a request is, in time since its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// The current attempt began; none while there is none.
    pub attempt: Option<Duration>,
    /// The last byte of the request went out, or the response began: whichever came first.
    pub sent: Option<Duration>,
    /// The last frame, in either direction.
    pub moved: Duration,
}

/// Limits that are the client's own doing: that they run out is no fault of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimits {
    /// [`Timeouts::request`]
    pub request: bool,
    /// [`Timeouts::backend_request`]
    pub backend_request: bool,
    /// [`Timeouts::response`]
    pub response: bool,
    /// [`Timeouts::idle`]
    pub idle: bool,
    /// [`Timeouts::retry`]
    pub retry: bool,
}

impl OwnLimits {
    /// All of them, where others set them than those whose endpoints are judged.
    pub const ALL: OwnLimits =
        OwnLimits { request: true, backend_request: true, response: true, idle: true, retry: true };

    /// Whether this one is.
    pub fn has(self, limit: Limit) -> bool {
        match limit {
            Limit::Request => self.request,
            Limit::Response => self.response,
            Limit::Retry => self.retry,
            Limit::BackendRequest => self.backend_request,
            Limit::Idle => self.idle,
        }
    }
}

impl Timeouts {
    /// What control says.
    pub fn of_api(given: Option<&v1::Timeouts>) -> Timeouts {
        let Some(given) = given else { return Timeouts::default() };
        let limit = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
        Timeouts {
            request: limit(given.request_ms),
            backend_request: limit(given.backend_request_ms),
            response: limit(given.response_ms),
            idle: limit(given.idle_ms),
            retry: None,
        }
    }

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Timeouts::default()
    }

    /// With a deadline of the client's own (`grpc-timeout`, `weir-timeout`), counted from the request's arrival: the shorter one holds.
    #[must_use]
    pub fn within(mut self, deadline: Option<Duration>) -> Timeouts {
        self.request = self.request.into_iter().chain(deadline).min();
        self
    }

    /// The limit that runs out first, and when, since the request's arrival. As long as the request is not sent whole, no earlier
    /// moment than `now` can begin its response's time.
    pub fn next(&self, stage: &Stage, now: Duration) -> Option<(Duration, Limit)> {
        let sent = stage.sent.unwrap_or(now);
        let limits = [
            (self.request, Some(Duration::ZERO), Limit::Request),
            (self.backend_request, stage.attempt, Limit::BackendRequest),
            (self.response, Some(sent), Limit::Response),
            (self.idle, Some(stage.moved), Limit::Idle),
            (self.retry, Some(sent), Limit::Retry),
        ];
        let ends = limits.into_iter().filter_map(|(limit, from, which)| Some((from?.saturating_add(limit?), which)));
        ends.min_by_key(|(at, _which)| *at)
    }
}

impl Limit {
    /// For the label `error`, the header `l5d-proxy-error` and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Request => "request timeout",
            Limit::BackendRequest => "backend request timeout",
            Limit::Response => "response timeout",
            Limit::Idle => "idle timeout",
            Limit::Retry => "retry timeout",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_limit_counts_from_its_own_moment() {
        let all = Timeouts {
            request: Some(ms(100)),
            backend_request: Some(ms(50)),
            response: Some(ms(30)),
            idle: Some(ms(20)),
            retry: None,
        };
        let stage = |attempt, sent: Option<u64>, moved| Stage {
            attempt: Some(ms(attempt)),
            sent: sent.map(ms),
            moved: ms(moved),
        };
        for (stage, now, at, limit) in [
            (stage(0, None, 0), 0, 20, Limit::Idle),
            (stage(0, None, 25), 25, 45, Limit::Idle),
            (stage(0, None, 40), 40, 50, Limit::BackendRequest),
            (stage(30, Some(35), 60), 60, 65, Limit::Response),
            (stage(60, None, 60), 60, 80, Limit::Idle),
            (stage(60, None, 90), 90, 100, Limit::Request),
            (stage(60, Some(20), 60), 60, 50, Limit::Response),
        ] {
            assert_eq!(all.next(&stage, ms(now)), Some((ms(at), limit)), "{stage:?}");
        }
        assert_eq!(Timeouts::default().next(&Stage::default(), ms(1)), None);
        let waits = Timeouts { backend_request: Some(ms(50)), ..Timeouts::default() };
        assert_eq!(waits.next(&Stage::default(), ms(500)), None, "no attempt has begun");
        for (limits, limit) in [
            (Timeouts { response: Some(ms(30)), ..Timeouts::default() }, Limit::Response),
            (Timeouts { retry: Some(ms(30)), ..Timeouts::default() }, Limit::Retry),
        ] {
            assert_eq!(limits.next(&stage(0, None, 0), ms(500)), Some((ms(530), limit)), "still being sent");
        }
    }

    #[test]
    fn the_shorter_of_two_deadlines_holds() {
        let timeouts = |request: Option<u64>| Timeouts { request: request.map(ms), ..Timeouts::default() };
        for (own, client, expected) in [
            (None, None, None),
            (Some(5), None, Some(5)),
            (None, Some(6), Some(6)),
            (Some(5), Some(6), Some(5)),
            (Some(9), Some(6), Some(6)),
        ] {
            assert_eq!(timeouts(own).within(client.map(ms)), timeouts(expected), "{own:?} {client:?}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Timeouts::of_api(None).is_none() && Timeouts::of_api(Some(&v1::Timeouts::default())).is_none());
        let given = v1::Timeouts { idle_ms: u64::MAX, ..v1::Timeouts::default() };
        let timeouts = Timeouts::of_api(Some(&given));
        assert!(timeouts.next(&Stage { moved: ms(u64::MAX), ..Stage::default() }, ms(0)).is_some(), "no overflow");
    }
}
