//! Whether a client may reach a port of a local workload: the one place where that is decided. Must never allow by default once a
//! policy names the port.
//!
//! A Server decides about its ports, the default policy about all others, and whatever they say the node's probes are let through. What depends on
//! the client alone is decided once for a connection and configuration ([`standing`]), the rest for each request ([`InboundPlan::or_probe`]).

mod grants;
mod paths;
mod policy;
mod redirect;
mod server;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub use self::{
    grants::{Clients, Grant, Grants, Network},
    policy::{DefaultPolicy, InboundPolicy, Probe, ProbeKind, UnknownPolicy},
    redirect::redirected,
    server::{Requested, ServerPolicy, ServerRoutes},
};
use crate::{identity::Identity, proxy_error::ProxyError, route::ObjectRef, snapshot::Workload};

/// Who asks, as far as it is proven.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// By its certificate; on the same node by the kernel's word about its socket.
    pub identity: Option<&'a Identity>,
    /// It speaks TLS to the mesh, whether it has shown a certificate or not.
    pub is_tls: bool,
    /// Where it connects from.
    pub address: IpAddr,
}

/// What it asks for.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A connection whose bytes nobody reads.
    Connection,
    /// One request.
    Request {
        /// As it came.
        method: &'a str,
        /// Path and query as they came.
        path: &'a str,
    },
}

/// What allowed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authorization {
    /// The policy of the port: [`Ruling::authorization`] says which object.
    Policy,
    /// A declared probe of the pod, asked by the node.
    Probe,
}

/// Why nobody allowed it, for the client and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The default policy lets nobody in.
    Nobody,
    /// It asks for an identity, and the client has proven none.
    Unauthenticated,
    /// It asks for an address within the cluster.
    OutsideCluster,
    /// The port's Server has no authorization at all.
    Server,
    /// None that asks for no identity, and the client has proven none.
    ServerUnauthenticated,
    /// None that names this client's identity.
    ServerIdentities,
    /// Those that name the client ask for other addresses.
    ServerNetworks,
    /// The node knows that a Server decides, and not yet how.
    ServerUnknown,
}

impl Denial {
    /// All of them, for tables and tests.
    pub const ALL: [Denial; 8] = [
        Denial::Nobody,
        Denial::Unauthenticated,
        Denial::OutsideCluster,
        Denial::Server,
        Denial::ServerUnauthenticated,
        Denial::ServerIdentities,
        Denial::ServerNetworks,
        Denial::ServerUnknown,
    ];
}

impl std::fmt::Display for Denial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Denial::Nobody => "the default policy is deny",
            Denial::Unauthenticated => "the default policy asks for mutual TLS",
            Denial::OutsideCluster => "the client is outside the networks of the cluster",
            Denial::Server => "the port has a Server, and no policy lets anybody in",
            Denial::ServerUnauthenticated => "no policy of the port's Server lets in clients without mutual TLS",
            Denial::ServerIdentities => "no policy of the port's Server names the client's identity",
            Denial::ServerNetworks => "no policy of the port's Server lets the client in from its address",
            Denial::ServerUnknown => "the node does not know the policies of the port's Server yet",
        })
    }
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundPlan {
    /// Go on.
    Allow(Authorization),
    /// Go on, and say so.
    Audit,
    /// Answer with this.
    Deny(ProxyError),
}

/// Whose word it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ruler {
    /// No Server names the port.
    Default(DefaultPolicy),
    /// This one does.
    Server(Arc<ObjectRef>),
    /// One does of which the node knows the name alone.
    Unknown(Arc<str>),
}

impl std::fmt::Display for Ruler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ruler::Default(policy) => write!(formatter, "default {policy}"),
            Ruler::Server(server) => write!(formatter, "Server {server}"),
            Ruler::Unknown(name) => write!(formatter, "Server {name}"),
        }
    }
}

