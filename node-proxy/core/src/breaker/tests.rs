//! Transitions in virtual time.

use super::*;
use crate::{
    balance::{Balancer, Choice},
    snapshot::tests::endpoint,
};

const SECOND: Duration = Duration::from_secs(1);

/// Linkerd's defaults, without jitter.
fn consecutive() -> Settings {
    Settings {
        max_failures: 7,
        min_penalty: SECOND,
        max_penalty: SECOND * 60,
        jitter_permille: 0,
        success_rate: None,
        honor_retry_after: false,
        panic_permille: 0,
    }
}

fn unified() -> Settings {
    let rate = SuccessRate { threshold_permille: 800, window: SECOND * 10, min_requests: 5 };
    Settings { max_failures: 0, success_rate: Some(rate), ..consecutive() }
}

fn choice<'a>(ready: &'a [Arc<Endpoint>], now: Duration, exclude: Option<&'a Endpoint>) -> Choice<'a> {
    Choice { ready, now, key: None, exclude }
}

const FAILURE: Outcome = Outcome::Failure(None);

/// One endpoint and its breaker.
struct One {
    settings: Settings,
    health: Health,
    now: Duration,
}

impl One {
    fn new(settings: Settings) -> One {
        One { settings, health: Health::default(), now: SECOND * 100 }
    }

    fn admit(&self) -> Option<Admission> {
        self.health.admit(&self.settings, self.now)
    }

    /// The one that is due.
    fn trial(&self) -> Admission {
        let admission = self.admit().unwrap();
        assert!(matches!(admission, Admission::Trial(_)), "{admission:?}");
        admission
    }

    fn end(&self, admission: Admission, outcome: Outcome) -> Option<Change> {
        self.health.ended(&self.settings, self.now, admission, outcome, 0)
    }

    /// A request that is let through ends so.
    fn ask(&self, outcome: Outcome) -> Option<Change> {
        self.end(self.admit().unwrap(), outcome)
    }
}

#[test]
fn seven_failures_in_a_row_take_it_out_and_successes_between_them_do_not_let_it_come_so_far() {
    let one = One::new(consecutive());
    for _ in 0..5 {
        assert!((0..6).all(|_| one.ask(FAILURE).is_none()));
        assert_eq!(one.ask(Outcome::Success), None);
    }
    assert!((0..6).all(|_| one.ask(FAILURE).is_none()));
    assert_eq!(one.ask(Outcome::Limited(None)), None, "429 is no failure in a row");
    assert!((0..6).all(|_| one.ask(FAILURE).is_none()));
    assert_eq!(one.ask(FAILURE), Some(Change::Ejected(SECOND)));
    assert_eq!(one.admit(), None);
}

#[test]
fn one_trial_at_a_time_decides_and_each_that_fails_doubles_the_time_out() {
    let mut one = One::new(Settings { max_failures: 1, ..consecutive() });
    assert_eq!(one.ask(FAILURE), Some(Change::Ejected(SECOND)));
    for expected in [2, 4, 8, 16, 32, 60, 60] {
        one.now = one.health.next() - Duration::from_nanos(1);
        assert_eq!(one.admit(), None, "a moment too early");
        one.now = one.health.next();
        let trial = one.trial();
        assert_eq!(one.admit(), None, "the second is not let through");
        assert_eq!(one.end(Admission::In, Outcome::Success), None, "what began before says nothing");
        assert_eq!(one.end(trial, FAILURE), Some(Change::Ejected(SECOND * expected)));
    }
    one.now = one.health.next();
    assert_eq!(one.ask(Outcome::Success), Some(Change::Reinstated));
    assert_eq!(one.admit(), Some(Admission::In));
    assert_eq!(one.ask(FAILURE), Some(Change::Ejected(SECOND)), "from the start");
}

#[test]
fn a_trial_that_nothing_is_heard_of_is_made_again() {
    let mut one = One::new(Settings { max_failures: 1, ..consecutive() });
    one.ask(FAILURE);
    one.now += SECOND;
    let left = one.trial();
    assert!(one.health.abandoned(one.now, left), "its client left");
    one.now += Duration::from_nanos(1);
    let slow = one.trial();
    assert!(!one.health.abandoned(one.now, left), "once");
    one.now += SECOND * 59;
    assert_eq!(one.admit(), None);
    one.now += SECOND;
    let other = one.trial();
    assert_eq!(one.end(slow, FAILURE), None, "too late to say so");
    assert_eq!(one.end(slow, Outcome::Success), Some(Change::Reinstated), "never too late to say this");
    assert_eq!(one.end(other, FAILURE), None, "it is in again");
    assert_eq!(one.end(other, Outcome::Success), None);
    assert!(!one.health.abandoned(one.now, other) && one.health.is_in());
}

