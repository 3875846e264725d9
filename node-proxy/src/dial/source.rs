//! Source ports of connections that reach an application with their client's address.
//!
//! Must never take a port that the client's kernel would: in the pod's namespace, the client's connection over the wire and ours to the
//! application would be one and the same to the kernel.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use tokio::net::TcpSocket;

/// Dials before giving up: the first range, then the second, each time another port.
pub(super) const ATTEMPTS: usize = 4;
/// Binds of one socket: the next port after one that an application listens on.
const BINDS: usize = 8;
/// Above Linux's range of ephemeral ports (32768 to 60999): no kernel chooses them, hardly any application listens on them.
const FIRST: RangeInclusive<u16> = 61_000..=65_535;
/// Below it, for a client with more connections to one port than the first range holds.
const SECOND: RangeInclusive<u16> = 10_240..=32_767;

thread_local! {
    // Random, so that workers do not begin with the same ports.
    static NEXT: Cell<u32> = Cell::new(fastrand::u32(..));
}

fn next(range: &RangeInclusive<u16>) -> u16 {
    let count = u32::from(range.end() - range.start()) + 1;
    let next = NEXT.get();
    NEXT.set(next.wrapping_add(1));
    // Below the count, which fits.
    range.start() + u16::try_from(next % count).unwrap_or(0)
}

/// Gives `socket` the client's address and a port that no other connection to the same application has.
///
/// # Errors
/// What the kernel says; `AddrInUse` when an application listens on every port that was tried.
pub(super) fn bind(socket: &TcpSocket, client: IpAddr, attempt: usize) -> io::Result<()> {
    let range = if attempt == 0 { FIRST } else { SECOND };
    // One port serves several connections, to other applications or ports.
    socket.set_reuseaddr(true)?;
    for _bind in 1..BINDS {
        match socket.bind(SocketAddr::new(client, next(&range))) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    socket.bind(SocketAddr::new(client, next(&range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_outside_the_kernels_range_and_are_all_used() {
        for range in [FIRST, SECOND] {
            let count = usize::from(range.end() - range.start()) + 1;
            let seen: std::collections::BTreeSet<u16> = (0..count).map(|_| next(&range)).collect();
            assert_eq!(seen.len(), count, "no port twice before all were used");
            assert!(seen.iter().all(|port| range.contains(port) && !(32_768..=60_999).contains(port)));
        }
    }
}
