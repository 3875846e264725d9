//! Trust anchors rotate by the commands of docs/install.md: two bundles overlap, and each step says when the next may follow.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use weir_api::v1::{self, resource::Body};
use weir_tests::{authority, wait};

use crate::{
    WEB, connect,
    node::{Mesh, Node, certify, proves_itself},
    populated,
    stage::SOON,
};

const TRUST: &str = "TRUST_BUNDLE cluster.local";
const TRUSTED: &str = "all nodes trust the trust anchors in use";
const RENEWED: &str = "certificates of pods are of the issuer in use";

fn issuer_of(node: &Node) -> &[u8] {
    match &node.held[TRUST].body {
        Some(Body::TrustBundle(bundle)) => &bundle.issuer,
        other => panic!("{other:?}"),
    }
}

fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(lines).unwrap()
}

/// A node that has one workload with this chain.
fn report(chain: Vec<Vec<u8>>) -> v1::Report {
    let pod = v1::PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), ..v1::PodRef::default() };
    let workload = v1::WorkloadReport {
        pod: Some(pod),
        captured: true,
        identity: WEB.to_owned(),
        certificate_chain: chain,
        ..v1::WorkloadReport::default()
    };
    v1::Report { workloads: vec![workload], ..v1::Report::default() }
}

async fn finding(mesh: &mut Mesh<'_>, description: &str) -> Option<String> {
    mesh.wrong().await.into_iter().find(|line| line.starts_with(description))
}

#[tokio::test(flavor = "multi_thread")]
async fn anchors_rotate_with_two_bundles_overlapping_and_each_step_says_when_it_is_done() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let (first, viewer) = (stage.anchors(), stage.token("weir-viewer", "weir.mesh/api", None));
    let token = stage.token("weir-proxy", "weir.mesh", Some("proxy-a"));
    let mut near = connect(&control, &stage, "node-a").await;
    let far = connect(&control, &stage, "node-b").await;
    let chain = certify(&control, &first, &token, "web").await.unwrap().chain;
    assert_eq!(chain[1], issuer_of(&near), "the issuer that is told is the one that signs");
    *near.report.lock().unwrap() = report(chain);
    let one = near.held[TRUST].version;

    // 1. The new anchor beside the old one. A node that has not read it yet is named.
    authority::make(&stage.path(""), "new-anchor", None);
    authority::make(&stage.path(""), "new-issuer", Some("new-anchor"));
    let new = std::fs::read_to_string(stage.path("new-anchor.crt")).unwrap();
    std::fs::write(stage.path("both.crt"), format!("{first}\n{new}")).unwrap();
    let file = format!("--from-file=ca.crt={}", stage.path("both.crt").display());
    stage.kubectl(&["-n", "weir", "create", "configmap", "weir-trust-anchors-extra", &file]);
    near.until("the bundle of both", |held| held[TRUST].version != one).await.unwrap();
    let reports = std::sync::Arc::clone(&near.report);
    let news = near.watched(TRUST);
    let _near = near.attend();
    let mut mesh = Mesh::of(&control, &first, &viewer).await;
    let late = finding(&mut mesh, TRUSTED).await.expect("node-b has read nothing");
    assert!(late.contains("node node-b has not taken them yet") && !late.contains("node-a"), "{late}");
    let _far = far.attend();
    wait::eventually("all nodes have both", SOON, async || finding(&mut mesh, TRUSTED).await.is_none().then_some(()))
        .await;
    assert_eq!(finding(&mut mesh, RENEWED).await, None);

    // 2. The new issuer. Nodes hear of it at once; what the old one signed is named until it is renewed.
    let path = |name: &str| stage.path(name).display().to_string();
    let files = [("tls.crt", "new-issuer.crt"), ("tls.key", "new-issuer.key"), ("ca.crt", "new-anchor.crt")];
    let files = files.map(|(key, file)| format!("--from-file={key}={}", path(file)));
    let create = ["-n", "weir", "create", "secret", "generic", "weir-identity-issuer", "--type=kubernetes.io/tls"];
    let secret = [&create[..], &files.each_ref().map(String::as_str), &["--dry-run=client", "-o", "yaml"]].concat();
    std::fs::write(stage.path("issuer.yaml"), stage.kubectl(&secret)).unwrap();
    stage.kubectl(&["replace", "-f", &path("issuer.yaml")]);
    let issuer = der(&std::fs::read_to_string(stage.path("new-issuer.crt")).unwrap());
    let told =
        |resource: &v1::Resource| matches!(&resource.body, Some(Body::TrustBundle(bundle)) if bundle.issuer == issuer);
    wait::eventually("the node hears of the new issuer", SOON, async || {
        news.lock().unwrap().as_ref().is_some_and(told).then_some(())
    })
    .await;
    let old = finding(&mut mesh, RENEWED).await.expect("the pod's certificate is of the old issuer");
    assert!(old.contains("shop/web on node node-a"), "{old}");
    // Control itself is of the new issuer within a second; nodes that have both anchors go on reaching it all the while.
    let both = std::fs::read_to_string(stage.path("both.crt")).unwrap();
    let chain = certify(&control, &both, &token, "web").await.unwrap().chain;
    assert_eq!(chain[1], issuer);
    *reports.lock().unwrap() = report(chain);
    assert_eq!(finding(&mut mesh, RENEWED).await, None);

    // 3. Without the old anchor.
    stage.kubectl(&["-n", "weir", "delete", "configmap", "weir-trust-anchors-extra"]);
    let map = ["-n", "weir", "get", "configmap", "weir-trust-anchors", "-o", r"jsonpath={.data.ca\.crt}"];
    stage.until("only the new anchor is published", &map, |text| text.matches("BEGIN CERTIFICATE").count() == 1);
    wait::eventually("all nodes have it", SOON, async || finding(&mut mesh, TRUSTED).await.is_none().then_some(()))
        .await;
    wait::eventually("control's own certificate is of the new anchor", SOON, async || {
        (proves_itself(&control, &new).await && !proves_itself(&control, &first).await).then_some(())
    })
    .await;
    let mut mesh = Mesh::of(&control, &new, &viewer).await;
    assert_eq!((finding(&mut mesh, TRUSTED).await, finding(&mut mesh, RENEWED).await), (None, None));
}
