//! The mesh API as anybody's client finds it. Must never be driven by code that was generated here.

#![expect(clippy::expect_used, reason = "a failed step of a test is a panic")]

use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, NAMESPACE, PATIENCE, PodOptions, ServiceOptions},
    nginx, python, wait,
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesh/api.py");
const IDENTITY: &str = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local";

fn client_of(mesh: &Mesh, requests: &Value) -> Command {
    let mut command = mesh.program(python::interpreter().to_str().expect("a path in UTF-8"));
    command.arg(PROGRAM).arg(Mesh::control_address()).arg(IDENTITY);
    command.args([mesh.path("control/ca.crt"), mesh.path("api-token")]).arg(requests.to_string());
    command
}

/// Answers of some methods.
fn asked(mesh: &Mesh, requests: &Value) -> Value {
    let output = client_of(mesh, requests).arg("--some").output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// grpcio asks the server what it offers, with a token alone, and calls each method of it by that.
#[test]
fn a_client_that_knows_nothing_of_it_finds_the_whole_api() {
    let mut mesh = Mesh::start();
    let client = mesh.pod(&PodOptions::new("client", 0));
    let server = mesh.pod(&PodOptions::new("web", 1));
    let _running = nginx::start(&server, &mesh.path("nginx"), &mesh.path("logs"));
    let web = mesh.service(&ServiceOptions::new("web", 80, 8080), &[&server]);
    mesh.manifest(
        "web-route",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: {NAMESPACE}}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: web}}], rules: [{{timeouts: {{request: 7s}}}}]}}\n"
        ),
    );
    mesh.wait_ready(&[&client, &server]);
    client.get(&format!("http://{web}/name"));
    let of_web = json!({"namespace": NAMESPACE, "service": "web"});
    let requests = json!({
        "Version": {},
        "Observe": {"windowSeconds": 60, "routes": {}},
        "Workloads": {"namespace": NAMESPACE},
        "Endpoints": {"authority": format!("web.{NAMESPACE}:80")},
        "Check": {},
        "Explain": {"clientNamespace": NAMESPACE, "namespace": NAMESPACE, "service": "web", "path": "/a"},
        "Policy": of_web,
        "Resource": of_web,
        "List": {"kind": "ITEM_KIND_ROUTES"},
        "Watch": {"kind": "ITEM_KIND_NODES"},
        "LogLevels": {},
        "Apply": {"manifests": "apiVersion: v1"},
        "Delete": {"object": {"kind": "HTTPRoute"}},
    });
    let answers: Value = wait::until("the route in all answers", PATIENCE, || {
        let output = client_of(&mesh, &requests).output().expect("Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (answers["Explain"]["routesInForce"] == "PRODUCER_ROUTES").then_some(answers)
    });
    assert_eq!(answers["Version"]["nodes"].as_array().map(Vec::len), Some(2), "{answers}");
    assert_eq!(answers["Workloads"]["pods"].as_array().map(Vec::len), Some(2), "{answers}");
    assert_eq!(answers["Endpoints"]["endpoints"][0]["pod"]["name"], server.name.as_str(), "{answers}");
    assert_eq!(answers["Explain"]["candidates"][0]["route"]["name"], "web", "{answers}");
    let settings = &answers["Policy"]["ports"][0]["routes"][0]["rules"][0]["settings"];
    let limit = settings.as_array().into_iter().flatten().find(|setting| setting["name"] == "timeouts.request");
    assert_eq!(limit.map(|limit| &limit["value"]), Some(&json!("7s")), "{answers}");
    assert_eq!(answers["Resource"]["key"], format!("{web}:80"), "{answers}");
    assert_eq!(answers["Observe"]["reports"].as_array().map(Vec::len), Some(2), "{answers}");
    let listed = &answers["List"]["items"][0];
    assert_eq!(listed["key"], format!("HTTPRoute {NAMESPACE}/web"), "{answers}");
    assert_eq!(listed["route"]["parents"][0]["conditions"][0]["status"], true, "{answers}");
    let watched: Vec<&Value> =
        answers["Watch"].as_array().into_iter().flatten().map(|event| &event["item"]["key"]).collect();
    assert_eq!(watched, [&json!("Node node-1"), &json!("Node node-2"), &Value::Null], "{answers}");
    let levels: Vec<&Value> = answers["LogLevels"]["nodes"].as_array().into_iter().flatten().collect();
    assert!(levels.len() == 2 && levels.iter().all(|node| node["filter"].is_string()), "{answers}");
    // There is no API server here that could take them.
    assert_eq!(answers["Apply"]["error"], "FAILED_PRECONDITION", "{answers}");
    assert_eq!(answers["Delete"]["error"], "FAILED_PRECONDITION", "{answers}");
    assert!(answers["Check"]["results"].as_array().is_some_and(|all| !all.is_empty()), "{answers}");
}

