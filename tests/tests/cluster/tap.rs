//! What passes between the nodes.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{cluster::PATIENCE, wait};

/// Where the cluster's bridge joins the second node.
const LINK: &str = "weirk-node-b";

/// What passes between the nodes, as it passes.
pub(crate) struct Tap {
    tcpdump: Child,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tap {
    /// Begins to listen at the second node's link.
    pub(crate) fn open() -> Tap {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("link.pcap");
        let tcpdump = Command::new("tcpdump")
            .args(["-i", LINK, "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The header is written when the capture runs.
        wait::until("a capture", PATIENCE, || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0).then_some(()));
        Tap { tcpdump, file, _folder: folder }
    }

    /// Ends it: everything that passed.
    pub(crate) fn close(mut self) -> Vec<u8> {
        kill_process(Pid::from_child(&self.tcpdump), Signal::INT).unwrap();
        self.tcpdump.wait().unwrap();
        std::fs::read(&self.file).unwrap()
    }
}
