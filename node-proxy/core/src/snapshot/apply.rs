//! Applies an update of control's to a snapshot. Must never rebuild what the update does not concern.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weir_api::v1::{self, resource::Body};

use super::{
    Destination, Endpoint, Map, ServiceTarget, Snapshot, Target, Versioned, Workload,
    convert::{self, Reason},
    numbered::Numbered,
    reach::Reach,
    same::is_same,
    servers,
};
use crate::{
    balance::{self, Balancer},
    breaker::{self, Breaker},
    limits,
    load::{Load, LoadBias},
    protocol::Protocol,
    retry::{Budget, BudgetSettings, Retry},
    route::{self, Routes},
    timeouts::Timeouts,
};

/// An update's outcome.
#[derive(Debug)]
pub struct Applied {
    /// The next snapshot.
    pub snapshot: Snapshot,
    /// Resources that were not taken, with the field and the reason; their last good version stays, but for Servers.
    pub rejected: Vec<v1::Rejection>,
}

/// The snapshot after an update at `now`, on the clock of loads and breakers. `previous` is not touched; unchanged parts are shared with it.
pub fn apply(
    previous: &Snapshot,
    now: Duration,
    upserts: Vec<v1::Resource>,
    removals: Vec<v1::ResourceKey>,
) -> Applied {
    let mut next = previous.clone();
    let mut rejected = Vec::new();
    let mut slices = HashSet::new();
    let mut stale = HashSet::new();
    let mut workloads = false;
    for key in removals {
        workloads |= key.kind() == v1::ResourceKind::Workload;
        next.remove(&key);
        if key.kind() == v1::ResourceKind::Endpoints {
            slices.insert(key.name);
        }
    }
    for resource in upserts {
        let Some(key) = resource.key.clone() else {
            rejected.push(v1::Rejection { key: None, reason: "key: missing".into() });
            continue;
        };
        workloads |= key.kind() == v1::ResourceKind::Workload;
        if let Err(reason) = upsert(&mut next, &key, resource, &mut slices, &mut stale) {
            // What it would have closed must not stay open: until a good one comes, nobody may.
            if key.kind() == v1::ResourceKind::InboundServer {
                next.remove(&key);
            }
            rejected.push(v1::Rejection { key: Some(key), reason });
        }
    }
    if workloads {
        next.by_address = by_address(&next, previous);
        // All of a node are in one zone; Kubernetes may not say it of each.
        let zones = next.workloads().map(|workload| &workload.pod.zone).filter(|zone| !zone.is_empty());
        next.zone = zones.min().map(Arc::clone).unwrap_or_default();
        if next.zone != previous.zone {
            stale.extend(next.destination_resources.keys().copied());
        }
    }
    let affected: Vec<SocketAddr> = next
        .destination_resources
        .iter()
        .filter(|(address, entry)| stale.contains(*address) || refers_to(&entry.value, &slices))
        .map(|(address, _)| *address)
        .collect();
    for address in affected {
        rebuild(&mut next, previous, now, address, &mut rejected);
    }
    Applied { snapshot: next, rejected }
}

