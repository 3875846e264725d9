//! Living through change, each under load.

use std::time::Duration;

use weir_tests::{cluster::PATIENCE, wait};

use crate::{
    leaving::Leaving,
    load::{Load, Stream},
    nodes::Nodes,
    shop::{Shop, figure, timed},
};

/// Of a draining proxy's 25 s, what a stream must see: it began some seconds before.
const DRAINS: u64 = 22;

/// Old and new proxy hold the same listeners; the old one drains.
#[test]
fn a_rollout_of_the_proxies_fails_no_request() {
    let shop = Shop::open("proxies", 4);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.kubectl(&["-n", "weir", "rollout", "restart", "daemonset/weir-proxy"]);
    let ((), took) = timed(|| shop.cluster.rolled_out("weir", "daemonset/weir-proxy"));
    figure("rollout of the proxies", format!("{took:?}"));
    load.end().is_whole(Stream::Seconds(DRAINS));
}

/// The holder has the listeners: what connects meanwhile waits for the next worker.
#[test]
fn a_killed_worker_costs_what_was_in_flight_and_is_back_at_once() {
    const WORKER: &str = "/weir-node proxy.*--worker";
    let shop = Shop::open("killed", 4);
    shop.mesh(4);
    let nodes = Nodes::open(&shop.cluster);
    let load = Load::begin(&shop);
    let before = nodes.processes("node-a", WORKER);
    assert_eq!(before.len(), 1, "{before:?}");
    nodes.run("node-a", &format!("kill -9 {}", before[0]));
    let (after, took) = timed(|| nodes.processes("node-a", WORKER));
    figure("a worker killed: the next one runs after (one exec in a pod)", format!("{took:?}"));
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    load.end().lost_only_what_was_in_flight();
    shop.meshed(4, PATIENCE);
}

/// Nodes reconnect and have everything already.
#[test]
fn control_rolled_and_scaled_changes_nothing() {
    let shop = Shop::open("control", 4);
    shop.mesh(4);
    let load = Load::begin(&shop);
    for replicas in ["3", "1"] {
        shop.cluster.kubectl(&["-n", "weir", "scale", "deployment/weir-control", "--replicas", replicas]);
        shop.cluster.rolled_out("weir", "deployment/weir-control");
        // Whichever replica is asked, it knows of all nodes.
        shop.cluster.weir(&["check", "--wait", "60s"]);
    }
    shop.cluster.kubectl(&["-n", "weir", "rollout", "restart", "deployment/weir-control"]);
    shop.cluster.rolled_out("weir", "deployment/weir-control");
    load.end().is_whole(Stream::Lives);
    shop.meshed(4, PATIENCE);
}

/// Of three replicas by `--ha` the one that leads is killed: another one leads and writes the status, nodes go on with those that are left.
#[test]
fn of_three_replicas_the_leader_is_lost() {
    let shop = Shop::open("ha", 4);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.apply(&shop.cluster.weir(&["install", "--ha"]));
    shop.cluster.rolled_out("weir", "deployment/weir-control");
    shop.cluster.weir(&["check", "--wait", "90s"]);
    let leader = || {
        let lease = shop.cluster.get(&["-n", "weir", "lease", "weir-control"]);
        let pods = shop.cluster.kubectl(&[
            "-n",
            "weir",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=weir-control",
            "-o",
            "name",
        ]);
        let held = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        // One that ended gave it back, or will soon be seen to hold it no more.
        pods.lines().any(|pod| pod == format!("pod/{held}")).then_some(held)
    };
    let first = wait::until("a leader", PATIENCE, leader);
    assert_eq!(shop.cluster.get(&["-n", "weir", "deployment", "weir-control"])["status"]["readyReplicas"], 3);
    shop.cluster.kubectl(&["-n", "weir", "delete", "pod", &first, "--grace-period=0", "--force"]);
    let (_next, took) = timed(|| wait::until("another leader", PATIENCE, || leader().filter(|held| *held != first)));
    figure("the leader of three replicas killed: another one leads after", format!("{took:?}"));
    shop.opt(false);
    shop.cluster.meshed(0, PATIENCE);
    shop.mesh(4);
    load.end().is_whole(Stream::Lives);
    // One replica again, and none of what belongs to three.
    shop.cluster.uninstall();
}