#[test]
fn a_success_rate_below_the_threshold_takes_it_out_once_there_were_enough() {
    let one = One::new(unified());
    assert!((0..4).all(|_| one.ask(FAILURE).is_none()), "too few");
    assert_eq!(one.ask(FAILURE), Some(Change::Ejected(SECOND)));

    let mut one = One::new(unified());
    for at in 0..1000 {
        one.now += Duration::from_millis(10);
        let outcome = if at % 6 == 5 { FAILURE } else { Outcome::Success };
        assert_eq!(one.ask(outcome), None, "{at}: five of six is more than 0.8");
    }
    one.now += SECOND * 11;
    assert!((0..4).all(|_| one.ask(Outcome::Limited(None)).is_none()), "what was before the window does not count");
    assert_eq!(one.ask(Outcome::Limited(None)), Some(Change::Ejected(SECOND)), "429 counts");
    one.now += SECOND;
    assert_eq!(one.ask(Outcome::Limited(None)), Some(Change::Ejected(SECOND * 2)));
    one.now += SECOND * 2;
    assert_eq!(one.ask(Outcome::Success), Some(Change::Reinstated));
    assert_eq!(one.ask(FAILURE), None, "the window begins anew");
}

#[test]
fn retry_after_is_honoured_where_asked_for_up_to_the_greatest_time_out() {
    let asked = |seconds, honor_retry_after| {
        let one = One::new(Settings { max_failures: 1, honor_retry_after, ..consecutive() });
        one.ask(Outcome::Failure(Some(SECOND * seconds)))
    };
    assert_eq!(asked(30, true), Some(Change::Ejected(SECOND * 30)));
    assert_eq!(asked(30, false), Some(Change::Ejected(SECOND)));
    assert_eq!(asked(600, true), Some(Change::Ejected(SECOND * 60)));
    assert_eq!(asked(0, true), Some(Change::Ejected(SECOND)));
}

#[test]
fn jitter_makes_it_longer_by_its_part_at_most() {
    let settings = Settings { jitter_permille: 500, ..consecutive() };
    assert_eq!(settings.penalty(1, None, 0), SECOND * 2);
    assert_eq!(settings.penalty(1, None, u64::MAX), SECOND * 3);
    assert_eq!(settings.penalty(u32::MAX, None, u64::MAX), SECOND * 60, "never beyond the greatest");
}

fn service(count: u8) -> Vec<Arc<Endpoint>> {
    let built = (0..count).map(|last| endpoint(&format!("10.0.0.{last}:80"), "u"));
    built.map(|endpoint| Arc::new(Endpoint { health: Some(Arc::default()), ..endpoint })).collect()
}

/// Of ten endpoints three answer nothing but errors. What clients see of it, and what the three get, over a minute of virtual time.
#[test]
fn a_minute_with_three_of_ten_broken_in_virtual_time() {
    let (endpoints, breaker) = (service(10), Breaker::new(consecutive()));
    let mut random = fastrand::Rng::with_seed(7);
    let (mut failed, mut got) = (0, [0_u32; 10]);
    for millis in 0..60_000 {
        let now = Duration::from_millis(millis);
        let (at, admission) = Balancer::default()
            .pick_admitted(&choice(&endpoints, now, None), &breaker, || random.u64(..))
            .expect("seven are in");
        let outcome = if at < 3 { FAILURE } else { Outcome::Success };
        failed += u32::from(outcome == FAILURE);
        got[at] += 1;
        // Failing is quick, which makes an endpoint look good.
        endpoints[at].load.observe(now, Duration::from_millis(if at < 3 { 1 } else { 5 }));
        breaker.ended(endpoints[at].health.as_ref().unwrap(), now, admission, outcome, random.u64(..));
    }
    // 7 each until they are out, then a trial after 1, 2, 4, 8, 16 and 32 seconds.
    assert!(failed <= 3 * (7 + 6), "{failed} failed: {got:?}");
    assert!(got[..3].iter().all(|count| *count >= 7 + 4), "trials are made: {got:?}");
    assert!(got[3..].iter().all(|count| (5_000..12_000).contains(count)), "{got:?}");
    assert_eq!(breaker.ejections(), u64::from(failed - 3 * 6));
}

#[test]
fn with_all_out_nobody_is_picked_until_a_trial_is_due() {
    let (endpoints, breaker) = (service(3), Breaker::new(Settings { max_failures: 1, ..consecutive() }));
    let mut random = fastrand::Rng::with_seed(7);
    let mut pick = |now| Balancer::default().pick_admitted(&choice(&endpoints, now, None), &breaker, || random.u64(..));
    for round in 0..3 {
        let (at, admission) = pick(SECOND).unwrap();
        assert_eq!(admission, Admission::In, "{round}");
        breaker.ended(endpoints[at].health.as_ref().unwrap(), SECOND, admission, FAILURE, 0);
    }
    assert_eq!(pick(SECOND), None);
    let trials: Vec<_> = (0..5).filter_map(|_| pick(SECOND * 2)).collect();
    assert!(
        trials.len() == 3 && trials.iter().all(|(_, admission)| matches!(admission, Admission::Trial(_))),
        "{trials:?}"
    );
}

