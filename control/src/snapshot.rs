//! What a node is told about one thing: resources built from the index. Must never hold state.

use std::{
    hash::{BuildHasher, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use foldhash::quality::FixedState;
use prost::Message;
use weir_api::v1::{self, resource::Body};
use weir_core::{
    inbound::{DefaultPolicy, Probe, ProbeKind},
    protocol::well_known,
    timeouts::Timeouts,
};

use crate::{
    index::Index,
    objects::{Name, ObjectName, Pod, PortSpec, Service, ServicePort, Settings},
};

mod profiles;
mod routes;
mod servers;
#[cfg(test)]
mod tests;
mod timeouts;

use self::servers::PodServers;
pub use self::servers::inbound_server;
pub(crate) use self::{
    routes::{InForce, Refusal, ports_for, resolved, retry_in_force},
    timeouts::{Said, decided as timeouts_in_force},
};

// Fixed for ever: versions must be equal over restarts, or every node would be sent everything again.
const VERSION_SEED: u64 = 0x7765_6972;
/// Skipped when nothing is declared (Linkerd's default: Galera's replication).
const DEFAULT_SKIP: (u16, u16) = (4567, 4568);

/// What a resource is about, typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The anchors.
    TrustBundle,
    /// A namespace whose pods are opted in.
    MeshedNamespace(Arc<str>),
    /// A Server. Before the workloads that it is about: until the node knows it, nobody may call their ports.
    InboundServer(Name),
    /// A pod, by uid.
    Workload(Arc<str>),
    /// A pod that is not in the mesh, by uid.
    PlainPod(Arc<str>),
    /// A slice.
    Endpoints(Name),
    /// A dialled address.
    Destination(SocketAddr),
}

impl Key {
    /// From the contract's form; `None` when this is no key that control gives out.
    pub fn parse(key: &v1::ResourceKey) -> Option<Key> {
        match key.kind() {
            v1::ResourceKind::TrustBundle => Some(Key::TrustBundle),
            v1::ResourceKind::Workload => Some(Key::Workload(Arc::from(key.name.as_str()))),
            v1::ResourceKind::Destination => key.name.parse().ok().map(Key::Destination),
            v1::ResourceKind::Endpoints => name_of(&key.name).map(Key::Endpoints),
            v1::ResourceKind::InboundServer => name_of(&key.name).map(Key::InboundServer),
            v1::ResourceKind::PlainPod => Some(Key::PlainPod(Arc::from(key.name.as_str()))),
            v1::ResourceKind::MeshedNamespace => Some(Key::MeshedNamespace(Arc::from(key.name.as_str()))),
            v1::ResourceKind::Unspecified => None,
        }
    }

    /// As the contract writes it.
    pub fn to_api(&self, trust_domain: &str) -> v1::ResourceKey {
        let (kind, name) = match self {
            Key::TrustBundle => (v1::ResourceKind::TrustBundle, trust_domain.to_owned()),
            Key::MeshedNamespace(name) => (v1::ResourceKind::MeshedNamespace, name.to_string()),
            Key::Workload(uid) => (v1::ResourceKind::Workload, uid.to_string()),
            Key::PlainPod(uid) => (v1::ResourceKind::PlainPod, uid.to_string()),
            Key::Endpoints(name) => (v1::ResourceKind::Endpoints, name.to_string()),
            Key::InboundServer(name) => (v1::ResourceKind::InboundServer, name.to_string()),
            Key::Destination(address) => (v1::ResourceKind::Destination, address.to_string()),
        };
        v1::ResourceKey { kind: kind.into(), name }
    }
}

fn name_of(text: &str) -> Option<Name> {
    let (namespace, name) = text.split_once('/')?;
    Some(Name::new(namespace, name))
}

/// With the hash of the content as its version.
pub fn resource(key: &Key, trust_domain: &str, body: Body) -> v1::Resource {
    let mut resource = v1::Resource { key: Some(key.to_api(trust_domain)), version: 0, body: Some(body) };
    let mut hasher = FixedState::with_seed(VERSION_SEED).build_hasher();
    hasher.write(&resource.encode_to_vec());
    // 0 is what a node that knows nothing would say.
    resource.version = hasher.finish().max(1);
    resource
}

/// A pod of the node, when it is opted in, and the Servers that it refers to; the node finds one without addresses in the pod's own namespace.
pub fn workload(index: &Index, uid: &str, node: &str) -> Option<(v1::Workload, Vec<Name>)> {
    let pod = index.pod_by_uid(uid)?;
    if pod.reference.node_name != node || !index.is_enabled(pod) {
        return None;
    }
    let setting = Inherited::of(index, pod);
    let servers = PodServers::of(index, pod);
    let default = setting.get(|settings| settings.default_policy).unwrap_or(pod.fallback_policy);
    let default = if servers.is_cut { DefaultPolicy::Deny } else { default };
    let mut reference = pod.reference.clone();
    if let Some(zone) = index.zone_of(node).filter(|_| reference.zone.is_empty()) {
        reference.zone = zone.to_string();
    }
    let workload = v1::Workload {
        uid: pod.uid.to_string(),
        pod: Some(reference),
        addresses: pod.addresses.iter().map(IpAddr::to_string).collect(),
        identity: pod.identity.as_ref()?.to_string(),
        capture: Some(v1::CaptureSettings {
            skip_inbound_ports: setting.skipped(|settings| settings.skip_inbound_ports.as_deref()),
            skip_outbound_ports: setting.skipped(|settings| settings.skip_outbound_ports.as_deref()),
            skip_subnets: setting
                .get(|settings| settings.skip_subnets.as_deref())
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect(),
            permissive: setting.get(|settings| settings.permissive).unwrap_or(false),
        }),
        ports: setting.port_protocols(&servers),
        access_log: setting.get(|settings| settings.access_log).unwrap_or(v1::AccessLog::Off).into(),
        default_policy: default.to_api().into(),
        probes: pod.probes.iter().map(probe).collect(),
        servers: servers.ports,
    };
    Some((workload, servers.names))
}

fn probe(declared: &Probe) -> v1::Probe {
    let (kind, path) = match &declared.kind {
        ProbeKind::Connection => (v1::ProbeKind::Connection, ""),
        ProbeKind::Get(path) => (v1::ProbeKind::Get, &**path),
        ProbeKind::Grpc => (v1::ProbeKind::Grpc, ""),
    };
    v1::Probe { port: declared.port.into(), kind: kind.into(), path: path.to_owned() }
}

/// A pod of the node that is not in the mesh, so that it may start without being captured.
pub fn plain_pod(index: &Index, uid: &str, node: &str) -> Option<v1::PlainPod> {
    let pod = index.pod_by_uid(uid)?;
    (pod.reference.node_name == node && index.is_plain(pod)).then_some(v1::PlainPod {})
}

/// A namespace that is opted in.
pub fn meshed_namespace(index: &Index, name: &str) -> Option<v1::MeshedNamespace> {
    (index.namespace(name)?.enabled == Some(true)).then_some(v1::MeshedNamespace {})
}

/// A pod's settings: its own, then its namespace's.
struct Inherited<'a> {
    own: &'a Settings,
    namespace: Option<&'a Settings>,
    named_ports: &'a [(Arc<str>, u16)],
}

