//! Kubernetes objects as the control plane needs them: valid by construction. Must never keep a field that nothing reads.

pub mod annotation;
pub mod authorization;
mod profile;
mod route;

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weir_api::v1;
use weir_core::{
    identity::Identity,
    inbound::{DefaultPolicy, Probe},
    route::ObjectRef,
    timeouts::Timeouts,
};

pub use self::profile::{Override, Profile, ProfileRule};
pub use self::route::{HttpRoute, Invalid, MirrorTarget, ParentRef, RouteBackend, RouteFilter, RouteMirror, RouteRule};

/// Kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Namespace`
    Namespace,
    /// `v1/Pod`
    Pod,
    /// `v1/Service`
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`
    EndpointSlice,
    /// `v1/ServiceAccount`
    ServiceAccount,
    /// `gateway.networking.k8s.io/v1/HTTPRoute`, and `v1beta1`, which has the same fields
    HttpRoute,
    /// `gateway.networking.k8s.io/v1/GRPCRoute`
    GrpcRoute,
    /// `gateway.networking.k8s.io/v1/TLSRoute`, and the older ones, which have no other fields
    TlsRoute,
    /// `gateway.networking.k8s.io/v1/TCPRoute`, and `v1alpha2`, which has no other fields
    TcpRoute,
    /// `policy.linkerd.io/v1beta3/HTTPRoute`, and the older ones, which have no other fields
    PolicyHttpRoute,
    /// `linkerd.io/v1alpha2/ServiceProfile`, and `v1alpha1`, which has no other fields
    ServiceProfile,
    /// `split.smi-spec.io/TrafficSplit`, of any version
    TrafficSplit,
    /// `policy.linkerd.io/v1beta3/Server`, and the older ones, which have no other fields
    Server,
    /// `policy.linkerd.io/v1beta1/ServerAuthorization`
    ServerAuthorization,
    /// `policy.linkerd.io/v1alpha1/AuthorizationPolicy`
    AuthorizationPolicy,
    /// `policy.linkerd.io/v1alpha1/MeshTLSAuthentication`
    MeshTlsAuthentication,
    /// `policy.linkerd.io/v1alpha1/NetworkAuthentication`
    NetworkAuthentication,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Kind; 17] = [
        Kind::Namespace,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ServiceAccount,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::PolicyHttpRoute,
        Kind::ServiceProfile,
        Kind::TrafficSplit,
        Kind::Server,
        Kind::ServerAuthorization,
        Kind::AuthorizationPolicy,
        Kind::MeshTlsAuthentication,
        Kind::NetworkAuthentication,
    ];
    /// Those that have a status which says what became of them.
    pub const ROUTES: [Kind; 5] =
        [Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::PolicyHttpRoute];

    /// Those that say who may call whom.
    pub const INBOUND_POLICIES: [Kind; 5] = [
        Kind::Server,
        Kind::ServerAuthorization,
        Kind::AuthorizationPolicy,
        Kind::MeshTlsAuthentication,
        Kind::NetworkAuthentication,
    ];

    /// As manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::HttpRoute | Kind::PolicyHttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::ServiceProfile => "ServiceProfile",
            Kind::TrafficSplit => "TrafficSplit",
            Kind::Server => "Server",
            Kind::ServerAuthorization => "ServerAuthorization",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::MeshTlsAuthentication => "MeshTLSAuthentication",
            Kind::NetworkAuthentication => "NetworkAuthentication",
        }
    }

    /// As it is shown: with the group where two have one name (`kubectl get httproute.policy.linkerd.io`).
    pub fn shown(self) -> &'static str {
        match self {
            Kind::PolicyHttpRoute => "HTTPRoute.policy.linkerd.io",
            _other => self.as_str(),
        }
    }

    /// The versions that are read, all alike: the first one that the API server serves is asked for.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::HttpRoute => &["v1", "v1beta1"],
            Kind::GrpcRoute | Kind::TcpRoute => &["v1", "v1alpha2"],
            Kind::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            Kind::PolicyHttpRoute => &["v1beta3", "v1beta2", "v1beta1"],
            Kind::ServiceProfile => &["v1alpha2", "v1alpha1"],
            Kind::TrafficSplit => &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
            Kind::Server => &["v1beta3", "v1beta2", "v1beta1"],
            Kind::ServerAuthorization => &["v1beta1", "v1alpha1"],
            Kind::AuthorizationPolicy | Kind::MeshTlsAuthentication | Kind::NetworkAuthentication => &["v1alpha1"],
            _other => &["v1"],
        }
    }

    /// API group; empty for core.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::Pod | Kind::Service | Kind::ServiceAccount => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => "gateway.networking.k8s.io",
            Kind::PolicyHttpRoute
            | Kind::Server
            | Kind::ServerAuthorization
            | Kind::AuthorizationPolicy
            | Kind::MeshTlsAuthentication
            | Kind::NetworkAuthentication => "policy.linkerd.io",
            Kind::ServiceProfile => "linkerd.io",
            Kind::TrafficSplit => "split.smi-spec.io",
        }
    }

    /// Whether clusters without it are served as well.
    pub fn is_optional(self) -> bool {
        self.is_route() || self.is_inbound_policy()
    }

    /// Whether it says who may call whom.
    pub fn is_inbound_policy(self) -> bool {
        Kind::INBOUND_POLICIES.contains(&self)
    }

    /// Whether it says where requests go.
    pub fn is_route(self) -> bool {
        Kind::ROUTES.contains(&self) || self.is_profile()
    }

    /// Whether it stands instead of routes (Linkerd).
    pub fn is_profile(self) -> bool {
        matches!(self, Kind::ServiceProfile | Kind::TrafficSplit)
    }

    /// From `apiVersion` and `kind`; `None` for kinds that are not read.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Kind::ALL.into_iter().find(|known| known.as_str() == kind && known.group() == group)
    }
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl Name {
    /// From its parts.
    pub fn new(namespace: &str, name: &str) -> Name {
        Name { namespace: Arc::from(namespace), name: Arc::from(name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return formatter.write_str(&self.name);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Kind, namespace and name: what identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: Name,
}

impl ObjectName {
    /// Whether it is the one that a node knows by this reference.
    pub fn is(&self, object: &ObjectRef) -> bool {
        *object.name == *self.name.name
            && *object.namespace == *self.name.namespace
            && *object.kind == *self.kind.as_str()
            && *object.group == *self.kind.group()
    }

    /// As the contract writes it.
    pub fn to_api(&self) -> v1::ObjectRef {
        v1::ObjectRef {
            group: self.kind.group().to_owned(),
            kind: self.kind.as_str().to_owned(),
            namespace: self.name.namespace.to_string(),
            name: self.name.name.to_string(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.shown(), self.name)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace's defaults.
    Namespace(Arc<Namespace>),
    /// A scheduled pod.
    Pod(Arc<Pod>),
    /// A service.
    Service(Arc<Service>),
    /// Part of a service's endpoints.
    Slice(Arc<Slice>),
    /// Known to exist; nothing else of it matters.
    ServiceAccount,
    /// A route with a Service as a parent, a ServiceProfile or a TrafficSplit.
    HttpRoute(Arc<HttpRoute>),
    /// Who may call whom.
    Policy(Arc<authorization::Policy>),
}

/// What changed in the source of objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// New or changed.
    Upsert(ObjectName, Object),
    /// Gone.
    Remove(ObjectName),
}

/// Whether and how a namespace's pods are meshed unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    /// `metadata.uid`: that of the mesh's own namespace tells one installation from the next.
    pub uid: Arc<str>,
    /// `weir.mesh/enabled`.
    pub enabled: Option<bool>,
    /// Annotations.
    pub settings: Settings,
}

/// Annotations that pods, namespaces and services share; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `config.linkerd.io/opaque-ports`
    pub opaque_ports: Option<Vec<PortSpec>>,
    /// `config.linkerd.io/skip-inbound-ports`
    pub skip_inbound_ports: Option<Vec<PortSpec>>,
    /// `config.linkerd.io/skip-outbound-ports`
    pub skip_outbound_ports: Option<Vec<PortSpec>>,
    /// `config.linkerd.io/skip-subnets`
    pub skip_subnets: Option<Vec<IpNet>>,
    /// `config.linkerd.io/access-log`
    pub access_log: Option<v1::AccessLog>,
    /// `weir.mesh/fail-mode: permissive`
    pub permissive: Option<bool>,
    /// `config.linkerd.io/default-inbound-policy`
    pub default_policy: Option<DefaultPolicy>,
}

/// One item of a list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// Inclusive; first and last may be the same.
    Range(u16, u16),
    /// Name of a container's or service's port.
    Named(Arc<str>),
}

/// A pod that has a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// Names for labels and people.
    pub reference: v1::PodRef,
    /// Primary first; empty until kubelet says them, for pods that share the node's network and for pods that have ended.
    pub addresses: Vec<IpAddr>,
    /// Of its service account; `None` for one whose name is too long, which is unfit.
    pub identity: Option<Identity>,
    /// `weir.mesh/enabled` of the pod itself.
    pub enabled: Option<bool>,
    /// Annotations of the pod itself.
    pub settings: Settings,
    /// What Servers select it by.
    pub labels: authorization::Labels,
    /// TCP ports that containers name.
    pub named_ports: Vec<(Arc<str>, u16)>,
    /// What kubelet asks of its containers.
    pub probes: Vec<Probe>,
    /// Who may call it when neither its own annotations nor its namespace's say.
    pub fallback_policy: DefaultPolicy,
    /// Why this pod can be no workload; `None` when it can.
    pub unfit: Option<Unfit>,
    /// The first of its labels and annotations that is not understood, and what is in force instead, for people.
    pub flaw: Option<Arc<str>>,
    /// Of condition `weir.mesh/Meshed`, when it is true: distinguishes it from the pod's next one.
    pub mark: Option<Arc<str>>,
    /// The condition says that the pod was opted out: whoever writes it has seen what this replica may not have seen yet.
    pub is_unmarked: bool,
}

/// Type of the condition by which pods say that peers speak mTLS to them: known to every replica of control, and after its restart.
pub const MESHED: &str = "weir.mesh/Meshed";
/// Reason of that condition when it is false.
pub const OPTED_OUT: &str = "OptedOut";

/// Why a pod can be no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Shares its node's network.
    HostNetwork,
    /// Its containers will not run again.
    Ended,
    /// Would not work, with what to do about it.
    Refused(&'static str),
}

impl Unfit {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Unfit::HostNetwork => {
                "shares its node's network, where its traffic cannot be told from the node's; remove hostNetwork, or label it weir.mesh/enabled=false"
            }
            Unfit::Ended => "has ended",
            Unfit::Refused(reason) => reason,
        }
    }

    /// Whether the pod has a network namespace of its own, now or soon.
    pub fn has_network(self) -> bool {
        matches!(self, Unfit::Refused(_))
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// ClusterIPs; empty for headless and external services.
    pub addresses: Vec<IpAddr>,
    /// TCP ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`
    pub local_only: bool,
    /// `sessionAffinity: ClientIP`
    pub client_affinity: bool,
    /// Annotations; only the opaque ports apply.
    pub settings: Settings,
    /// Annotations; zero lifts a limit.
    pub timeouts: Option<Timeouts>,
    /// Annotations; no attempts where nothing is to be sent again.
    pub retry: Option<v1::Retry>,
    /// Annotations; none for the default.
    pub retry_budget: Option<v1::RetryBudget>,
    /// Annotations.
    pub breaker: Option<v1::CircuitBreaker>,
    /// Annotations.
    pub load_bias: Option<v1::LoadBias>,
    /// Annotations; none for the default.
    pub balancer: Option<v1::Balancer>,
    /// The operator allows `l5d-retry-*` and `l5d-*-timeout` of requests.
    pub l5d_request_headers: bool,
    /// Which of [`annotation::all`] it has and are understood.
    pub annotated: Vec<&'static str>,
}

/// One TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for the only one.
    pub name: Arc<str>,
    /// The service's own port.
    pub port: u16,
    /// From `appProtocol`.
    pub protocol: Option<v1::Protocol>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Its service.
    pub service: Name,
    /// TCP ports.
    pub ports: Vec<(Arc<str>, u16)>,
    /// In the order of the manifest.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceEndpoint {
    /// The first address; Kubernetes gives no meaning to others.
    pub address: IpAddr,
    /// Unset means ready.
    pub ready: bool,
    /// `targetRef` when it is a pod.
    pub pod: Option<Name>,
    /// For endpoints without a pod.
    pub node: Arc<str>,
    /// Zone, or empty.
    pub zone: Arc<str>,
    /// `hints.forZones`: the zones whose clients it is for.
    pub zone_hints: Vec<Arc<str>>,
    /// `hints.forNodes`, the same of nodes.
    pub node_hints: Vec<Arc<str>>,
}
