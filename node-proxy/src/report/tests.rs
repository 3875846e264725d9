//! Tests of reports.

use std::{sync::Arc, time::Duration};

use weir_api::v1;
use weir_core::{classify::Classification, route::ObjectRef};

use super::Reporter;
use crate::{
    limits,
    telemetry::{
        Answered, Capture, Certificate, Direction, HttpLabels, RetryEvent, RouteLabels, ServiceRef, TcpLabels,
        Telemetry,
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

fn over(window_seconds: u32) -> v1::Query {
    v1::Query { window_seconds, ..v1::Query::default() }
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

    let all = reporter.report_at(&over(60), seconds(17));
    assert!((all.window_seconds - 17.0).abs() < 0.1, "less than asked after a start: {}", all.window_seconds);
    let traffic = only(&all);
    assert_eq!((traffic.success_total, traffic.failure_total), (2, 1));
    assert_eq!((traffic.latency_counts[1], traffic.latency_counts[25]), (2, 1));
    assert_eq!(traffic.latency_counts.len(), traffic.latency_bounds_ms.len() + 1);
    assert_eq!((traffic.service.as_str(), traffic.tls.as_str()), ("shop/web", "true"));
    assert_eq!(traffic.client_identity, identity("client").as_str());
    assert_eq!(traffic.peer.as_ref().unwrap().name, "web-1");

    let recent = reporter.report_at(&over(4), seconds(17));
    assert!((recent.window_seconds - 7.0).abs() < 0.1, "rounded up to whole samples: {}", recent.window_seconds);
    assert_eq!((only(&recent).success_total, only(&recent).failure_total), (1, 1));
}

#[test]
fn reports_in_between_lose_nothing() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    for second in 1..=9 {
        telemetry.http(&http_labels("a")).response(200, Classification::Success, None, None, Duration::ZERO);
        assert_eq!(only(&reporter.report_at(&over(300), seconds(second))).success_total, second);
    }
    reporter.tick_at(seconds(10));
    assert_eq!(only(&reporter.report_at(&over(300), seconds(10))).success_total, 9);
}

#[test]
fn samples_are_bounded_and_old_traffic_leaves() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    telemetry.http(&http_labels("a")).response(200, Classification::Success, None, None, Duration::ZERO);
    for index in 1..=100 {
        reporter.tick_at(seconds(5 * index));
    }
    let report = reporter.report_at(&over(10_000), seconds(500));
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
    let report = reporter.report_at(&over(60), seconds(1));
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
    let report = reporter.report_at(&over(60), seconds(1));
    let traffic = only(&report);
    assert_eq!((traffic.tcp_open_connections, traffic.tcp_read_bytes, traffic.tcp_write_bytes), (1, 10, 20));
    assert_eq!(traffic.direction(), v1::Direction::Inbound);
    assert!(traffic.latency_counts.is_empty());
    drop(guard);
    let outbound = TcpLabels { direction: Direction::Outbound, peer_is_src: false, ..tcp_labels() };
    let _open = telemetry.tcp(&outbound).open();
    let report = reporter.report_at(&over(60), seconds(2));
    let open: Vec<_> = report.traffic.iter().map(|line| (line.direction(), line.tcp_open_connections)).collect();
    assert!(open.contains(&(v1::Direction::Inbound, 0)) && open.contains(&(v1::Direction::Outbound, 1)), "{open:?}");
}

#[test]
fn workloads_endpoints_and_checks_are_as_of_now() {
    let mut resources = service();
    resources.push(workload("u1", "web-1"));
    let state = FakeState::new(resources);
    let (_telemetry, reporter) = reporter(&state);
    let report = reporter.report_at(&over(60), seconds(1));
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
    let report = reporter.report_at(&over(60), seconds(2));
    assert!(report.workloads[0].captured);
    assert_eq!(report.workloads[0].certificate_chain, [[1], [2]]);
    assert_eq!(outcome(&report, "certificate"), v1::CheckOutcome::Success);
    assert!(report.endpoints.is_empty(), "nobody asked");
    let asked = v1::Query { endpoints: Some(v1::EndpointsQuery::default()), ..over(60) };
    let report = reporter.report_at(&asked, seconds(2));
    let endpoints: Vec<_> = report
        .endpoints
        .iter()
        .map(|each| (each.service.as_str(), each.port, each.address.as_str(), each.ready))
        .collect();
    assert!(endpoints.contains(&("shop/web", 80, "10.0.0.2:8080", true)), "{endpoints:?}");
    assert!(endpoints.contains(&("shop/web", 80, "10.0.0.3:8080", false)), "{endpoints:?}");
}

fn route_labels(service: &str, backend: Option<&str>) -> RouteLabels {
    let named = |name: &str| ServiceRef { namespace: Arc::from("shop"), name: Arc::from(name), port: 80 };
    let route = ObjectRef { kind: Arc::from("HTTPRoute"), name: Arc::from("main"), ..ObjectRef::default() };
    RouteLabels {
        workload: pod("client-1"),
        parent: named(service),
        route: Some(Arc::new(route)),
        backend: backend.map(named),
    }
}

