//! Thousands of random scenarios in virtual time, and what must hold in each of them after each choice.

use std::collections::HashMap;

use weir_api::v1;

use super::{
    world::{MS, SECOND, Sent, Server, World, balancer},
    *,
};
use crate::snapshot::ServiceTarget;

const SCENARIOS: u64 = 3000;
const STEPS: usize = 200;
/// So long after it began, a trial is made again that nothing was heard of.
const MAX_PENALTY: Duration = Duration::from_secs(4);

/// What is known before a choice is made.
struct Before {
    /// Each ready endpoint: in, and from when on it may be tried.
    healths: HashMap<Arc<str>, (bool, Duration)>,
    is_panic: bool,
}

impl Before {
    fn of(service: &ServiceTarget, now: Duration) -> Before {
        let ready = service.ready_endpoints();
        let health = |endpoint: &Arc<Endpoint>| {
            endpoint.health.as_ref().map_or((true, Duration::ZERO), |health| (health.is_in(), health.next()))
        };
        let healths = ready.iter().map(|endpoint| (Arc::clone(&endpoint.uid), health(endpoint))).collect();
        let is_panic = service.breaker.as_ref().is_some_and(|breaker| breaker.panics(ready, now));
        Before { healths, is_panic }
    }

    fn is_available(&self, uid: &str, now: Duration) -> bool {
        self.healths.get(uid).is_some_and(|(is_in, next)| *is_in || *next <= now)
    }
}

/// Trials that have not ended, by endpoint: when they began.
type Trials = HashMap<Arc<str>, Duration>;

fn over(trials: &mut Trials) -> impl FnMut(&Sent) {
    |sent: &Sent| {
        let is_its_end = matches!(sent.admission, Admission::Trial(_)) && trials.get(&sent.to.uid) == Some(&sent.began);
        // One that came so late that there was another one: that one says nothing any more.
        let is_in = sent.to.health.as_ref().is_none_or(|health| health.is_in());
        if is_its_end || is_in {
            trials.remove(&sent.to.uid);
        }
    }
}

struct Scenario {
    world: World,
    trials: Trials,
    seed: u64,
    next: u8,
}

impl Scenario {
    fn new(seed: u64) -> Scenario {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = v1::BalancerKind::try_from(random.i32(1..=5)).unwrap();
        let slow_start_ms = if random.bool() { 3000 } else { 0 };
        let breaker = v1::CircuitBreaker {
            max_failures: random.u32(1..4),
            min_penalty_ms: random.u64(1..2000),
            max_penalty_ms: MAX_PENALTY.as_millis() as u64,
            jitter_permille: random.u32(0..1000),
            panic_permille: if random.bool() { random.u32(..1000) } else { 0 },
            ..Default::default()
        };
        let breaker = (random.u8(..4) > 0).then_some(breaker);
        let most = if random.u8(..10) == 0 { 60 } else { 6 };
        let count = random.u8(0..most);
        let servers: Vec<_> = (0..count).map(|id| (id, server(&mut random))).collect();
        let zone_overflow = if random.bool() { random.u32(1..4) } else { 0 };
        let asked = v1::Balancer { slow_start_ms, zone_overflow, ..balancer(kind) };
        let world = World::new(seed, asked, breaker).with(servers);
        Scenario { world, trials: Trials::new(), seed, next: 100 }
    }

    fn step(&mut self) {
        match self.world.random.u8(..10) {
            0 => self.change(),
            1..4 => {
                let until = self.world.now + MS * self.world.random.u32(..1500);
                self.world.pass(until, over(&mut self.trials));
            }
            _request => {
                let failed = self.request(None);
                if let Some(failed) = failed.filter(|_| self.world.random.u8(..4) == 0) {
                    self.request(Some(&failed));
                }
            }
        }
    }

    /// Endpoints come, go, break and recover.
    fn change(&mut self) {
        let random = &mut self.world.random;
        let ids: Vec<u8> = self.world.servers.keys().copied().collect();
        let held = ids.get(random.usize(..8));
        match held {
            Some(id) if random.u8(..3) == 0 => {
                self.world.servers.remove(id);
            }
            Some(id) => {
                self.world.servers.insert(*id, server(random));
            }
            // Another one: who comes back is a new pod.
            None => {
                self.next += 1;
                self.world.servers.insert(self.next, server(random));
            }
        }
        self.world.tell();
    }

