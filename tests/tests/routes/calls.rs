//! GRPCRoutes, from YAML to bytes.

use weir_tests::{mesh::NAMESPACE, wait};

use crate::stage::{Answer, HTTP2, PATIENCE, Stage};

/// A call as gRPC's clients make it; the server answers as nginx does.
fn call(stage: &Stage, method: &str, more: &[&str]) -> Answer {
    post(stage, method, &[&["-H", "content-type: application/grpc", "-H", "te: trailers"], more].concat())
}

fn post(stage: &Stage, method: &str, more: &[&str]) -> Answer {
    stage.get_http2(&format!("/{method}"), &[&["-X", "POST"], more].concat())
}

fn status(answer: &Answer) -> Option<&str> {
    answer.headers.get("grpc-status").map(String::as_str)
}

fn write(stage: &Stage, rules: &str) {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: main-{HTTP2}, namespace: {NAMESPACE}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: {HTTP2}}}]\n  rules:\n{rules}\n"
    );
    stage.mesh.manifest("calls", &text);
}

fn to(server: &str) -> String {
    format!("backendRefs: [{{name: {server}, port: {HTTP2}}}]")
}

/// By service, method, header and pattern, the closest first wherever it stands; what falls under no rule is NOT_FOUND. An HTTPRoute of the
/// same name and port holds no more, and that of another port does. Seen to fail with rules in the order of the object, with calls that may
/// be any request, and with HTTPRoutes beside.
#[test]
fn calls_go_where_their_rules_say() {
    let stage = Stage::start();
    stage.route("  rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: http}]}}]}]");
    let set = |name: &str| {
        format!(
            "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: {name}}}]}}}}]"
        )
    };
    let (v1, v2) = (to("v1"), to("v2"));
    write(
        &stage,
        &format!(
            r#"  - {{matches: [{{headers: [{{name: X-Who, value: me}}]}}], {v1}, {}}}
  - {{matches: [{{method: {{type: RegularExpression, service: "^shop[.]v?[0-9]*.*", method: "^(Get|Add).*$"}}}}], {v2}, {}}}
  - {{matches: [{{method: {{method: Find}}}}], {v2}, {}}}
  - {{matches: [{{method: {{service: shop.Cart}}}}], {v1}, {}}}
  - {{matches: [{{method: {{service: shop.Cart}}, headers: [{{name: X-Who, value: me}}]}}], {v2}, {}}}
  - {{matches: [{{method: {{service: shop.Cart, method: Add}}}}], {v2}, {}}}"#,
            set("anybody"),
            set("pattern"),
            set("method"),
            set("service"),
            set("mine"),
            set("both"),
        ),
    );
    wait::until("the route is in force", PATIENCE, || {
        (status(&call(&stage, "other.Service/Call", &[])) == Some("5")).then_some(())
    });
    let me = ["-H", "x-who: me"];
    for (method, more, server, rule) in [
        ("shop.Cart/Add", &[][..], "v2", "both"),
        ("shop.Cart/Add", &me, "v2", "both"),
        ("shop.Cart/Remove", &[], "v1", "service"),
        ("shop.Cart/Remove", &me, "v2", "mine"),
        ("shop.Cart/Find", &[], "v1", "service"),
        ("other.Service/Find", &[], "v2", "method"),
        ("shop.Carts/Find", &me, "v2", "method"),
        ("shop.v2.Cart/GetAll", &[], "v2", "pattern"),
        ("shop.Carts/Remove", &me, "v1", "anybody"),
    ] {
        // Calls of JSON as well: their content type is not asked.
        for answer in [
            call(&stage, method, more),
            post(&stage, method, &[&["-H", "content-type: application/json"], more].concat()),
        ] {
            let set = answer.asked.get("set").map(String::as_str);
            assert_eq!((answer.server(), set), (server, Some(rule)), "{method} {more:?}: {answer:?}");
        }
    }
    for method in ["shop.v2.Cart/Set", "shop.Carts/Remove", "shop.Cart", "shop.Cart/", "shop.Cart/Add/More"] {
        assert_eq!(status(&call(&stage, method, &[])), Some("5"), "{method}");
    }
    assert_eq!(stage.get_http2("/shop.Cart/Add", &me).status, 404, "a GET is no call");
    assert_eq!(stage.get("/", &[]).asked.get("set").map(String::as_str), Some("http"));
}

/// Counted by Linkerd's families of calls, by gRPC's status; a backend that is missing is UNAVAILABLE, as Gateway API asks.
#[test]
fn calls_are_counted_by_their_status() {
    let stage = Stage::start();
    let filter = "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x-secret], set: [{name: x-own, value: ours}]}}]";
    write(
        &stage,
        &format!(
            "  - {{matches: [{{method: {{service: call.Good}}}}], {}, {filter}}}\n  - {{matches: [{{method: {{service: call.Bad}}}}], {}}}\n  \
             - {{matches: [{{method: {{service: call.Gone}}}}], {}}}",
            to("v1"),
            to("v2"),
            to("gone")
        ),
    );
    wait::until("the route is in force", PATIENCE, || {
        (status(&call(&stage, "other.Service/Call", &[])) == Some("5")).then_some(())
    });
    let count = |family: &str, labels: &[&str]| {
        let own = ["route_kind=\"GRPCRoute\"", "route_name=\"main-8081\"", "parent_port=\"8081\""];
        assert_eq!(stage.sum(0, &format!("outbound_http_route_{family}"), &own), 0.0);
        stage.sum(0, &format!("outbound_grpc_route_{family}"), &[&own[..], labels].concat())
    };
    let good = call(&stage, "call.Good/Call", &[]);
    assert_eq!((status(&good), good.headers.get("x-own").map(String::as_str)), (Some("0"), Some("ours")), "{good:?}");
    assert!(!good.headers.contains_key("x-secret"), "{good:?}");
    assert_eq!(status(&call(&stage, "call.Bad/Call", &[])), Some("14"));
    let gone = call(&stage, "call.Gone/Call", &[]);
    assert_eq!((gone.status, status(&gone)), (200, Some("14")), "{gone:?}");
    for (family, labels, expected) in [
        ("request_statuses_total", "grpc_status=\"OK\",error=\"\"", 1.0),
        ("request_statuses_total", "grpc_status=\"UNAVAILABLE\",error=\"\"", 1.0),
        ("request_statuses_total", "grpc_status=\"UNKNOWN\",error=\"UNKNOWN\"", 1.0),
        ("request_duration_seconds_count", "", 3.0),
        ("backend_requests_total", "backend_name=\"v1\"", 1.0),
        ("backend_response_statuses_total", "grpc_status=\"UNAVAILABLE\"", 1.0),
    ] {
        assert_eq!(count(family, &[labels]), expected, "{family} {labels}");
    }
}

/// What cannot be followed refuses the route whole, and what was in force stays.
#[test]
fn a_route_that_cannot_be_followed_changes_nothing() {
    let stage = Stage::start();
    let rule = |method: &str, server: &str| format!("  - {{matches: [{{method: {method}}}], {}}}", to(server));
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
