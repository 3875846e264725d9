//! What is done on a thread inside a pod's namespace, whole steps at a time. Must never be called outside one.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use super::{
    error::PodError,
    foreign,
    netlink::Netlink,
    routing::{self, Routing},
    sockets,
    state::Marks,
    sysctl::{self, Turned},
};

/// Facts about a namespace.
pub(super) struct Facts {
    /// Its cookie.
    pub(super) cookie: u64,
    /// Addresses by which others reach it.
    pub(super) addresses: Vec<IpAddr>,
}

/// Both listeners of a pod.
pub(super) struct Pair {
    /// Takes what the pod sends.
    pub(super) outbound: OwnedFd,
    /// Takes what is sent to the pod.
    pub(super) inbound: OwnedFd,
}

/// Looks around, and refuses a namespace in which somebody else steers traffic.
pub(super) fn inspect() -> Result<Facts, PodError> {
    let mut netlink = Netlink::route().map_err(PodError::step("opening netlink in the pod's namespace"))?;
    if let Some(conflict) = routing::conflict(&mut netlink).map_err(PodError::step("reading the pod's policy rules"))? {
        return Err(PodError::Conflict(conflict));
    }
    if let Some(chain) = foreign::chain().map_err(PodError::step("reading the pod's nftables chains"))? {
        return Err(PodError::Conflict(format!("another mesh redirects the pod's traffic (nftables chain {chain})")));
    }
    let cookie = sockets::cookie().map_err(PodError::step("reading the namespace's cookie"))?;
    let addresses = routing::addresses(&mut netlink).map_err(PodError::step("reading the pod's addresses"))?;
    Ok(Facts { cookie, addresses })
}

/// Opens both listeners.
pub(super) fn listen(marks: Marks) -> Result<Pair, PodError> {
    let open = |mark| sockets::listener(mark).map_err(PodError::step("opening a listener in the pod's namespace"));
    // What a captured socket that is gone answers with, a reset, has the mark of what it answers: it must come back to us.
    Ok(Pair { outbound: open(marks.capture)?, inbound: open(marks.own)? })
}

/// Makes rules, routes and switches as they should be. Returns what was turned on and how many rules and routes were changed.
pub(super) fn route(routing: &Routing) -> Result<(Vec<Turned>, usize), PodError> {
    let turned = sysctl::turn_on().map_err(PodError::step("writing /proc/sys/net in the pod's namespace"))?;
    let mut netlink = Netlink::route().map_err(PodError::step("opening netlink in the pod's namespace"))?;
    let changes = routing
        .ensure(&mut netlink)
        .map_err(PodError::step("adding the policy rule and route in the pod's namespace"))?;
    Ok((turned, changes))
}

/// Removes rules and routes of ours and turns switches back. Returns how many rules and routes there were.
pub(crate) fn clear(turned: &[Turned]) -> io::Result<usize> {
    let removed = routing::remove(&mut Netlink::route()?)?;
    sysctl::restore(turned)?;
    Ok(removed)
}