impl<'a> Inherited<'a> {
    fn of(index: &'a Index, pod: &'a Pod) -> Inherited<'a> {
        let namespace = index.namespace(&pod.reference.namespace).map(|namespace| &namespace.settings);
        Inherited { own: &pod.settings, namespace, named_ports: &pod.named_ports }
    }

    fn get<T>(&self, field: impl Fn(&'a Settings) -> Option<T>) -> Option<T> {
        field(self.own).or_else(|| field(self.namespace?))
    }

    fn ranges(&self, specs: &'a [PortSpec]) -> impl Iterator<Item = v1::PortRange> {
        // A name that this pod does not have is another pod's: annotations of namespaces are shared.
        specs.iter().flat_map(|spec| match spec {
            PortSpec::Range(first, last) => vec![range(*first, *last)],
            PortSpec::Named(name) => {
                let named = self.named_ports.iter().filter(|(known, _)| known == name);
                named.map(|(_, port)| range(*port, *port)).collect()
            }
        })
    }

    fn skipped(&self, field: impl Fn(&'a Settings) -> Option<&'a [PortSpec]>) -> Vec<v1::PortRange> {
        match self.get(field) {
            Some(specs) => self.ranges(specs).collect(),
            None => vec![range(DEFAULT_SKIP.0, DEFAULT_SKIP.1)],
        }
    }

    /// What Servers say, then the list of opaque ports, which replaces the well-known ones; the node applies those to ports of which nothing is said.
    fn port_protocols(&self, servers: &PodServers) -> Vec<v1::PortProtocol> {
        let mut protocols = servers.protocols.clone();
        let Some(specs) = self.get(|settings| settings.opaque_ports.as_deref()) else { return protocols };
        let declared =
            |ports, protocol: v1::Protocol| v1::PortProtocol { ports: Some(ports), protocol: protocol.into() };
        protocols.extend(self.ranges(specs).map(|ports| declared(ports, v1::Protocol::Opaque)));
        protocols.truncate(weir_core::limits::PORT_RANGES - 1);
        protocols.push(declared(range(1, u16::MAX), v1::Protocol::Detect));
        protocols
    }
}

fn range(first: u16, last: u16) -> v1::PortRange {
    v1::PortRange { first: first.into(), last: last.into() }
}

/// What an address means, and the slices that it refers to.
pub fn destination(index: &Index, address: SocketAddr) -> (v1::Destination, Vec<Name>) {
    let ip = address.ip().to_canonical();
    if let Some((name, service)) = index.service_by_address(&ip)
        && let Some((mut target, mut slices)) = service_target(index, name, service, address.port())
    {
        (target.http_routes, slices) = routes::attached(index, name, address.port(), slices);
        return (v1::Destination { target: Some(v1::destination::Target::Service(target)) }, slices);
    }
    if let Some(pod) = index.pod_by_address(&ip) {
        let endpoint = pod_endpoint(index, pod, ip, true);
        let protocol = declared_protocol(&endpoint.ports, address.port());
        let target = v1::PodTarget { endpoint: Some(endpoint), port: address.port().into(), protocol: protocol.into() };
        return (v1::Destination { target: Some(v1::destination::Target::Pod(target)) }, Vec::new());
    }
    (v1::Destination { target: Some(v1::destination::Target::Unknown(v1::UnknownTarget {})) }, Vec::new())
}

fn declared_protocol(ports: &[v1::PortProtocol], port: u16) -> v1::Protocol {
    let holds = |ports: &v1::PortRange| (ports.first..=ports.last).contains(&u32::from(port));
    match ports.iter().find(|declared| declared.ports.as_ref().is_some_and(holds)) {
        Some(declared) => declared.protocol(),
        None => well_known_protocol(port),
    }
}

fn well_known_protocol(port: u16) -> v1::Protocol {
    match well_known(port) {
        weir_core::protocol::Protocol::Opaque => v1::Protocol::Opaque,
        _ => v1::Protocol::Detect,
    }
}

/// `None` for a port that the service does not have.
fn service_target(index: &Index, name: &Name, service: &Service, port: u16) -> Option<(v1::ServiceTarget, Vec<Name>)> {
    let declared = service.ports.iter().find(|declared| declared.port == port)?;
    let slices: Vec<Name> = index.slices_of(name).cloned().collect();
    let target = v1::ServiceTarget {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        port: port.into(),
        port_name: declared.name.to_string(),
        protocol: protocol(index, name, service, declared).into(),
        endpoints: slices.iter().map(Name::to_string).collect(),
        local_only: service.local_only,
        http_routes: Vec::new(),
        timeouts: timeouts::in_force(service.timeouts, None, Timeouts::default()),
        retry: service.retry.clone().filter(|retry| retry.limit > 0),
        retry_budget: retry_budget(index, name, service).0,
        breaker: service.breaker,
        load_bias: service.load_bias,
        balancer: service.balancer.clone(),
        allow_l5d_request_headers: service.l5d_request_headers,
    };
    Some((target, slices))
}

/// What is spoken on a port of a service, as far as that is declared.
fn protocol(index: &Index, name: &Name, service: &Service, port: &ServicePort) -> v1::Protocol {
    declared(index, name, service, port).0
}

/// Who says what is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Nobody.
    Default,
    /// The number alone: a protocol whose server speaks first, or that is no HTTP.
    WellKnown,
    /// `appProtocol` of the Service's port.
    AppProtocol,
    /// The Service's list of opaque ports.
    Service,
    /// Its namespace's.
    Namespace,
    /// Its ServiceProfile.
    Profile,
}

