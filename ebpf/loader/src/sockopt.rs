//! Socket options that the safe crates in use lack. Must never be used where those have a function of their own.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

const SO_NETNS_COOKIE: libc::c_int = 71;
const SO_COOKIE: libc::c_int = 57;
const IPV6_TRANSPARENT: libc::c_int = 75;
const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;

fn set(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives through the call and the length is its own.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_u64(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both live through the call; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, std::ptr::from_mut(&mut value).cast(), &mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Lets an IPv4 or dual-stack socket use addresses that are not the host's. Needs CAP_NET_ADMIN.
///
/// # Errors
/// What the kernel says.
pub fn set_transparent_v4(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_IP, libc::IP_TRANSPARENT, 1)
}

/// The same for an IPv6 socket. Needs CAP_NET_ADMIN.
///
/// # Errors
/// What the kernel says.
pub fn set_transparent_v6(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_IPV6, IPV6_TRANSPARENT, 1)
}

/// A bind to an address leaves the choice of the port to `connect`, which may reuse ports towards other destinations.
///
/// # Errors
/// What the kernel says.
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Mark of packets and of route lookups. Needs CAP_NET_ADMIN or CAP_NET_RAW.
///
/// # Errors
/// What the kernel says.
pub fn set_mark(fd: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
}

/// Cookie of the network namespace that a socket lives in: unique until reboot.
///
/// # Errors
/// What the kernel says.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    get_u64(fd, SO_NETNS_COOKIE)
}

/// Cookie of a socket: unique until reboot, the same through every descriptor of it.
///
/// # Errors
/// What the kernel says.
pub fn socket_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    get_u64(fd, SO_COOKIE)
}