fn routes_over(window_seconds: u32, client_namespace: &str, service_namespace: &str) -> v1::Query {
    let asked = v1::RoutesQuery {
        client_namespace: client_namespace.to_owned(),
        service_namespace: service_namespace.to_owned(),
    };
    v1::Query { routes: Some(asked), ..over(window_seconds) }
}

/// A request that is sent twice: its route counts one that ended well, its backend two attempts. What a client gave up is neither.
#[test]
fn requests_are_told_by_route_and_attempts_by_backend() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let (requests, attempts) =
        (telemetry.route(&route_labels("web", None)), telemetry.route(&route_labels("web", Some("v2"))));
    let answered = |http| Some(Answered { http, grpc: None });
    let took = Duration::from_millis(22);
    attempts.ended(None, Some("retry timeout"), Some(Classification::Failure), took);
    reporter.tick_at(seconds(5));
    attempts.ended(answered(200), None, Some(Classification::Success), took);
    requests.retried(RetryEvent::Request);
    requests.retried(RetryEvent::Success);
    requests.ended(answered(200), None, Some(Classification::Success), took);
    requests.ended(None, Some("cancelled"), None, took);

    assert!(reporter.report_at(&over(60), seconds(6)).routes.is_empty(), "nobody asked");
    assert!(reporter.report_at(&routes_over(60, "other", ""), seconds(6)).routes.is_empty());
    assert!(reporter.report_at(&routes_over(60, "", "other"), seconds(6)).routes.is_empty());
    let report = reporter.report_at(&routes_over(60, "shop", "shop"), seconds(6));
    let [first, second] = &*report.routes else { panic!("{:?}", report.routes) };
    let (of_requests, of_attempts) = if first.is_attempts { (second, first) } else { (first, second) };
    let counts =
        |line: &v1::RouteReport| [line.success_total, line.failure_total, line.timeouts_total, line.retries_total];
    assert_eq!((counts(of_requests), counts(of_attempts)), ([1, 0, 0, 1], [1, 1, 1, 0]));
    let bucket = report.route_bounds_ms.iter().position(|bound| *bound == 25.0).unwrap();
    assert_eq!((of_requests.duration_counts[bucket], of_attempts.duration_counts[bucket]), (2, 2));
    assert_eq!(of_requests.duration_counts.len(), report.route_bounds_ms.len() + 1);
    let backend = |line: &v1::RouteReport| (line.backend.clone(), line.backend_port);
    assert_eq!((backend(of_requests), backend(of_attempts)), ((String::new(), 0), ("shop/v2".to_owned(), 80)));
    let route = of_requests.route.as_ref().unwrap();
    assert_eq!((of_requests.service.as_str(), of_requests.port, route.name.as_str()), ("shop/web", 80, "main"));
    assert_eq!(of_requests.workload.as_ref().unwrap().owner_name, "client");
    let recent = reporter.report_at(&routes_over(1, "", ""), seconds(6));
    let attempts = recent.routes.iter().find(|line| line.is_attempts).unwrap();
    assert_eq!(counts(attempts), [1, 0, 0, 0], "of the window alone");
}

/// However many Services a workload calls, a report stays small and says what it leaves out; and no count is lost on the way to it.
#[test]
fn lines_about_routes_are_bounded_and_the_busiest_stay() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let mut series = Vec::new();
    for index in 0..limits::ROUTES_REPORTED + 500 {
        let one = telemetry.route(&RouteLabels {
            workload: pod(&format!("client-{}", index % 4)),
            ..route_labels(&format!("web-{index}"), None)
        });
        let times = if index == 700 { 3 } else { 1 };
        for _ in 0..times {
            one.ended(None, None, Some(Classification::Success), Duration::ZERO);
        }
        series.push(one);
        if index % (limits::SAMPLE_ROUTES - 1) == limits::SAMPLE_ROUTES - 2 {
            reporter.tick_at(seconds(5 * index as u64 / 1_000));
        }
    }
    let report = reporter.report_at(&routes_over(300, "", ""), seconds(20));
    assert_eq!((report.routes.len(), report.routes_left_out), (limits::ROUTES_REPORTED, 500));
    assert_eq!((report.routes[0].service.as_str(), report.routes[0].success_total), ("shop/web-700", 3));
}

#[test]
fn too_many_routes_in_one_sample_share_a_line_per_workload() {
    let (telemetry, reporter) = reporter(&FakeState::new(Vec::new()));
    let mut series = Vec::new();
    for index in 0..limits::SAMPLE_ROUTES + 50 {
        let workload = pod(if index % 2 == 0 { "a-1" } else { "b-1" });
        let one = telemetry.route(&RouteLabels { workload, ..route_labels(&format!("web-{index}"), None) });
        one.ended(None, None, Some(Classification::Failure), Duration::ZERO);
        series.push(one);
    }
    let report = reporter.report_at(&routes_over(60, "", ""), seconds(1));
    assert_eq!(report.routes.len(), limits::SAMPLE_ROUTES + 2);
    let shared = report.routes.iter().filter(|line| line.service.is_empty());
    assert_eq!(shared.map(|line| line.failure_total).sum::<u64>(), 50);
}
