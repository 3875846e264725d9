use clap::Parser as _;
use weir_api::v1::PodRef;

use super::{table::render, *};
use crate::args::{Arguments, Command};

fn pod(namespace: &str, owner: &str, index: u32) -> Option<PodRef> {
    Some(PodRef {
        namespace: namespace.into(),
        name: format!("{owner}-{index}"),
        owner_kind: "deployment".into(),
        owner_name: owner.into(),
        ..PodRef::default()
    })
}

fn status(owner: &str, index: u32, captured: bool) -> PodStatus {
    PodStatus { pod: pod("shop", owner, index), enabled: captured, captured, ..PodStatus::default() }
}

fn inbound(index: u32, success: u64, failure: u64) -> TrafficReport {
    TrafficReport {
        direction: Direction::Inbound.into(),
        workload: pod("shop", "web", index),
        peer: pod("shop", "cart", 1),
        tls: "true".into(),
        success_total: success,
        failure_total: failure,
        latency_bounds_ms: vec![10.0, 20.0],
        latency_counts: vec![0, success + failure, 0],
        tcp_open_connections: 2,
        tcp_read_bytes: 12_000,
        tcp_write_bytes: 24_000,
        ..TrafficReport::default()
    }
}

fn outbound(index: u32, success: u64, failure: u64) -> TrafficReport {
    TrafficReport {
        direction: Direction::Outbound.into(),
        workload: pod("shop", "cart", 1),
        peer: pod("shop", "web", index),
        service: "shop/front".into(),
        ..inbound(index, success, failure)
    }
}

/// cart-1 calls web-1 and web-2 on two nodes; one answer in ten of web-2 is lost on the way.
fn reports() -> Vec<Report> {
    let report = |traffic, window_seconds| Report { traffic, window_seconds, ..Report::default() };
    vec![
        report(vec![inbound(1, 100, 0), outbound(1, 100, 0), outbound(2, 90, 10)], 10.0),
        report(vec![inbound(2, 100, 0)], 20.0),
    ]
}

fn pods() -> Vec<PodStatus> {
    vec![
        status("web", 1, true),
        status("web", 2, true),
        status("web", 3, false),
        status("cart", 1, true),
        status("old", 1, false),
    ]
}

fn shown(arguments: &str) -> Vec<String> {
    shown_of(arguments, &reports(), &pods())
}

