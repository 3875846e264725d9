//! Uninstalled: nothing of the mesh is left on any node.

use weir_tests::{
    cluster::{Cluster, PATIENCE},
    wait,
};

use crate::shop::{Shop, figure, timed};

/// What is ours on a node, printed by a pod that sees the node: pins, our chain entry, our binary, rules in pods' namespaces.
const LOOK: &str = "ls -d /sys/fs/bpf/weir* /run/weir/*/ /opt/cni/bin/weir-cni 2>/dev/null; grep -l weir-cni /etc/cni/net.d/* 2>/dev/null; \
    for n in /run/netns/*; do nsenter --net=$n ip rule list | grep -E 'fwmark' ; nsenter --net=$n ip -6 rule list | grep fwmark; done; true";

/// Pods go on without the mesh; rules, routes, programs, pins and the CNI plugin are gone from both nodes.
#[test]
fn uninstalling_leaves_nothing_and_applications_go_on() {
    let shop = Shop::open("removal", 4);
    shop.mesh(5);
    shop.cluster.apply(LOOKER);
    shop.cluster.rolled_out("kube-system", "daemonset/weir-test-looker");
    let lookers = lookers(&shop.cluster);
    let seen: Vec<String> = lookers.iter().map(|pod| look(&shop.cluster, pod)).collect();
    assert!(seen.iter().all(|seen| seen.contains("weir-cni") && seen.contains("fwmark")), "{seen:?}");
    let manifests = shop.cluster.weir(&["uninstall"]);
    let ((), took) = timed(|| shop.cluster.delete(&manifests));
    figure("uninstalled", format!("{took:?}"));
    for pod in &lookers {
        let mut left = String::new();
        let clean = wait::within(PATIENCE, || {
            left = look(&shop.cluster, pod);
            left.trim().is_empty().then_some(())
        });
        assert!(clean.is_some(), "left on the node of {pod}: {left}");
    }
    let said = shop.client(&["h2load", "--h1", "-n", "200", "-c", "4", "http://web/"]);
    assert!(said.contains("200 succeeded, 0 failed"), "{said}");
    shop.cluster.delete(LOOKER);
}

fn lookers(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.get(&["-n", "kube-system", "pods", "-l", "app=weir-test-looker"]);
    pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn look(cluster: &Cluster, pod: &str) -> String {
    cluster.exec("kube-system", pod, &["nsenter", "-t", "1", "-m", "--", "sh", "-c", LOOK])
}

const LOOKER: &str = r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: weir-test-looker, namespace: kube-system}
spec:
  selector: {matchLabels: {app: weir-test-looker}}
  template:
    metadata: {labels: {app: weir-test-looker}}
    spec:
      hostPID: true
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers:
        - {name: looker, image: weir-test/apps:1, imagePullPolicy: Never, command: [sleep, '100000'], securityContext: {privileged: true}}
";
