//! Uninstalled: nothing of the mesh is left on any node.

use std::collections::BTreeSet;

use weir_tests::{
    cluster::{Cluster, PATIENCE},
    wait,
};

use crate::{
    nodes::Nodes,
    shop::{Shop, figure, timed},
};

/// What is ours on a node: pins, sockets, our chain entry, our binary; rules and routes in pods' namespaces. Listeners in them end
/// with the processes that hold them.
const LOOK: &str = "find /sys/fs/bpf/weir* /run/weir /opt/cni/bin/weir-cni -mindepth 0 ! -path /run/weir 2>/dev/null; \
    grep -l weir-cni /etc/cni/net.d/* 2>/dev/null; \
    for n in /run/netns/*; do for f in -4 -6; do nsenter --net=$n ip $f rule list | grep fwmark; \
    nsenter --net=$n ip $f route show table all type local | grep 'local default'; done; done; true";
/// Names of our kernel programs begin like this; one kernel runs both nodes.
const PROGRAMS: &str = "weir_";

/// A slow download that began before: nginx sends 50 KB/s of 500 KB.
const SLOW: &str = "rm -f /tmp/slow; curl -sS --max-time 60 -N -o /tmp/slow http://web/slow; wc -c < /tmp/slow";
const SLOW_BYTES: &str = "500000";

/// Pods go on without the mesh, open connections with them; rules, routes, programs, pins, sockets and the CNI plugin are gone
/// from both nodes.
#[test]
fn uninstalling_leaves_nothing_and_applications_go_on() {
    let cluster = Cluster::from_environment();
    cluster.uninstall();
    let others = programs();
    let shop = Shop::open("removal", 4);
    shop.mesh(4);
    let nodes = Nodes::open(&shop.cluster);
    for node in nodes.names() {
        let seen = nodes.run_in_root(node, LOOK);
        let all = ["weir-cni", "/sys/fs/bpf/weir", ".sock", "fwmark", "local default"];
        assert!(all.iter().all(|ours| seen.contains(ours)), "{node}: {seen}");
    }
    assert_ne!(programs(), others);
    let script = ["-n", &shop.namespace, "exec", "deployment/client", "--", "sh", "-c", SLOW];
    let slow = shop.cluster.start_kubectl(&script);
    let first = ["sh", "-c", "test -s /tmp/slow"];
    wait::until("the first bytes of a download", PATIENCE, || shop.try_client(&first).map(drop));
    let manifests = shop.cluster.weir(&["uninstall"]);
    let ((), took) = timed(|| shop.cluster.delete(&manifests));
    figure("uninstalled", format!("{took:?}"));
    let bytes = slow.output().trim().to_owned();
    assert_eq!(bytes, SLOW_BYTES, "a download that began before goes on to its end");
    for node in nodes.names() {
        let mut left = String::new();
        let clean = wait::within(PATIENCE, || {
            left = nodes.run_in_root(node, LOOK);
            left.trim().is_empty().then_some(())
        });
        assert!(clean.is_some(), "left on {node}: {left}");
    }
    wait::until("no program of ours", PATIENCE, || programs().is_subset(&others).then_some(()));
    let said = shop.client(&["h2load", "--h1", "-n", "200", "-c", "4", "http://web/"]);
    assert!(said.contains("200 succeeded, 0 failed"), "{said}");
}

/// Ids of the loaded programs that are ours.
fn programs() -> BTreeSet<u32> {
    let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    loaded
        .filter(|program| program.name_as_str().is_some_and(|name| name.starts_with(PROGRAMS)))
        .map(|program| program.id())
        .collect()
}
