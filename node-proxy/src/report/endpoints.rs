//! What this node's balancers and breakers know of endpoints. Must never leave out one that is out while it reports one that is not.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use weir_api::v1;
use weir_core::{
    breaker::{Health, Standing, State},
    load::Load,
    snapshot::{Endpoint, PodRef, ServiceTarget, Snapshot},
};

use crate::limits;

/// A port of a Service, and an endpoint of it by address and uid.
type Key<'a> = (&'a str, &'a str, u16, SocketAddr, &'a str);

/// One endpoint of one Service. Several may judge it: a Service is known by each of its addresses, and again as a backend of others.
struct Seen<'a> {
    service: &'a ServiceTarget,
    endpoint: &'a Endpoint,
    healths: Vec<&'a Arc<Health>>,
    loads: Vec<&'a Arc<Load>>,
}

impl<'a> Seen<'a> {
    fn new(service: &'a ServiceTarget, endpoint: &'a Endpoint) -> Seen<'a> {
        Seen { service, endpoint, healths: Vec::new(), loads: Vec::new() }
    }

    /// One that is its own backend is judged once.
    fn add(&mut self, endpoint: &'a Endpoint) {
        if let Some(health) = &endpoint.health
            && !self.healths.iter().any(|known| Arc::ptr_eq(known, health))
        {
            self.healths.push(health);
        }
        if !self.loads.iter().any(|known| Arc::ptr_eq(known, &endpoint.load)) {
            self.loads.push(&endpoint.load);
        }
    }

    /// The worst of all, with the times that any took it out.
    fn standing(&self, now: Duration) -> Option<Standing> {
        let all: Vec<Standing> = self.healths.iter().map(|health| health.standing(now)).collect();
        let ejections = all.iter().fold(0_u32, |sum, one| sum.saturating_add(one.ejections));
        all.into_iter().min_by_key(|one| one.state).map(|worst| Standing { ejections, ..worst })
    }
}

/// Endpoints of the Services in use that are asked about, and how many had no room.
pub(super) fn reports(
    snapshot: &Snapshot,
    asked: &v1::EndpointsQuery,
    now: Duration,
) -> (Vec<v1::EndpointReport>, u64) {
    let mut all: Vec<(Option<Standing>, Seen<'_>)> =
        seen(snapshot, asked).into_values().map(|one| (one.standing(now), one)).collect();
    all.sort_by_cached_key(|(standing, one)| {
        let is_in = standing.is_none_or(|standing| standing.state == State::In);
        let service = one.service;
        (is_in, Arc::clone(&service.namespace), Arc::clone(&service.name), service.port, one.endpoint.address)
    });
    let left_out = all.len().saturating_sub(limits::ENDPOINTS_REPORTED);
    all.truncate(limits::ENDPOINTS_REPORTED);
    (all.iter().map(|(standing, one)| report(one, *standing, now)).collect(), left_out as u64)
}

fn seen<'a>(snapshot: &'a Snapshot, asked: &v1::EndpointsQuery) -> HashMap<Key<'a>, Seen<'a>> {
    let names: HashSet<&str> = asked.services.iter().map(String::as_str).collect();
    let is_asked = |service: &&ServiceTarget| {
        (asked.namespace.is_empty() || *asked.namespace == *service.namespace)
            && (names.is_empty() || names.contains(&*service.name))
    };
    let mut all: HashMap<Key<'a>, Seen<'a>> = HashMap::new();
    for service in services(snapshot).filter(is_asked) {
        for endpoint in &service.endpoints {
            let key = (&*service.namespace, &*service.name, service.port, endpoint.address, &*endpoint.uid);
            all.entry(key).or_insert_with(|| Seen::new(service, endpoint)).add(endpoint);
        }
    }
    all
}

/// Those that are dialled, and those that their routes lead to.
fn services(snapshot: &Snapshot) -> impl Iterator<Item = &ServiceTarget> {
    let dialled = snapshot.destinations().filter_map(|destination| destination.service());
    dialled.flat_map(|one| std::iter::once(one).chain(one.distinct_backends()))
}

/// Endpoints that breakers have taken out; of too many the first by name.
pub(super) fn out(snapshot: &Snapshot) -> v1::OutEndpoints {
    let judged = services(snapshot).filter(|service| service.breaker.is_some());
    let is_out = |endpoint: &&Arc<Endpoint>| endpoint.health.as_ref().is_some_and(|health| !health.is_in());
    let out = judged.flat_map(|service| service.endpoints.iter().filter(is_out).map(move |one| (service, one)));
    let all: BTreeSet<_> =
        out.map(|(service, one)| (&service.namespace, &service.name, service.port, &one.uid)).collect();
    let told = all.into_iter().take(limits::OUT_ENDPOINTS).map(|(namespace, name, port, uid)| v1::OutEndpoint {
        service: format!("{namespace}/{name}"),
        port: u32::from(port),
        uid: uid.to_string(),
    });
    v1::OutEndpoints { endpoints: told.collect() }
}

fn report(seen: &Seen<'_>, standing: Option<Standing>, now: Duration) -> v1::EndpointReport {
    let Seen { service, endpoint, loads, .. } = seen;
    let state = match standing.map(|standing| standing.state) {
        None => v1::EndpointState::Unspecified,
        Some(State::In) => v1::EndpointState::In,
        Some(State::Out) => v1::EndpointState::Out,
        Some(State::Trial) => v1::EndpointState::Trial,
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    v1::EndpointReport {
        service: format!("{}/{}", service.namespace, service.name),
        port: u32::from(service.port),
        address: endpoint.address.to_string(),
        pod: Some(pod(&endpoint.pod)),
        ready: endpoint.ready,
        identity: endpoint.identity.as_ref().map(|identity| identity.as_str().to_owned()).unwrap_or_default(),
        latency_ms: loads.iter().map(|load| load.latency_ms(now)).fold(0.0, f64::max),
        pending: loads.iter().map(|load| u64::from(load.pending())).sum(),
        state: state.into(),
        lasted_ms: standing.and_then(|standing| standing.lasted).map(millis),
        next_trial_ms: standing.and_then(|standing| standing.next_trial).map(millis),
        ejections: standing.map_or(0, |standing| u64::from(standing.ejections)),
    }
}

/// What says which one it is, and no more: there may be many.
fn pod(pod: &PodRef) -> v1::PodRef {
    v1::PodRef {
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        node_name: pod.node_name.to_string(),
        ..v1::PodRef::default()
    }
}

#[cfg(test)]
mod tests;
