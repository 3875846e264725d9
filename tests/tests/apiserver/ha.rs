//! Several replicas: whichever is asked answers for all, one that does not answer is named, and only the leader writes.

use std::process::Command;

use rustix::process::Signal;
use tonic::Code;
use weir_tests::wait;

use crate::{
    NEVER, connect,
    node::{Mesh, certify, share},
    populated,
    stage::{Control, SOON, Stage},
};

/// `weir` towards one replica: exit code 0, standard output, standard error.
pub(crate) fn weir(stage: &Stage, control: &Control, token: &str, arguments: &[&str]) -> (bool, String, String) {
    let (anchors, file) = (stage.path("weir.anchors"), stage.path("weir.token"));
    std::fs::write(&anchors, stage.anchors()).unwrap();
    std::fs::write(&file, token).unwrap();
    let mut command = Command::new(std::path::Path::new(&std::env::var("WEIR_BINARIES").unwrap()).join("weir"));
    command.args(["--control", &control.url()]).arg("--trust-anchors").arg(anchors).arg("--token-file").arg(file);
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Without the question to the others (`Replicas::gather`), the first assertion fails for two replicas of three.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_replica_is_asked_answers_for_all_and_one_that_is_silent_is_named() {
    let stage = populated();
    let mut replicas = ["control-0", "control-1", "control-2"].map(|name| stage.replica(name).until_ready());
    let (anchors, viewer) = (stage.anchors(), stage.token("weir-viewer", "weir.mesh/api", None));
    let near = connect(&replicas[0], &stage, "node-a").await;
    let far = connect(&replicas[1], &stage, "node-b").await;
    stage.run_pod("shop", "web", "10.1.0.5");
    near.captured(&stage.uid("shop", "web"), NEVER).await;
    let _nodes = [near.attend(), far.attend()];

    for control in &replicas {
        let mut mesh = Mesh::of(control, &anchors, &viewer).await;
        let all = async |mesh: &mut Mesh<'_>| mesh.version().await.replicas.iter().all(|one| !one.version.is_empty());
        wait::eventually("the other two are known", SOON, async || {
            let count = mesh.version().await.replicas.len();
            (count == 3 && all(&mut mesh).await).then_some(())
        })
        .await;
        let nodes: Vec<String> = mesh.version().await.nodes.into_iter().map(|node| node.node_name).collect();
        assert_eq!(nodes, ["node-a", "node-b"]);
        let answer = mesh.observe().await;
        let nodes: Vec<&str> = answer.reports.iter().map(|report| report.node_name.as_str()).collect();
        assert_eq!((nodes, answer.missing_nodes, answer.missing_replicas), (vec!["node-a", "node-b"], vec![], vec![]));
        wait::eventually("what the node said about the pod", SOON, async || {
            let pods = mesh.workloads().await;
            pods.iter().any(|pod| pod.captured && pod.certificate_not_after == NEVER).then_some(())
        })
        .await;
        let wrong = mesh.wrong().await;
        assert!(!wrong.iter().any(|line| line.contains("replicas")), "{wrong:?}");
    }
    let status = ["-n", "weir", "get", "configmap", "weir-status", "-o", "jsonpath={.data.status\\.json}"];
    stage.until("the leader counts nodes of all", &status, |text| text.contains(r#""connected": 2"#));

    // Only replicas may ask for a share: not nobody, and not a workload, whose certificate is of the same authority.
    let proxy = stage.token("weir-proxy", "weir.mesh", Some("proxy-a"));
    assert_eq!(share(&replicas[0], &anchors, None).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(share(&replicas[0], &anchors, Some(&proxy)).await.unwrap_err().code(), Code::PermissionDenied);
    replicas[0].daemon.wait_for("ask as a replica of control", SOON);

    // Nor a node that has a pod of control's own account: control signs that name for itself alone.
    for account in ["weir-control", "weir-viewer"] {
        stage.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: as-{account}, namespace: weir, labels: {{weir.mesh/enabled: \"true\"}}}}\nspec: {{nodeName: node-a, serviceAccountName: {account}, containers: [{{name: app, image: none}}]}}\n"
        ));
    }
    wait::eventually("the other account's pod is known", SOON, async || {
        certify(&replicas[0], &anchors, &proxy, "weir-viewer.weir").await.ok()
    })
    .await;
    let refused = certify(&replicas[0], &anchors, &proxy, "weir-control.weir").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    // Hangs: it is waited for no longer than its bound, and what it knows is missing by name.
    replicas[1].daemon.signal(Signal::STOP);
    let mut mesh = Mesh::of(&replicas[0], &anchors, &viewer).await;
    let answer = mesh.observe().await;
    let missing: Vec<&str> = answer.missing_replicas.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!((answer.reports.len(), missing), (1, vec!["control-1"]));
    let wrong = mesh.wrong().await;
    let named = |wrong: &[String]| {
        wrong.iter().any(|line| line.starts_with("replicas of control answer each other: control-1 ("))
    };
    assert!(named(&wrong), "{wrong:?}");
    let (good, out, _) = weir(&stage, &replicas[0], &viewer, &["check"]);
    assert!(!good && out.contains("× replicas of control answer each other\n    control-1 ("), "{out}");
    let (_, _, err) = weir(&stage, &replicas[0], &viewer, &["stat", "-A"]);
    assert!(err.contains("replica control-1 of control did not answer"), "{err}");

    // Dead, but still named by the Service; then not any more.
    replicas[1].daemon.signal(Signal::KILL);
    replicas[1].daemon.signal(Signal::CONT);
    assert!(named(&mesh.wrong().await));
    stage.kubectl(&["-n", "weir", "delete", "endpointslice", "control-1"]);
    wait::eventually("only two are left", SOON, async || (mesh.version().await.replicas.len() == 2).then_some(()))
        .await;
    let wrong = mesh.wrong().await;
    assert!(!named(&wrong), "{wrong:?}");
}
