//! Tests of reports.

use std::{sync::Arc, time::Duration};

use weir_api::v1;
use weir_core::classify::Classification;

use super::Reporter;
use crate::{
    limits,
    telemetry::{
        Capture, Certificate, Direction, HttpLabels, TcpLabels, Telemetry,
        fake::{FakeState, http_labels, identity, pod, service, tcp_labels, workload},
    },
};

fn reporter(state: &Arc<FakeState>) -> (Arc<Telemetry>, Reporter) {
    let telemetry = Arc::new(Telemetry::new());
    let reporter = Reporter::new("n1", Arc::clone(&telemetry), Arc::clone(state) as _);
    (telemetry, reporter)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn only(report: &v1::Report) -> &v1::TrafficReport {
    assert_eq!(report.traffic.len(), 1, "{:?}", report.traffic);
    &report.traffic[0]
}

#[test]
fn counts_are_of_the_window_only() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let series = telemetry.http(&http_labels("a"));
    series.response(200, Classification::Success, None, None, Duration::from_millis(2));
    reporter.tick_at(seconds(5));
    reporter.tick_at(seconds(10));
    // A second series of the same peer, by another name: one line of the report.
    telemetry.http(&http_labels("b")).response(500, Classification::Failure, None, None, Duration::from_secs(99));
    reporter.tick_at(seconds(15));
    series.response(200, Classification::Success, None, None, Duration::from_millis(2));

    let all = reporter.report_at(60, None, seconds(17));
    assert!((all.window_seconds - 17.0).abs() < 0.1, "less than asked after a start: {}", all.window_seconds);
    let traffic = only(&all);
    assert_eq!((traffic.success_total, traffic.failure_total), (2, 1));
    assert_eq!((traffic.latency_counts[1], traffic.latency_counts[25]), (2, 1));
    assert_eq!(traffic.latency_counts.len(), traffic.latency_bounds_ms.len() + 1);
    assert_eq!((traffic.service.as_str(), traffic.tls.as_str()), ("shop/web", "true"));
    assert_eq!(traffic.client_identity, identity("client").as_str());
    assert_eq!(traffic.peer.as_ref().unwrap().name, "web-1");

    let recent = reporter.report_at(4, None, seconds(17));
    assert!((recent.window_seconds - 7.0).abs() < 0.1, "rounded up to whole samples: {}", recent.window_seconds);
    assert_eq!((only(&recent).success_total, only(&recent).failure_total), (1, 1));
}

#[test]
fn reports_in_between_lose_nothing() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    for second in 1..=9 {
        telemetry.http(&http_labels("a")).response(200, Classification::Success, None, None, Duration::ZERO);
        assert_eq!(only(&reporter.report_at(300, None, seconds(second))).success_total, second);
    }
    reporter.tick_at(seconds(10));
    assert_eq!(only(&reporter.report_at(300, None, seconds(10))).success_total, 9);
}

#[test]
fn samples_are_bounded_and_old_traffic_leaves() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    telemetry.http(&http_labels("a")).response(200, Classification::Success, None, None, Duration::ZERO);
    for index in 1..=100 {
        reporter.tick_at(seconds(5 * index));
    }
    let report = reporter.report_at(10_000, None, seconds(500));
    assert!(report.traffic.is_empty());
    assert!((report.window_seconds - 300.0).abs() < 0.1, "{}", report.window_seconds);
    assert_eq!(reporter.window.lock().samples(), limits::SAMPLES);
}

#[test]
fn too_many_peers_share_one_line_per_workload() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let mut series = Vec::new();
    for index in 0..limits::SAMPLE_KEYS + 50 {
        let workload = pod(if index % 2 == 0 { "a-1" } else { "b-1" });
        let labels = HttpLabels { workload, peer: Some(pod(&format!("p-{index}"))), ..http_labels("h") };
        let one = telemetry.http(&labels);
        one.response(200, Classification::Success, None, None, Duration::ZERO);
        series.push(one);
    }
    let report = reporter.report_at(60, None, seconds(1));
    assert_eq!(report.traffic.len(), limits::SAMPLE_KEYS + 2);
    let shared: u64 = report.traffic.iter().filter(|line| line.tls == "overflow").map(|line| line.success_total).sum();
    assert_eq!(shared, 50);
}

#[test]
fn bytes_are_those_of_the_side_towards_the_peer() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let guard = telemetry.tcp(&tcp_labels()).open();
    guard.add_read(10);
    guard.add_write(20);
    let app = telemetry.tcp(&TcpLabels { peer_is_src: false, ..tcp_labels() }).open();
    app.add_read(20);
    let report = reporter.report_at(60, None, seconds(1));
    let traffic = only(&report);
    assert_eq!((traffic.tcp_open_connections, traffic.tcp_read_bytes, traffic.tcp_write_bytes), (1, 10, 20));
    assert_eq!(traffic.direction(), v1::Direction::Inbound);
    assert!(traffic.latency_counts.is_empty());
    drop(guard);
    let outbound = TcpLabels { direction: Direction::Outbound, peer_is_src: false, ..tcp_labels() };
    let _open = telemetry.tcp(&outbound).open();
    let report = reporter.report_at(60, None, seconds(2));
    let open: Vec<_> = report.traffic.iter().map(|line| (line.direction(), line.tcp_open_connections)).collect();
    assert!(open.contains(&(v1::Direction::Inbound, 0)) && open.contains(&(v1::Direction::Outbound, 1)), "{open:?}");
}

#[test]
fn workloads_endpoints_and_checks_are_as_of_now() {
    let mut resources = service();
    resources.push(workload("u1", "web-1"));
    let state = FakeState::new(resources);
    let (_telemetry, reporter) = reporter(&state);
    let report = reporter.report_at(60, None, seconds(1));
    let [workload] = &*report.workloads else { panic!("{:?}", report.workloads) };
    assert!(!workload.captured && !workload.reason.is_empty());
    let outcome = |report: &v1::Report, what: &str| {
        let check = report.checks.iter().find(|check| check.description.contains(what)).unwrap();
        assert_eq!(check.hint.is_empty(), check.outcome() == v1::CheckOutcome::Success);
        check.outcome()
    };
    assert_eq!(outcome(&report, "control"), v1::CheckOutcome::Warning);
    assert_eq!(outcome(&report, "certificate"), v1::CheckOutcome::Error);

    state.captures.lock().push(Capture { uid: Arc::from("u1"), captured: true, reason: String::new() });
    state.certificates.lock().push(Certificate {
        identity: identity("default"),
        not_after: i64::MAX,
        chain: vec![vec![1], vec![2]],
    });
    let report = reporter.report_at(60, None, seconds(2));
    assert!(report.workloads[0].captured);
    assert_eq!(report.workloads[0].certificate_chain, [[1], [2]]);
    assert_eq!(outcome(&report, "certificate"), v1::CheckOutcome::Success);
    assert!(report.endpoints.is_empty(), "nobody asked");
    let report = reporter.report_at(60, Some(&v1::EndpointsQuery::default()), seconds(2));
    let endpoints: Vec<_> = report
        .endpoints
        .iter()
        .map(|each| (each.service.as_str(), each.port, each.address.as_str(), each.ready))
        .collect();
    assert!(endpoints.contains(&("shop/web", 80, "10.0.0.2:8080", true)), "{endpoints:?}");
    assert!(endpoints.contains(&("shop/web", 80, "10.0.0.3:8080", false)), "{endpoints:?}");
}