/// A route that comes, changes, breaks, is mended and goes is told as that; what does not change is told once.
#[test]
fn a_watch_tells_each_change_and_nothing_twice() {
    let mut mesh = Mesh::start();
    let server = mesh.pod(&PodOptions::new("web", 1));
    let _address = mesh.service(&ServiceOptions::new("web", 80, 8080), &[&server]);
    let request = json!({"kind": "ITEM_KIND_ROUTES", "namespace": NAMESPACE});
    let mut command = client_of(&mesh, &request);
    command.arg("--follow");
    let mut watch = Daemon::start("watch", command, &mesh.path("logs"));
    watch.wait_for("WATCH_EVENT_TYPE_SYNCED", PATIENCE);
    let route = |limit: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: {NAMESPACE}}}\n\
             spec: {{hostnames: [{limit}.example], parentRefs: [{{group: \"\", kind: Service, name: web}}], rules: [{{timeouts: {{request: 7s}}}}]}}\n"
        )
    };
    mesh.manifest("web-route", &route("one"));
    watch.wait_for("one.example", PATIENCE);
    mesh.manifest("web-route", &route("two"));
    watch.wait_for("two.example", PATIENCE);
    mesh.manifest("web-route", &route("two").replace("7s", "soon"));
    watch.wait_for("\"refused\": ", PATIENCE);
    mesh.manifest("web-route", &route("three"));
    watch.wait_for("three.example", PATIENCE);
    // Of another kind: no news here.
    mesh.manifest(
        "other",
        &route("four").replace("name: web, namespace", "name: four, namespace").replace("HTTPRoute", "Namespace"),
    );
    mesh.manifest("web-route", "");
    watch.wait_for("WATCH_EVENT_TYPE_DELETED", PATIENCE);
    let log = watch.log();
    let kinds: Vec<String> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|event| event["type"].as_str().unwrap_or_default().trim_start_matches("WATCH_EVENT_TYPE_").to_owned())
        .collect();
    assert_eq!(kinds, ["SYNCED", "ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"], "{log}");
}

/// In force at once, on the nodes that are named, and said by the proxies themselves.
#[test]
fn log_levels_are_read_and_set_by_node() {
    let mesh = Mesh::start();
    let all = || asked(&mesh, &json!({"LogLevels": {}}))["LogLevels"].clone();
    let before = wait::until("both nodes answer", PATIENCE, || {
        let said = all();
        let nodes = said["nodes"].as_array()?;
        (nodes.len() == 2 && nodes.iter().all(|node| node["filter"].is_string())).then_some(said)
    });
    let set = |request: Value| asked(&mesh, &json!({"LogLevels": request}))["LogLevels"].clone();
    let filter = "warn,weir_node=debug";
    let answer = set(json!({"nodes": ["node-2", "nobody"], "set": filter}));
    assert_eq!(answer["nodes"][0], json!({"nodeName": "nobody", "problem": "not connected to control"}));
    assert_eq!(answer["nodes"][1], json!({"nodeName": "node-2", "filter": filter}), "{answer}");
    // The proxies say the same themselves.
    for (node, level) in [(0, "info"), (1, filter)] {
        let own: Value = serde_json::from_str(&mesh.admin(node, "/config")).expect("JSON");
        assert_eq!(own["log_level"], level, "{own}");
    }
    let after = all();
    assert_eq!((&after["nodes"][0], &after["nodes"][1]["filter"]), (&before["nodes"][0], &json!(filter)));
    let shown = mesh.weir_json(&["log-level", "node-2"]);
    assert_eq!(shown, json!([{"node": "node-2", "filter": filter, "problem": ""}]));
    let refused = set(json!({"set": "weir_node=loud"}));
    assert_eq!(refused["error"], "INVALID_ARGUMENT", "{refused}");
    assert_eq!(all(), after);
}
