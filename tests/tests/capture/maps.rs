//! Looks into pinned maps by their descriptors' own account. Must never write to one.

use std::path::Path;

/// Pods in the maps of a node, as the holder's successor would find them.
pub(crate) fn entries(pins: &Path) -> usize {
    let place = weir_ebpf_loader::Place::of(pins.parent().expect("bpffs"), number(pins));
    weir_ebpf_loader::entries(&place).expect("pinned maps")
}

fn number(pins: &Path) -> u64 {
    let name = pins.file_name().expect("name").to_string_lossy().into_owned();
    name.trim_start_matches("weir-").parse().expect("inode")
}
