//! Tests of telemetry.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_core::{classify::Classification, detect::Detected, outbound::NoTlsReason, route::ObjectRef};

use super::{
    Answered, Certificate, Direction, Format, RouteLabels, ServiceRef, TcpGuard, Telemetry, TlsLabel,
    fake::{FakeState, http_labels, identity, pod, service, tcp_labels},
    families, metrics_reference,
    registry::Bounds,
};
use crate::limits;

fn render(telemetry: &Telemetry, format: Format) -> String {
    telemetry.scrape(&*FakeState::new(service()), format).collect()
}

/// Value of the sample that begins with `name` and has all of `labels`.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut matching = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            && labels.iter().all(|label| line.contains(label))
    });
    let found = matching.next()?;
    assert_eq!(matching.next(), None, "more than one {name} with {labels:?}");
    found.rsplit_once(' ')?.1.parse().ok()
}

/// Of one GRPCRoute: answers without a status that gRPC knows have one word.
fn calls(telemetry: &Telemetry) {
    let parent = ServiceRef { namespace: Arc::from("shop"), name: Arc::from("web"), port: 80 };
    let route = ObjectRef { kind: Arc::from("GRPCRoute"), name: Arc::from("calls"), ..ObjectRef::default() };
    let labels = RouteLabels { workload: pod("web-1"), parent, route: Some(Arc::new(route)), backend: None };
    let series = telemetry.route(&labels);
    for grpc in [Some(0), Some(2), Some(17), Some(u32::MAX), None] {
        series.request();
        series.ended(Some(Answered { http: 200, grpc }), None, None, Duration::from_millis(1));
    }
    series.ended(None, Some("failfast"), Some(Classification::Failure), Duration::from_millis(1));
}

fn busy() -> Telemetry {
    let telemetry = Telemetry::new();
    let http = telemetry.http(&http_labels("web.shop"));
    for ms in [0, 3, 700, 60_000] {
        http.request();
        http.response(200, Classification::Success, None, None, Duration::from_millis(ms));
    }
    http.response(200, Classification::Failure, Some(14), None, Duration::from_millis(1));
    http.response(502, Classification::Failure, None, Some("i/o"), Duration::from_millis(1));
    calls(&telemetry);
    telemetry.tcp(&tcp_labels()).open().close(Some(104));
    telemetry.detect(Direction::Inbound, Detected::Http1);
    telemetry.passed_tls(Direction::Outbound, Some("Example.org"));
    telemetry.transport_header();
    telemetry.certificate_refresh(true);
    telemetry
}

#[test]
fn calls_have_families_of_their_own_with_the_names_of_their_codes() {
    let text = render(&busy(), Format::Prometheus);
    let count = |labels: &[&str]| value(&text, "outbound_grpc_route_request_statuses_total", labels);
    assert_eq!(count(&["grpc_status=\"OK\"", "error=\"\""]), Some(1.0));
    assert_eq!(count(&["grpc_status=\"UNKNOWN\"", "error=\"\""]), Some(4.0));
    assert_eq!(count(&["grpc_status=\"UNKNOWN\"", "error=\"FAIL_FAST\""]), Some(1.0));
    assert!(!text.contains("outbound_http_route_request_statuses_total{"));
}

#[test]
fn classic_families_carry_linkerds_labels_and_the_workloads_own() {
    let text = render(&busy(), Format::Prometheus);
    let labels = [
        "direction=\"outbound\"",
        "authority=\"web.shop\"",
        "target_addr=\"10.0.0.2:8080\"",
        "target_ip=\"10.0.0.2\"",
        "target_port=\"8080\"",
        "tls=\"true\"",
        "server_id=\"web.shop.serviceaccount.identity.linkerd.cluster.local\"",
        "namespace=\"shop\"",
        "pod=\"client-1\"",
        "deployment=\"client\"",
        "dst_namespace=\"shop\"",
        "dst_pod=\"web-1\"",
        "dst_deployment=\"web\"",
        "dst_service=\"web\"",
        "dst_serviceaccount=\"default\"",
        "dst_pod_template_hash=\"5f\"",
    ];
    assert_eq!(value(&text, "request_total", &labels), Some(4.0), "{text}");
    let success = ["status_code=\"200\"", "classification=\"success\""];
    assert_eq!(value(&text, "response_total", &success), Some(4.0));
    assert_eq!(value(&text, "response_total", &["classification=\"failure\"", "grpc_status=\"14\""]), Some(1.0));
    assert_eq!(value(&text, "response_total", &["status_code=\"502\"", "error=\"i/o\""]), Some(1.0));
    let inbound =
        ["direction=\"inbound\"", "peer=\"src\"", "tls=\"no_identity\"", "no_tls_reason=\"", "srv_port=\"8080\""];
    assert_eq!(value(&text, "tcp_open_total", &inbound), Some(1.0));
    assert_eq!(value(&text, "tcp_close_total", &["errno=\"ECONNRESET\""]), Some(1.0));
    assert_eq!(value(&text, "inbound_tcp_detect_http_results_total", &["result=\"http/1\""]), Some(1.0));
    assert_eq!(value(&text, "weir_tls_passed_total", &["sni=\"example.org\""]), Some(1.0));
    assert_eq!(
        value(&text, "outbound_http_balancer_endpoints", &["backend_name=\"web\"", "endpoint_state=\"ready\""]),
        Some(1.0)
    );
    assert_eq!(value(&text, "outbound_http_balancer_endpoints", &["endpoint_state=\"pending\""]), Some(1.0));
}

