//! Invariant 10. Mutation tried: `clear` in holder/inside.rs without the removal of rules and routes.

use weir_tests::{fabric::NODES, mesh::PATIENCE, netns::run, wait};

use crate::stage::Stage;

fn rules(pod: &weir_tests::mesh::Pod) -> String {
    let show = |words: &[&str]| run(std::process::Command::new("ip").arg("-n").arg(pod.place.netns.name()).args(words));
    [show(&["rule"]), show(&["-6", "rule"])].concat()
}

/// Routes with the protocol number of Weir's.
fn routes(pod: &weir_tests::mesh::Pod) -> String {
    let show = |family: &str| {
        let words = ["-n", pod.place.netns.name(), family, "route", "show", "table", "all", "proto", "87"];
        run(std::process::Command::new("ip").args(words))
    };
    [show("-4"), show("-6")].concat()
}

/// A pod that is opted out goes on in clear, with nothing of ours left in its namespace; then it can come back.
#[test]
fn a_pod_that_leaves_keeps_nothing_and_can_return() {
    let mut stage = Stage::start();
    let url = format!("http://{}:8080/name", stage.far.place.v4);
    assert_eq!(stage.client.get(&url), "web-2\n");
    assert!(rules(&stage.client).contains("fwmark"));
    assert_ne!(routes(&stage.client), "");
    stage.client.enabled = Some(false);
    stage.mesh.describe(&stage.client);
    wait::until("no rules", PATIENCE, || (!rules(&stage.client).contains("fwmark")).then_some(()));
    wait::until("no routes", PATIENCE, || routes(&stage.client).is_empty().then_some(()));
    assert_eq!(stage.client.get(&url), "web-2\n", "in clear, to a pod that is still in the mesh");
    stage.client.enabled = Some(true);
    stage.mesh.describe(&stage.client);
    wait::until("rules again", PATIENCE, || rules(&stage.client).contains("fwmark").then_some(()));
    assert_eq!(stage.client.get(&url), "web-2\n");
}

/// Everything of ours is killed, then `weir-node cleanup` is run: no rule, route, pin or program is left, and apps talk in clear.
#[test]
fn cleanup_after_a_crash_leaves_nothing() {
    let mut stage = Stage::start();
    let url = format!("http://{}:8080/name", stage.far.place.v4);
    assert_eq!(stage.client.get(&url), "web-2\n");
    for node in 0..NODES {
        stage.mesh.take_proxy(node).kill();
        stage.mesh.kill_holder(node);
    }
    stage.mesh.cleanup();
    for pod in [&stage.client, &stage.near, &stage.far] {
        assert!(!rules(pod).contains("fwmark"), "{}: {}", pod.name, rules(pod));
        assert_eq!(routes(pod), "", "{}", pod.name);
        let switch = run(pod.command("cat").arg("/proc/sys/net/ipv4/tcp_fwmark_accept"));
        assert_eq!(switch.trim(), "0", "{}", pod.name);
    }
    for node in 0..NODES {
        use std::os::unix::fs::MetadataExt as _;
        let inode = std::fs::metadata(stage.mesh.fabric.node(node).path()).unwrap().ino();
        let pins = run(std::process::Command::new("find").args(["/sys/fs/bpf", "-name", &format!("*{inode}*")]));
        assert_eq!(pins, "");
    }
    assert_eq!(stage.client.get(&url), "web-2\n", "in clear");
}
