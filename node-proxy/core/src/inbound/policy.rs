//! What a workload's owner says about who may call it. Must never turn a value that is not understood into one that is.

use std::{fmt, str::FromStr, sync::Arc};

use weir_api::v1;

use super::Ask;
use crate::protocol::PortRange;

/// Path of a gRPC health check, which kubelet's gRPC probes ask for.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Who may call where no policy object says otherwise (values of Linkerd's `default-inbound-policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultPolicy {
    /// Everyone.
    AllUnauthenticated,
    /// Everyone who proves an identity.
    AllAuthenticated,
    /// Everyone with an address of the cluster.
    ClusterUnauthenticated,
    /// Everyone with an address of the cluster who proves an identity.
    ClusterAuthenticated,
    /// Nobody.
    Deny,
    /// Everyone, and each is logged.
    Audit,
}

/// No default policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny, audit")]
pub struct UnknownPolicy;

impl DefaultPolicy {
    /// All of them, for tables and tests.
    pub const ALL: [DefaultPolicy; 6] = [
        DefaultPolicy::AllUnauthenticated,
        DefaultPolicy::AllAuthenticated,
        DefaultPolicy::ClusterUnauthenticated,
        DefaultPolicy::ClusterAuthenticated,
        DefaultPolicy::Deny,
        DefaultPolicy::Audit,
    ];

    /// As annotations, flags and labels write it.
    pub fn name(self) -> &'static str {
        match self {
            DefaultPolicy::AllUnauthenticated => "all-unauthenticated",
            DefaultPolicy::AllAuthenticated => "all-authenticated",
            DefaultPolicy::ClusterUnauthenticated => "cluster-unauthenticated",
            DefaultPolicy::ClusterAuthenticated => "cluster-authenticated",
            DefaultPolicy::Deny => "deny",
            DefaultPolicy::Audit => "audit",
        }
    }

    /// As the contract writes it.
    pub fn to_api(self) -> v1::DefaultPolicy {
        match self {
            DefaultPolicy::AllUnauthenticated => v1::DefaultPolicy::AllUnauthenticated,
            DefaultPolicy::AllAuthenticated => v1::DefaultPolicy::AllAuthenticated,
            DefaultPolicy::ClusterUnauthenticated => v1::DefaultPolicy::ClusterUnauthenticated,
            DefaultPolicy::ClusterAuthenticated => v1::DefaultPolicy::ClusterAuthenticated,
            DefaultPolicy::Deny => v1::DefaultPolicy::Deny,
            DefaultPolicy::Audit => v1::DefaultPolicy::Audit,
        }
    }

    /// From the contract. A policy that is missing is none: it must not open what it would have closed.
    pub fn of_api(policy: v1::DefaultPolicy) -> Option<DefaultPolicy> {
        DefaultPolicy::ALL.into_iter().find(|known| known.to_api() == policy)
    }
}

impl fmt::Display for DefaultPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for DefaultPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<DefaultPolicy, UnknownPolicy> {
        DefaultPolicy::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}

/// What a probe asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A connection, perhaps with TLS of the application's own.
    Connection,
    /// GET of this path and query.
    Get(Arc<str>),
    /// gRPC's health check.
    Grpc,
}

/// Something that kubelet asks of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// At which port.
    pub port: u16,
    /// What.
    pub kind: ProbeKind,
}

impl Probe {
    /// Whether `ask` at `port` is this.
    pub(super) fn is(&self, port: u16, ask: Ask<'_>) -> bool {
        let asked = match (&self.kind, ask) {
            (ProbeKind::Connection, Ask::Connection) => true,
            (ProbeKind::Get(declared), Ask::Request { method: "GET", path }) => **declared == *path,
            (ProbeKind::Grpc, Ask::Request { method: "POST", path }) => path == GRPC_HEALTH,
            _other => false,
        };
        asked && self.port == port
    }
}

/// Who may call one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPolicy {
    /// Where nothing else says.
    pub default: DefaultPolicy,
    /// What its node asks of it, whatever else is said.
    pub probes: Vec<Probe>,
    /// Ports that Servers decide about, by name of the Server: the first one that names a port.
    pub servers: Vec<(PortRange, Arc<str>)>,
}

impl InboundPolicy {
    /// Name of the Server that decides about a port.
    pub fn server_of(&self, port: u16) -> Option<&Arc<str>> {
        let names = |((first, last), _name): &&(PortRange, Arc<str>)| (*first..=*last).contains(&port);
        self.servers.iter().find(names).map(|(_ports, name)| name)
    }

    /// Whether the node may have to be told from others: something at this port is its alone.
    pub fn is_probed(&self, port: u16) -> bool {
        self.probes.iter().any(|probe| probe.port == port)
    }

    /// Ports at which kubelet looks no further than the connection: the kernel leaves its connections to the application.
    pub fn connection_probes(&self) -> impl Iterator<Item = u16> {
        self.probes.iter().filter(|probe| probe.kind == ProbeKind::Connection).map(|probe| probe.port)
    }
}
