//! Recognises other meshes that redirect a pod's traffic by nftables. Must never change anything of theirs.

use std::io;

use super::netlink::{Netlink, attributes};

const NETLINK_NETFILTER: isize = 12;
const NFT_MSG_GETCHAIN: u16 = (10 << 8) | 4;
const NFTA_CHAIN_NAME: u16 = 3;
const HEADER_BYTES: usize = 4;
// Linkerd's proxy-init, Istio's init container and CNI plugins (iptables-nft keeps the names).
const PREFIXES: [&str; 2] = ["PROXY_INIT_", "ISTIO_"];

/// Name of a chain of another mesh in the calling thread's namespace.
pub(super) fn chain() -> io::Result<Option<String>> {
    let mut found = None;
    let mut netlink = match Netlink::open(NETLINK_NETFILTER) {
        Ok(netlink) => netlink,
        // A kernel without nftables holds no chains.
        Err(_unsupported) => return Ok(None),
    };
    let dumped = netlink.dump_raw(NFT_MSG_GETCHAIN, &[0; HEADER_BYTES], |body| {
        let body = body.get(HEADER_BYTES..).unwrap_or_default();
        for (kind, value) in attributes(body) {
            let name = String::from_utf8_lossy(value);
            let name = name.trim_end_matches('\0');
            if kind == NFTA_CHAIN_NAME && PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                found = Some(name.to_owned());
            }
        }
    });
    match dumped {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::Unsupported => {
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}