/// What retries may add to a service's load, and the profile that says so; else its annotations do.
pub(crate) fn retry_budget<'a>(
    index: &'a Index,
    name: &Name,
    service: &Service,
) -> (Option<v1::RetryBudget>, Option<&'a ObjectName>) {
    let of_profile = index.profile_of(name).filter(|(_own, profile)| profile.decides());
    match of_profile.and_then(|(own, profile)| Some((own, profile.retry_budget?))) {
        Some((own, budget)) => (Some(budget), Some(own)),
        None => (service.retry_budget, None),
    }
}

/// What is spoken on a port of a service, and who says so.
pub(crate) fn declared(index: &Index, name: &Name, service: &Service, port: &ServicePort) -> (v1::Protocol, Declared) {
    if let Some(protocol) = port.protocol {
        return (protocol, Declared::AppProtocol);
    }
    let is_it = |spec: &PortSpec| match spec {
        PortSpec::Range(first, last) => (*first..=*last).contains(&port.port),
        PortSpec::Named(named) => *named == port.name,
    };
    if index.profile_of(name).is_some_and(|(_own, profile)| profile.opaque_ports.iter().any(is_it)) {
        return (v1::Protocol::Opaque, Declared::Profile);
    }
    let known = well_known_protocol(port.port);
    let default = if known == v1::Protocol::Opaque { Declared::WellKnown } else { Declared::Default };
    let of_namespace = || {
        let namespace = index.namespace(&name.namespace)?;
        namespace.settings.opaque_ports.as_ref().map(|specs| (specs, Declared::Namespace))
    };
    let own = service.settings.opaque_ports.as_ref().map(|specs| (specs, Declared::Service));
    let Some((specs, who)) = own.or_else(of_namespace) else { return (known, default) };
    match (specs.iter().any(is_it), known) {
        (true, _) => (v1::Protocol::Opaque, who),
        // A list replaces the well-known ports: it is its word that this is none.
        (false, v1::Protocol::Opaque) => (v1::Protocol::Detect, who),
        (false, _) => (v1::Protocol::Detect, Declared::Default),
    }
}

