//! Whether a client may reach a port of a local workload. Must never allow by default once a policy names the port.

use std::net::SocketAddr;

use crate::{identity::Identity, proxy_error::ProxyError, snapshot::Workload};

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundPlan {
    /// Go on.
    Allow,
    /// Answer with this.
    Deny(ProxyError),
}

/// Decides for one connection or request.
///
/// The default policy is Linkerd's `all-unauthenticated`. What it never allows is a connection that would loop: one that
/// claims to come from the workload's own address, which the kernel does not send here.
pub fn plan(server: &Workload, _port: u16, peer: SocketAddr, client: Option<&Identity>) -> InboundPlan {
    if client.is_none() && server.addresses.contains(&peer.ip()) {
        return InboundPlan::Deny(ProxyError::Loop);
    }
    InboundPlan::Allow
}
