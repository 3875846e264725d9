//! What is counted by route and backend, as Prometheus sees it.

use weir_tests::mesh::ServiceOptions;

use crate::stage::{HTTP1, PATIENCE, Stage, ask};

const ROUTE: [&str; 6] = [
    "parent_kind=\"Service\"",
    "parent_name=\"web\"",
    "parent_port=\"8080\"",
    "route_kind=\"HTTPRoute\"",
    "route_name=\"main-8080\"",
    "pod=\"client",
];

/// Requests by route with all their attempts, attempts by backend, and what became of retries; answers of the proxy's own too.
#[test]
fn requests_are_counted_by_route_and_attempts_by_backend() {
    let stage = Stage::start();
    stage.route(
        r#"  rules:
  - {matches: [{path: {value: /flaky}}], retry: {codes: [503], attempts: 1}, backendRefs: [{name: v2, port: PORT}]}
  - {matches: [{path: {value: /moved}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere}}]}
  - {matches: [{path: {value: /late}}], timeouts: {request: 200ms}}
  - {matches: [{path: {type: Exact, value: /none}}], backendRefs: [{name: missing, port: PORT}]}
  - {matches: [{path: {type: RegularExpression, value: "/[0-9]*"}}], backendRefs: [{name: v1, port: PORT}, {name: v2, port: PORT}]}"#,
    );
    let count = |family: &str, more: &[&str]| {
        stage.sum(0, &format!("outbound_http_route_{family}"), &[&ROUTE[..], more].concat())
    };
    let expected: [(&str, &[&str], f64); 13] = [
        ("request_statuses_total", &["http_status=\"200\",error=\"\""], 40.0),
        ("request_statuses_total", &["http_status=\"503\",error=\"\""], 1.0),
        ("request_statuses_total", &["http_status=\"302\""], 1.0),
        ("request_statuses_total", &["http_status=\"\",error=\"REQUEST_TIMEOUT\""], 1.0),
        ("request_statuses_total", &["error=\"UNKNOWN\""], 1.0),
        ("request_duration_seconds_count", &[], 44.0),
        ("retry_requests_total", &[], 1.0),
        ("retry_limit_exceeded_total", &[], 1.0),
        ("retry_successes_total", &[], 0.0),
        ("backend_requests_total", &["backend_name=\"v"], 42.0),
        ("backend_response_statuses_total", &["backend_name=\"v2\"", "http_status=\"503\""], 2.0),
        ("backend_response_statuses_total", &["backend_name=\"web\"", "error=\"REQUEST_TIMEOUT\""], 1.0),
        ("backend_response_duration_seconds_count", &["backend_kind=\"Service\"", "backend_port=\"8080\""], 43.0),
    ];
    let before = expected.map(|(family, labels, _)| count(family, labels));
    let own = stage.shares(40);
    let statuses = ["/flaky", "/moved", "/late", "/none", "/nobody"].map(|path| stage.get(path, &[]).status);
    assert_eq!(statuses, [503, 302, 504, 500, 404]);
    for ((family, labels, more), before) in expected.into_iter().zip(before) {
        assert_eq!(count(family, labels) - before, more, "{family} {labels:?}");
    }
    let of_one = |name: &str| count("backend_requests_total", &[&format!("backend_name=\"{name}\"")]);
    assert!(own["v1"] + own["v2"] == 40 && of_one("v1") >= own["v1"] as f64 && of_one("v2") >= own["v2"] as f64);
}

/// Where a Service has no routes, its requests are counted all the same, under Linkerd's name for that.
#[test]
fn requests_without_routes_are_counted() {
    let mut stage = Stage::start();
    let address = stage.mesh.service(&ServiceOptions::new("plain", HTTP1, HTTP1), &[&stage.servers[0]]);
    weir_tests::wait::until("the Service is known", PATIENCE, || {
        (ask(&stage.client, &format!("http://{address}:{HTTP1}/"), &[]).status == 200).then_some(())
    });
    let labels =
        ["parent_name=\"plain\"", "route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"http\""];
    for family in ["request_statuses_total", "backend_requests_total"] {
        assert!(stage.sum(0, &format!("outbound_http_route_{family}"), &labels) >= 1.0, "{family}");
    }
}