fn shown_of(arguments: &str, reports: &[Report], pods: &[PodStatus]) -> Vec<String> {
    let words = "weir --control https://c:1 stat".split(' ').chain(arguments.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let Command::Stat(stat) = &arguments.command else { panic!("{arguments:?}") };
    let session = session(&arguments);
    let query = Query::new(stat, &session).unwrap();
    let text = render(&rows(reports, pods, &query), &query, &session).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn owners_are_summed_over_nodes() {
    assert_eq!(
        shown("-n shop"),
        [
            "NAME MESHED SUCCESS RPS LATENCY_P50 LATENCY_P95 LATENCY_P99 TCP_CONN READ_BYTES/SEC WRITE_BYTES/SEC",
            "deploy/cart 1/1 - - - - - - - -",
            "deploy/web 2/3 100.00% 15.0rps 15ms 20ms 20ms 4 1.8kB/s 3.6kB/s",
        ]
    );
}

#[test]
fn clients_tell_what_got_lost() {
    assert_eq!(
        shown("deploy -n shop --to deploy/web")[1..],
        ["cart 1/1 95.00% 20.0rps 15ms 20ms 20ms 4 2.4kB/s 4.8kB/s"]
    );
    assert_eq!(shown("deploy -n shop --to svc/front").len(), 2);
    assert_eq!(shown("deploy -n shop --to deploy/other").len(), 0);
    assert_eq!(shown("deploy -n shop --to deploy/web --to-namespace elsewhere").len(), 0);
}

#[test]
fn servers_by_client() {
    let lines = shown("pod -n shop --from deploy/cart");
    assert_eq!(lines[1], "web-1 1/1 100.00% 10.0rps 15ms 20ms 20ms 2 1.2kB/s 2.4kB/s");
    assert!(lines[2].starts_with("web-2 1/1 90.00% 10.0rps"), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
    assert_eq!(shown("deploy -n shop --from deploy/web").len(), 0);
}

#[test]
fn services_pods_and_namespaces() {
    assert!(shown("svc -n shop")[1].starts_with("front - 95.00% 20.0rps"));
    assert!(shown("ns")[1].starts_with("shop 3/5 100.00% 15.0rps"), "whatever the namespace is");
    assert_eq!(shown("pod/web-1 -n shop")[1].split(' ').next(), Some("pod/web-1").map(|_| "web-1"));
    assert!(shown("deploy -A")[0].starts_with("NAMESPACE NAME") && shown("deploy -A")[1].starts_with("shop cart"));
    assert_eq!(shown("-n default").len(), 0);
    assert!(shown("deploy -n shop --unmeshed").iter().any(|line| line.starts_with("old 0/1 -")));
}

#[test]
fn programs_get_names_and_nulls() {
    let lines = shown("deploy -n shop -o json").join("");
    let value: serde_json::Value = serde_json::from_str(&lines).unwrap();
    let (cart, web) = (&value[0], &value[1]);
    assert_eq!((&cart["name"], &cart["success"], &cart["rps"]), (&"cart".into(), &().into(), &().into()));
    assert_eq!(
        *web,
        serde_json::json!({
            "namespace": "shop", "kind": "deployment", "name": "web", "meshed": "2/3", "success": 1.0, "rps": 15.0,
            "latency_ms_p50": 15.0, "latency_ms_p95": 19.5, "latency_ms_p99": 19.9, "requests": 200, "failures": 0,
            "tcp_open_connections": 4, "tcp_read_bytes_rate": 1800.0, "tcp_write_bytes_rate": 3600.0,
        })
    );
    assert_eq!(shown("-n nowhere -o json").join(""), "[]");
}

#[test]
fn odd_reports_are_shown_without_harm() {
    let odd = TrafficReport {
        direction: Direction::Inbound.into(),
        workload: Some(PodRef { namespace: "shop".into(), name: "a\x1b[31m".into(), ..PodRef::default() }),
        success_total: u64::MAX,
        failure_total: u64::MAX,
        latency_bounds_ms: vec![f64::NAN],
        latency_counts: vec![u64::MAX],
        tcp_open_connections: u64::MAX,
        tcp_read_bytes: u64::MAX,
        ..TrafficReport::default()
    };
    let nameless = TrafficReport { workload: None, ..odd.clone() };
    let empty = TrafficReport { workload: Some(PodRef::default()), ..odd.clone() };
    let alien = TrafficReport { direction: -5, ..odd.clone() };
    let report = Report {
        traffic: vec![odd.clone(), odd, nameless, empty, alien],
        window_seconds: f64::NAN,
        ..Report::default()
    };
    for arguments in ["-A", "-A -o json", "-A -o wide", "pod -A", "svc -A", "ns -A", "-A --from all", "-A --to all"] {
        let lines = shown_of(arguments, std::slice::from_ref(&report), &[PodStatus::default()]);
        assert!(!lines.join("").contains('\x1b'), "{lines:?}");
    }
    assert!(shown_of("-A", &[report], &[])[1].contains("pod/a\\u{1b}[31m"));
}

#[test]
fn one_scope_at_a_time() {
    let all = Arguments::try_parse_from(["weir", "stat", "--control", "https://c:1"]).unwrap();
    let session = session(&all);
    let Command::Stat(stat) = all.command else { panic!("{all:?}") };
    let both = StatArgs { to: Some("deploy/a".into()), from: Some("deploy/b".into()), ..stat };
    assert!(matches!(Query::new(&both, &session), Err(CliError::Argument(_))));
}

/// Of `weir --control URL …`: no test may look for a kubeconfig on the machine that it runs on.
fn session(arguments: &Arguments) -> Session {
    let mut session = Session::new(&arguments.global, &arguments.command).unwrap();
    session.color = false;
    session
}
