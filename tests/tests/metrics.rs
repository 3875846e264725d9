//! What other people's programs say about the proxy's metrics. Needs `promtool` (package `prometheus`).
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use weir_api::v1;
use weir_core::{
    classify::Classification,
    inbound::{DefaultPolicy, Ruler, Ruling},
    snapshot::{PodRef, Snapshot},
};
use weir_node::telemetry::{
    Capture, Certificate, Direction, Format, HttpLabels, NodeState, TcpLabels, Telemetry, TlsLabel,
};

struct Node;

impl NodeState for Node {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot::default())
    }

    fn synced(&self) -> bool {
        true
    }

    fn control_connected(&self) -> bool {
        true
    }

    fn captures(&self) -> Vec<Capture> {
        Vec::new()
    }

    fn certificates(&self) -> Vec<Certificate> {
        let identity = "web.shop.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
        vec![Certificate { identity, not_after: 1_900_000_000, chain: Vec::new() }]
    }

    fn sockets_in_stock(&self) -> usize {
        0
    }

    fn checks(&self) -> Vec<v1::CheckResult> {
        Vec::new()
    }

    fn arguments(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Some of everything, hostile label values included.
fn scrape(format: Format) -> String {
    let telemetry = Telemetry::new();
    let pod = |name: &str| {
        let owner = Arc::from("web");
        Arc::new(PodRef {
            namespace: Arc::from("shop"),
            name: Arc::from(name),
            owner_kind: Arc::from("deployment"),
            owner_name: owner,
            ..PodRef::default()
        })
    };
    let target_addr = "10.0.0.2:80".parse().unwrap();
    for authority in ["web.shop:80", "quote\"back\\slash\nnewline", "héllo\u{1}\u{2028}"] {
        let labels = HttpLabels {
            direction: Direction::Outbound,
            workload: pod("client-1"),
            peer: Some(pod("web-1")),
            tls: TlsLabel::True,
            client_id: None,
            server_id: None,
            authority: Some(Arc::from(authority)),
            target_addr,
            service: None,
            policy: None,
        };
        let series = telemetry.http(&labels);
        series.request();
        series.response(200, Classification::Success, Some(0), None, Duration::from_millis(7));
        series.response(503, Classification::Failure, None, Some("loadshed"), Duration::from_micros(50));
    }
    let labels = TcpLabels {
        direction: Direction::Inbound,
        peer_is_src: true,
        workload: pod("web-1"),
        peer: None,
        tls: TlsLabel::Opaque { sni: Some(Arc::from("example.org")) },
        client_id: None,
        server_id: None,
        target_addr,
        service: None,
        policy: Some(Arc::new(Ruling { ruler: Ruler::Default(DefaultPolicy::Deny), authorization: None, route: None })),
    };
    telemetry.tcp(&labels).open().close(Some(104));
    telemetry.passed_tls(Direction::Outbound, Some("a\"b"));
    telemetry.scrape(&Node, format).collect()
}

fn output(mut command: Command, input: &str) -> (bool, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not run ({error}): `cargo xtask test` installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_has_only_linkerds_millisecond_unit_to_remark() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let (_, said) = output(promtool, &scrape(Format::Prometheus));
    let remarks: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    // The name is Linkerd's: what is written for it must keep working. Anything else is a finding.
    assert!(remarks.iter().all(|remark| remark.starts_with("response_latency_ms ")), "{said}");
    assert!(!remarks.is_empty(), "promtool parsed nothing");
}

#[test]
fn promtool_sees_a_broken_scrape() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let (fine, said) = output(promtool, "request_total{authority=\"a\"b\"} 1\n");
    assert!(!fine && said.contains("pars"), "{said}");
}
