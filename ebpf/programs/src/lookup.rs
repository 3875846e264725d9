//! `sk_lookup`: in one pod's namespace, gives each new connection to the proxy's listener, or leaves it to the application.
//!
//! Must never be attached to the node's own namespace.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{bpf_sk_lookup, sk_action},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use weir_ebpf_common::{Address, Connection, LOOPBACK_IFINDEX, PROBE_DIRECT, inbound_slot, outbound_slot};

use crate::{
    maps::{LISTENERS, PROBES, SETTINGS},
    uapi::AF_INET,
};

const IPPROTO_TCP: u32 = 6;

const PASS: u32 = sk_action::SK_PASS;
const DROP: u32 = sk_action::SK_DROP;

/// The pod whose namespace this copy is attached to. Written by the loader: there is no namespace cookie in this hook.
#[unsafe(no_mangle)]
static SLOT: u32 = u32::MAX;

#[sk_lookup]
pub fn weir_lookup(ctx: SkLookupContext) -> u32 {
    // SAFETY: the context pointer is the kernel's; the verifier checks each offset.
    if unsafe { read_volatile(addr_of!((*ctx.lookup).protocol)) } != IPPROTO_TCP {
        return PASS;
    }
    // SAFETY: a global of this object, frozen by the loader.
    let slot = unsafe { read_volatile(&SLOT) };
    // SAFETY: the entry outlives the attachment: it is written before and removed after.
    let Some(settings) = (unsafe { SETTINGS.get(slot) }) else {
        return DROP;
    };
    let (local, remote) = addresses(ctx.lookup);
    // SAFETY: as above.
    let (port, interface) = unsafe {
        (
            read_volatile(addr_of!((*ctx.lookup).local_port)) as u16,
            read_volatile(addr_of!((*ctx.lookup).ingress_ifindex)),
        )
    };
    // What is left alone finds a socket by address and port, but never a listener of ours.
    let pass = if settings.is_listener(port) { DROP } else { PASS };
    let owned = settings.owns(&local);
    // The pod talks to itself, also from one of its addresses to another, or to its loopback.
    if local.same(&remote) || local.is_loopback() || (owned && settings.owns(&remote)) {
        return pass;
    }
    let from_inside = interface == LOOPBACK_IFINDEX;
    let index = match (owned, from_inside) {
        // The proxy dials the application over lo.
        (true, true) => return pass,
        (false, true) => outbound_slot(slot),
        // Also an address of the pod that nobody declared: from outside is never outbound.
        (_, false) if settings.skips_inbound(port) => return pass,
        (_, false) if settings.has_direct_probes() && is_direct_probe(ctx.lookup, local, remote, port) => return pass,
        (_, false) => inbound_slot(slot),
    };
    match LISTENERS.redirect_sk_lookup(&ctx, index, 0) {
        Ok(()) => PASS,
        Err(_missing) if settings.permissive() => pass,
        Err(_missing) => DROP,
    }
}

/// Whether the node itself asks, at a port where it is to meet the application.
#[inline(always)]
fn is_direct_probe(lookup: *const bpf_sk_lookup, local: Address, remote: Address, port: u16) -> bool {
    // SAFETY: as in `weir_lookup`.
    let source = u16::from_be(unsafe { read_volatile(addr_of!((*lookup).remote_port)) });
    let connection =
        Connection { source: remote, destination: local, source_port: source.into(), destination_port: port.into() };
    // SAFETY: the entry is removed once the connection is established, or given up.
    unsafe { PROBES.get(connection) }.is_some_and(|how| *how == PROBE_DIRECT)
}

/// Local and remote address.
#[inline(always)]
fn addresses(lookup: *const bpf_sk_lookup) -> (Address, Address) {
    // SAFETY: as in `weir_lookup`; volatile because the context may not be read in wider pieces than its fields. All fields are
    // read before the family is looked at: in branches, the compiler would join loads at a computed offset, which the kernel
    // refuses. Fields of the other family read as zero.
    unsafe {
        let family = read_volatile(addr_of!((*lookup).family));
        let (local4, remote4) =
            (read_volatile(addr_of!((*lookup).local_ip4)), read_volatile(addr_of!((*lookup).remote_ip4)));
        let local = Address {
            words: [
                read_volatile(addr_of!((*lookup).local_ip6[0])),
                read_volatile(addr_of!((*lookup).local_ip6[1])),
                read_volatile(addr_of!((*lookup).local_ip6[2])),
                read_volatile(addr_of!((*lookup).local_ip6[3])),
            ],
        };
        let remote = Address {
            words: [
                read_volatile(addr_of!((*lookup).remote_ip6[0])),
                read_volatile(addr_of!((*lookup).remote_ip6[1])),
                read_volatile(addr_of!((*lookup).remote_ip6[2])),
                read_volatile(addr_of!((*lookup).remote_ip6[3])),
            ],
        };
        if family == AF_INET { (Address::mapped(local4), Address::mapped(remote4)) } else { (local, remote) }
    }
}
