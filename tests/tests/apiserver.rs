//! Control on a real API server: what it reads, whom it believes, what it says, and what it does when the server is away.
//!
//! Needs kubernetes' own programs (`cargo xtask cluster test apiserver` builds them) and curl.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test is a panic")]

#[path = "apiserver/away.rs"]
mod away;
#[path = "apiserver/check.rs"]
mod check;
#[path = "apiserver/ejections.rs"]
mod ejections;
#[path = "apiserver/ha.rs"]
mod ha;
#[path = "apiserver/node.rs"]
mod node;
#[path = "apiserver/policies.rs"]
mod policies;
#[path = "apiserver/rotation.rs"]
mod rotation;
#[path = "apiserver/routes.rs"]
mod routes;
#[path = "apiserver/stage.rs"]
mod stage;
#[path = "apiserver/writes.rs"]
mod writes;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use rustix::process::Signal;
use tonic::Code;
use weir_api::v1::ResourceKind;
use weir_tests::{authority, wait};

use crate::{
    node::{Node, certify, endpoint_identity, version},
    stage::{SOON, Stage},
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.80, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.5], conditions: {ready: true}, nodeName: node-a, targetRef: {kind: Pod, name: web, namespace: shop}}]
";
const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";
const NEVER: i64 = i64::MAX / 2;

/// A proxy on each of two nodes, and one pod that is opted in.
fn populated() -> Stage {
    let stage = Stage::start();
    stage.pod("weir", "proxy-a", "node-a", "weir-proxy");
    stage.pod("weir", "proxy-b", "node-b", "weir-proxy");
    stage.pod("shop", "web", "node-a", "web");
    stage.apply(SERVICE);
    stage
}