#[test]
fn histogram_buckets_are_cumulative_and_end_with_all() {
    let text = render(&busy(), Format::Prometheus);
    let at_most = |bound: &str| value(&text, "response_latency_ms_bucket", &[&format!("le=\"{bound}\"")]);
    assert_eq!([at_most("1"), at_most("2"), at_most("3")], [Some(3.0), Some(3.0), Some(4.0)]);
    assert_eq!([at_most("500"), at_most("1000"), at_most("50000")], [Some(4.0), Some(5.0), Some(5.0)]);
    assert_eq!(at_most("+Inf"), Some(6.0));
    assert_eq!(value(&text, "response_latency_ms_count", &[]), Some(6.0));
    assert_eq!(value(&text, "response_latency_ms_sum", &[]), Some(60_705.0));
}

#[test]
fn a_peers_bytes_cannot_break_out_of_a_label() {
    let telemetry = Telemetry::new();
    telemetry.http(&http_labels("a\"} 1\nforged_total{x=\"\\")).request();
    let text = render(&telemetry, Format::Prometheus);
    assert!(text.contains(r#"authority="a\"} 1\nforged_total{x=\"\\","#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("forged_total")));
}

#[test]
fn too_long_an_authority_is_no_label() {
    let telemetry = Telemetry::new();
    telemetry.http(&http_labels(&"a".repeat(limits::LABEL_BYTES + 1))).request();
    assert!(!render(&telemetry, Format::Prometheus).contains("authority="));
}

#[test]
fn ten_thousand_authorities_end_in_one_overflow_series() {
    let telemetry = Telemetry::new();
    for index in 0..10_000 {
        telemetry.http(&http_labels(&format!("host-{index}"))).request();
    }
    let text = render(&telemetry, Format::Prometheus);
    let series = text.lines().filter(|line| line.starts_with("request_total{")).count();
    assert_eq!(series, limits::SERIES_PER_WORKLOAD + 1);
    let over = (10_000 - limits::SERIES_PER_WORKLOAD) as f64;
    assert_eq!(value(&text, "request_total", &["pod=\"client-1\"", "overflow=\"true\""]), Some(over));
    assert_eq!(value(&text, "weir_series_overflow_total", &["kind=\"http\""]), Some(over));
    // Another workload is not affected.
    let other = super::HttpLabels { workload: pod("other-1"), ..http_labels("host") };
    telemetry.http(&other).request();
    let text = render(&telemetry, Format::Prometheus);
    assert_eq!(value(&text, "request_total", &["pod=\"other-1\"", "authority=\"host\""]), Some(1.0));
}

#[test]
fn the_nodes_bound_holds_over_all_workloads() {
    let telemetry = Telemetry::bounded(Bounds { per_workload: 10, per_node: 20 });
    for index in 0..100 {
        let labels = super::HttpLabels { workload: pod(&format!("w-{index}")), ..http_labels("h") };
        telemetry.http(&labels).request();
    }
    let text = render(&telemetry, Format::Prometheus);
    assert_eq!(text.lines().filter(|line| line.starts_with("request_total{")).count(), 21);
    assert_eq!(value(&text, "request_total", &["overflow=\"true\""]), Some(80.0));
}

#[test]
fn kinds_of_response_are_bounded_and_keep_their_classification() {
    let telemetry = Telemetry::new();
    let series = telemetry.http(&http_labels("h"));
    for status in 100..600 {
        series.response(status, Classification::Failure, None, None, Duration::ZERO);
    }
    let text = render(&telemetry, Format::Prometheus);
    let lines = text.lines().filter(|line| line.starts_with("response_total{")).count();
    assert_eq!(lines, limits::RESPONSE_KINDS + 1);
    let over = (500 - limits::RESPONSE_KINDS) as f64;
    assert_eq!(value(&text, "response_total", &["status_code=\"overflow\"", "classification=\"failure\""]), Some(over));
}

#[test]
fn server_names_are_bounded() {
    let telemetry = Telemetry::new();
    for index in 0..1_000 {
        telemetry.passed_tls(Direction::Outbound, Some(&format!("h{index}.example")));
    }
    let text = render(&telemetry, Format::Prometheus);
    assert_eq!(text.lines().filter(|line| line.starts_with("weir_tls_passed_total{")).count(), limits::SNI_NAMES + 1);
    let over = (1_000 - limits::SNI_NAMES) as f64;
    assert_eq!(value(&text, "weir_tls_passed_total", &["sni=\"overflow\""]), Some(over));
}

fn series_after(telemetry: &Telemetry, seconds: u64, live: bool) -> usize {
    telemetry.advance(Duration::from_secs(seconds), |_| live, |_, _| {}, |_, _| {}, |_, _, _| {});
    telemetry.http.all().len() + telemetry.tcp.all().len()
}

#[test]
fn an_idle_series_goes_and_one_that_is_held_stays() {
    let telemetry = Telemetry::new();
    let held = telemetry.http(&http_labels("held"));
    telemetry.http(&http_labels("idle")).request();
    let open: TcpGuard = telemetry.tcp(&tcp_labels()).open();
    let idle = limits::SERIES_IDLE.as_secs();
    assert_eq!(series_after(&telemetry, 10, true), 3);
    assert_eq!(series_after(&telemetry, idle, true), 3, "counted at 10 s, so it is not idle for long enough");
    assert_eq!(series_after(&telemetry, idle + 10, true), 2);
    // Counted again from zero, and the workload's share of the bound is free again.
    telemetry.http(&http_labels("idle")).request();
    assert_eq!(series_after(&telemetry, idle + 20, true), 3);
    drop((held, open));
    assert_eq!(
        series_after(&telemetry, idle + 30, true),
        2,
        "the held one was idle all along; the connection just closed"
    );
    assert_eq!(series_after(&telemetry, 2 * idle + 30, true), 0);
}

#[test]
fn series_of_a_workload_that_left_go_soon() {
    let telemetry = Telemetry::new();
    telemetry.http(&http_labels("h")).request();
    assert_eq!(series_after(&telemetry, 10, false), 1);
    assert_eq!(series_after(&telemetry, 9 + limits::SERIES_LEFT.as_secs(), false), 1);
    assert_eq!(series_after(&telemetry, 10 + limits::SERIES_LEFT.as_secs(), false), 0);
}

#[test]
fn a_dropped_guard_counts_a_close() {
    let telemetry = Telemetry::new();
    let guard = telemetry.tcp(&tcp_labels()).open();
    guard.add_read(5);
    guard.add_write(7);
    assert_eq!(value(&render(&telemetry, Format::Prometheus), "tcp_open_connections", &[]), Some(1.0));
    drop(guard);
    telemetry.tcp(&tcp_labels()).open().close(None);
    telemetry.tcp(&tcp_labels()).open().close(Some(4_999));
    let text = render(&telemetry, Format::Prometheus);
    assert_eq!(value(&text, "tcp_open_connections", &[]), Some(0.0));
    assert_eq!(value(&text, "tcp_close_total", &["errno=\"\""]), Some(2.0));
    assert_eq!(value(&text, "tcp_close_total", &["errno=\"4999\""]), Some(1.0));
    assert_eq!(value(&text, "tcp_read_bytes_total", &[]), Some(5.0));
    assert_eq!(value(&text, "tcp_write_bytes_total", &[]), Some(7.0));
}

#[test]
fn labels_that_are_written_alike_are_one_series() {
    let telemetry = Telemetry::new();
    let moved = weir_core::snapshot::PodRef { node_name: Arc::from("n2"), ..(*pod("web-1")).clone() };
    let mapped = "[::ffff:10.0.0.2]:8080".parse().unwrap();
    for labels in [
        http_labels("h"),
        super::HttpLabels { peer: Some(Arc::new(moved)), ..http_labels("h") },
        super::HttpLabels { target_addr: mapped, ..http_labels("h") },
    ] {
        telemetry.http(&labels).request();
    }
    assert_eq!(value(&render(&telemetry, Format::Prometheus), "request_total", &[]), Some(3.0));
}

#[test]
fn no_sample_appears_twice() {
    let telemetry = busy();
    let web = Some((Arc::from("other"), Arc::from("web")));
    telemetry.http(&super::HttpLabels { service: web.clone(), ..http_labels("web.shop") }).request();
    telemetry.http(&super::HttpLabels { service: web, peer: None, ..http_labels("web.shop") }).request();
    telemetry.http(&super::HttpLabels { peer: None, ..http_labels("web.shop") }).request();
    let text = render(&telemetry, Format::Prometheus);
    let mut seen = HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
    }
}

#[test]
fn every_family_is_announced_once_and_in_one_piece() {
    let telemetry = busy();
    let state = FakeState::new(service());
    let certificate = Certificate { identity: identity("web"), not_after: 1_900_000_000, chain: Vec::new() };
    state.certificates.lock().push(certificate);
    let text: String = telemetry.scrape(&*state, Format::OpenMetrics).collect();
    let mut announced = Vec::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap();
            announced.push(current);
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("{name} under {current}"));
        assert!(["", "_total", "_bucket", "_sum", "_count"].contains(&suffix), "{name} under {current}");
    }
    let table: Vec<&str> =
        families::ALL.iter().map(|family| family.name.strip_suffix("_total").unwrap_or(family.name)).collect();
    assert_eq!(announced.iter().collect::<HashSet<_>>(), table.iter().collect::<HashSet<_>>());
    assert_eq!(announced.len(), table.len());
    assert!(text.ends_with("\n# EOF\n"));
    assert!(text.contains("le=\"1.0\"") && !text.contains("le=\"1\""));
    assert!(text.contains("\nrequest_total{"));
}

