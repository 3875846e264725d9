//! Whether a request is sent once more: what its rule asks for, and what the budget of its Service allows.
//!
//! Must never look at a clock, and never lock: all workers of a node share a budget on the hot path.
//! Linkerd: `retry.linkerd.io/*`. Gateway API (GEP-1731): `retry`. The budget is Finagle's, over a window that slides by tenths.

use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

use weir_api::v1;

use crate::{limits, proxy_error::ProxyError, timeouts::Limit};

/// What is sent again, how often, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// HTTP statuses, first to last.
    statuses: Box<[(u16, u16)]>,
    /// A bit for each gRPC code.
    codes: u32,
    /// Also what got no answer.
    unanswered: bool,
    /// Attempts after the first one, at least 1.
    pub limit: u16,
    /// From when an attempt has been sent whole until its response begins; not of the last one.
    pub timeout: Option<Duration>,
    pause: Duration,
}

/// What one request asks of its own retries; the rest is as it would be otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedRetry {
    /// HTTP statuses, first to last.
    pub statuses: Option<Box<[(u16, u16)]>>,
    /// A bit for each gRPC code.
    pub codes: Option<u32>,
    /// Attempts after the first one; none at 0.
    pub limit: Option<u16>,
    /// As [`Retry::timeout`].
    pub timeout: Option<Duration>,
}

impl Retry {
    /// `given` with what a request asks for; once, where nothing is said of how often (Linkerd).
    pub fn asked(given: Option<&Retry>, asked: &AskedRetry) -> Option<Retry> {
        if *asked == AskedRetry::default() {
            return given.cloned();
        }
        let mut retry = given.cloned().unwrap_or(Retry {
            statuses: Box::default(),
            codes: 0,
            unanswered: false,
            limit: 1,
            timeout: None,
            pause: limits::RETRY_PAUSE,
        });
        retry.statuses = asked.statuses.clone().unwrap_or(retry.statuses);
        retry.codes = asked.codes.unwrap_or(retry.codes);
        retry.limit = asked.limit.unwrap_or(retry.limit);
        retry.timeout = asked.timeout.or(retry.timeout).filter(|timeout| !timeout.is_zero());
        Some(retry).filter(|retry| retry.limit > 0)
    }

    /// What control says; none where nothing is sent again.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub fn of_api(given: Option<&v1::Retry>) -> Result<Option<Retry>, String> {
        let Some(given) = given.filter(|given| given.limit > 0) else { return Ok(None) };
        let status = |number: u32| u16::try_from(number).ok().filter(|status| (100..600).contains(status));
        let range = |range: &v1::StatusRange| {
            let both = status(range.first).zip(status(range.last)).filter(|(first, last)| first <= last);
            both.ok_or_else(|| format!("retry.statuses: {} to {} are none", range.first, range.last))
        };
        if given.statuses.len() > limits::RETRY_STATUSES {
            return Err(format!("retry.statuses: {}, at most {}", given.statuses.len(), limits::RETRY_STATUSES));
        }
        let statuses = given.statuses.iter().map(range).collect::<Result<_, _>>()?;
        let codes = given.codes.iter().try_fold(0, |bits, code| match code {
            0..=16 => Ok(bits | 1 << code),
            other => Err(format!("retry.codes: {other} is none of gRPC's")),
        })?;
        let limit = u16::try_from(given.limit).ok().filter(|limit| *limit <= limits::RETRIES);
        let millis = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
        Ok(Some(Retry {
            statuses,
            codes,
            unanswered: given.unanswered,
            limit: limit.ok_or_else(|| format!("retry.limit: {}, at most {}", given.limit, limits::RETRIES))?,
            timeout: millis(given.timeout_ms),
            pause: millis(given.pause_ms).unwrap_or(limits::RETRY_PAUSE),
        }))
    }

    /// Whether a response is one to ask again for. `code`: gRPC's, of responses that have one.
    pub fn is_for_response(&self, status: u16, code: Option<u32>) -> bool {
        match code {
            Some(code) => self.is_for_code(code),
            None => self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status)),
        }
    }

    /// Whether what got no answer is.
    pub fn is_for_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Whether any gRPC code is.
    pub fn has_codes(&self) -> bool {
        self.codes != 0
    }

    fn is_for_code(&self, code: u32) -> bool {
        code < u32::BITS && self.codes & 1 << code != 0
    }

    /// Whether the request is sent again after an error of the proxy's own. It counts as the answer that the client would get; what
    /// would meet the same end at once does not.
    pub fn is_for_error(&self, error: ProxyError, grpc: bool) -> bool {
        match error {
            ProxyError::Timeout(Limit::Retry) => true,
            ProxyError::ConnectFailed
            | ProxyError::UpstreamBroken
            | ProxyError::Timeout(Limit::BackendRequest | Limit::Response | Limit::Idle) => {
                let code = grpc.then(|| error.grpc_code());
                self.unanswered || self.is_for_response(error.http_status(), code)
            }
            ProxyError::Timeout(Limit::Request)
            | ProxyError::FailFast
            | ProxyError::LoadShed
            | ProxyError::Unresolved
            | ProxyError::Unauthorized(_)
            | ProxyError::NoRoute
            | ProxyError::BackendInvalid
            | ProxyError::CallBackendInvalid
            | ProxyError::IdentityRequired
            | ProxyError::Loop => false,
        }
    }

    /// How long to wait before an attempt; `before`: attempts after the first that there were. Doubles up to a bound, and as much again
    /// at random, so that those who failed together do not come back together.
    pub fn pause(&self, before: u16, random: u64) -> Duration {
        let most = self.pause.max(limits::RETRY_PAUSE_MOST);
        let pause = self.pause.saturating_mul(1 << before.min(16)).min(most);
        let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        let jitter = (u128::from(random) * u128::from(nanos)) >> 64;
        pause + Duration::from_nanos(u64::try_from(jitter).unwrap_or_default())
    }
}

