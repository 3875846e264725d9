//! Takes an endpoint that keeps failing out of the balancer for a while, and lets it back in by one request at a time.
//!
//! Must never look at a clock, and never lock: all workers of a node share an endpoint's state on the hot path. A race loses a count or two.
//! Linkerd: `balancer.linkerd.io/failure-accrual*` (`consecutive`, and since 2.20 `unified`). The panic threshold is Envoy's idea.

mod standing;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use weir_api::v1;

pub use self::standing::{Standing, State};
use crate::{limits, snapshot::Endpoint};

/// When an endpoint is taken out, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row; 0: any number.
    pub max_failures: u32,
    /// The first time out; doubles with each trial that fails.
    pub min_penalty: Duration,
    /// What it doubles to.
    pub max_penalty: Duration,
    /// As much longer at random, of a thousand.
    pub jitter_permille: u32,
    /// Also by the part of requests that succeed.
    pub success_rate: Option<SuccessRate>,
    /// A server's `Retry-After` makes the time out longer, up to `max_penalty`.
    pub honor_retry_after: bool,
    /// Below this part of endpoints that are in, of a thousand, all are as good as in; 0: never.
    pub panic_permille: u32,
}

/// Successes among the requests of some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Fewer than this, of a thousand, is too few.
    pub threshold_permille: u32,
    /// For how long a request counts.
    pub window: Duration,
    /// Fewer requests than this say nothing.
    pub min_requests: u32,
}

impl Settings {
    /// What control says; none where nothing is taken out.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub fn of_api(given: Option<&v1::CircuitBreaker>) -> Result<Option<Settings>, String> {
        let Some(given) = given else { return Ok(None) };
        let millis = |name: &str, millis: u64| {
            let range = limits::PENALTY_MIN..=limits::PENALTY_MAX;
            let penalty = Some(Duration::from_millis(millis)).filter(|penalty| range.contains(penalty));
            penalty.ok_or_else(|| format!("breaker.{name}: {millis} ms is out of bounds"))
        };
        let (min_penalty, max_penalty) =
            (millis("min_penalty_ms", given.min_penalty_ms)?, millis("max_penalty_ms", given.max_penalty_ms)?);
        if min_penalty > max_penalty {
            return Err("breaker.min_penalty_ms: more than max_penalty_ms".to_owned());
        }
        let success_rate = given.success_rate.map(|rate| SuccessRate {
            threshold_permille: rate.threshold_permille.min(1000),
            window: Duration::from_millis(rate.window_ms).clamp(limits::RATE_WINDOW_MIN, limits::RATE_WINDOW_MAX),
            min_requests: rate.min_requests.max(1),
        });
        let settings = Settings {
            max_failures: given.max_failures,
            min_penalty,
            max_penalty,
            jitter_permille: given.jitter_permille.min(limits::JITTER_PERMILLE),
            success_rate,
            honor_retry_after: given.honor_retry_after,
            panic_permille: given.panic_permille.min(1000),
        };
        Ok(Some(settings).filter(|settings| settings.max_failures > 0 || settings.success_rate.is_some()))
    }

    /// How long an endpoint is out after its so many-th trial in a row, from 0. Never longer than `max_penalty`.
    fn penalty(&self, trips: u32, retry_after: Option<Duration>, random: u64) -> Duration {
        let penalty = self.min_penalty.saturating_mul(1 << trips.min(16)).min(self.max_penalty);
        let asked = retry_after.filter(|_| self.honor_retry_after).unwrap_or_default();
        let jitter = penalty.as_secs_f64() * f64::from(self.jitter_permille) / 1000.0 * (random >> 32) as f64
            / f64::from(u32::MAX);
        (penalty + Duration::from_secs_f64(jitter)).max(asked).min(self.max_penalty)
    }
}

/// One service's breaker: what it goes by, and what it did.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    ejections: AtomicU64,
    /// When endpoints were counted last, nanoseconds since the epoch of `now`; 0: they have to be anew.
    counted: AtomicU64,
    is_panic: AtomicBool,
}

