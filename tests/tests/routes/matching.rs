//! Which rule a request falls under.

use std::time::Duration;

use weir_tests::{mesh::PodOptions, wait};

use crate::stage::{HTTP1, PATIENCE, Stage, ask};

const RULES: &str = r#"  rules:
  - name: exact
    matches: [{path: {type: Exact, value: /only}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /only}}, {path: {value: /two}, headers: [{name: Version, value: two}]}]
    backendRefs: [{name: v2, port: PORT}]
  - matches: [{path: {type: RegularExpression, value: "/v[0-9]+/.*"}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /two}, queryParams: [{name: version, value: one}]}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /two}, method: POST}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: missing, port: PORT}]
  - matches: [{path: {value: /port}}]
    backendRefs: [{name: v1, port: 9999}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: v1, port: PORT, weight: 0}]
  - matches: [{path: {value: /itself}}]"#;

/// Paths, headers, queries, methods, precedence; what no rule names is 404, what has no backend is 500. On HTTP/1 and HTTP/2.
/// Seen to fail while the route is not in force yet: every path is answered then, by either server.
#[test]
fn rules_send_requests_where_they_say() {
    let stage = Stage::start();
    stage.route(RULES);
    let version: &[&str] = &["-H", "version: two"];
    for (path, more, expected) in [
        ("/only", &[][..], "v1"),
        ("/only/", &[], "v2"),
        ("/only/below", &[], "v2"),
        ("/onlyelse", &[], "404"),
        ("/two", version, "v2"),
        ("/two", &["-H", "version: three"], "404"),
        ("/two?version=one", &[], "v1"),
        ("/two?version=two", &[], "404"),
        // A method goes before headers, and these before parameters.
        ("/two?version=one", &["-X", "POST", "-H", "version: two"], "v1"),
        ("/two?version=one", version, "v2"),
        ("/v12/x", &[], "v1"),
        ("/v/x", &[], "404"),
        ("/gone", &[], "500"),
        ("/port", &[], "500"),
        ("/none", &[], "500"),
        ("/", &[], "404"),
    ] {
        let answer = stage.get(path, more);
        assert_eq!(answer.who(), expected, "{path} {more:?}: {answer:?}");
        assert_eq!(stage.get_http2(path, more).who(), expected, "{path} {more:?} over HTTP/2");
    }
    let itself = stage.get("/itself", &[]);
    assert!(["v1", "v2"].contains(&itself.server()), "without backends it is the Service's own endpoints: {itself:?}");
    let refused = stage.get("/", &[]);
    assert!(refused.headers["l5d-proxy-error"].contains("no route"), "{refused:?}");
    // The other Services have no route.
    assert_eq!(ask(&stage.client, &format!("http://{}:{HTTP1}/x", stage.address(0)), &[]).who(), "v1");
    stage.mesh.remove_manifest("route-demo-main");
    wait::until("the Service is as before", PATIENCE, || (stage.get("/", &[]).status == 200).then_some(()));
}

/// A missing backend that comes is used, one that goes is 500; a route that cannot be read changes nothing.
#[test]
fn what_changes_takes_effect_and_what_is_wrong_does_not() {
    let mut stage = Stage::start();
    stage.route("  rules: [{backendRefs: [{name: late, port: PORT}]}]");
    assert_eq!(stage.get("/", &[]).who(), "500");
    let options = weir_tests::mesh::ServiceOptions::new("late", HTTP1, HTTP1);
    stage.mesh.service(&options, &[&stage.servers[1]]);
    wait::until("the backend is there", PATIENCE, || (stage.get("/", &[]).who() == "v2").then_some(()));
    stage.write_route("main", "demo", "  rules: [{matches: [{path: {type: RegularExpression, value: \"(\"}}]}]");
    let said = wait::until("the finding", PATIENCE, || {
        let output = stage.mesh.weir(&["check"]).output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.contains("HTTPRoute demo/main-8080").then_some(said)
    });
    assert!(said.contains("regular expression"), "{said}");
    assert_eq!(stage.get("/", &[]).who(), "v2", "the last good version stays");
    stage.write_route("main", "demo", "  rules: [{filters: [{type: ExtensionRef}]}]");
    wait::until("the other finding", PATIENCE, || {
        let output = stage.mesh.weir(&["check"]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).contains("rules[0].filters[0].type").then_some(())
    });
    assert_eq!(stage.get("/", &[]).who(), "v2");
    stage.mesh.remove_manifest("service-demo-late");
    wait::until("the backend is gone", PATIENCE, || (stage.get("/", &[]).who() == "500").then_some(()));
}

/// A route in the clients' namespace holds for them alone, and there instead of the Service's own.
#[test]
fn a_consumer_route_holds_for_its_own_namespace() {
    let mut stage = Stage::start();
    let mut options = PodOptions::new("guest", 0);
    options.namespace = "other".to_owned();
    options.enabled = Some(true);
    stage.mesh.manifest("namespace-other", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
    let guest = stage.mesh.pod(&options);
    stage.mesh.wait_ready(&[&guest]);
    stage.route("  rules: [{backendRefs: [{name: v1, port: PORT}]}]");
    let url = format!("http://{}:{HTTP1}/", stage.web);
    assert_eq!(ask(&guest, &url, &[]).who(), "v1", "the Service's own route holds for all");
    stage.write_route(
        "guests",
        "other",
        "  rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: v2, namespace: demo, port: PORT}]}]",
    );
    wait::until("the consumer route", Duration::from_secs(10), || {
        (ask(&guest, &url, &[]).who() == "404").then_some(())
    });
    assert_eq!(ask(&guest, &format!("{url}x"), &[]).who(), "v2");
    assert_eq!(stage.get("/x", &[]).who(), "v1", "others' clients do not see it");
}

/// Host names: whole ones before wildcards, wildcards before none; ports and case do not count.
#[test]
fn hostnames_choose_between_routes() {
    let stage = Stage::start();
    stage.write_route(
        "wild",
        "demo",
        "  hostnames: [\"*.shop.example\"]\n  rules: [{backendRefs: [{name: v2, port: PORT}]}]",
    );
    stage.route("  hostnames: [web.shop.example]\n  rules: [{matches: [{path: {value: /own}}], backendRefs: [{name: v1, port: PORT}]}]");
    stage.knows("demo/wild");
    for (host, path, expected) in [
        ("web.shop.example", "/own", "v1"),
        ("WEB.shop.example:8080", "/own", "v1"),
        ("web.shop.example", "/", "v2"),
        ("a.web.shop.example", "/own", "v2"),
        ("shop.example", "/own", "404"),
        ("web", "/own", "404"),
    ] {
        let header = format!("Host: {host}");
        assert_eq!(stage.get(path, &["-H", &header]).who(), expected, "{host}{path}");
        assert_eq!(stage.get_http2(path, &["-H", &header]).who(), expected, "{host}{path} over HTTP/2");
    }
}
