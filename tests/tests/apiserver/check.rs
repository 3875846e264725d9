//! `weir check` on a real API server: what is in the way, what is not there, and which pods cannot be meshed, by name.

use std::process::Command;

use crate::{
    NEVER, connect, populated,
    stage::{Control, Stage},
};

/// What Gateway API's definitions look like to who asks what is served; their schemas do not matter here.
fn definition(kind: &str, versions: &[&str]) -> String {
    let plural = format!("{}s", kind.to_lowercase());
    let versions: String = versions
        .iter()
        .enumerate()
        .map(|(index, version)| {
            format!("  - {{name: {version}, served: true, storage: {}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}\n", index == 0)
        })
        .collect();
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {plural}.gateway.networking.k8s.io\n  annotations: {{gateway.networking.k8s.io/bundle-version: v1.0.0, gateway.networking.k8s.io/channel: standard, api-approved.kubernetes.io: \"https://example.com\"}}\nspec:\n  group: gateway.networking.k8s.io\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}, singular: {}}}\n  versions:\n{versions}---\n",
        kind.to_lowercase()
    )
}

const IN_THE_WAY: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {kube-proxy-replacement: \"true\", cni-exclusive: \"true\"}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: istio-cni-node, namespace: istio-system}
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}
---
apiVersion: v1
kind: Namespace
metadata: {name: both, labels: {weir.mesh/enabled: \"true\", istio.io/dataplane-mode: ambient}}
";

fn weir(arguments: &[&str], by: impl Fn(&mut Command) -> &mut Command) -> String {
    let mut command = Command::new(std::path::Path::new(&std::env::var("WEIR_BINARIES").unwrap()).join("weir"));
    let output = by(command.args(arguments)).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn by_kubeconfig(stage: &Stage, arguments: &[&str]) -> String {
    let config = stage.kubeconfig("admin", None);
    weir(arguments, |command| command.arg("--kubeconfig").arg(&config))
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn what_is_in_the_way_is_named_with_what_to_do() {
    let stage = Stage::start();
    let check = ["check", "--wait", "0s"];
    has(
        &by_kubeconfig(&stage, &check),
        &[
            "‼ Gateway API CRDs are installed\n    not installed",
            "√ no other mesh has agents",
            "√ Cilium leaves the connections",
        ],
    );
    stage.apply(&(definition("HTTPRoute", &["v1", "v1beta1"]) + &definition("GRPCRoute", &["v1alpha1"])));
    stage.apply(IN_THE_WAY);
    let routes = ["get", "--raw", "/apis/gateway.networking.k8s.io/v1alpha1"];
    stage.until("the definitions are served", &routes, |text| text.contains("grpcroutes"));
    let text = by_kubeconfig(&stage, &check);
    has(
        &text,
        &[
            "√ Gateway API CRDs are installed (bundle v1.0.0, standard channel)",
            "√ HTTPRoute is served as v1",
            "‼ GRPCRoute is served as v1\n    served as v1alpha1 only (bundle v1.0.0",
            "‼ Cilium leaves the connections of pods as they are\n    its socket load balancing",
            "× Cilium leaves other CNI plugins in place\n    it takes away the CNI plugin",
            "‼ no other mesh has agents on the nodes\n    DaemonSet istio-system/istio-cni-node (Istio's CNI plugin)",
            "× no namespace is in two meshes\n    both (istio.io/dataplane-mode=ambient): `kubectl label namespace both",
        ],
    );
}

#[test]
fn node_parts_that_are_not_ready_are_named_by_node() {
    let stage = Stage::start();
    stage.apply(&weir(&["install"], |command| command));
    let status = |name: &str, ready: u8| {
        let text = format!(
            r#"{{"status":{{"observedGeneration":1,"currentNumberScheduled":3,"numberMisscheduled":0,"desiredNumberScheduled":3,"numberReady":{ready},"updatedNumberScheduled":3}}}}"#
        );
        stage.kubectl(&["-n", "weir", "patch", "daemonset", name, "--subresource=status", "--type=merge", "-p", &text]);
    };
    status("weir-proxy", 3);
    status("weir-holder", 1);
    for (name, node) in [("weir-holder-1", "node-1"), ("weir-holder-2", "node-2")] {
        stage.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: weir, labels: {{app.kubernetes.io/name: weir-holder, weir.mesh/part-of: weir}}}}\nspec: {{nodeName: {node}, containers: [{{name: holder, image: none}}]}}\n"
        ));
    }
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    stage.kubectl(&["-n", "weir", "patch", "pod", "weir-holder-1", "--subresource=status", "-p", ready]);
    let pulling = r#"{"status":{"containerStatuses":[{"name":"holder","image":"i","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff","message":"no such image"}}}]}}"#;
    stage.kubectl(&["-n", "weir", "patch", "pod", "weir-holder-2", "--subresource=status", "-p", pulling]);
    has(
        &by_kubeconfig(&stage, &["check", "--wait", "0s"]),
        &[
            "√ weir-proxy is ready on all nodes",
            "× weir-holder is ready on all nodes\n    on 1 of 3 nodes; see `kubectl -n weir describe pods -l app.kubernetes.io/name=weir-holder`\n    weir-holder-2 (node-2): ImagePullBackOff no such image\n    1 nodes have no pod of it",
        ],
    );
}

fn by_control(stage: &Stage, control: &Control, arguments: &[&str]) -> String {
    let (anchors, token) = (stage.path("check.anchors"), stage.path("check.token"));
    std::fs::write(&anchors, stage.anchors()).unwrap();
    std::fs::write(&token, stage.token("weir-viewer", "weir.mesh/api", None)).unwrap();
    weir(arguments, |command| {
        command.args(["--control", &control.url()]).arg("--trust-anchors").arg(&anchors).arg("--token-file").arg(&token)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_opted_in_and_not_meshed_are_listed_by_name_with_what_to_do() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let node = connect(&control, &stage, "node-a").await;
    stage.run_pod("shop", "web", "10.1.0.5");
    stage.pod("shop", "bare", "node-a", "web");
    node.captured(&stage.uid("shop", "web"), NEVER).await;
    node.captured(&stage.uid("shop", "bare"), 0).await;
    stage.pod("shop", "far", "node-b", "web");
    for (name, spec) in [
        ("host", "hostNetwork: true, containers: [{name: app, image: none}]"),
        ("sidecar", "containers: [{name: linkerd-proxy, image: none}]"),
        ("istio", "containers: [{name: istio-proxy, image: none}]"),
    ] {
        stage.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{nodeName: node-a, {spec}}}\n"
        ));
    }
    stage.event("shop", "istio", "MeshRefused");
    let _node = node.attend();
    has(
        &by_control(&stage, &control, &["check"]),
        &[
            "× pods that are opted in are captured and have certificates\n",
            "    shop/bare: captured, but has no certificate: its connections wait; see",
            "    shop/far: node node-b has not said anything about it: does weir-proxy run there",
            "‼ pods that are opted in can be meshed\n    shop/host: shares its node's network",
            "    shop/istio: has an Istio sidecar, which handles its traffic already; restart it with label",
            "    shop/sidecar: has a Linkerd sidecar, which handles its traffic already; restart it with annotation",
        ],
    );
}
