//! The API server away, control killed: traffic flows, and nodes are sent nothing that they have.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use weir_tests::{cluster::PATIENCE, wait};

use crate::{
    load::{Load, Stream},
    nodes::Nodes,
    shop::{MARKER, Shop, figure},
};

/// How long the API server stays away; by hand, `WEIR_OUTAGE_SECONDS=600`.
const AWAY: u64 = 20;

/// The control plane's machine loses its power and comes back. What was known goes on, what comes after is taken as ever.
#[test]
fn traffic_flows_while_the_api_server_is_away() {
    let away = env::var("WEIR_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(AWAY);
    let shop = Shop::open("outage", 4);
    shop.mesh(4);
    Load::warm(&shop);
    let before = sent(&shop);
    let load = Load::begin(&shop);
    xtask(&["kill-node", "cp"]);
    wait::until_instant(Instant::now() + Duration::from_secs(away));
    xtask(&["restart-node", "cp"]);
    load.end().is_whole(Stream::Lives);
    shop.meshed(4, PATIENCE);
    let resent = sent(&shop) - before;
    figure(&format!("resources sent to nodes because the API server was away for {away} s"), resent);
    assert_eq!(resent, 0, "nothing has changed meanwhile");
    shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", "6"]);
    shop.meshed(6, PATIENCE);
    assert!(shop.client(&["curl", "-sS", "http://web/"]).contains(MARKER));
}

/// The next one learns from the nodes what they have.
#[test]
fn a_killed_control_sends_nothing_again() {
    let shop = Shop::open("killed-control", 4);
    shop.mesh(4);
    let nodes = Nodes::open(&shop.cluster);
    Load::warm(&shop);
    // The client asks control's own metrics: that destination, too, is one that its node has.
    sent(&shop);
    let load = Load::begin(&shop);
    let mut killed = 0;
    for node in nodes.names() {
        for control in nodes.processes(node, "/weir-control --kubernetes") {
            nodes.run(node, &format!("kill -9 {control}"));
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "the one control of the cluster");
    wait::until("a new process", PATIENCE, || {
        let pods = shop.cluster.get(&["-n", "weir", "pods", "-l", "weir.mesh/component=control"]);
        let status = pods.pointer("/items/0/status/containerStatuses/0")?;
        (status["restartCount"].as_u64()? > 0 && status["ready"].as_bool()?).then_some(())
    });
    shop.meshed(4, PATIENCE);
    wait::until("both nodes on its stream", PATIENCE, || (value(&shop, "weir_control_nodes")? == 2).then_some(()));
    let resent = sent(&shop);
    figure("resources sent to nodes by a control that was killed and came back", resent);
    assert_eq!(resent, 0, "they have all of them");
    load.end().is_whole(Stream::Lives);
}

/// Resources that the one control has sent to nodes since it began.
fn sent(shop: &Shop) -> u64 {
    value(shop, "weir_control_sent_upserts_total").expect("a counter")
}

fn value(shop: &Shop, metric: &str) -> Option<u64> {
    let pods = shop.cluster.get(&["-n", "weir", "pods", "-l", "weir.mesh/component=control"]);
    let address = pods.pointer("/items/0/status/podIP")?.as_str()?;
    let text = shop.try_client(&["curl", "-sS", "--fail", &format!("http://{address}:9990/metrics")])?;
    let line = text.lines().find_map(|line| line.strip_prefix(metric))?;
    line.trim().parse().ok()
}

/// Machines are xtask's.
fn xtask(arguments: &[&str]) {
    let told =
        |name: &str| env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask cluster test`"));
    let mut command = Command::new(told("WEIR_XTASK"));
    command.args(["cluster", "--state"]).arg(told("WEIR_CLUSTER_STATE"));
    let output = command.args(arguments).output().expect("xtask");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
