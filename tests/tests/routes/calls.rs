//! GRPCRoutes, from YAML to bytes.

use weir_tests::{mesh::NAMESPACE, wait};

use crate::stage::{Answer, HTTP2, PATIENCE, Stage, ask};

/// A call as gRPC's clients make it; the server answers as nginx does.
fn call(stage: &Stage, method: &str, more: &[&str]) -> Answer {
    let url = format!("http://{}:{HTTP2}/{method}", stage.web);
    let headers =
        ["-H", "content-type: application/grpc", "-H", "te: trailers", "--http2-prior-knowledge", "-X", "POST"];
    ask(&stage.client, &url, &[&headers[..], more].concat())
}

fn write(stage: &Stage, rules: &str) {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: calls, namespace: {NAMESPACE}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: {HTTP2}}}]\n  rules:\n{rules}\n"
    );
    stage.mesh.manifest("calls", &text);
}

/// By service, method, header and pattern; what falls under no rule is NOT_FOUND. An HTTPRoute of the same name stands beside it.
#[test]
fn calls_go_where_their_rules_say() {
    let stage = Stage::start();
    let to = |server: &str| format!("backendRefs: [{{name: {server}, port: {HTTP2}}}]");
    let (v1, v2) = (to("v1"), to("v2"));
    write(
        &stage,
        &format!(
            r#"  - {{matches: [{{method: {{service: shop.Cart, method: Add}}}}], {v2}}}
  - {{matches: [{{method: {{service: shop.Cart}}}}], {v1}, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: cart}}]}}}}]}}
  - {{matches: [{{method: {{method: Find}}}}], {v2}}}
  - {{matches: [{{method: {{type: RegularExpression, service: "shop[.]v[0-9]+[.].*", method: "Get.*"}}}}], {v2}}}
  - {{matches: [{{headers: [{{name: X-Who, value: me}}]}}], {v1}}}"#
        ),
    );
    wait::until("the route is in force", PATIENCE, || {
        let answer = call(&stage, "other.Service/Call", &[]);
        answer.headers.get("grpc-status").is_some_and(|status| status == "5").then_some(())
    });
    for (method, more, expected, set) in [
        ("shop.Cart/Add", &[][..], "v2", ""),
        ("shop.Cart/Remove", &[], "v1", "cart"),
        ("shop.Carts/Remove", &["-H", "x-who: me"], "v1", ""),
        ("other.Service/Find", &[], "v2", ""),
        ("shop.v2.Cart/GetAll", &[], "v2", ""),
        ("other.Service/Call", &["-H", "x-who: me"], "v1", ""),
    ] {
        for _ in 0..4 {
            let answer = call(&stage, method, more);
            assert_eq!(
                (answer.server(), answer.asked.get("set").map(String::as_str)),
                (expected, Some(set)),
                "{method}"
            );
        }
    }
    for method in ["shop.v2.Cart/Set", "shop.Carts/Remove"] {
        let answer = call(&stage, method, &[]);
        assert_eq!(answer.headers.get("grpc-status").map(String::as_str), Some("5"), "{method}: {answer:?}");
    }
    let counted = stage.sum(
        0,
        "outbound_http_route_request_statuses_total",
        &["route_kind=\"GRPCRoute\"", "route_name=\"calls\""],
    );
    assert!(counted >= 24.0, "{counted} calls are counted");
}

/// What cannot be followed refuses the route whole, and what was in force stays.
#[test]
fn a_route_that_cannot_be_followed_changes_nothing() {
    let stage = Stage::start();
    let rule = |method: &str, server: &str| {
        format!("  - {{matches: [{{method: {method}}}], backendRefs: [{{name: {server}, port: {HTTP2}}}]}}")
    };
    write(&stage, &rule("{service: shop.Cart}", "v1"));
    let is_at = |server: &str| (0..6).all(|_| call(&stage, "shop.Cart/Add", &[]).server() == server);
    wait::until("the route is in force", PATIENCE, || is_at("v1").then_some(()));
    write(&stage, &rule("{service: shop/Cart}", "v2"));
    wait::until("the finding", PATIENCE, || {
        let output = stage.mesh.weir(&["check"]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).contains("spec.rules[0].matches[0].method.service").then_some(())
    });
    assert!(is_at("v1"));
    write(&stage, &rule("{service: shop.Cart}", "v2"));
    wait::until("the next version", PATIENCE, || is_at("v2").then_some(()));
}