/// Seen to fail where the trial had to win by its load: that of a failure is forgotten after a minute.
#[test]
fn a_trial_that_is_due_is_made_however_bad_the_endpoint_looks() {
    let (endpoints, breaker) = (service(3), Breaker::new(Settings { max_failures: 1, ..consecutive() }));
    let mut random = fastrand::Rng::with_seed(7);
    let out = |at: usize, now| {
        endpoints[at].load.finish(now, Duration::from_secs(5));
        breaker.ended(endpoints[at].health.as_ref().unwrap(), now, Admission::In, FAILURE, 0);
    };
    out(1, SECOND);
    out(2, SECOND * 2);
    // The second one's second is over, the third one's is not.
    let now = SECOND * 2 + SECOND / 2;
    let mut pick =
        || Balancer::default().pick_admitted(&choice(&endpoints, now, None), &breaker, || random.u64(..)).unwrap();
    let first = (0..10).map(|_| pick()).find(|(_at, admission)| *admission != Admission::In);
    assert!(matches!(first, Some((1, Admission::Trial(_)))), "{first:?}");
    assert!((0..100).all(|_| pick() == (0, Admission::In)), "one trial");
}

#[test]
fn in_a_panic_all_are_as_good_as_in() {
    let settings = Settings { max_failures: 1, panic_permille: 500, ..consecutive() };
    let (endpoints, breaker) = (service(4), Breaker::new(settings));
    let out = |at: usize| {
        breaker.ended(endpoints[at].health.as_ref().unwrap(), SECOND, Admission::In, FAILURE, 0);
    };
    let picked = || {
        let mut random = fastrand::Rng::with_seed(7);
        let mut hits = [0_u32; 4];
        for _ in 0..1000 {
            hits[Balancer::default()
                .pick_admitted(&choice(&endpoints, SECOND, None), &breaker, || random.u64(..))
                .unwrap()
                .0] += 1;
        }
        hits
    };
    out(0);
    out(1);
    let hits = picked();
    assert_eq!((hits[0], hits[1]), (0, 0), "half of them is enough: {hits:?}");
    out(2);
    assert!(picked().iter().all(|count| *count > 0), "a quarter is not: {:?}", picked());
}

#[test]
fn what_failed_just_now_is_taken_only_when_nothing_else_is_in() {
    let (endpoints, breaker) = (service(2), Breaker::new(Settings { max_failures: 1, ..consecutive() }));
    let mut random = fastrand::Rng::with_seed(7);
    let mut pick = |now| {
        Balancer::default()
            .pick_admitted(&choice(&endpoints, now, Some(&endpoints[0])), &breaker, || random.u64(..))
            .unwrap()
            .0
    };
    assert!((0..100).all(|_| pick(SECOND) == 1));
    breaker.ended(endpoints[1].health.as_ref().unwrap(), SECOND, Admission::In, FAILURE, 0);
    assert_eq!(pick(SECOND), 0);
}

#[test]
fn what_control_says_wrongly_is_refused_by_field() {
    let given =
        v1::CircuitBreaker { max_failures: 7, min_penalty_ms: 1000, max_penalty_ms: 60_000, ..Default::default() };
    assert_eq!(Settings::of_api(Some(&given)), Ok(Some(consecutive())));
    assert_eq!(Settings::of_api(Some(&v1::CircuitBreaker { max_failures: 0, ..given })), Ok(None), "never takes out");
    for (wrong, field) in [
        (v1::CircuitBreaker { min_penalty_ms: 0, ..given }, "breaker.min_penalty_ms"),
        (v1::CircuitBreaker { min_penalty_ms: 61_000, ..given }, "breaker.min_penalty_ms"),
        (v1::CircuitBreaker { max_penalty_ms: u64::MAX, ..given }, "breaker.max_penalty_ms"),
    ] {
        assert!(Settings::of_api(Some(&wrong)).unwrap_err().starts_with(field), "{wrong:?}");
    }
}

/// What is for anything but HTTP goes to endpoints that are in as long as there are any, and never in vain.
#[test]
fn opaque_connections_avoid_what_is_out() {
    let (endpoints, breaker) = (service(3), Breaker::new(Settings { max_failures: 1, ..consecutive() }));
    let mut random = fastrand::Rng::with_seed(7);
    let mut pick = || Balancer::default().pick_in(&choice(&endpoints, SECOND * 3600, None), || random.u64(..)).unwrap();
    for (out, endpoint) in endpoints.iter().enumerate().take(2) {
        breaker.ended(endpoint.health.as_ref().unwrap(), SECOND, Admission::In, FAILURE, 0);
        assert!((0..100).all(|_| pick() > out));
    }
    breaker.ended(endpoints[2].health.as_ref().unwrap(), SECOND, Admission::In, FAILURE, 0);
    pick();
}