fn upsert(
    next: &mut Snapshot,
    key: &v1::ResourceKey,
    resource: v1::Resource,
    slices: &mut HashSet<String>,
    stale: &mut HashSet<SocketAddr>,
) -> Result<(), Reason> {
    let held = next.held();
    // A full node still takes news of what it holds.
    if held >= limits::RESOURCES && !next.holds(key) {
        return Err(format!("this node holds {held} resources and takes no more"));
    }
    let version = resource.version;
    match (key.kind(), resource.body) {
        (v1::ResourceKind::Workload, Some(Body::Workload(workload))) => {
            let value = Arc::new(convert::workload(&key.name, &workload)?);
            next.workloads.insert(Arc::clone(&value.uid), Versioned { version, value });
        }
        (v1::ResourceKind::Destination, Some(Body::Destination(destination))) => {
            let address = key.name.parse().map_err(|error| format!("name {:?}: {error}", key.name))?;
            // Converted once for its errors: a bad one must not replace a good one.
            build(next, &Held::default(), None, address, &destination)?;
            next.destination_resources.insert(address, Versioned { version, value: Arc::new(destination) });
            stale.insert(address);
        }
        (v1::ResourceKind::Endpoints, Some(Body::Endpoints(endpoints))) => {
            check_slice(&endpoints)?;
            next.slices.insert(key.name.clone(), Versioned { version, value: Arc::new(endpoints) });
            slices.insert(key.name.clone());
        }
        (v1::ResourceKind::TrustBundle, Some(Body::TrustBundle(bundle))) => {
            if bundle.anchors.is_empty() || bundle.anchors.len() > limits::ANCHORS {
                return Err(format!("anchors: {} of them, 1 to {} are taken", bundle.anchors.len(), limits::ANCHORS));
            }
            if let Some(index) = bundle.anchors.iter().position(Vec::is_empty) {
                return Err(format!("anchors[{index}]: empty"));
            }
            next.trust.insert(key.name.clone(), Versioned { version, value: Arc::new(bundle) });
        }
        (v1::ResourceKind::InboundServer, Some(Body::InboundServer(server))) => {
            let value = Arc::new(servers::server(&key.name, &server)?);
            next.servers.insert(Arc::from(key.name.as_str()), Versioned { version, value });
        }
        (v1::ResourceKind::PlainPod, Some(Body::PlainPod(_))) if !key.name.is_empty() => {
            next.plain_pods.insert(Arc::from(key.name.as_str()), version);
        }
        (v1::ResourceKind::MeshedNamespace, Some(Body::MeshedNamespace(_))) if !key.name.is_empty() => {
            next.meshed_namespaces.insert(Arc::from(key.name.as_str()), version);
        }
        (kind, body) => {
            return Err(format!("body: {} under kind {kind:?}", if body.is_some() { "another kind" } else { "none" }));
        }
    }
    Ok(())
}

/// Addresses are used again: a pod that is on its way out must not take the traffic of the one that came after it.
/// Versions are hashes and know no order: who is new has the address, then who had it; the rest only makes it certain.
fn by_address(next: &Snapshot, previous: &Snapshot) -> Map<IpAddr, Arc<Workload>> {
    let rank = |address: &IpAddr, uid: &Arc<str>| {
        let had_it = previous.by_address.get(address).is_some_and(|holder| holder.uid == *uid);
        let version = next.workloads.get(uid).map(|entry| entry.version);
        (!previous.workloads.contains_key(uid), had_it, version)
    };
    let mut holders: Map<IpAddr, Arc<Workload>> = Map::default();
    for workload in next.workloads() {
        for address in &workload.addresses {
            let challenged = holders.get(address).map(|holder| (rank(address, &holder.uid), &holder.uid));
            if challenged.is_none_or(|holder| holder < (rank(address, &workload.uid), &workload.uid)) {
                holders.insert(*address, Arc::clone(workload));
            }
        }
    }
    holders
}

fn refers_to(destination: &v1::Destination, slices: &HashSet<String>) -> bool {
    match &destination.target {
        Some(v1::destination::Target::Service(service)) => {
            let backends = route::services(&service.http_routes).flat_map(|backend| &backend.endpoints);
            service.endpoints.iter().chain(backends).any(|name| slices.contains(name))
        }
        _ => false,
    }
}

fn rebuild(
    next: &mut Snapshot,
    previous: &Snapshot,
    now: Duration,
    address: SocketAddr,
    rejected: &mut Vec<v1::Rejection>,
) {
    let Some(resource) = next.destination_resources.get(&address).map(|entry| Arc::clone(&entry.value)) else {
        return;
    };
    let before = previous.destinations.get(&address);
    // Routes are compiled anew when they changed, not whenever an endpoint does.
    let same = previous.destination_resources.get(&address).is_some_and(|held| Arc::ptr_eq(&held.value, &resource));
    let routes = before.filter(|_| same).and_then(|before| before.service()?.routes.clone());
    match build(next, &Held::of(before.map(AsRef::as_ref), now), routes, address, &resource) {
        Ok(built) => {
            let unchanged = before.filter(|before| is_same(before, &built));
            let destination = unchanged.map_or_else(|| Arc::new(built), Arc::clone);
            next.destinations.insert(address, destination);
        }
        Err(reason) => {
            let key = v1::ResourceKey { kind: v1::ResourceKind::Destination.into(), name: address.to_string() };
            rejected.push(v1::Rejection { key: Some(key), reason });
        }
    }
}

