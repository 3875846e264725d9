//! A service in virtual time: requests come, wait and end as a seeded generator says, endpoints come and go as control says. No clock, no sleep.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use weir_api::v1::{self, ResourceKind, resource::Body};

use super::*;
use crate::{
    breaker::{Change, Outcome},
    snapshot::{
        Destination, ServiceTarget, Snapshot, apply,
        tests::{resource, slice, web},
    },
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MS: Duration = Duration::from_millis(1);

/// What one server does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) latency: Duration,
    /// Of a thousand requests.
    pub(super) failing: u32,
    pub(super) ready: bool,
}

pub(super) const GOOD: Server = Server { latency: Duration::from_millis(10), failing: 0, ready: true };

/// A request that was sent.
pub(super) struct Sent {
    pub(super) to: Arc<Endpoint>,
    pub(super) admission: Admission,
    pub(super) began: Duration,
    pub(super) outcome: Outcome,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) now: Duration,
    pub(super) servers: BTreeMap<u8, Server>,
    snapshot: Snapshot,
    destination: Option<Arc<Destination>>,
    /// By when they end, and their number.
    ends: BinaryHeap<Reverse<(Duration, usize)>>,
    sent: BTreeMap<usize, Sent>,
    count: usize,
    /// What breakers did, and when.
    pub(super) changes: Vec<(Duration, String, Change)>,
}

const OWN_ZONE: &str = "near";

/// Servers with even numbers are in the node's own zone.
pub(super) fn is_near(id: u8) -> bool {
    id.is_multiple_of(2)
}

pub(super) fn balancer(kind: v1::BalancerKind) -> v1::Balancer {
    let source = v1::hash_key::Key::Source(v1::ClientAddress {});
    let hash = (kind == v1::BalancerKind::ConsistentHash).then_some(v1::HashKey { key: Some(source) });
    v1::Balancer { kind: kind.into(), hash, ..v1::Balancer::default() }
}

impl World {
    pub(super) fn new(seed: u64, balancer: v1::Balancer, breaker: Option<v1::CircuitBreaker>) -> World {
        let service = v1::ServiceTarget {
            namespace: "shop".into(),
            name: "web".into(),
            port: 80,
            port_name: "http".into(),
            endpoints: vec!["s".into()],
            balancer: Some(balancer),
            breaker,
            ..Default::default()
        };
        let target = Some(v1::destination::Target::Service(service));
        let body = Body::Destination(v1::Destination { target });
        let mut world = World {
            random: fastrand::Rng::with_seed(seed),
            now: SECOND * 1000,
            servers: BTreeMap::new(),
            snapshot: Snapshot::default(),
            destination: None,
            ends: BinaryHeap::new(),
            sent: BTreeMap::new(),
            count: 0,
            changes: Vec::new(),
        };
        world.told(resource(ResourceKind::Destination, "10.96.0.1:80", body));
        let pod = v1::PodRef { zone: OWN_ZONE.into(), ..v1::PodRef::default() };
        let workload = Body::Workload(v1::Workload {
            uid: "client".into(),
            addresses: vec!["10.2.0.1".into()],
            identity: "web.shop.serviceaccount.identity.linkerd.cluster.local".into(),
            default_policy: v1::DefaultPolicy::AllUnauthenticated.into(),
            pod: Some(pod),
            ..v1::Workload::default()
        });
        world.told(resource(ResourceKind::Workload, "client", workload));
        world
    }

    fn told(&mut self, news: v1::Resource) {
        let applied = apply(&self.snapshot, self.now, vec![news], Vec::new());
        assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
        self.snapshot = applied.snapshot;
        self.destination = Some(web(&self.snapshot));
    }

