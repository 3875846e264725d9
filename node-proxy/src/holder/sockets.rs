//! Sockets made inside a pod's namespace. Must never open a listener whose port the socket lookup does not close.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use weir_ebpf_loader::sockopt;

use super::state::Marks;
use crate::{
    handover::{Family, SocketKind},
    limits,
};

/// A dual-stack, non-blocking listener that takes what the socket lookup gives it.
pub(super) fn listener(mark: u32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_only_v6(false)?;
    // Answers leave with addresses that are not the pod's.
    sockopt::set_transparent_v4(socket.as_fd())?;
    sockopt::set_transparent_v6(socket.as_fd())?;
    sockopt::set_mark(socket.as_fd(), mark)?;
    set_options(&socket)?;
    // Only the unspecified address serves both families (the kernel makes any other IPv6 only). The port is the kernel's choice,
    // out of the range from which nobody may count on one; the socket lookup drops who dials it directly.
    socket.bind(&SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)).into())?;
    // Inherited by what it accepts, whose local port is the one dialled: an application must be able to listen there meanwhile.
    socket.set_reuse_address(true)?;
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
    set_options(&socket)?;
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

/// Small writes leave at once, little waits in the kernel, dead peers are noticed. Accepted sockets have this from their listener.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(limits::UNSENT_BYTES)?;
    socket.set_tcp_user_timeout(Some(limits::USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::KEEPALIVE).with_interval(limits::KEEPALIVE))
}

/// Port that a socket is bound to.
pub(super) fn port(socket: BorrowedFd<'_>) -> io::Result<u16> {
    let address = SockRef::from(&socket).local_addr()?;
    address.as_socket().map(|address| address.port()).ok_or_else(|| io::Error::other("a socket of another family"))
}

/// Cookie of the calling thread's namespace.
pub(super) fn cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    sockopt::netns_cookie(socket.as_fd())
}