#[test]
fn the_scraper_chooses_the_format() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    assert_eq!(Format::negotiate(Some(prometheus)), Format::OpenMetrics);
    assert_eq!(Format::negotiate(Some("text/plain, application/openmetrics-text;q=0.5")), Format::Prometheus);
    assert_eq!(Format::negotiate(Some("*/*")), Format::Prometheus);
    assert_eq!(Format::negotiate(None), Format::Prometheus);
    assert_eq!(Format::negotiate(Some("application/openmetrics-text;version=2.0.0")), Format::Prometheus);
}

#[test]
fn a_scrape_comes_in_pieces_of_bounded_size() {
    let telemetry = Telemetry::new();
    for index in 0..1_000 {
        telemetry.http(&http_labels(&format!("h{index}"))).response(
            200,
            Classification::Success,
            None,
            None,
            Duration::ZERO,
        );
    }
    let state = FakeState::new(Vec::new());
    let pieces: Vec<usize> = telemetry.scrape(&*state, Format::Prometheus).map(|piece| piece.len()).collect();
    assert!(pieces.len() > 100, "{}", pieces.len());
    // A piece may end with one whole histogram more.
    assert!(pieces.iter().all(|piece| *piece < 2 * limits::SCRAPE_CHUNK), "{pieces:?}");
}