impl Breaker {
    /// Nothing was taken out yet.
    pub fn new(settings: Settings) -> Breaker {
        let (ejections, counted) = (AtomicU64::new(0), AtomicU64::new(0));
        Breaker { settings, ejections, counted, is_panic: AtomicBool::new(false) }
    }

    /// What it goes by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How often an endpoint was taken out, trials that failed included.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// What was admitted ended so. `random` decides about the jitter.
    pub fn ended(
        &self,
        health: &Health,
        now: Duration,
        admission: Admission,
        outcome: Outcome,
        random: u64,
    ) -> Option<Change> {
        let change = health.ended(&self.settings, now, admission, outcome, random)?;
        if let Change::Ejected(_) = change {
            self.ejections.fetch_add(1, Relaxed);
        }
        self.counted.store(0, Relaxed);
        Some(change)
    }

    /// Whether so few of these are in that all are as good as in. Counted after each change, and else now and then: other endpoints may be
    /// ready by then.
    pub fn panics(&self, ready: &[Arc<Endpoint>], now: Duration) -> bool {
        let least = self.settings.panic_permille as usize;
        if least == 0 {
            return false;
        }
        let (counted, now) = (self.counted.load(Relaxed), nanos(now));
        if counted == 0 || Duration::from_nanos(now.saturating_sub(counted)) >= limits::PANIC_LOOK {
            self.counted.store(now, Relaxed);
            let is_in = |endpoint: &&Arc<Endpoint>| endpoint.health.as_ref().is_none_or(|health| health.is_in());
            let is_panic = ready.iter().filter(is_in).count() * 1000 < least * ready.len();
            self.is_panic.store(is_panic, Relaxed);
        }
        self.is_panic.load(Relaxed)
    }
}

/// How a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The endpoint is in.
    In,
    /// It is out, and this is its trial: the one that is named so.
    Trial(u64),
}

/// How a request ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did its part.
    Success,
    /// It said that it has too much to do: a failure for the success rate alone.
    Limited(Option<Duration>),
    /// It did not; `Retry-After`, if it said so.
    Failure(Option<Duration>),
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The endpoint is out for so long.
    Ejected(Duration),
    /// It is in again.
    Reinstated,
}

/// Parts of the window: what is forgotten at once.
const PARTS: u64 = 10;
/// In [`Health::until`]: it is in.
const IN: u64 = 0;

/// Whether one endpoint is in, for all clients of a node.
#[derive(Debug, Default)]
pub struct Health {
    /// Nanoseconds since the epoch of `now`: the moment from which one request may try it. A trial moves it on, by the greatest time out:
    /// when nothing is heard of it until then, there is another. What it was moved to names the trial.
    until: AtomicU64,
    /// Times out in a row.
    trips: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    parts: [Part; PARTS as usize],
    // For people: when it was taken out, or came back, nanoseconds (0: never); the last trial's name; times taken out, failed trials included.
    since: AtomicU64,
    trial: AtomicU64,
    ejections: AtomicU32,
}

/// A tenth of the window.
#[derive(Debug, Default)]
struct Part {
    /// Which one it is of those since the epoch, from 1.
    number: AtomicU64,
    requests: AtomicU32,
    successes: AtomicU32,
}

impl Health {
    /// Whether it is in.
    pub fn is_in(&self) -> bool {
        self.until.load(Acquire) == IN
    }

    /// When a request may be sent to it: at once when it is in.
    pub fn next(&self) -> Duration {
        Duration::from_nanos(self.until.load(Acquire))
    }

    /// Whether a request may be sent to it.
    pub fn is_available(&self, now: Duration) -> bool {
        self.next() <= now
    }

    /// Lets a request through, or not. Of all that ask when a trial is due, one is let through.
    pub fn admit(&self, settings: &Settings, now: Duration) -> Option<Admission> {
        let until = self.until.load(Acquire);
        if until == IN {
            return Some(Admission::In);
        }
        if until > nanos(now) {
            return None;
        }
        let next = nanos(now + settings.max_penalty);
        let is_taken = self.until.compare_exchange(until, next, AcqRel, Acquire).is_ok();
        is_taken.then(|| {
            self.trial.store(next, Relaxed);
            Admission::Trial(next)
        })
    }

