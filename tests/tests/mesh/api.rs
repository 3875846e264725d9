//! The mesh API as anybody's client finds it. Must never be driven by code that was generated here.

use serde_json::{Value, json};
use weir_tests::{
    mesh::{Mesh, NAMESPACE, PATIENCE, PodOptions, ServiceOptions},
    nginx, python, wait,
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesh/api.py");
const IDENTITY: &str = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local";

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
    });
    let answers: Value = wait::until("the route in all answers", PATIENCE, || {
        let mut command = mesh.program(python::interpreter().to_str().expect("a path in UTF-8"));
        let anchors = mesh.path("control/ca.crt");
        let token = mesh.path("api-token");
        command
            .arg(PROGRAM)
            .arg(Mesh::control_address())
            .arg(IDENTITY)
            .args([anchors, token])
            .arg(requests.to_string());
        let output = command.output().expect("Python");
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
    assert!(answers["Check"]["results"].as_array().is_some_and(|all| !all.is_empty()), "{answers}");
}