/// What a destination had, its own and that of backends: what is known of loads and budgets stays.
#[derive(Default)]
struct Held<'a> {
    now: Duration,
    /// Of a pod's address.
    pod: Option<&'a Arc<Endpoint>>,
    /// Two services may have the same endpoint: one load, whoever sends requests there.
    endpoints: Map<(SocketAddr, Arc<str>), &'a Arc<Endpoint>>,
    services: Vec<&'a ServiceTarget>,
}

impl<'a> Held<'a> {
    fn of(before: Option<&'a Destination>, now: Duration) -> Held<'a> {
        let before = match before.map(|before| &before.target) {
            Some(Target::Service(service)) => service,
            Some(Target::Pod(pod)) => return Held { now, pod: Some(pod), ..Held::default() },
            Some(Target::Unknown) | None => return Held { now, ..Held::default() },
        };
        let services: Vec<_> = std::iter::once(&**before).chain(before.distinct_backends()).collect();
        let endpoints = services.iter().flat_map(|service| &service.endpoints);
        let endpoints = endpoints.map(|held| ((held.address, Arc::clone(&held.uid)), held)).collect();
        Held { now, pod: None, endpoints, services }
    }

    /// An endpoint of `service`, with what is known of it. Each service's own breaker judges it.
    fn keep(&self, service: Option<&ServiceTarget>, reach: Reach, mut built: Endpoint) -> Arc<Endpoint> {
        let any = self.endpoints.get(&(built.address, Arc::clone(&built.uid))).copied();
        // Where no breaker judges, one is as good as another.
        let own = match &built.health {
            None => any,
            Some(_) => service.and_then(|service| service.endpoint(built.address, &built.uid)),
        };
        built.ready_since = match any {
            _ if !built.ready => None,
            Some(any) if any.ready => any.ready_since,
            // Who is in a service that this node has not known may have been for long, and so may those of other nodes be.
            _new => service.filter(|known| known.reach == reach).map(|_known| self.now),
        };
        let load = any.map(|any| Arc::clone(&any.load));
        keep(Endpoint { load: load.unwrap_or_else(|| Arc::clone(&built.load)), ..built }, own)
    }

    fn service(&self, service: &v1::ServiceTarget) -> Option<&'a ServiceTarget> {
        let is_it = |held: &&&ServiceTarget| {
            (&*held.namespace, &*held.name, u32::from(held.port)) == (&*service.namespace, &*service.name, service.port)
        };
        self.services.iter().find(is_it).copied()
    }

    fn retry_budget(&self, service: &v1::ServiceTarget, settings: BudgetSettings) -> Arc<Budget> {
        let held = self.service(service).map(|held| &held.retry_budget);
        let same = held.filter(|budget| budget.settings() == settings);
        same.map_or_else(|| Arc::new(Budget::new(settings)), Arc::clone)
    }

    /// One for each namespace of clients that have routes of their own.
    fn client_budgets(&self, service: &v1::ServiceTarget, settings: BudgetSettings) -> Vec<(Arc<str>, Arc<Budget>)> {
        let own =
            service.http_routes.iter().filter(|route| route.is_consumer).filter_map(|route| route.object.as_ref());
        let namespaces: BTreeSet<&str> = own.map(|object| &*object.namespace).collect();
        let held = self.service(service);
        let budget = |namespace: &str| {
            let held = held.and_then(|held| held.budget_of_clients(namespace));
            let same = held.filter(|budget| budget.settings() == settings);
            same.map_or_else(|| Arc::new(Budget::new(settings)), Arc::clone)
        };
        namespaces.into_iter().map(|namespace| (Arc::from(namespace), budget(namespace))).collect()
    }