/// Capture outlives the holder; a pod that starts meanwhile waits for the next one.
#[test]
fn a_replaced_holder_is_not_noticed() {
    let shop = Shop::open("holder", 4);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.kubectl(&["-n", "weir", "delete", "pod", "-l", "weir.mesh/component=holder"]);
    shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", "6"]);
    shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    shop.meshed(6, PATIENCE);
    load.end().is_whole(Stream::Lives);
}

/// Endpoints leave before their pods do, and a pod keeps its traffic until its sockets are gone.
#[test]
fn rollouts_and_scaling_of_an_application_fail_no_request() {
    let shop = Shop::open("rollout", 4);
    shop.mesh(4);
    let leaving = Leaving::watch(&shop);
    let load = Load::begin(&shop);
    for deployment in ["deployment/web", "deployment/grpc"] {
        shop.cluster.kubectl(&["-n", &shop.namespace, "rollout", "restart", deployment]);
    }
    shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    for replicas in ["6", "2"] {
        shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", replicas]);
        shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    }
    load.end().is_whole(Stream::Lives);
    let latest = leaving.last_requests(4).into_iter().fold(f64::MIN, f64::max);
    figure("seconds from a server's leaving the EndpointSlice to its last request", latest);
    assert!(latest <= 1.0, "a request {latest} s after its pod had left");
    shop.meshed(2, Duration::from_secs(30));
}

/// Its pods are evicted and end by themselves; the node's own proxy stays until they have. Control has been evicted first, and its successor is
/// slow: until that is there, the old one tells the nodes who leaves. Seen to fail with a control that ends at once.
#[test]
fn a_drained_node_fails_no_request() {
    let shop = Shop::open("drained", 4);
    // What the stream talks to must not be evicted.
    let to_a = r#"{"spec":{"template":{"spec":{"nodeName":"node-a"}}}}"#;
    shop.cluster.kubectl(&["-n", &shop.namespace, "patch", "deployment/redis", "-p", to_a]);
    shop.cluster.rolled_out(&shop.namespace, "deployment/redis");
    // Nor the only server of names: new connections could not even be tried meanwhile.
    shop.cluster.kubectl(&["-n", "kube-system", "patch", "deployment/coredns", "-p", to_a]);
    shop.cluster.rolled_out("kube-system", "deployment/coredns");
    let anywhere = r#"{"spec":{"template":{"spec":{"topologySpreadConstraints":null}}}}"#;
    shop.cluster.kubectl(&["-n", &shop.namespace, "patch", "deployment/web", "-p", anywhere]);
    shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    shop.cluster.kubectl(&["cordon", "node-a"]);
    ready_after(&shop, "5");
    shop.cluster.kubectl(&["uncordon", "node-a"]);
    shop.mesh(4);
    let load = Load::begin(&shop);
    let control = ["-n", "weir", "pods", "-l", "app.kubernetes.io/name=weir-control"];
    // Else its successor may come to the same node.
    shop.cluster.kubectl(&["cordon", "node-b"]);
    shop.cluster.kubectl(&[&["delete", "--wait=false"], &control[..]].concat());
    wait::until("control's successor has begun", PATIENCE, || {
        let pods = shop.cluster.get(&control);
        let mut staying = pods["items"].as_array()?.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        staying.any(|pod| pod["status"]["phase"] == "Running").then_some(())
    });
    let drain = ["drain", "node-b", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
    let (said, took) = timed(|| shop.cluster.try_kubectl(&drain));
    let back = shop.cluster.try_kubectl(&["uncordon", "node-b"]);
    figure("a node drained", format!("{took:?}"));
    assert!(said.status.success() && back.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    load.end().is_whole(Stream::Lives);
    wait::until("servers on the other node", PATIENCE, || (shop.addresses("node-a").len() == 4).then_some(()));
    ready_after(&shop, "null");
}

/// Seconds before control is asked whether it is ready.
fn ready_after(shop: &Shop, seconds: &str) {
    let probe = format!(r#"{{"name":"control","readinessProbe":{{"initialDelaySeconds":{seconds}}}}}"#);
    let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{probe}]}}}}}}}}"#);
    shop.cluster.kubectl(&["-n", "weir", "patch", "deployment/weir-control", "-p", &patch]);
    shop.cluster.rolled_out("weir", "deployment/weir-control");
}
