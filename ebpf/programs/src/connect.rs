//! `cgroup/connect4` and `connect6`: decides for each TCP connect of an opted-in pod whether it is captured.
//!
//! Must never decide on anything but the stable context, and never let a pod choose its own exemption.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_netns_cookie, bpf_map_lookup_elem, bpf_set_retval, bpf_setsockopt, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use weir_ebpf_common::{Address, outbound_slot};

use crate::{
    maps::{LISTENERS, PODS, SETTINGS},
    uapi::{SO_MARK, SOL_SOCKET},
};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
const ECONNREFUSED: i32 = 111;

const REFUSE: i32 = 0;
const ALLOW: i32 = 1;

/// Whether the kernel lets us choose the errno (5.18). Written by the loader; the verifier drops the dead branch.
#[unsafe(no_mangle)]
static CAN_SET_ERRNO: u32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn weir_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context pointer is the kernel's; the verifier checks each offset. Volatile keeps loads apart, as the
    // context may not be read in wider pieces than its fields.
    let destination = Address::mapped(unsafe { read_volatile(addr_of!((*ctx.sock_addr).user_ip4)) });
    decide(&ctx, &destination)
}

#[cgroup_sock_addr(connect6)]
pub fn weir_connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above.
    let destination = unsafe {
        Address {
            words: [
                read_volatile(addr_of!((*ctx.sock_addr).user_ip6[0])),
                read_volatile(addr_of!((*ctx.sock_addr).user_ip6[1])),
                read_volatile(addr_of!((*ctx.sock_addr).user_ip6[2])),
                read_volatile(addr_of!((*ctx.sock_addr).user_ip6[3])),
            ],
        }
    };
    decide(&ctx, &destination)
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, destination: &Address) -> i32 {
    // SAFETY: as above.
    let protocol = unsafe { read_volatile(addr_of!((*ctx.sock_addr).protocol)) };
    if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
        return ALLOW;
    }
    // SAFETY: the helper takes the context and reads nothing else.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: an element replaced meanwhile is at worst another pod's for one connect; the maps' writer keeps slots apart.
    let Some(slot) = (unsafe { PODS.get(cookie) }) else {
        return ALLOW;
    };
    let slot = *slot;
    // SAFETY: as above.
    let Some(settings) = (unsafe { SETTINGS.get(slot) }) else {
        return ALLOW;
    };
    // SAFETY: the context's socket is never null in these hooks; the verifier checks its fields.
    let (mark, device) = unsafe {
        let socket = read_volatile(addr_of!((*ctx.sock_addr).__bindgen_anon_1.sk));
        (read_volatile(addr_of!((*socket).mark)), read_volatile(addr_of!((*socket).bound_dev_if)))
    };
    if mark == settings.own_mark || destination.is_loopback() || settings.owns(destination) {
        return ALLOW;
    }
    // SAFETY: as above. The port lies in network order in the low 16 bits.
    let port = u16::from_be(unsafe { read_volatile(addr_of!((*ctx.sock_addr).user_port)) } as u16);
    if settings.skips_outbound(destination, port) {
        return ALLOW;
    }
    let uncapturable = device != 0 || destination.is_link_local_v6();
    if uncapturable {
        // A route lookup bound to a device does not follow our rule: refused (EPERM), or it would escape.
        return if settings.permissive() { ALLOW } else { REFUSE };
    }
    if !taken(outbound_slot(slot)) {
        return if settings.permissive() { ALLOW } else { refuse_connection() };
    }
    let mut mark = settings.capture_mark;
    // SAFETY: value and length agree.
    let failed = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            SOL_SOCKET,
            SO_MARK,
            core::ptr::from_mut(&mut mark).cast(),
            size_of::<u32>() as i32,
        )
    };
    if failed != 0 && !settings.permissive() {
        return REFUSE;
    }
    ALLOW
}

/// Whether a listening socket lies in the slot.
#[inline(always)]
fn taken(index: u32) -> bool {
    // SAFETY: map and key are valid; the reference that the lookup took is released.
    unsafe {
        let map = core::ptr::from_ref(&LISTENERS).cast_mut().cast();
        let socket = bpf_map_lookup_elem(map, core::ptr::from_ref(&index).cast());
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
        true
    }
}

/// ECONNREFUSED, which applications know how to retry; EPERM where the kernel is too old to be told.
#[inline(always)]
fn refuse_connection() -> i32 {
    // SAFETY: a global of this object, frozen by the loader.
    if unsafe { read_volatile(&CAN_SET_ERRNO) } != 0 {
        // SAFETY: takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}
