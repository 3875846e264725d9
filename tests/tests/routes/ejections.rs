//! What people hear of endpoints that breakers take out.

use serde_json::Value;
use weir_tests::{mesh::NAMESPACE, netns::run, wait};

use crate::stage::{HTTP1, PATIENCE, Stage, service};

const BREAKER: [(&str, &str); 4] = [
    ("balancer.linkerd.io/failure-accrual", "consecutive"),
    ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "1"),
    ("balancer.linkerd.io/failure-accrual-consecutive-min-penalty", "2s"),
    ("balancer.linkerd.io/failure-accrual-consecutive-max-penalty", "2s"),
];

/// What `weir stat endpoints` says of `v2`, once both endpoints are in use at both nodes.
fn second(stage: &Stage) -> Option<Value> {
    let shown = stage.mesh.weir_json(&["stat", "endpoints", "svc/watched", "-n", NAMESPACE]);
    let lines: Vec<&Value> = shown.as_array()?.iter().filter(|line| line["port"] == HTTP1).collect();
    let is_known = lines.len() == 2 && lines.iter().all(|line| line["nodes"] == 2);
    lines.into_iter().find(|line| is_known && line["pod"] == "v2").cloned()
}

/// One node has taken it out, the other has not asked it.
#[test]
fn weir_says_who_is_out_and_who_is_back() {
    let mut stage = Stage::start();
    let address = service(&mut stage, "watched", &BREAKER);
    let ask = |path: &str| {
        let url = format!("http://{address}:{HTTP1}{path}?[1-20]");
        stage.client.curl(&["--silent", "--max-time", "60", "-o", "/dev/null", &url]);
    };
    let untouched = wait::until("both nodes know the Service", PATIENCE, || {
        ask("/");
        stage.servers[0].curl(&["--silent", "--max-time", "10", &format!("http://{address}:{HTTP1}/")]);
        second(&stage)
    });
    let node = |line: &Value, index: usize| line["seen_by"][index].clone();
    assert_eq!((&untouched["nodes_out"], &untouched["ejections"]), (&0.into(), &0.into()), "{untouched:#}");
    assert_eq!((&node(&untouched, 0)["state"], &node(&untouched, 0)["for_ms"]), (&"in".into(), &Value::Null));

    let out = wait::until("v2 is out", PATIENCE, || {
        ask("/flaky");
        second(&stage).filter(|line| line["nodes_out"] == 1 && node(line, 0)["state"] == "out")
    });
    let seen = node(&out, 0);
    assert_eq!(seen["node"], "node-1", "the client's: {out:#}");
    assert!(seen["until_ms"].as_u64().is_some_and(|until| until <= 2_000), "{seen}");
    assert!(seen["ejections"].as_u64() > Some(0) && seen["ejections"] == out["ejections"], "{out:#}");
    assert_eq!(node(&out, 1)["state"], "in", "{out:#}");
    wait::until("the table says so", PATIENCE, || {
        ask("/flaky");
        let table = run(&mut stage.mesh.weir(&["stat", "endpoints", "-n", NAMESPACE]));
        let line = table
            .lines()
            .find(|line| line.starts_with("watched") && line.contains(" 8080 ") && line.contains(" v2 "))?;
        line.contains(" 1/2 ").then_some(())
    });

    let back = wait::until("v2 is back", PATIENCE, || {
        ask("/");
        second(&stage).filter(|line| line["nodes_out"] == 0)
    });
    let seen = node(&back, 0);
    assert_eq!((&seen["state"], &seen["until_ms"]), (&"in".into(), &Value::Null), "{back:#}");
    assert!(seen["for_ms"].is_u64() && back["ejections"].as_u64() >= out["ejections"].as_u64(), "{back:#}");
}
