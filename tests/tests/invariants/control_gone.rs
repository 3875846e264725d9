//! Invariant 9. Mutation tried: the vault not read at start.

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{
    mesh::PATIENCE,
    wait,
    wire::{Wire, holds},
};

use crate::stage::Stage;

/// Without control, everything goes on; a worker that is killed serves again from what the holder kept, still encrypted.
#[test]
fn without_control_traffic_flows_and_a_restarted_worker_serves() {
    let mut stage = Stage::start();
    let url = format!("http://{}/name", stage.far_service);
    assert_eq!(stage.client.get(&url), "web-2\n");
    stage.mesh.kill_control();
    assert_eq!(stage.client.get(&url), "web-2\n");
    for node in [0, 1] {
        let before = stage.mesh.worker(node).expect("a worker");
        kill_process(Pid::from_raw(i32::try_from(before).unwrap()).unwrap(), Signal::KILL).unwrap();
        wait::until("another worker", PATIENCE, || stage.mesh.worker(node).filter(|now| *now != before));
    }
    let wire = Wire::tap(&stage.mesh.fabric, &stage.mesh.path("logs"), "control-gone");
    let output = stage.client.curl(&["--header", "x-marker: weir-marker-91ce", &url]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "web-2\n", "{output:?}");
    assert!(!holds(&wire.finish(), "weir-marker-91ce"));
    // Control is back: what changes now reaches the nodes.
    stage.mesh.start_control();
    let added = stage.mesh.pod(&weir_tests::mesh::PodOptions::new("late", 1));
    stage.mesh.wait_ready(&[&added]);
}

/// No secret lies on a disk of a node.
#[test]
fn keys_of_workloads_are_nowhere_on_disk() {
    let stage = Stage::start();
    assert_eq!(stage.client.get(&format!("http://{}/name", stage.far_service)), "web-2\n");
    for node in ["node-1", "node-2"] {
        let folder = stage.mesh.path(node);
        let found = weir_tests::netns::run(std::process::Command::new("find").arg(&folder).args(["-type", "f"]));
        let mut files = 0;
        for path in found.lines() {
            let bytes = std::fs::read(path).unwrap();
            files += 1;
            // A P-256 key in PKCS#8 has this algorithm identifier and a private octet string behind it (RFC 5915).
            let private = b"\x02\x01\x01\x04\x20";
            assert!(!bytes.windows(private.len()).any(|window| window == private), "{path} holds a private key");
            assert!(!holds(&bytes, "PRIVATE KEY"), "{path} holds a private key");
        }
        assert!(files >= 2, "{node}: the last good state is on disk");
    }
}
