//! The maps, pinned by name and shared by all programs of one node. Must never change shape without a new name.

use aya_ebpf::maps::{HashMap, LruHashMap, SockMap};
use weir_ebpf_common::{Connection, MAX_LISTENERS, MAX_PODS, MAX_PROBED, MAX_PROBES, PodSettings, Probed, Probing};

const NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// Cookie of an opted-in pod's network namespace -> the pod's slot. What is not in here is not captured.
#[aya_ebpf::macros::map(name = "PODS")]
pub static PODS: HashMap<u64, u32> = HashMap::pinned(MAX_PODS, NO_PREALLOC);

/// Slot -> settings. A hash, so that an update replaces the value whole.
#[aya_ebpf::macros::map(name = "SETTINGS")]
pub static SETTINGS: HashMap<u32, PodSettings> = HashMap::pinned(MAX_PODS, NO_PREALLOC);

/// Two listening sockets for each slot. An entry vanishes when the last descriptor of its socket is closed.
#[aya_ebpf::macros::map(name = "LISTENERS")]
pub static LISTENERS: SockMap = SockMap::pinned(MAX_LISTENERS, 0);

/// Address and port of a pod -> what becomes of connections of the node itself. What is not in here is nothing special.
#[aya_ebpf::macros::map(name = "PROBED")]
pub static PROBED: HashMap<Probed, Probing> = HashMap::pinned(MAX_PROBED, NO_PREALLOC);

/// Connections of the node itself on their way to a pod -> `PROBE_…`.
#[aya_ebpf::macros::map(name = "PROBES")]
pub static PROBES: LruHashMap<Connection, u32> = LruHashMap::pinned(MAX_PROBES, 0);
