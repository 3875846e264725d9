//! Uninstalled: nothing of the mesh is left on any node.

use weir_tests::{cluster::PATIENCE, wait};

use crate::{
    nodes::Nodes,
    shop::{MARKER, Shop, figure, timed},
};

/// What is ours on a node: pins, our chain entry, our binary, rules in pods' namespaces.
const LOOK: &str = "ls -d /sys/fs/bpf/weir* /run/weir/*/ /opt/cni/bin/weir-cni 2>/dev/null; grep -l weir-cni /etc/cni/net.d/* 2>/dev/null; \
    for n in /run/netns/*; do nsenter --net=$n ip rule list | grep -E 'fwmark' ; nsenter --net=$n ip -6 rule list | grep fwmark; done; true";

/// A slow download that began before: nginx sends 50 KB/s of 500 KB.
const SLOW: &str = "curl -sS --max-time 60 http://web/slow | wc -c";
const SLOW_BYTES: &str = "500000";

/// Pods go on without the mesh, open connections with them; rules, routes, programs, pins and the CNI plugin are gone from both nodes.
#[test]
fn uninstalling_leaves_nothing_and_applications_go_on() {
    let shop = Shop::open("removal", 4);
    shop.mesh(4);
    let nodes = Nodes::open(&shop.cluster);
    for node in nodes.names() {
        let seen = nodes.run_in_root(node, LOOK);
        assert!(seen.contains("weir-cni") && seen.contains("fwmark"), "{node}: {seen}");
    }
    let script = ["-n", &shop.namespace, "exec", "deployment/client", "--", "sh", "-c", SLOW];
    let slow = shop.cluster.start_kubectl(&script);
    // It has begun when an answer to another request of the same pod is here.
    assert!(shop.client(&["curl", "-sS", "http://web/"]).contains(MARKER));
    let manifests = shop.cluster.weir(&["uninstall"]);
    let ((), took) = timed(|| shop.cluster.delete(&manifests));
    figure("uninstalled", format!("{took:?}"));
    let bytes = String::from_utf8_lossy(&slow.wait_with_output().unwrap().stdout).trim().to_owned();
    assert_eq!(bytes, SLOW_BYTES, "a download that began before goes on to its end");
    for node in nodes.names() {
        let mut left = String::new();
        let clean = wait::within(PATIENCE, || {
            left = nodes.run_in_root(node, LOOK);
            left.trim().is_empty().then_some(())
        });
        assert!(clean.is_some(), "left on {node}: {left}");
    }
    let said = shop.client(&["h2load", "--h1", "-n", "200", "-c", "4", "http://web/"]);
    assert!(said.contains("200 succeeded, 0 failed"), "{said}");
}
