//! Asks the kernel for sockets (inet_diag). Must never be asked for more than whether there are any.

use std::io;

use super::netlink::{Netlink, attributes};

const NETLINK_SOCK_DIAG: isize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;
const INET_DIAG_MARK: u16 = 15;
// All states but TIME_WAIT (6), CLOSE (7) and LISTEN (10): those route nothing.
const STATES: u32 = 0xfff & !(1 << 6) & !(1 << 7) & !(1 << 10);

/// Whether a TCP connection with this mark is open in the calling thread's namespace.
pub(super) fn has_marked(mark: u32) -> io::Result<bool> {
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
    let mut found = false;
    for family in [AF_INET, AF_INET6] {
        let mut request = [0_u8; REQUEST_BYTES];
        request[0] = family;
        request[1] = IPPROTO_TCP;
        request[4..8].copy_from_slice(&STATES.to_ne_bytes());
        netlink.dump_raw(SOCK_DIAG_BY_FAMILY, &request, |body| {
            let body = body.get(MESSAGE_BYTES..).unwrap_or_default();
            found |= attributes(body).any(|(kind, value)| kind == INET_DIAG_MARK && value == mark.to_ne_bytes());
        })?;
    }
    Ok(found)
}
