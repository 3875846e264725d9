//! Routes with a Server as their parent: which requests there are at all, who may send which, and what is done to them.

use weir_tests::{mesh::Pod, wait};

use crate::stage::{PATIENCE, Stage};

const SERVER: &str = "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: web, namespace: demo}\nspec: {podSelector: {matchLabels: {app: web}}, port: http}\n---\n";
const PORTS: &str = "ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 8081}]";

fn route(group: &str, kind: &str, name: &str, rules: &str) -> String {
    let version = if group == "policy.linkerd.io" { "v1beta3" } else { "v1" };
    format!(
        "apiVersion: {group}/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{parentRefs: [{{group: policy.linkerd.io, kind: Server, name: web}}], rules: {rules}}}\n---\n"
    )
}

/// Lets the client's account in where the target is.
fn allow(name: &str, group: &str, kind: &str, target: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{targetRef: {{group: {group}, kind: {kind}, name: {target}}}, requiredAuthenticationRefs: [{{kind: ServiceAccount, name: client}}]}}\n---\n"
    )
}

/// Status of a request to a server, and the head of the answer; 200 for whatever the application itself says.
fn ask(from: &Pod, to: &Pod, port: u16, path: &str, more: &[&str]) -> (u16, String) {
    let mut command = from.command("curl");
    command.args(["--silent", "--max-time", "10", "--output", "/dev/null", "--dump-header", "-"]);
    let output = command.args(more).arg(format!("http://{}:{port}{path}", to.place.v4)).output().unwrap();
    let head = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (if status == 404 && !head.contains("l5d-proxy-error") { 200 } else { status }, head)
}

/// The same at both servers, by the bridge and over the wire, over HTTP/1 and HTTP/2.
fn everywhere(stage: &Stage, from: &Pod, path: &str, more: &[&str]) -> Vec<u16> {
    let http2 = [more, &["--http2-prior-knowledge"]].concat();
    let each = |server: &Pod| [ask(from, server, 8080, path, more).0, ask(from, server, 8081, path, &http2).0];
    stage.servers.iter().flat_map(each).collect()
}

/// A request falls under one route or is none (404); a route's own policies and its Server's let clients in.
#[test]
fn each_route_has_its_own_clients() {
    let stage = Stage::start(PORTS);
    let gateway = "gateway.networking.k8s.io";
    let routes = route(gateway, "HTTPRoute", "read", "[{matches: [{path: {value: /name}, method: GET}]}]")
        + &route("policy.linkerd.io", "HTTPRoute", "write", "[{matches: [{path: {value: /name}, method: POST}]}]");
    stage.mesh.manifest("policies", &(SERVER.to_owned() + &routes + &allow("reads", gateway, "HTTPRoute", "read")));
    let client = &stage.client;
    wait::until("the routes are in force", PATIENCE, || {
        (everywhere(&stage, client, "/other", &[]) == [404; 4]).then_some(())
    });
    let post = ["--request", "POST"];
    assert_eq!(everywhere(&stage, client, "/name", &[]), [200; 4]);
    assert_eq!(everywhere(&stage, client, "/name", &post), [403; 4], "its route lets nobody in");
    assert_eq!(everywhere(&stage, &stage.plain, "/name", &[]), [403; 4]);
    assert_eq!(everywhere(&stage, &stage.plain, "/other", &[]), [404; 4]);
    // Applications take these for others.
    for path in ["/name/../other", "/name/%2e%2E/other", "/name/.."] {
        assert_eq!(everywhere(&stage, client, path, &["--path-as-is"]), [404; 4], "{path}");
    }

    let all = allow("reads", gateway, "HTTPRoute", "read")
        + &allow("writes", "policy.linkerd.io", "HTTPRoute", "write").replace("name: client", "name: other");
    stage.mesh.manifest(
        "policies",
        &(SERVER.to_owned() + &routes + &all + &allow("all", "policy.linkerd.io", "Server", "web")),
    );
    wait::until("the Server's policy is in force", PATIENCE, || {
        (everywhere(&stage, client, "/name", &post) == [200; 4]).then_some(())
    });
    assert_eq!(everywhere(&stage, client, "/other", &[]), [404; 4], "whoever may");

    let counted = |family: &str, labels: &[&str]| stage.metric(1, family, labels);
    let read = ["route_group=\"gateway.networking.k8s.io\"", "route_kind=\"HTTPRoute\"", "route_name=\"read\""];
    assert!(counted("inbound_http_authz_allow_total", &[&read[..], &["authz_name=\"reads\""]].concat()) > 0.5);
    assert!(
        counted("inbound_http_authz_deny_total", &["route_name=\"write\"", "route_group=\"policy.linkerd.io\""]) > 0.5
    );
    assert!(counted("inbound_http_route_not_found_total", &["srv_name=\"web\""]) > 0.5);
}

