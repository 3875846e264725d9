//! What one node knows, as types that cannot be wrong. Built aside from control's resources and swapped whole.
//!
//! Must never let one bad resource affect another, nor an empty or missing one open what it would have closed.

mod apply;
mod convert;
mod held;
mod numbered;
mod reach;
mod same;
mod servers;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use weir_api::v1;

pub use self::apply::{Applied, apply};
use self::{numbered::Numbered, reach::Reach};
use crate::{
    balance::Balancer,
    breaker::{Admission, Breaker, Health},
    identity::Identity,
    inbound::{InboundPolicy, Rules, ServerPolicy},
    load::{Load, LoadBias},
    protocol::{PortProtocols, PortRange, Protocol},
    retry::{Budget, Retry},
    route::Routes,
    timeouts::Timeouts,
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Names of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
    /// Lower-case kind of the top owner; empty for a bare pod.
    pub owner_kind: Arc<str>,
    /// Name of the top owner.
    pub owner_name: Arc<str>,
    /// Node.
    pub node_name: Arc<str>,
    /// Zone of the node; empty when unknown.
    pub zone: Arc<str>,
    /// Label `pod-template-hash`; empty when it has none.
    pub pod_template_hash: Arc<str>,
}

/// Format of a workload's access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Apache common log format.
    Apache,
    /// One JSON object a line.
    Json,
}

/// What of a pod's traffic is captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The application's ports that clients reach directly.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Ports that the application reaches directly.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Networks that the application reaches directly.
    pub skip_subnets: Vec<IpNet>,
    /// Without a proxy traffic passes instead of being refused.
    pub permissive: bool,
}

/// A pod of this node that is in the mesh.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Pod uid.
    pub uid: Arc<str>,
    /// Names.
    pub pod: Arc<PodRef>,
    /// Its addresses, primary first; none while only the pod's own namespace knows them.
    pub addresses: Vec<IpAddr>,
    /// Who it is.
    pub identity: Identity,
    /// What is captured.
    pub capture: CaptureSettings,
    /// Declared protocols of its ports.
    pub ports: PortProtocols,
    /// Its access log.
    pub access_log: AccessLog,
    /// Who may call it.
    pub policy: InboundPolicy,
}

/// One port of one pod, anywhere in the mesh.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it may get new requests.
    pub ready: bool,
    /// Names.
    pub pod: Arc<PodRef>,
    /// Who it has to prove to be; none when it is not in the mesh.
    pub identity: Option<Identity>,
    /// Pod uid.
    pub uid: Arc<str>,
    /// Declared protocol of the port.
    pub protocol: Protocol,
    /// Latency and pending requests; survives changes of everything but address and uid.
    pub load: Arc<Load>,
    /// Whether it is out; none where no breaker takes it out. Survives like `load`.
    pub health: Option<Arc<Health>>,
    /// When it became ready, on the clock of loads and breakers; none where it is not, or was before this node knew its service.
    pub ready_since: Option<Duration>,
}

impl Endpoint {
    /// Whether a breaker lets a request through to it, sooner or later as `now` says.
    pub fn is_available(&self, now: Duration) -> bool {
        self.health.as_ref().is_none_or(|health| health.is_available(now))
    }

    /// Lets a request through, or not.
    pub fn admit(&self, breaker: &Breaker, now: Duration) -> Option<Admission> {
        self.health.as_ref().map_or(Some(Admission::In), |health| health.admit(breaker.settings(), now))
    }

    fn is_same(&self, other: &Endpoint) -> bool {
        self.address == other.address
            && self.ready == other.ready
            && self.pod == other.pod
            && self.identity == other.identity
            && self.uid == other.uid
            && self.protocol == other.protocol
            && self.health.is_some() == other.health.is_some()
    }
}

