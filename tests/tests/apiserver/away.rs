//! The API server forgets, and the leader is away: nothing is sent again, and one replica at a time writes.

use std::{process::Command, time::Duration};

use rustix::process::Signal;
use weir_tests::{daemon::Daemon, wait};

use crate::{
    NEVER, WEB, connect,
    node::endpoint_identity,
    populated,
    stage::{SOON, binaries},
};

/// Fails when a list is told as news (`Collector::take`), and when what expired is asked for again and again (`watch::is_expired`).
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_began_too_far_back_lists_anew_and_nothing_is_sent_again() {
    let mut stage = populated();
    stage.run_pod("shop", "web", "10.1.0.5");
    let control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    node.captured(&stage.uid("shop", "web"), NEVER).await;
    node.until("peers speak mTLS", |held| endpoint_identity(held) == Some(WEB)).await.unwrap();
    stage.kubectl(&["-n", "shop", "wait", "pod/web", "--for=condition=weir.mesh/Meshed", "--timeout=30s"]);
    let (held, told) = (node.held.clone(), node.told.len());

    stage.kill_api();
    stage.compact();
    stage.start_api();
    let listed = || (control.daemon.log().matches("listed anew").count() >= 6).then_some(());
    wait::until("all four kinds and both objects of the authority are listed anew", SOON, listed);
    stage.pod("shop", "later", "node-a", "web");
    let later = format!("WORKLOAD {}", stage.uid("shop", "later"));
    node.until("the new pod", |held| held.contains_key(&later)).await.unwrap();
    assert_eq!(node.told[told..], [later], "only the new pod");
    assert!(held.iter().all(|(key, resource)| node.held[key].version == resource.version));
}

/// Fails without bounds in time (`limits::WATCH_SECONDS`): nothing is noticed for five minutes then, nor followed afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_falls_silent_is_noticed_and_followed_again() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    stage.signal_api(Signal::STOP);
    // All of them fail, each after a time of its own: it is about the pods'. That one is given up after 35 s (`WATCH_SECONDS` and five); what
    // takes it up fails after 5 s more on a new connection, and on a kept one only after another 40 s (`API_SILENCE`).
    let fails = || control.daemon.log().lines().any(|line| line.contains("cannot be watched") && line.contains("Pod"));
    wait::until("the pods' watch fails", Duration::from_secs(90), || fails().then_some(()));
    stage.signal_api(Signal::CONT);
    stage.pod("shop", "later", "node-a", "web");
    let later = format!("WORKLOAD {}", stage.uid("shop", "later"));
    node.until("the new pod", |held| held.contains_key(&later)).await.unwrap();
    // Said with the first news: a watch that has none is quiet, not known to be well.
    let again = || control.daemon.log().lines().any(|line| line.contains("watched again") && line.contains("Pod"));
    wait::until("the pods are watched again", SOON, || again().then_some(()));
}

/// Fails when leading does not end (`Leadership::is_held` always true): the first one writes its own view over the second's.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_writes_no_more_when_it_goes_on() {
    let stage = populated();
    let mut first = stage.control("control-0").until_ready();
    let holder = ["-n", "weir", "get", "lease", "weir-control", "-o", "jsonpath={.spec.holderIdentity}"];
    stage.until("the first leads", &holder, |text| text == "control-0");
    let second = stage.control("control-1").until_ready();
    // No Service names them, so neither asks the other, and only the second knows of a node.
    let _node = connect(&second, &stage, "node-a").await.attend();
    let status = ["-n", "weir", "get", "configmap", "weir-status", "-o", r"jsonpath={.data.status\.json}"];
    stage.until("the first writes", &status, |text| text.contains(r#""connected": 0"#));

    first.daemon.signal(Signal::STOP);
    stage.until("the second leads", &holder, |text| text == "control-1");
    stage.until("the second writes", &status, |text| text.contains(r#""connected": 1"#));
    let mut watch = Command::new(binaries().join("kubectl"));
    watch.arg("--kubeconfig").arg(stage.kubeconfig("admin", None)).args(status).arg("--watch");
    let mut written = Daemon::start("status", watch, &stage.path(""));
    written.wait_for(r#""connected": 1"#, SOON);

    first.daemon.signal(Signal::CONT);
    first.daemon.wait_for("another replica writes the status now", SOON);
    // Again and again something that either would write down: a write upon what another has written since is refused once.
    for count in 2..=5 {
        stage.pod("shop", &format!("more-{count}"), "node-b", "web");
        written.wait_for(&format!(r#""enabled": {count}"#), SOON);
    }
    assert!(!written.log().contains(r#""connected": 0"#), "{}", written.log());
    assert_eq!(stage.kubectl(&holder), "control-1");
}
