//! `sock_ops`: writes down which connections to pods come out of the node's own network namespace, where kubelet lives, and marks
//! them where they arrive.
//!
//! Called at a few moments of every TCP connection of the node. Must never write down a connection of another namespace, nor mark a
//! socket that is not the proxy's.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt, bpf_sock_ops_cb_flags_set},
    macros::sock_ops,
    programs::SockOpsContext,
};
use weir_ebpf_common::{Address, Connection, PROBE_MARK, PROBE_MARKED, Probed};

use crate::{
    maps::{PODS, PROBED, PROBES, SETTINGS},
    uapi::{AF_INET, SO_MARK, SOL_SOCKET},
};

/// What this hook answers says nothing.
const GO_ON: u32 = 1;

/// Cookie of the node's own network namespace. Written by the loader.
#[unsafe(no_mangle)]
static NODE_COOKIE: u64 = 0;

#[sock_ops]
pub fn weir_probes(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context pointer is the kernel's; the verifier checks each offset.
    match unsafe { read_volatile(addr_of!((*ctx.ops).op)) } {
        // The ports are chosen, the SYN has not left.
        BPF_SOCK_OPS_TCP_CONNECT_CB => record(&ctx),
        // Before accept(2) can return it.
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => mark(&ctx),
        // Of sockets that `record` asked it for.
        BPF_SOCK_OPS_STATE_CB => forget(&ctx),
        _other => {}
    }
    GO_ON
}

#[inline(always)]
fn record(ctx: &SockOpsContext) {
    // SAFETY: the helper takes the context and reads nothing else; the other is a global of this object, frozen by the loader.
    if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) != read_volatile(&NODE_COOKIE) } {
        return;
    }
    let (local, remote) = ends(ctx.ops);
    let exact = Probed { address: remote.0, port: remote.1 };
    let any = Probed { address: remote.0, port: 0 };
    // SAFETY: an element replaced meanwhile was right a moment ago.
    let Some(probing) = (unsafe { PROBED.get(exact).or_else(|| PROBED.get(any)) }) else { return };
    let how = probing.how;
    let connection =
        Connection { source: local.0, destination: remote.0, source_port: local.1, destination_port: remote.1 };
    // SAFETY: as in `weir_probes`; flags of other programs stay.
    let unwatched = unsafe {
        let flags = read_volatile(addr_of!((*ctx.ops).bpf_sock_ops_cb_flags)) | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ctx.ops, flags as i32)
    };
    if unwatched != 0 {
        // What would not be forgotten is not written down.
        return;
    }
    // Full is not possible; without memory the connection is nobody's in particular, and decided as such.
    let _written = PROBES.insert(connection, how, 0);
}

/// The node's end is closed, refused or given up, and its port free for others.
#[inline(always)]
fn forget(ctx: &SockOpsContext) {
    // SAFETY: as in `weir_probes`; with this callback the second argument is the new state.
    if unsafe { read_volatile(addr_of!((*ctx.ops).__bindgen_anon_1.args[1])) } != BPF_TCP_CLOSE {
        return;
    }
    let (local, remote) = ends(ctx.ops);
    let connection =
        Connection { source: local.0, destination: remote.0, source_port: local.1, destination_port: remote.1 };
    // Most often gone since it was established.
    let _gone = PROBES.remove(connection);
}

#[inline(always)]
fn mark(ctx: &SockOpsContext) {
    let (local, remote) = ends(ctx.ops);
    let connection =
        Connection { source: remote.0, destination: local.0, source_port: remote.1, destination_port: local.1 };
    // SAFETY: as above.
    let Some(how) = (unsafe { PROBES.get(connection) }) else { return };
    let how = *how;
    // Good for one connection.
    let _gone = PROBES.remove(connection);
    // SAFETY: as above.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: as above.
    let Some(slot) = (unsafe { PODS.get(cookie) }) else { return };
    // SAFETY: as above.
    let Some(settings) = (unsafe { SETTINGS.get(*slot) }) else { return };
    // SAFETY: the verifier checks that the socket is there, and its fields.
    let mark = unsafe {
        let socket = read_volatile(addr_of!((*ctx.ops).__bindgen_anon_2.sk));
        if socket.is_null() {
            return;
        }
        read_volatile(addr_of!((*socket).mark))
    };
    if how != PROBE_MARKED || mark != settings.own_mark {
        return;
    }
    let mut mark = PROBE_MARK;
    // SAFETY: value and length agree. A connection that cannot be marked is decided as anybody's.
    let _unmarked = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            SOL_SOCKET,
            SO_MARK,
            core::ptr::from_mut(&mut mark).cast(),
            size_of::<u32>() as i32,
        )
    };
}

/// Address and port of the local and of the remote end.
#[inline(always)]
fn ends(ops: *const bpf_sock_ops) -> ((Address, u32), (Address, u32)) {
    // SAFETY: as in `weir_probes`; volatile, and all before the family is looked at, for the reasons given in `lookup`.
    unsafe {
        let family = read_volatile(addr_of!((*ops).family));
        let (local4, remote4) = (read_volatile(addr_of!((*ops).local_ip4)), read_volatile(addr_of!((*ops).remote_ip4)));
        let local = Address {
            words: [
                read_volatile(addr_of!((*ops).local_ip6[0])),
                read_volatile(addr_of!((*ops).local_ip6[1])),
                read_volatile(addr_of!((*ops).local_ip6[2])),
                read_volatile(addr_of!((*ops).local_ip6[3])),
            ],
        };
        let remote = Address {
            words: [
                read_volatile(addr_of!((*ops).remote_ip6[0])),
                read_volatile(addr_of!((*ops).remote_ip6[1])),
                read_volatile(addr_of!((*ops).remote_ip6[2])),
                read_volatile(addr_of!((*ops).remote_ip6[3])),
            ],
        };
        // The one in host order, the other in network order, as wide as the field.
        let ports =
            (read_volatile(addr_of!((*ops).local_port)), u32::from_be(read_volatile(addr_of!((*ops).remote_port))));
        let addresses =
            if family == AF_INET { (Address::mapped(local4), Address::mapped(remote4)) } else { (local, remote) };
        ((addresses.0, ports.0), (addresses.1, ports.1))
    }
}