/// How much retries may add to the load of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Retries for each thousand requests.
    pub ratio_permille: u32,
    /// Retries each second however few requests there are.
    pub min_per_second: u32,
    /// For how long a request counts.
    pub ttl: Duration,
}

impl Default for BudgetSettings {
    /// Linkerd's for profiles, which its routes lack.
    fn default() -> BudgetSettings {
        BudgetSettings { ratio_permille: 200, min_per_second: 10, ttl: Duration::from_secs(10) }
    }
}

impl BudgetSettings {
    /// What control says.
    pub fn of_api(given: Option<&v1::RetryBudget>) -> BudgetSettings {
        let Some(given) = given else { return BudgetSettings::default() };
        let ttl = Duration::from_millis(given.ttl_ms).clamp(limits::RETRY_TTL_MIN, limits::RETRY_TTL_MAX);
        BudgetSettings { ratio_permille: given.ratio_permille, min_per_second: given.min_per_second, ttl }
    }
}

/// Parts of the window: what is forgotten at once.
const PARTS: u64 = 10;

/// Retries of one Service, by all clients of a node. A race loses or lets through a request or two.
#[derive(Debug)]
pub struct Budget {
    settings: BudgetSettings,
    parts: [Part; PARTS as usize],
}

/// A tenth of the window.
#[derive(Debug, Default)]
struct Part {
    /// Which one it is of those since the epoch, from 1.
    number: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Budget {
    /// Nothing has been asked for yet.
    pub fn new(settings: BudgetSettings) -> Budget {
        Budget { settings, parts: Default::default() }
    }

    /// What it goes by.
    pub fn settings(&self) -> BudgetSettings {
        self.settings
    }

    /// A request that may be sent again begins.
    pub fn request(&self, now: Duration) {
        self.part(self.number(now)).requests.fetch_add(1, Relaxed);
    }

    /// Takes one more retry, if it is within the budget.
    pub fn take(&self, now: Duration) -> bool {
        let is_within = self.has_left(now);
        if is_within {
            self.part(self.number(now)).retries.fetch_add(1, Relaxed);
        }
        is_within
    }

    /// Whether one more retry is within the budget.
    pub fn has_left(&self, now: Duration) -> bool {
        let number = self.number(now);
        let (mut requests, mut retries) = (0_u64, 0_u64);
        let counts = |part: &&Part| number - part.number.load(Relaxed).min(number) < PARTS;
        for part in self.parts.iter().filter(counts) {
            requests += u64::from(part.requests.load(Relaxed));
            retries += u64::from(part.retries.load(Relaxed));
        }
        let seconds = self.settings.ttl.as_secs_f64();
        let least = (f64::from(self.settings.min_per_second) * seconds) as u64;
        let most = (requests * u64::from(self.settings.ratio_permille) / 1000).max(least);
        retries < most
    }

    fn number(&self, now: Duration) -> u64 {
        let part = (self.settings.ttl / PARTS as u32).as_nanos().max(1);
        u64::try_from(now.as_nanos() / part).unwrap_or(u64::MAX - 1) + 1
    }

    /// The present part, emptied of what it held a window ago.
    fn part(&self, number: u64) -> &Part {
        let part = &self.parts[(number % PARTS) as usize];
        let held = part.number.load(Relaxed);
        if held < number && part.number.compare_exchange(held, number, AcqRel, Relaxed).is_ok() {
            part.requests.store(0, Relaxed);
            part.retries.store(0, Relaxed);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(statuses: &[(u32, u32)], codes: &[u32]) -> Retry {
        let statuses = statuses.iter().map(|(first, last)| v1::StatusRange { first: *first, last: *last }).collect();
        let given = v1::Retry { statuses, codes: codes.to_vec(), limit: 1, ..v1::Retry::default() };
        Retry::of_api(Some(&given)).unwrap().unwrap()
    }

    #[test]
    fn what_is_asked_for_again() {
        let given = retry(&[(502, 504), (429, 429)], &[14]);
        for (status, code, expected) in [
            (502, None, true),
            (504, None, true),
            (505, None, false),
            (429, None, true),
            (200, None, false),
            (200, Some(14), true),
            (200, Some(13), false),
            (503, Some(0), false),
            (200, Some(u32::MAX), false),
        ] {
            assert_eq!(given.is_for_response(status, code), expected, "{status} {code:?}");
        }
        let unanswered = Retry { unanswered: true, ..retry(&[], &[]) };
        let (gateway, grpc, none) = (retry(&[(502, 504)], &[]), retry(&[], &[14]), retry(&[], &[]));
        for (error, expected) in [
            (ProxyError::UpstreamBroken, [true, true, true, false]),
            (ProxyError::ConnectFailed, [true, true, true, false]),
            (ProxyError::Timeout(Limit::BackendRequest), [true, true, false, false]),
            (ProxyError::Timeout(Limit::Retry), [true; 4]),
            (ProxyError::Timeout(Limit::Request), [false; 4]),
            (ProxyError::FailFast, [false; 4]),
            (ProxyError::LoadShed, [false; 4]),
        ] {
            let asked = [(&unanswered, false), (&gateway, false), (&grpc, true), (&none, false)];
            assert_eq!(asked.map(|(retry, grpc)| retry.is_for_error(error, grpc)), expected, "{error}");
        }
    }

    #[test]
    fn what_control_says_wrongly_is_refused_by_field() {
        let given = v1::Retry { limit: 1, ..v1::Retry::default() };
        let range = |first, last| vec![v1::StatusRange { first, last }];
        for (wrong, field) in [
            (v1::Retry { statuses: range(504, 502), ..given.clone() }, "retry.statuses"),
            (v1::Retry { statuses: range(99, 502), ..given.clone() }, "retry.statuses"),
            (v1::Retry { statuses: range(500, 600), ..given.clone() }, "retry.statuses"),
            (v1::Retry { codes: vec![17], ..given.clone() }, "retry.codes"),
            (v1::Retry { limit: 100_000, ..given.clone() }, "retry.limit"),
        ] {
            assert!(Retry::of_api(Some(&wrong)).unwrap_err().starts_with(field), "{wrong:?}");
        }
        assert_eq!(Retry::of_api(None), Ok(None));
        assert_eq!(Retry::of_api(Some(&v1::Retry::default())), Ok(None), "0 attempts");
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_at_most_double_again_at_random() {
        let given = retry(&[], &[]);
        let pauses: Vec<Duration> = (0..6).map(|before| given.pause(before, 0)).collect();
        assert_eq!(pauses, [25, 50, 100, 200, 250, 250].map(Duration::from_millis));
        assert!(given.pause(0, u64::MAX) < Duration::from_millis(50));
        assert!(given.pause(u16::MAX, u64::MAX) < Duration::from_millis(500));
        let slow = Retry { pause: Duration::from_secs(3), ..given };
        assert_eq!(slow.pause(5, 0), Duration::from_secs(3), "never less than what was asked for");
    }

    /// Twice a second of requests, all of which fail: retries are a fifth of them, whatever the window holds.
    #[test]
    fn retries_add_no_more_than_their_part() {
        let budget = Budget::new(BudgetSettings::default());
        let mut retries = 0;
        for millis in 0..60_000 {
            let now = Duration::from_millis(millis);
            budget.request(now);
            retries += u32::from(budget.take(now));
        }
        assert!((11_900..=12_100).contains(&retries), "{retries} of 60000");
    }

    #[test]
    fn a_quiet_service_has_its_least() {
        let settings = BudgetSettings { min_per_second: 2, ..BudgetSettings::default() };
        let budget = Budget::new(settings);
        let taken = |now: Duration| (0..100).filter(|_| budget.take(now)).count();
        assert_eq!(taken(Duration::from_secs(100)), 20, "2 for each of 10 seconds");
        assert_eq!(taken(Duration::from_secs(109)), 0);
        assert_eq!(taken(Duration::from_secs(110)), 20);
        let none = Budget::new(BudgetSettings { ratio_permille: 0, min_per_second: 0, ..settings });
        none.request(Duration::ZERO);
        assert!(!none.take(Duration::ZERO));
    }
}