    /// Control says which servers there are now.
    pub(super) fn tell(&mut self) {
        let all: Vec<(String, String, bool)> =
            self.servers.iter().map(|(id, server)| (format!("10.1.0.{id}"), format!("u{id}"), server.ready)).collect();
        let all: Vec<(&str, &str, bool)> = all.iter().map(|(ip, uid, ready)| (&**ip, &**uid, *ready)).collect();
        let mut slice = slice("s", &all);
        if let Some(Body::Endpoints(told)) = &mut slice.body {
            for (endpoint, id) in told.endpoints.iter_mut().zip(self.servers.keys()) {
                let zone = if is_near(*id) { OWN_ZONE } else { "far" };
                endpoint.pod = Some(v1::PodRef { zone: zone.into(), ..v1::PodRef::default() });
            }
        }
        self.told(slice);
    }

    pub(super) fn with(mut self, servers: impl IntoIterator<Item = (u8, Server)>) -> World {
        self.servers = servers.into_iter().collect();
        self.tell();
        self
    }

    pub(super) fn destination(&self) -> Arc<Destination> {
        Arc::clone(self.destination.as_ref().unwrap())
    }

    pub(super) fn server(&self, endpoint: &Endpoint) -> Server {
        let id = endpoint.uid[1..].parse().unwrap();
        // Who is gone still answers what it was asked.
        self.servers.get(&id).copied().unwrap_or(GOOD)
    }

    /// As the proxy chooses.
    pub(super) fn pick(&mut self, key: u64, exclude: Option<&Endpoint>) -> Option<(Arc<Endpoint>, Admission)> {
        let destination = self.destination();
        let service: &ServiceTarget = destination.service().unwrap();
        let key = service.balancer.key_of_connection([0, 0, 0, 0].into()).map(|_hashed| Key::numbered(key));
        let choice = Choice { ready: service.ready_endpoints(), now: self.now, key, exclude };
        let random = || self.random.u64(..);
        let (index, admission) = match &service.breaker {
            None => (service.balancer.pick(&choice, random)?, Admission::In),
            Some(breaker) => service.balancer.pick_admitted(&choice, breaker, random)?,
        };
        Some((Arc::clone(&service.ready_endpoints()[index]), admission))
    }

    /// A request is on its way: it ends when its server says.
    pub(super) fn send(&mut self, to: Arc<Endpoint>, admission: Admission) {
        let server = self.server(&to);
        to.load.start(self.now);
        let outcome = if self.random.u32(..1000) < server.failing { Outcome::Failure(None) } else { Outcome::Success };
        let took = server.latency.mul_f64(0.5 + self.random.f64());
        self.ends.push(Reverse((self.now + took, self.count)));
        self.sent.insert(self.count, Sent { to, admission, began: self.now, outcome });
        self.count += 1;
    }

    /// Time passes, and with it requests end. `ended` sees each.
    pub(super) fn pass(&mut self, until: Duration, mut ended: impl FnMut(&Sent)) {
        while let Some(Reverse((at, number))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.ends.pop();
            let sent = self.sent.remove(&number).unwrap();
            self.now = at;
            sent.to.load.finish(at, at - sent.began);
            let destination = self.destination();
            let breaker = destination.service().and_then(|service| service.breaker.as_ref());
            if let (Some(breaker), Some(health)) = (breaker, &sent.to.health) {
                let change = breaker.ended(health, at, sent.admission, sent.outcome, self.random.u64(..));
                self.changes.extend(change.map(|change| (at, sent.to.uid.to_string(), change)));
            }
            ended(&sent);
        }
        self.now = until;
    }

    /// Requests come for so long, on average one each `every`. Who got how many.
    pub(super) fn run(&mut self, time: Duration, every: Duration) -> BTreeMap<String, u32> {
        let end = self.now + time;
        let mut got = BTreeMap::new();
        loop {
            // The times between them are exponential: they know nothing of each other.
            let pause = every.mul_f64(-(1.0 - self.random.f64()).ln());
            if self.now + pause >= end {
                self.pass(end, |_sent| {});
                return got;
            }
            self.pass(self.now + pause, |_sent| {});
            let key = self.random.u64(..);
            if let Some((to, admission)) = self.pick(key, None) {
                *got.entry(to.uid.to_string()).or_default() += 1;
                self.send(to, admission);
            }
        }
    }
}