/// A ClusterIP and port.
#[derive(Clone, Debug)]
pub struct ServiceTarget {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Port of the service.
    pub port: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// All endpoints, the ready ones first.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What decides about each HTTP request; none: all of them go to the endpoints.
    pub routes: Option<Arc<Routes>>,
    /// Services that the routes send requests to, by their number there; without routes of their own.
    pub backends: Vec<Arc<ServiceTarget>>,
    /// Each of them once: rules may name the same few thousands of times.
    distinct_backends: Vec<Arc<ServiceTarget>>,
    /// Of requests that no route decides about.
    pub timeouts: Timeouts,
    /// The same.
    pub retry: Option<Box<Retry>>,
    /// What may be sent again to its endpoints; survives all changes but those of its own settings.
    pub retry_budget: Arc<Budget>,
    /// The same of what clients' own routes ask for, by their namespace: one must not use up what is others'.
    pub(crate) client_budgets: Vec<(Arc<str>, Arc<Budget>)>,
    /// What takes its endpoints out; survives like the budget.
    pub breaker: Option<Arc<Breaker>>,
    /// How its ready endpoints are chosen between; whose turn it is survives like the budget.
    pub balancer: Balancer,
    /// What refusals and failures add to an endpoint's load.
    pub load_bias: Option<LoadBias>,
    /// Requests may say how they are sent again and what limits they have.
    pub allows_request_policy: bool,
    /// Which endpoints were taken.
    reach: Reach,
    numbered: Numbered,
    ready: usize,
}

impl ServiceTarget {
    /// Endpoints that may get new requests.
    pub fn ready_endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints[..self.ready]
    }

    /// What may be sent again for clients of a namespace that has routes of its own here.
    pub fn budget_of_clients(&self, namespace: &str) -> Option<&Arc<Budget>> {
        self.client_budgets.iter().find(|(own, _budget)| **own == *namespace).map(|(_own, budget)| budget)
    }

    fn endpoint(&self, address: SocketAddr, uid: &str) -> Option<&Arc<Endpoint>> {
        // Sorted by readiness, then by address.
        let (ready, others) = self.endpoints.split_at(self.ready);
        [ready, others].into_iter().find_map(|part| {
            let first = part.partition_point(|endpoint| endpoint.address < address);
            part[first..].iter().take_while(|endpoint| endpoint.address == address).find(|one| *one.uid == *uid)
        })
    }

    /// Services that the routes send requests to, each once.
    pub fn distinct_backends(&self) -> impl Iterator<Item = &ServiceTarget> {
        self.distinct_backends.iter().map(|backend| &**backend)
    }

    /// Whether a request can be sent to one of them now.
    pub fn is_available(&self, now: Duration) -> bool {
        let ready = self.ready_endpoints();
        match &self.breaker {
            None => !ready.is_empty(),
            Some(breaker) => {
                ready.iter().any(|one| one.is_available(now)) || (!ready.is_empty() && breaker.panics(ready, now))
            }
        }
    }

    /// When the first of those that are out may be tried; none where none is out.
    pub fn next_trial(&self) -> Option<Duration> {
        let healths = self.ready_endpoints().iter().filter_map(|endpoint| endpoint.health.as_ref());
        healths.filter(|health| !health.is_in()).map(|health| health.next()).min()
    }

    /// Whether `other` is the same port of the same service, whatever its endpoints are by now.
    pub fn is_named_like(&self, other: &ServiceTarget) -> bool {
        (&self.namespace, &self.name, self.port) == (&other.namespace, &other.name, other.port)
    }
}

/// What a dialled address means.
#[derive(Clone, Debug)]
pub enum Target {
    /// A service: balanced.
    Service(Box<ServiceTarget>),
    /// A certain pod.
    Pod(Arc<Endpoint>),
    /// Neither: forwarded as it is.
    Unknown,
}

/// One dialled address.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The address.
    pub address: SocketAddr,
    /// What it means.
    pub target: Target,
}

impl Destination {
    /// The service, if it is one.
    pub fn service(&self) -> Option<&ServiceTarget> {
        match &self.target {
            Target::Service(service) => Some(service),
            Target::Pod(_) | Target::Unknown => None,
        }
    }

    /// What is spoken, as far as it is declared.
    pub fn protocol(&self) -> Protocol {
        match &self.target {
            Target::Service(service) => service.protocol,
            Target::Pod(endpoint) => endpoint.protocol,
            Target::Unknown => crate::protocol::well_known(self.address.port()),
        }
    }
}