fn pod_endpoint(index: &Index, pod: &Pod, address: IpAddr, ready: bool) -> v1::Endpoint {
    let identity = pod.identity.as_ref().filter(|_| index.is_serving(pod));
    v1::Endpoint {
        address: address.to_string(),
        ready,
        pod: Some(pod.reference.clone()),
        identity: identity.map(ToString::to_string).unwrap_or_default(),
        uid: pod.uid.to_string(),
        ports: Inherited::of(index, pod).port_protocols(&PodServers::of(index, pod)),
        ..v1::Endpoint::default()
    }
}

/// The endpoints of one slice.
pub fn endpoints(index: &Index, name: &Name) -> Option<v1::Endpoints> {
    let slice = index.slice(name)?;
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        // A slice may lag behind its pods: whoever has the address now is who answers there. A pod that is named but has
        // no address yet counts as well, so that a meshed pod is never sent plaintext.
        let named = endpoint.pod.as_ref().and_then(|name| index.pod(name));
        let named_here = named.filter(|pod| pod.addresses.contains(&endpoint.address));
        let pod = named_here.or_else(|| index.pod_by_address(&endpoint.address)).or(named);
        let mut built = match pod {
            Some(pod) => pod_endpoint(index, pod, endpoint.address, endpoint.ready),
            None => {
                let reference = v1::PodRef { node_name: endpoint.node.to_string(), ..v1::PodRef::default() };
                let (address, ready) = (endpoint.address.to_string(), endpoint.ready);
                v1::Endpoint { address, ready, pod: Some(reference), ..v1::Endpoint::default() }
            }
        };
        if let Some(reference) = built.pod.as_mut().filter(|reference| reference.zone.is_empty()) {
            reference.zone = endpoint.zone.to_string();
        }
        let names = |hints: &[Arc<str>]| hints.iter().map(ToString::to_string).collect();
        (built.zone_hints, built.node_hints) = (names(&endpoint.zone_hints), names(&endpoint.node_hints));
        built
    });
    Some(v1::Endpoints {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        service: slice.service.name.to_string(),
        ports: slice
            .ports
            .iter()
            .map(|(name, port)| v1::EndpointPort { name: name.to_string(), port: u32::from(*port) })
            .collect(),
        endpoints: endpoints.collect(),
    })
}