    fn breaker(&self, service: &v1::ServiceTarget, settings: breaker::Settings) -> Arc<Breaker> {
        let held = self.service(service).and_then(|held| held.breaker.as_ref());
        let same = held.filter(|breaker| *breaker.settings() == settings);
        same.map_or_else(|| Arc::new(Breaker::new(settings)), Arc::clone)
    }
}

/// `routes`: already compiled from the very same resource.
fn build(
    next: &Snapshot,
    held: &Held<'_>,
    routes: Option<Arc<Routes>>,
    address: SocketAddr,
    resource: &v1::Destination,
) -> Result<Destination, Reason> {
    let target = match &resource.target {
        Some(v1::destination::Target::Service(service)) => {
            let mut built = build_service(next, held, service)?;
            let Backends { all, distinct } = build_backends(next, held, service, &built)?;
            (built.backends, built.distinct_backends) = (all, distinct);
            built.routes = match routes {
                Some(routes) => Some(routes),
                None => route::routes(&service.http_routes).map_err(|error| format!("service.{error}"))?.map(Arc::new),
            };
            Target::Service(Box::new(built))
        }
        Some(v1::destination::Target::Pod(pod)) => {
            let declared = protocol("pod.protocol", pod.protocol)?;
            let given = pod.endpoint.as_ref().ok_or("pod.endpoint: missing")?;
            let built = endpoint(given, convert::port("pod.port", pod.port)?, declared)?;
            Target::Pod(keep(built, held.pod))
        }
        Some(v1::destination::Target::Unknown(_)) => Target::Unknown,
        // Not `Unknown`: what is missing must not turn into "forward in plain".
        None => return Err("target: missing".into()),
    };
    Ok(Destination { address, target })
}

/// Services that routes send requests to.
#[derive(Default)]
struct Backends {
    /// In the order in which the routes number them.
    all: Vec<Arc<ServiceTarget>>,
    distinct: Vec<Arc<ServiceTarget>>,
}

/// One that is named often is built once.
fn build_backends(
    next: &Snapshot,
    held: &Held<'_>,
    service: &v1::ServiceTarget,
    parent: &ServiceTarget,
) -> Result<Backends, Reason> {
    let mut built: Map<(&str, &str, u32), Arc<ServiceTarget>> = Map::default();
    let mut backends = Backends::default();
    for backend in route::services(&service.http_routes) {
        let name = (backend.namespace.as_str(), backend.name.as_str(), backend.port);
        let target = match built.get(&name) {
            Some(target) => Arc::clone(target),
            None => {
                let mut target = build_service(next, held, backend)?;
                if target.is_named_like(parent) {
                    // The parent itself: one breaker, one state of each endpoint.
                    (target.endpoints, target.breaker) = (parent.endpoints.clone(), parent.breaker.clone());
                    (target.ready, target.balancer) = (parent.ready, parent.balancer.clone());
                }
                let target = Arc::new(target);
                built.insert(name, Arc::clone(&target));
                backends.distinct.push(Arc::clone(&target));
                target
            }
        };
        backends.all.push(target);
    }
    Ok(backends)
}