/// Who decides about a client at a port, and which object lets it in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ruling {
    /// Whose word it is.
    pub ruler: Ruler,
    /// What lets the client in; none where nothing does, and where the default policy decides.
    pub authorization: Option<Arc<ObjectRef>>,
    /// The Server's route that the request falls under; none where it has no routes.
    pub route: Option<Arc<ObjectRef>>,
}

/// What holds for one client at one port, whatever it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who decides.
    pub ruling: Arc<Ruling>,
    /// What it says.
    pub plan: InboundPlan,
}

/// The policy of one port.
#[derive(Clone, Copy, Debug)]
pub enum Rules<'a> {
    /// No Server names it.
    Default(DefaultPolicy),
    /// This one does.
    Server(&'a Arc<ServerPolicy>),
    /// One does of which the node knows the name alone: nobody may.
    Unknown(&'a Arc<str>),
}

/// What `rules` say of a client that wants to reach `server`. `networks` are the cluster's.
pub fn standing(server: &Workload, rules: Rules<'_>, networks: &[IpNet], client: Client<'_>) -> Standing {
    let client = Client { address: client.address.to_canonical(), ..client };
    let (ruler, granted) = match rules {
        Rules::Default(policy) => {
            (Ruler::Default(policy), by_default(policy, networks, client).map(|plan| (plan, None)))
        }
        Rules::Unknown(name) => (Ruler::Unknown(Arc::clone(name)), Err(Denial::ServerUnknown)),
        Rules::Server(policy) => {
            let granted = policy.decide(networks, client);
            let granted = granted.map(|grant| (InboundPlan::granted(grant), Some(Arc::clone(&grant.object))));
            (Ruler::Server(Arc::clone(&policy.object)), granted)
        }
    };
    let (plan, authorization) =
        granted.unwrap_or_else(|denial| (InboundPlan::Deny(ProxyError::Unauthorized(denial)), None));
    // What claims to come from the workload's own address would loop: the kernel does not send it here.
    let loops = client.identity.is_none() && server.addresses.contains(&client.address);
    let plan = if loops { InboundPlan::Deny(ProxyError::Loop) } else { plan };
    Standing { ruling: Arc::new(Ruling { ruler, authorization, route: None }), plan }
}

impl InboundPlan {
    fn granted(grant: &Grant) -> InboundPlan {
        if grant.audit { InboundPlan::Audit } else { InboundPlan::Allow(Authorization::Policy) }
    }

    /// Decides for one connection or request to `port` of `server`. `node`: the kernel saw this very connection leave a process in the
    /// node's own network namespace, and kubelet is one of them; with what its probes were redirected to.
    pub fn or_probe(self, server: &Workload, port: u16, node: Option<&[Probe]>, ask: Ask<'_>) -> InboundPlan {
        if let InboundPlan::Deny(ProxyError::Unauthorized(_) | ProxyError::NoRoute) = self
            && let Some(followed) = node
            && server.policy.probes.iter().chain(followed).any(|probe| probe.is(port, ask))
        {
            return InboundPlan::Allow(Authorization::Probe);
        }
        self
    }
}

fn by_default(policy: DefaultPolicy, networks: &[IpNet], client: Client<'_>) -> Result<InboundPlan, Denial> {
    let allow = InboundPlan::Allow(Authorization::Policy);
    let within = || networks.iter().any(|network| network.contains(&client.address));
    let authenticated = client.identity.is_some();
    match policy {
        DefaultPolicy::AllUnauthenticated => Ok(allow),
        DefaultPolicy::Audit => Ok(InboundPlan::Audit),
        DefaultPolicy::Deny => Err(Denial::Nobody),
        DefaultPolicy::AllAuthenticated | DefaultPolicy::ClusterAuthenticated if !authenticated => {
            Err(Denial::Unauthenticated)
        }
        DefaultPolicy::AllAuthenticated => Ok(allow),
        DefaultPolicy::ClusterUnauthenticated | DefaultPolicy::ClusterAuthenticated => {
            if within() {
                Ok(allow)
            } else {
                Err(Denial::OutsideCluster)
            }
        }
    }
}
