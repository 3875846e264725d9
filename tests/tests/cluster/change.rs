//! Living through change, each under load.

use std::time::Duration;

use weir_tests::cluster::PATIENCE;

use crate::shop::{Load, Shop, figure, timed};

/// 30 s of 200 requests per second, less what starting takes.
const SECONDS: u64 = 30;
const AT_LEAST: u64 = 4_000;

/// Old and new proxy hold the same listeners; the old one drains.
#[test]
fn a_rollout_of_the_proxies_fails_no_request() {
    let shop = Shop::open("proxies", 4);
    shop.mesh(5);
    let load = Load::begin(&shop, SECONDS);
    shop.cluster.kubectl(&["-n", "weir", "rollout", "restart", "daemonset/weir-proxy"]);
    let ((), took) = timed(|| shop.cluster.rolled_out("weir", "daemonset/weir-proxy"));
    figure("rollout of the proxies", format!("{took:?}"));
    load.end().is_whole(AT_LEAST);
}

/// Nodes reconnect and have everything already.
#[test]
fn control_rolled_and_scaled_changes_nothing() {
    let shop = Shop::open("control", 4);
    shop.mesh(5);
    let load = Load::begin(&shop, SECONDS);
    for replicas in ["3", "1"] {
        shop.cluster.kubectl(&["-n", "weir", "scale", "deployment/weir-control", "--replicas", replicas]);
        shop.cluster.rolled_out("weir", "deployment/weir-control");
    }
    shop.cluster.kubectl(&["-n", "weir", "rollout", "restart", "deployment/weir-control"]);
    shop.cluster.rolled_out("weir", "deployment/weir-control");
    load.end().is_whole(AT_LEAST);
    shop.cluster.meshed(5, PATIENCE);
}

/// Capture outlives the holder; a pod that starts meanwhile waits for the next one.
#[test]
fn a_replaced_holder_is_not_noticed() {
    let shop = Shop::open("holder", 4);
    shop.mesh(5);
    let load = Load::begin(&shop, SECONDS);
    shop.cluster.kubectl(&["-n", "weir", "delete", "pod", "-l", "weir.mesh/component=holder"]);
    shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", "6"]);
    shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    shop.cluster.meshed(7, PATIENCE);
    load.end().is_whole(AT_LEAST);
}

/// Endpoints leave before their pods do, and a pod keeps its traffic until its sockets are gone.
#[test]
fn rollouts_and_scaling_of_an_application_fail_no_request() {
    let shop = Shop::open("rollout", 4);
    shop.mesh(5);
    let load = Load::begin(&shop, SECONDS);
    shop.cluster.kubectl(&["-n", &shop.namespace, "rollout", "restart", "deployment/web"]);
    shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    for replicas in ["6", "2"] {
        shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", replicas]);
        shop.cluster.rolled_out(&shop.namespace, "deployment/web");
    }
    load.end().is_whole(AT_LEAST);
    shop.cluster.meshed(3, Duration::from_secs(30));
}