async fn connect(control: &stage::Control, stage: &Stage, node: &str) -> Node {
    let token = stage.token("weir-proxy", "weir.mesh", Some(&node.replace("node", "proxy")));
    let web = ["10.96.0.80:80"];
    Node::connect(control, &stage.anchors(), &token, node, BTreeMap::new(), &web).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_pod_may_and_nothing_else() {
    let stage = populated();
    let mut control = stage.control("control-0").until_ready();
    let anchors = stage.anchors();
    let proxy = |audience: &str, pod: Option<&str>| stage.token("weir-proxy", audience, pod);
    let good = proxy("weir.mesh", Some("proxy-a"));
    assert!(certify(&control, &anchors, &good, "web").await.is_ok());

    let refused = async |token: &str, why: &str| {
        let status = certify(&control, &anchors, token, "web").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains(why), "{why} in {status:?}");
    };
    refused(&proxy("https://test.local", Some("proxy-a")), "audience").await;
    refused(&proxy("weir.mesh/api", Some("proxy-a")), "audience").await;
    refused(&proxy("weir.mesh", None), "bound to no pod").await;
    refused(&stage.token("weir-control", "weir.mesh", None), "weir-proxy's is expected").await;
    refused(&format!("{good}x"), "refuses this token").await;
    // Signed as the API server signs: good with its end ahead, refused two minutes after it (it gives clocks one).
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    assert!(certify(&control, &anchors, &stage.token_until(&good, now + 600), "web").await.is_ok());
    refused(&stage.token_until(&good, now - 120), "has expired").await;
    refused("", "no bearer token").await;
    // A token of a pod that is gone: its proxy was deleted, and somebody kept it.
    stage.pod("weir", "proxy-gone", "node-a", "weir-proxy");
    let kept = proxy("weir.mesh", Some("proxy-gone"));
    stage.kubectl(&["-n", "weir", "delete", "pod", "proxy-gone", "--grace-period=0", "--force"]);
    refused(&kept, "refuses this token").await;

    // Another node's good token opens neither this node's stream nor its pods' identities.
    let other = proxy("weir.mesh", Some("proxy-b"));
    let status = Node::connect(&control, &anchors, &other, "node-a", BTreeMap::new(), &[]).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(certify(&control, &anchors, &other, "web").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(certify(&control, &anchors, &good, "nobody").await.unwrap_err().code(), Code::PermissionDenied);
    for line in ["has been invalidated", "node-a", "web.shop.serviceaccount", "node-b"] {
        control.daemon.wait_for(line, SOON);
    }
    assert!(control.daemon.log().contains("weir_control::audit"));

    let viewer = stage.token("weir-viewer", "weir.mesh/api", None);
    assert!(version(&control, &anchors, &viewer).await.is_ok());
    for token in [stage.token("weir-viewer", "weir.mesh", None), good, proxy("weir.mesh/api", None)] {
        assert_eq!(version(&control, &anchors, &token).await.unwrap_err().code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_told_before_they_have_an_address_and_events_say_what_became_of_them() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    let web = stage.uid("shop", "web");
    assert_eq!(node.names(ResourceKind::Workload), [&web]);
    assert_eq!(node.names(ResourceKind::PlainPod), [stage.uid("weir", "proxy-a")]);
    assert_eq!(node.names(ResourceKind::MeshedNamespace), ["shop"]);
    assert_eq!(endpoint_identity(&node.held), Some(""));

    stage.run_pod("shop", "web", "10.1.0.5");
    node.captured(&web, 0).await;
    node.captured(&web, NEVER).await;
    node.until("peers speak mTLS", |held| endpoint_identity(held) == Some(WEB)).await.unwrap();
    stage.kubectl(&["-n", "shop", "wait", "pod/web", "--for=condition=weir.mesh/Meshed", "--timeout=30s"]);
    stage.event("shop", "web", "Meshed");

    stage.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: shop}\nspec: {nodeName: node-a, hostNetwork: true, containers: [{name: app, image: none}]}\n");
    assert!(stage.event("shop", "host", "MeshRefused").contains("hostNetwork"));
    stage.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: sidecar, namespace: shop}\nspec: {nodeName: node-a, containers: [{name: linkerd-proxy, image: none}]}\n");
    assert!(stage.event("shop", "sidecar", "MeshRefused").contains("Linkerd"));
    stage.kubectl(&["-n", "shop", "annotate", "pod", "web", "config.linkerd.io/opaque-ports=none of yours"]);
    assert!(stage.event("shop", "web", "SettingRefused").contains("opaque-ports"));
    let status = ["-n", "weir", "get", "configmap", "weir-status", "-o", "jsonpath={.data.status\\.json}"];
    stage.until("the status counts them", &status, |text| {
        let text: String = text.split_whitespace().collect();
        text.contains(r#""enabled":1,"captured":1,"certified":1,"refused":2"#) && text.contains(r#""connected":1"#)
    });

    stage.kubectl(&["label", "namespace", "shop", "weir.mesh/enabled-"]);
    let plain = format!("PLAIN_POD {web}");
    node.until("opted out", |held| held.contains_key(&plain)).await.unwrap();
    assert!(node.names(ResourceKind::Workload).is_empty() && node.names(ResourceKind::MeshedNamespace).is_empty());
    stage.event("shop", "web", "Unmeshed");
    stage.kubectl(&["-n", "shop", "wait", "pod/web", "--for=condition=weir.mesh/Meshed=false", "--timeout=30s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_takes_nothing_with_it_and_nothing_is_sent_again() {
    let mut stage = populated();
    stage.run_pod("shop", "web", "10.1.0.5");
    let control = stage.control("control-0").until_ready();
    let anchors = stage.anchors();
    let token = stage.token("weir-proxy", "weir.mesh", Some("proxy-a"));
    let mut node = connect(&control, &stage, "node-a").await;
    node.captured(&stage.uid("shop", "web"), NEVER).await;
    node.until("peers speak mTLS", |held| endpoint_identity(held) == Some(WEB)).await.unwrap();
    stage.kubectl(&["-n", "shop", "wait", "pod/web", "--for=condition=weir.mesh/Meshed", "--timeout=30s"]);
    assert!(certify(&control, &anchors, &token, "web").await.is_ok());
    let (before, told) = (node.held.clone(), node.told.len());

    stage.kill_api();
    assert!(certify(&control, &anchors, &token, "web").await.is_ok(), "a token that was good a moment ago");
    node.listen(Duration::from_secs(3)).await;
    assert_eq!(control.ready().as_deref(), Some("ready"));
    stage.start_api();
    stage.pod("shop", "later", "node-a", "web");
    let later = format!("WORKLOAD {}", stage.uid("shop", "later"));
    node.until("the new pod", |held| held.contains_key(&later)).await.unwrap();
    assert_eq!(node.told[told..], [later], "only the new pod");

    // A control that begins anew knows what the former one heard, and has nothing new to say to a node that resumes.
    let held = std::mem::take(&mut node.held);
    control.daemon.kill();
    let control = stage.control("control-0").until_ready();
    let resumed = Node::connect(&control, &anchors, &token, "node-a", held, &["10.96.0.80:80"]).await.unwrap();
    assert_eq!(resumed.told, [""; 0]);
    assert!(before.keys().all(|key| resumed.held.contains_key(key)));
    let other = connect(&control, &stage, "node-b").await;
    assert_eq!(endpoint_identity(&other.held), Some(WEB));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_secret_is_taken_at_once_and_half_of_one_is_not() {
    let stage = populated();
    let mut control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    let first = stage.anchors();
    let trust = "TRUST_BUNDLE cluster.local";
    let one = node.held[trust].version;

    stage.kubectl(&[
        "-n",
        "weir",
        "patch",
        "secret",
        "weir-identity-issuer",
        "-p",
        r#"{"data":{"tls.key":"bm9uZQ=="}}"#,
    ]);
    control.daemon.wait_for("the old ones stay", SOON);
    let token = stage.token("weir-proxy", "weir.mesh", Some("proxy-a"));
    assert!(certify(&control, &first, &token, "web").await.is_ok());

    // Another authority, in the layout of cert-manager: first beside the old one, then instead of it.
    authority::make(stage.folder(), "root", None);
    authority::make(stage.folder(), "issuer", Some("root"));
    let [root, issuer, key] =
        ["root.crt", "issuer.crt", "issuer.key"].map(|name| stage.path(name).display().to_string());
    let old = stage.path("old.crt");
    std::fs::write(&old, format!("{first}\n{}", std::fs::read_to_string(&root).unwrap())).unwrap();
    let extra = format!("--from-file=ca.crt={}", old.display());
    let key_again = ["-n", "weir", "get", "secret", "weir-trust-root", "-o", "name"];
    stage.kubectl(&key_again);
    stage.kubectl(&["-n", "weir", "create", "configmap", "weir-trust-anchors-extra", &extra]);
    stage.kubectl(&["-n", "weir", "delete", "secret", "weir-identity-issuer"]);
    let files = [("tls.crt", &issuer), ("tls.key", &key), ("ca.crt", &root)];
    let files = files.map(|(name, file)| format!("--from-file={name}={file}"));
    let create = ["-n", "weir", "create", "secret", "generic", "weir-identity-issuer", "--type=kubernetes.io/tls"];
    stage.kubectl(&[&create[..], &files.each_ref().map(String::as_str)].concat());
    node.until("the bundle of both", |held| held[trust].version != one).await.unwrap();
    let map = ["-n", "weir", "get", "configmap", "weir-trust-anchors", "-o", "jsonpath={.data.ca\\.crt}"];
    let both = stage.until("both are published", &map, |text| text.matches("BEGIN CERTIFICATE").count() == 2);
    let certificate = wait::within(SOON, || {
        tokio::task::block_in_place(|| {
            let handle = tokio::runtime::Handle::current();
            let issued = handle.block_on(certify(&control, &both, &token, "web")).ok()?;
            let new = String::from_utf8_lossy(&issued.chain[0]).contains("issuer");
            new.then_some(issued)
        })
    });
    assert!(certificate.is_some(), "certificates of the new issuer");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_writes_and_another_takes_over_when_it_leaves() {
    let stage = populated();
    let first = stage.control("control-0").until_ready();
    let holder = ["-n", "weir", "get", "lease", "weir-control", "-o", "jsonpath={.spec.holderIdentity}"];
    stage.until("the first leads", &holder, |text| text == "control-0");
    let second = stage.control("control-1").until_ready();
    // What one replica hears, the other knows.
    let mut far = connect(&second, &stage, "node-b").await;
    let near = connect(&first, &stage, "node-a").await;
    stage.run_pod("shop", "web", "10.1.0.5");
    near.captured(&stage.uid("shop", "web"), NEVER).await;
    far.until("mTLS, by way of the other replica", |held| endpoint_identity(held) == Some(WEB)).await.unwrap();
    assert_eq!(stage.kubectl(&holder), "control-0");
    first.daemon.signal(Signal::TERM);
    stage.until("the second leads", &holder, |text| text == "control-1");
    drop(near);
}

#[test]
fn a_right_that_is_missing_is_named() {
    let stage = Stage::start();
    stage.kubectl(&["delete", "clusterrolebinding", "weir-control"]);
    let mut control = stage.control("control-0");
    control.daemon.wait_for("cannot list resource \"endpointslices\"", SOON);
    assert_eq!(control.ready().as_deref(), Some("not all objects were read yet"));
    stage.install();
    control.until_ready();
}

#[test]
fn control_refuses_to_work_in_another_namespace() {
    let stage = Stage::start();
    let mut control = stage.control_in("control-0", "elsewhere");
    control
        .daemon
        .wait_for("this pod runs in namespace elsewhere, but this version works in namespace weir alone", SOON);
    wait::until("it ends", SOON, || (!control.daemon.is_running()).then_some(()));
}