fn build_service(next: &Snapshot, held: &Held<'_>, service: &v1::ServiceTarget) -> Result<ServiceTarget, Reason> {
    let port = convert::port("service.port", service.port)?;
    let declared = match protocol("service.protocol", service.protocol)? {
        Protocol::Detect => crate::protocol::well_known(port),
        declared => declared,
    };
    let breaker = breaker::Settings::of_api(service.breaker.as_ref()).map_err(|reason| format!("service.{reason}"))?;
    let breaker = breaker.map(|settings| held.breaker(service, settings));
    let balancer =
        balance::Settings::of_api(service.balancer.as_ref()).map_err(|reason| format!("service.{reason}"))?;
    let budget = BudgetSettings::of_api(service.retry_budget.as_ref());
    let before = held.service(service);
    let mut endpoints = Vec::new();
    // A slice without this port has nothing for this service port.
    let slices = service.endpoints.iter().filter_map(|name| {
        let slice = &next.slices.get(name)?.value;
        Some((slice, slice.ports.iter().find(|port| port.name == service.port_name)?))
    });
    let counts_zones = balancer.zone_overflow.is_some();
    let told = slices.clone().flat_map(|(slice, _port)| &slice.endpoints);
    let reach = Reach::of(next, service.local_only, !counts_zones, told);
    for (slice, slice_port) in slices {
        let slice_port = convert::port("ports.port", slice_port.port)?;
        for given in slice.endpoints.iter().filter(|given| reach.has(next, given)) {
            let mut built = endpoint(given, slice_port, declared)?;
            built.health = breaker.as_ref().map(|_| Arc::default());
            endpoints.push(held.keep(before, reach, built));
        }
    }
    if endpoints.len() > limits::ENDPOINTS_PER_SERVICE {
        return Err(format!("{} endpoints, at most {} are taken", endpoints.len(), limits::ENDPOINTS_PER_SERVICE));
    }
    let is_near = |endpoint: &Endpoint| counts_zones && !next.zone.is_empty() && endpoint.pod.zone == next.zone;
    // Ready first: picking never walks past those that are not. Kubernetes may list one pod in two slices for a moment.
    endpoints.sort_by_cached_key(|one| (!one.ready, !is_near(one), one.address, Arc::clone(&one.uid)));
    endpoints.dedup_by(|one, other| one.address == other.address && one.uid == other.uid);
    let ready = endpoints.partition_point(|endpoint| endpoint.ready);
    let before = before.map(|before| (&before.balancer, before.ready_endpoints()));
    let near = endpoints[..ready].partition_point(|endpoint| is_near(endpoint));
    let balancer = Balancer::new(balancer, &endpoints[..ready], near, before);
    Ok(ServiceTarget {
        namespace: Arc::from(service.namespace.as_str()),
        name: Arc::from(service.name.as_str()),
        port,
        protocol: declared,
        endpoints,
        routes: None,
        backends: Vec::new(),
        distinct_backends: Vec::new(),
        timeouts: Timeouts::of_api(service.timeouts.as_ref()),
        retry: Retry::of_api(service.retry.as_ref()).map_err(|reason| format!("service.{reason}"))?.map(Box::new),
        retry_budget: held.retry_budget(service, budget),
        client_budgets: held.client_budgets(service, budget),
        breaker,
        balancer,
        load_bias: service.load_bias.map(LoadBias::of_api),
        allows_request_policy: service.allow_l5d_request_headers,
        reach,
        numbered: Numbered::default(),
        ready,
    })
}

/// The endpoint held before when nothing changed, else a new one with what was known of the old one.
fn keep(built: Endpoint, held: Option<&Arc<Endpoint>>) -> Arc<Endpoint> {
    match held.filter(|held| held.address == built.address && held.uid == built.uid) {
        Some(held) if held.is_same(&built) => Arc::clone(held),
        Some(held) => {
            let health = built.health.map(|fresh| held.health.as_ref().map_or(fresh, Arc::clone));
            Arc::new(Endpoint { load: Arc::clone(&held.load), health, ..built })
        }
        None => Arc::new(built),
    }
}

fn check_slice(slice: &v1::Endpoints) -> Result<(), Reason> {
    for port in &slice.ports {
        convert::port("ports.port", port.port)?;
    }
    for (index, given) in slice.endpoints.iter().enumerate() {
        endpoint(given, 1, Protocol::Detect).map_err(|reason| format!("endpoints[{index}].{reason}"))?;
    }
    Ok(())
}

fn endpoint(given: &v1::Endpoint, port: u16, declared: Protocol) -> Result<Endpoint, Reason> {
    let ip = convert::address("address", &given.address)?;
    let ports = convert::ports(&given.ports)?;
    Ok(Endpoint {
        address: SocketAddr::new(ip, port),
        ready: given.ready,
        pod: Arc::new(convert::pod(given.pod.as_ref())),
        identity: convert::identity(&given.identity)?,
        uid: Arc::from(given.uid.as_str()),
        protocol: if declared == Protocol::Detect { ports.lookup(port) } else { declared },
        load: Arc::new(Load::default()),
        health: None,
        ready_since: None,
    })
}

fn protocol(field: &str, value: i32) -> Result<Protocol, Reason> {
    v1::Protocol::try_from(value).map(Protocol::from).map_err(|error| format!("{field}: {error}"))
}