#[derive(Clone, Debug)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// What one node knows.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Which node this is: some Services are served by its own endpoints alone.
    node_name: Arc<str>,
    /// Its zone, as its workloads say; empty when that is not known.
    zone: Arc<str>,
    workloads: Map<Arc<str>, Versioned<Arc<Workload>>>,
    by_address: Map<IpAddr, Arc<Workload>>,
    destinations: Map<SocketAddr, Arc<Destination>>,
    /// What control said, kept to build destinations anew when a slice changes.
    destination_resources: Map<SocketAddr, Versioned<Arc<v1::Destination>>>,
    slices: Map<String, Versioned<Arc<v1::Endpoints>>>,
    trust: Map<String, Versioned<Arc<v1::TrustBundle>>>,
    /// By uid, with the version.
    plain_pods: Map<Arc<str>, u64>,
    /// By name, with the version.
    meshed_namespaces: Map<Arc<str>, u64>,
    /// By namespace and name.
    servers: Map<Arc<str>, Versioned<Arc<ServerPolicy>>>,
}

impl Snapshot {
    /// A node that knows nothing yet.
    pub fn of_node(node_name: &str) -> Snapshot {
        Snapshot { node_name: Arc::from(node_name), ..Snapshot::default() }
    }

    /// A workload of this node.
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid).map(|entry| &entry.value)
    }

    /// The workload of this node that has this address.
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Who may call a port of one of its workloads.
    pub fn rules<'a>(&'a self, workload: &'a Workload, port: u16) -> Rules<'a> {
        match workload.policy.server_of(port) {
            None => Rules::Default(workload.policy.default),
            Some(name) => self.server(name).map_or(Rules::Unknown(name), Rules::Server),
        }
    }

    /// Who may call the ports of a Server, by its namespace and name.
    pub fn server(&self, name: &str) -> Option<&Arc<ServerPolicy>> {
        self.servers.get(name).map(|entry| &entry.value)
    }

    /// What a dialled address means, if this node has asked before.
    pub fn destination(&self, address: &SocketAddr) -> Option<&Arc<Destination>> {
        self.destinations.get(address)
    }

    /// Workloads of this node.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values().map(|entry| &entry.value)
    }

    /// Uids of the pods of this node that are not opted in.
    pub fn plain_pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.plain_pods.keys()
    }

    /// Names of the namespaces whose pods are opted in unless they say otherwise.
    pub fn meshed_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.meshed_namespaces.keys()
    }

    /// Destinations that this node has in use.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.destinations.values()
    }

    /// Trust anchors, DER, of all trust domains.
    pub fn trust_anchors(&self) -> Vec<Vec<u8>> {
        let mut anchors: Vec<_> = self.trust.values().flat_map(|entry| entry.value.anchors.iter().cloned()).collect();
        anchors.sort();
        anchors
    }

    /// Certificates of the issuers that sign now, DER; none where control does not say.
    pub fn issuers(&self) -> Vec<Vec<u8>> {
        let issuers = self.trust.values().map(|entry| entry.value.issuer.clone());
        issuers.filter(|issuer| !issuer.is_empty()).collect()
    }

    /// The trust domain; empty until control has said it.
    pub fn trust_domain(&self) -> &str {
        self.trust.keys().next().map_or("", String::as_str)
    }

    /// Everything held, with its version: what a resuming stream tells control.
    pub fn versions(&self) -> Vec<(v1::ResourceKey, u64)> {
        use v1::ResourceKind::{
            Destination, Endpoints, InboundServer, MeshedNamespace, PlainPod, TrustBundle, Workload,
        };
        let key = |kind: v1::ResourceKind, name: String| v1::ResourceKey { kind: kind.into(), name };
        let workloads = self.workloads.iter().map(|(uid, entry)| (key(Workload, uid.to_string()), entry.version));
        let destinations = self.destination_resources.iter();
        let destinations = destinations.map(|(at, entry)| (key(Destination, at.to_string()), entry.version));
        let slices = self.slices.iter().map(|(name, entry)| (key(Endpoints, name.clone()), entry.version));
        let anchors = self.trust.iter().map(|(name, entry)| (key(TrustBundle, name.clone()), entry.version));
        let plain = self.plain_pods.iter().map(|(uid, version)| (key(PlainPod, uid.to_string()), *version));
        let meshed = self.meshed_namespaces.iter();
        let meshed = meshed.map(|(name, version)| (key(MeshedNamespace, name.to_string()), *version));
        let servers = self.servers.iter().map(|(name, entry)| (key(InboundServer, name.to_string()), entry.version));
        let configuration = workloads.chain(servers).chain(destinations).chain(slices);
        configuration.chain(anchors).chain(plain).chain(meshed).collect()
    }
}
