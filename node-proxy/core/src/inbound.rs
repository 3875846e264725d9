//! Whether a client may reach a port of a local workload: the one place where that is decided. Must never allow by default once a
//! policy names the port.
//!
//! Policy objects will be asked before the default policy, and probes after it: both then still end in [`InboundPlan`].

mod policy;
mod redirect;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

pub use self::{
    policy::{DefaultPolicy, InboundPolicy, Probe, ProbeKind, UnknownPolicy},
    redirect::redirected,
};
use crate::{identity::Identity, proxy_error::ProxyError, snapshot::Workload};

/// Who asks, as far as it is proven.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// By its certificate; on the same node by the kernel's word about its socket.
    pub identity: Option<&'a Identity>,
    /// Where it connects from.
    pub address: IpAddr,
    /// The kernel saw this very connection leave a process in the node's own network namespace: kubelet is one of them. With what its
    /// probes were redirected to.
    pub node: Option<&'a [Probe]>,
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
    /// The default policy.
    Default,
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
}

impl std::fmt::Display for Denial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Denial::Nobody => "the default policy is deny",
            Denial::Unauthenticated => "the default policy asks for mutual TLS",
            Denial::OutsideCluster => "the client is outside the networks of the cluster",
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

/// Decides for one connection or request to `port` of `server`. `networks` are the cluster's.
pub fn plan(server: &Workload, networks: &[IpNet], port: u16, client: Client<'_>, ask: Ask<'_>) -> InboundPlan {
    // What claims to come from the workload's own address would loop: the kernel does not send it here.
    if client.identity.is_none() && server.addresses.contains(&client.address) {
        return InboundPlan::Deny(ProxyError::Loop);
    }
    let denial = match by_default(server.policy.default, networks, client) {
        Ok(plan) => return plan,
        Err(denial) => denial,
    };
    if let Some(followed) = client.node
        && server.policy.probes.iter().chain(followed).any(|probe| probe.is(port, ask))
    {
        return InboundPlan::Allow(Authorization::Probe);
    }
    InboundPlan::Deny(ProxyError::Unauthorized(denial))
}

fn by_default(policy: DefaultPolicy, networks: &[IpNet], client: Client<'_>) -> Result<InboundPlan, Denial> {
    let allow = InboundPlan::Allow(Authorization::Default);
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