#[test]
fn tls_summaries_say_why_not() {
    assert_eq!(TlsLabel::True.summary(), "true");
    assert_eq!(TlsLabel::NoIdentity(NoTlsReason::Loopback).summary(), "loopback");
    assert_eq!(TlsLabel::Opaque { sni: None }.summary(), "opaque");
}

#[test]
fn counting_from_many_threads_loses_nothing() {
    let telemetry = Telemetry::new();
    let series = telemetry.http(&http_labels("h"));
    std::thread::scope(|scope| {
        for thread in 0..4_u16 {
            let series = &series;
            scope.spawn(move || {
                for index in 0..10_000_u16 {
                    let status = 200 + (index + thread) % 20;
                    series.response(status, Classification::Success, None, None, Duration::from_millis(1));
                }
            });
        }
    });
    let total: u64 = series.responses().map(|(_, count)| count).sum();
    assert_eq!(total, 40_000);
    assert_eq!(series.responses().count(), 20, "a kind that two threads saw first at once has one slot");
}

/// Prints what a request costs; the bar is 100 ns in a release build, where nothing else runs.
#[test]
fn cost_per_request() {
    let telemetry = Telemetry::new();
    let series = telemetry.http(&http_labels("h"));
    let rounds = 1_000_000_u32;
    let began = Instant::now();
    for round in 0..rounds {
        series.request();
        let took = Duration::from_micros(u64::from(round % 4_000));
        series.response(200, Classification::Success, None, None, took);
    }
    println!("request and response counted: {:?}", began.elapsed() / rounds);
    let began = Instant::now();
    for _ in 0..rounds / 10 {
        std::hint::black_box(telemetry.http(&http_labels("h")));
    }
    println!("labels made and looked up: {:?}", began.elapsed() / (rounds / 10));
    println!("bytes: HTTP series {}, TCP series {}", size_of::<super::HttpSeries>(), size_of::<super::TcpSeries>());
}

/// With WEIR_UPDATE_DOCS set, the page is written instead.
#[test]
fn metrics_reference_is_the_page_in_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("WEIR_UPDATE_DOCS").is_some() {
        std::fs::write(path, metrics_reference()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert_eq!(page, metrics_reference(), "run the test with WEIR_UPDATE_DOCS=1 and commit docs/metrics.md");
}
