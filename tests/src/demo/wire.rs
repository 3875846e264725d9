//! What a listener between the nodes sees: tcpdump on node 1's wire, and a search for payloads in what it wrote. Must never filter: all that crosses counts.

use std::{env, fs, path::PathBuf, process, time::Duration};

use crate::{
    daemon::Daemon,
    fabric::WIRE,
    mesh::{Mesh, PATIENCE},
};

/// Header of a capture file, and of each packet in it (libpcap's format, pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
/// tcpdump ends within this after SIGTERM; it only writes what it holds.
const END: Duration = Duration::from_secs(10);

/// A running capture.
#[derive(Debug)]
pub(super) struct Capture {
    tcpdump: Daemon,
    file: PathBuf,
}

/// What was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire {
    /// Bytes of all packets.
    pub(super) bytes: u64,
    /// Number of packets.
    pub(super) packets: u64,
    /// How many packets hold each marker, in the order asked for.
    pub(super) found: Vec<u64>,
}

impl Capture {
    /// Starts to listen; `name` tells files apart.
    pub(super) fn start(mesh: &Mesh, name: &str) -> Capture {
        let file = mesh.path(&format!("{name}.pcap"));
        let mut command = mesh.fabric.node(0).command("tcpdump");
        // Root all along: tcpdump's own user may not write into our folder.
        command.args(["-i", WIRE, "-s", "0", "-U", "-n", "-Z", "root", "-w"]).arg(&file);
        let mut tcpdump = Daemon::start(&format!("tcpdump-{name}"), command, &mesh.path("logs"));
        tcpdump.wait_for("listening on", PATIENCE);
        Capture { tcpdump, file }
    }

    /// Stops, and counts packets that hold the markers.
    ///
    /// # Panics
    /// When tcpdump left no file.
    pub(super) fn finish(self, markers: &[&str]) -> Wire {
        self.tcpdump.terminate(END);
        let wire = search(&fs::read(&self.file).expect("tcpdump's file"), markers);
        // It can be large, and nobody needs it any more.
        let _gone = fs::remove_file(&self.file);
        wire
    }

    /// The same, where nothing must be found: what is gets kept as evidence, and its place returned.
    ///
    /// # Panics
    /// When tcpdump left no file.
    pub(super) fn finish_sealed(self, markers: &[&str]) -> (Wire, Option<PathBuf>) {
        let second = self.file.with_extension("second");
        fs::hard_link(&self.file, &second).expect("a second name for tcpdump's file");
        let wire = self.finish(markers);
        let found = wire.found.iter().any(|count| *count > 0);
        let kept = env::temp_dir().join(format!("weir-demo-{}.pcap", process::id()));
        let kept = (found && fs::copy(second, &kept).is_ok()).then_some(kept);
        (wire, kept)
    }
}

fn search(file: &[u8], markers: &[&str]) -> Wire {
    let mut wire = Wire { found: vec![0; markers.len()], ..Wire::default() };
    let mut rest = file.get(FILE_HEADER..).unwrap_or_default();
    while let Some((header, after)) = rest.split_at_checked(PACKET_HEADER) {
        // Written on this machine, so in its byte order; the third field is the length in the file.
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((packet, after)) = after.split_at_checked(length) else { break };
        rest = after;
        wire.packets += 1;
        wire.bytes += packet.len() as u64;
        for (found, marker) in wire.found.iter_mut().zip(markers) {
            *found += u64::from(contains(packet, marker.as_bytes()));
        }
    }
    wire
}

fn contains(packet: &[u8], marker: &[u8]) -> bool {
    packet.windows(marker.len()).any(|window| window == marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_a_marker_are_counted() {
        let mut file = vec![0; FILE_HEADER];
        for packet in ["..one..", "..", "..one two"] {
            let length = (packet.len() as u32).to_ne_bytes();
            file.extend([[0; 4], [0; 4], length, length].concat());
            file.extend(packet.as_bytes());
        }
        file.extend([0; PACKET_HEADER - 1]);
        let expected = Wire { bytes: 18, packets: 3, found: vec![2, 1, 0] };
        assert_eq!(search(&file, &["one", "two", "three"]), expected);
    }
}
