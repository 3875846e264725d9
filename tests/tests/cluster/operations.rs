//! What people do with pods every day works with meshed ones as with others.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

use weir_tests::cluster::PATIENCE;

use crate::shop::{MARKER, Shop};

/// exec, logs, cp, port-forward: all of them reach the pod through its kubelet.
#[test]
fn exec_logs_cp_and_port_forward_work_in_meshed_pods() {
    let shop = Shop::open("operations", 2);
    shop.mesh(2);
    let namespace = ["-n", &shop.namespace];
    let kubectl = |arguments: &[&str]| shop.cluster.kubectl(&[&namespace, arguments].concat());
    assert_eq!(shop.client(&["echo", "here"]).trim(), "here");
    assert!(kubectl(&["logs", "deployment/redis"]).contains("Ready to accept connections"));
    let pods = shop.cluster.get(&["-n", &shop.namespace, "pods", "-l", "app=client"]);
    let client = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&there, MARKER).unwrap();
    let remote = format!("{client}:/tmp/copied");
    kubectl(&["cp", there.to_str().unwrap(), &remote]);
    kubectl(&["cp", &remote, back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&back).unwrap(), MARKER);
    let mut forward =
        shop.cluster.start_kubectl(&[&namespace[..], &["port-forward", "deployment/web", ":8080"]].concat());
    // `Forwarding from 127.0.0.1:40123 -> 8080`
    let mut line = String::new();
    // Kept open: it writes a line for each connection.
    let mut said = BufReader::new(forward.stdout());
    said.read_line(&mut line).unwrap();
    let port: u16 = line.split([':', ' ']).find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    drop(forward);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(MARKER), "{answer}");
}

/// A job's pod ends when its program does: nothing of the mesh lives in it.
#[test]
fn jobs_and_cron_jobs_end_by_themselves() {
    let shop = Shop::open("jobs", 2);
    shop.mesh(2);
    let namespace = &shop.namespace;
    shop.cluster.apply(&format!(
        r#"
apiVersion: batch/v1
kind: CronJob
metadata: {{name: nightly, namespace: {namespace}}}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers:
            - {{name: nightly, image: weir-test/apps:1, imagePullPolicy: Never, command: [curl, -sS, --fail, "http://web/"]}}
"#
    ));
    for index in 0..3 {
        shop.cluster.kubectl(&[
            "-n",
            namespace,
            "create",
            "job",
            "--from=cronjob/nightly",
            &format!("nightly-{index}"),
        ]);
    }
    let done = ["-n", namespace, "wait", "--for=condition=complete", "job", "--all", "--timeout=60s"];
    shop.cluster.kubectl(&done);
    for index in 0..3 {
        assert!(shop.cluster.kubectl(&["-n", namespace, "logs", &format!("job/nightly-{index}")]).contains(MARKER));
    }
    // They have ended: what is left of them is not meshed any more.
    shop.meshed(2, PATIENCE);
}

/// Whoever cannot be meshed is told why on the pod itself, and goes on as before.
#[test]
fn pods_that_cannot_be_meshed_are_refused_by_name() {
    let shop = Shop::open("refused", 2);
    shop.mesh(2);
    let pod = |name: &str, spec: &str| {
        let namespace = &shop.namespace;
        shop.cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{terminationGracePeriodSeconds: 0, {spec}}}\n"
        ));
    };
    let container = |name: &str| {
        format!("{{name: {name}, image: weir-test/apps:1, imagePullPolicy: Never, command: [sleep, '100000']}}")
    };
    pod("on-the-host", &format!("hostNetwork: true, containers: [{}]", container("main")));
    pod("with-a-sidecar", &format!("containers: [{}, {}]", container("main"), container("linkerd-proxy")));
    for (name, reason) in [("on-the-host", "network"), ("with-a-sidecar", "Linkerd sidecar")] {
        shop.cluster.kubectl(&[
            "-n",
            &shop.namespace,
            "wait",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ]);
        let said = event(&shop, name, "MeshRefused");
        assert!(said.contains(reason), "{name}: {said}");
    }
    shop.meshed(2, PATIENCE);
}

/// The message of a pod's event.
fn event(shop: &Shop, pod: &str, reason: &str) -> String {
    let selector = format!("involvedObject.name={pod},reason={reason}");
    weir_tests::wait::until(reason, PATIENCE, || {
        let events = shop.cluster.get(&["-n", &shop.namespace, "events", "--field-selector", &selector]);
        Some(events["items"].as_array()?.first()?["message"].as_str()?.to_owned())
    })
}
