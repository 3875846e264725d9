//! What went over the wire between the nodes. Must never miss the first packet: the capture says when it is ready.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    daemon::Daemon,
    fabric::{Fabric, WIRE},
    wait,
};

/// A capture in progress.
#[derive(Debug)]
pub struct Wire {
    tcpdump: Daemon,
    file: PathBuf,
}

impl Wire {
    /// Begins to write all that passes the wire at node 1 into `folder`.
    pub fn tap(fabric: &Fabric, folder: &Path, name: &str) -> Wire {
        Wire::tap_link(fabric.node(0).command("tcpdump"), WIRE, folder, name)
    }

    /// The same for any link that `tcpdump`, a command without arguments, sees where it runs.
    pub fn tap_link(mut command: Command, link: &str, folder: &Path, name: &str) -> Wire {
        let file = folder.join(format!("{name}.pcap"));
        command.args(["-i", link, "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w"]).arg(&file);
        let mut tcpdump = Daemon::start(&format!("tcpdump-{name}"), command, folder);
        tcpdump.wait_for("listening on", Duration::from_secs(10));
        Wire { tcpdump, file }
    }

    /// Waits until tcpdump has written what the kernel has caught for it: on a busy machine that takes a while.
    fn read_all(&self) {
        let mut caught = None;
        wait::until("tcpdump", Duration::from_secs(20), || {
            self.tcpdump.signal(Signal::USR1);
            let log = self.tcpdump.log();
            let [written, by_now, dropped] = log.lines().rev().find_map(account)?;
            (written + dropped >= *caught.get_or_insert(by_now)).then_some(())
        });
    }

    /// Ends the capture and returns its bytes.
    ///
    /// # Panics
    /// When nothing was captured: then a search in it would prove nothing.
    pub fn finish(self) -> Vec<u8> {
        self.read_all();
        self.tcpdump.signal(Signal::INT);
        self.tcpdump.terminate(Duration::from_secs(10));
        let bytes = std::fs::read(&self.file).expect("a capture");
        assert!(bytes.len() > 1_000, "{} bytes were captured", bytes.len());
        bytes
    }
}

/// The numbers of `tcpdump: 12 packets captured, 15 packets received by filter, 0 packets dropped by kernel`.
fn account(line: &str) -> Option<[u64; 3]> {
    let parts = line.strip_prefix("tcpdump: ")?.split(", ").map(|part| part.split(' ').next()?.parse().ok());
    parts.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// Whether `marker` lies in the bytes.
pub fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
}

/// How many packets a capture file holds (the classic pcap format: 24 bytes, then 16 and its length for each).
pub fn packets(capture: &[u8]) -> usize {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut count = 0;
    while let Some(length) = rest.get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
        let Some(after) = rest.get(16 + length as usize..) else { break };
        rest = after;
        count += 1;
    }
    count
}
