//! Sockets made inside a pod's namespace. Must never listen where an application could reach the listener by itself.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, OwnedFd},
};

use socket2::{Domain, Protocol, Socket, Type};
use weir_ebpf_loader::sockopt;

use super::state::Marks;
use crate::{
    handover::{Family, SocketKind},
    limits,
};

/// Discard-only prefix (RFC 6666): nobody routes it, so that only the socket lookup leads to a listener bound there.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, 0, 1);

/// A dual-stack, non-blocking listener that takes what the socket lookup gives it.
pub(super) fn listener(marks: Marks) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_only_v6(false)?;
    // Answers leave with addresses that are not the pod's.
    sockopt::set_transparent_v4(socket.as_fd())?;
    sockopt::set_transparent_v6(socket.as_fd())?;
    sockopt::set_freebind_v6(socket.as_fd())?;
    sockopt::set_mark(socket.as_fd(), marks.own)?;
    socket.bind(&SocketAddr::V6(SocketAddrV6::new(NOWHERE, 0, 0, 0)).into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// A socket to dial with.
pub(super) fn dial(marks: Marks, kind: SocketKind, family: Family) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match kind {
        SocketKind::Upstream => sockopt::set_mark(socket.as_fd(), marks.own)?,
        SocketKind::App => {
            match family {
                Family::V4 => sockopt::set_transparent_v4(socket.as_fd())?,
                Family::V6 => sockopt::set_transparent_v6(socket.as_fd())?,
            }
            // The application's answers inherit the mark and find their way back to the proxy by our rule.
            sockopt::set_mark(socket.as_fd(), marks.capture)?;
            // Without it the lookup could not tell this from a connection that came over the wire.
            socket.bind_device(Some(b"lo"))?;
            sockopt::set_bind_address_no_port(socket.as_fd())?;
        }
    }
    Ok(socket.into())
}

/// Cookie of the calling thread's namespace.
pub(super) fn cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    sockopt::netns_cookie(socket.as_fd())
}
