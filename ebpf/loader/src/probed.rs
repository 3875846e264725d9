//! Map `PROBED`: what becomes of the node's own connections to its pods. Must never leave an entry of a pod that left.

use std::collections::HashMap as Memory;

use aya::maps::{HashMap, MapData};
use weir_ebpf_common::{Probed, Probing};

use crate::LoadError;

/// The map, and what lies in it by slot of the pod.
pub(crate) struct ProbedPorts {
    map: HashMap<MapData, Probed, Probing>,
    entries: Memory<u32, Vec<Probed>>,
}

impl ProbedPorts {
    /// Takes over what an earlier process wrote.
    pub(crate) fn new(map: HashMap<MapData, Probed, Probing>) -> ProbedPorts {
        let mut entries: Memory<u32, Vec<Probed>> = Memory::new();
        for (key, value) in map.iter().filter_map(Result::ok) {
            entries.entry(value.slot).or_default().push(key);
        }
        ProbedPorts { map, entries }
    }

    /// From now on these are a pod's, and no others.
    pub(crate) fn set(&mut self, slot: u32, wanted: &[(Probed, u32)]) -> Result<(), LoadError> {
        let before = self.entries.remove(&slot).unwrap_or_default();
        let mut failed = Ok(());
        for (key, how) in wanted {
            let inserted = self.map.insert(key, Probing { slot, how: *how }, 0);
            failed = failed.and(inserted.map_err(|source| LoadError::Map { name: "PROBED", source }));
        }
        for key in before.iter().filter(|key| !wanted.iter().any(|(wanted, _)| wanted == *key)) {
            // An address that another pod has by now keeps what that pod wrote.
            if self.map.get(key, 0).is_ok_and(|found| found.slot == slot) {
                let _gone = self.map.remove(key);
            }
        }
        if !wanted.is_empty() {
            self.entries.insert(slot, wanted.iter().map(|(key, _)| *key).collect());
        }
        failed
    }
}
