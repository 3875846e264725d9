//! Looks whether anything of the demo is still there after it was taken down. Must never remove anything: it reports.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use super::stage::Stage;
use crate::fabric::NODES;

/// Where pins of nodes are.
const BPFFS: &str = "/sys/fs/bpf";

/// What could be left, noted while it is there.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    /// Inodes of namespaces: of nodes and pods.
    namespaces: Vec<u64>,
    /// Their files, pins of nodes, the folder.
    paths: Vec<PathBuf>,
}

impl Traces {
    /// Notes everything that the stage holds.
    pub(super) fn of(stage: &Stage) -> Traces {
        let nodes = (0..NODES).map(|node| stage.mesh.fabric.node(node));
        let files: Vec<PathBuf> =
            nodes.chain(stage.pods.iter().map(|pod| &pod.place.netns)).map(|netns| netns.path().to_owned()).collect();
        let namespaces: Vec<u64> = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.ino())).collect();
        let pins = namespaces.iter().map(|inode| PathBuf::from(format!("{BPFFS}/weir-{inode}")));
        let paths = files.iter().cloned().chain(pins).chain([stage.mesh.path("")]).collect();
        Traces { namespaces, paths }
    }

    /// What is still there, in words; empty is good.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            // A process that ends meanwhile, or no process at all.
            let Ok(netns) = fs::metadata(path.join("ns/net")) else { continue };
            if self.namespaces.contains(&netns.ino()) {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                left.push(format!("process {} {}", entry.file_name().to_string_lossy(), name.trim()));
            }
        }
        left
    }
}