    fn request(&mut self, exclude: Option<&Endpoint>) -> Option<Arc<Endpoint>> {
        let destination = self.world.destination();
        let service = destination.service().unwrap();
        let now = self.world.now;
        let before = Before::of(service, now);
        let key = self.world.random.u64(..4);
        let picked = self.world.pick(key, exclude);
        let (seed, kind) = (self.seed, &service.balancer.settings().kind);
        let Some((to, admission)) = picked else {
            let is_any = before.healths.keys().any(|uid| before.is_available(uid, now));
            assert!(!is_any, "{seed} {kind:?}: nobody");
            assert!(!before.is_panic || before.healths.is_empty(), "{seed} {kind:?}: nobody in a panic");
            return None;
        };
        assert!(to.ready && before.healths.contains_key(&to.uid), "{seed} {kind:?}: not ready");
        assert_eq!(self.world.server(&to).ready, to.ready, "{seed}: as control said last");
        if exclude.is_some_and(|failed| std::ptr::eq(failed, &raw const *to)) {
            let other = before.healths.keys().find(|uid| **uid != to.uid && before.is_available(uid, now));
            assert!(
                other.is_none() || before.is_panic && service.ready_endpoints().len() == 1,
                "{seed} {kind:?}: {other:?}"
            );
        }
        let (was_in, next) = before.healths[&to.uid];
        match admission {
            Admission::In => assert!(was_in || before.is_panic, "{seed} {kind:?}: an ejected one"),
            Admission::Trial(_) => {
                assert!(!was_in && next <= now, "{seed} {kind:?}: a trial that is not due");
                let other = self.trials.insert(Arc::clone(&to.uid), now);
                assert!(other.is_none_or(|began| now - began >= MAX_PENALTY), "{seed} {kind:?}: a second trial");
            }
        }
        self.opaque(service);
        // Now and then a client leaves, and its trial says nothing.
        if let Some(health) = to.health.as_ref().filter(|_| self.world.random.u8(..8) == 0)
            && health.abandoned(now, admission)
        {
            self.trials.remove(&to.uid);
        } else {
            self.world.send(Arc::clone(&to), admission);
        }
        Some(to)
    }

    /// What is not HTTP, at the same moment.
    fn opaque(&mut self, service: &ServiceTarget) {
        let (ready, now) = (service.ready_endpoints(), self.world.now);
        let choice = Choice { ready, now, key: Some(Key::numbered(self.seed)), exclude: None };
        let index = service.balancer.pick_in(&choice, || self.world.random.u64(..)).unwrap();
        let is_in = |endpoint: &Arc<Endpoint>| endpoint.health.as_ref().is_none_or(|health| health.is_in());
        assert!(is_in(&ready[index]) || !ready.iter().any(is_in), "{}: what is not HTTP to one that is out", self.seed);
    }
}

fn server(random: &mut fastrand::Rng) -> Server {
    let latency = MS * [1, 10, 300, 5000][random.usize(..4)];
    Server { latency, failing: [0, 0, 300, 1000][random.usize(..4)], ready: random.u8(..5) > 0 }
}

/// Seen to fail with a breaker that admits whoever asks, with a trial that does not move the next one on, and with a round robin that takes
/// its turn whoever is out.
#[test]
fn nobody_is_chosen_who_must_not_be() {
    let (mut requests, mut trials) = (0, 0);
    for seed in 0..SCENARIOS {
        let mut scenario = Scenario::new(seed);
        for _ in 0..STEPS {
            scenario.step();
            trials += usize::from(!scenario.trials.is_empty());
        }
        let until = scenario.world.now + SECOND * 60;
        scenario.world.pass(until, over(&mut scenario.trials));
        requests += scenario.world.changes.len();
        let destination = scenario.world.destination();
        let pending: u32 = destination.service().unwrap().endpoints.iter().map(|one| one.load.pending()).sum();
        assert_eq!(pending, 0, "{seed}: all have ended");
    }
    assert!(requests > 10_000 && trials > 10_000, "{requests} changes, {trials} moments with a trial under way");
}