/// A route that is not understood does not leave its Server without routes: nothing falls under it.
#[test]
fn a_broken_route_opens_nothing() {
    let stage = Stage::start(PORTS);
    let gateway = "gateway.networking.k8s.io";
    let open = SERVER.replace("port: http", "port: http, accessPolicy: all-unauthenticated");
    stage.mesh.manifest(
        "policies",
        &(open.clone() + &route(gateway, "HTTPRoute", "only", "[{matches: [{path: {value: /name}}]}]")),
    );
    let client = &stage.client;
    let none = |path: &str| everywhere(&stage, client, path, &[]) == [404; 4];
    wait::until("the route is in force", PATIENCE, || none("/other").then_some(()));
    assert_eq!(everywhere(&stage, client, "/name", &[]), [200; 4]);
    for rules in ["[{matches: [{path: {type: RegularExpression, value: '('}}]}]", "7"] {
        stage.mesh.manifest("policies", &(open.clone() + &route(gateway, "HTTPRoute", "only", rules)));
        wait::until("nothing falls under it", PATIENCE, || none("/name").then_some(()));
        assert!(none("/other"), "{rules}");
    }
    stage.mesh.manifest("policies", &open);
    wait::until("no routes", PATIENCE, || (everywhere(&stage, client, "/other", &[]) == [200; 4]).then_some(()));
}

/// Filters, calls of gRPC, and what kubelet asks, which needs no route.
#[test]
fn routes_change_requests_and_know_calls() {
    let stage = Stage::start(
        "ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 8081}], readinessProbe: {httpGet: {path: /name, port: 8080}}",
    );
    let gateway = "gateway.networking.k8s.io";
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example, statusCode: 301}}";
    let response = "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: kept}]}}";
    let rules = format!(
        "[{{matches: [{{path: {{value: /old}}}}], filters: [{redirect}]}}, {{matches: [{{path: {{value: /said}}}}], filters: [{response}]}}]"
    );
    let calls = "[{matches: [{method: {service: demo.Demo, method: Call}}]}]";
    stage.mesh.manifest(
        "policies",
        &(SERVER.to_owned()
            + &route(gateway, "HTTPRoute", "http", &rules)
            + &route(gateway, "GRPCRoute", "calls", calls)
            + &allow("http", gateway, "HTTPRoute", "http")
            + &allow("calls", gateway, "GRPCRoute", "calls")),
    );
    let client = &stage.client;
    wait::until("the routes are in force", PATIENCE, || {
        (everywhere(&stage, client, "/other", &[]) == [404; 4]).then_some(())
    });
    let grpc = ["--http2-prior-knowledge", "--header", "content-type: application/grpc", "--data", ""];
    for server in &stage.servers {
        let (status, head) = ask(client, server, 8080, "/old/x", &[]);
        assert!(status == 301 && head.contains("location: http://elsewhere.example"), "{head}");
        let (_status, head) = ask(client, server, 8080, "/said", &[]);
        assert!(head.to_lowercase().contains("x-route: kept"), "{head}");
        let (_status, head) = ask(client, server, 8081, "/demo.Demo/Call", &grpc);
        assert!(!head.contains("grpc-status: 5") && !head.contains("grpc-status: 7"), "its route: {head}");
        let (_status, head) = ask(client, server, 8081, "/demo.Demo/Other", &grpc);
        assert!(head.contains("grpc-status: 5"), "no route: {head}");
        let (_status, head) = ask(&stage.plain, server, 8081, "/demo.Demo/Call", &grpc);
        assert!(head.contains("grpc-status: 7"), "not allowed: {head}");
    }
    // The first server's node asks what the pod declares.
    let url = format!("http://{}:8080/name", stage.servers[0].place.v4);
    wait::until("the node's probe", PATIENCE, || {
        (crate::stage::curl(stage.mesh.fabric.node(0), &url, &[]).status == 200).then_some(())
    });
}