    /// The end of what was admitted says nothing: a trial may be made again from `next` on. Whether it was one that still counted.
    pub fn abandoned(&self, next: Duration, admission: Admission) -> bool {
        let Admission::Trial(trial) = admission else { return false };
        self.until.compare_exchange(trial, nanos(next), AcqRel, Acquire).is_ok()
    }

    fn ended(
        &self,
        settings: &Settings,
        now: Duration,
        admission: Admission,
        outcome: Outcome,
        random: u64,
    ) -> Option<Change> {
        let retry_after = match outcome {
            Outcome::Success => None,
            Outcome::Limited(after) | Outcome::Failure(after) => after,
        };
        if let Admission::Trial(trial) = admission {
            return match outcome {
                Outcome::Success => self.reinstate(now),
                // Who is still overloaded is not back yet where that counts.
                Outcome::Limited(_) if settings.success_rate.is_none() => self.reinstate(now),
                Outcome::Limited(_) | Outcome::Failure(_) => {
                    let trips = self.trips.load(Relaxed).saturating_add(1);
                    let penalty = settings.penalty(trips, retry_after, random);
                    // One that took so long that another was made, or that it is in again, says nothing any more.
                    self.until.compare_exchange(trial, nanos(now + penalty), AcqRel, Acquire).ok()?;
                    self.trips.store(trips, Relaxed);
                    self.ejections.fetch_add(1, Relaxed);
                    Some(Change::Ejected(penalty))
                }
            };
        }
        // What began before it was taken out says nothing new.
        if !self.is_in() {
            return None;
        }
        let in_a_row = match outcome {
            Outcome::Success | Outcome::Limited(_) => {
                // Most often it is: who only reads leaves the line to all.
                if self.failures.load(Relaxed) > 0 {
                    self.failures.store(0, Relaxed);
                }
                false
            }
            Outcome::Failure(_) => {
                let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
                settings.max_failures > 0 && failures >= settings.max_failures
            }
        };
        let by_rate = settings.success_rate.is_some_and(|rate| self.is_below(rate, now, outcome));
        if !in_a_row && !by_rate {
            return None;
        }
        let penalty = settings.penalty(0, retry_after, random);
        // Of those who fail together, one takes it out.
        self.until.compare_exchange(IN, nanos(now + penalty), AcqRel, Acquire).ok()?;
        self.trips.store(0, Relaxed);
        self.since.store(nanos(now), Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        Some(Change::Ejected(penalty))
    }

    fn reinstate(&self, now: Duration) -> Option<Change> {
        self.failures.store(0, Relaxed);
        self.trips.store(0, Relaxed);
        for part in &self.parts {
            part.number.store(0, Relaxed);
        }
        if self.until.swap(IN, AcqRel) == IN {
            return None;
        }
        self.since.store(nanos(now), Relaxed);
        Some(Change::Reinstated)
    }

    /// Counts one more. Whether too few of those in the window succeeded.
    fn is_below(&self, rate: SuccessRate, now: Duration, outcome: Outcome) -> bool {
        let part = (rate.window / PARTS as u32).as_nanos().max(1);
        let number = u64::try_from(now.as_nanos() / part).unwrap_or(u64::MAX - 1) + 1;
        let present = &self.parts[(number % PARTS) as usize];
        let held = present.number.load(Relaxed);
        if held < number && present.number.compare_exchange(held, number, AcqRel, Relaxed).is_ok() {
            present.requests.store(0, Relaxed);
            present.successes.store(0, Relaxed);
        }
        present.requests.fetch_add(1, Relaxed);
        if outcome == Outcome::Success {
            present.successes.fetch_add(1, Relaxed);
            return false;
        }
        let counts = |part: &&Part| {
            let of = part.number.load(Relaxed);
            of > 0 && number - of.min(number) < PARTS
        };
        let (mut requests, mut successes) = (0_u64, 0_u64);
        for part in self.parts.iter().filter(counts) {
            requests += u64::from(part.requests.load(Relaxed));
            successes += u64::from(part.successes.load(Relaxed));
        }
        requests >= u64::from(rate.min_requests) && successes * 1000 < requests * u64::from(rate.threshold_permille)
    }
}

/// At least 1: 0 stands for "in".
fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests;
