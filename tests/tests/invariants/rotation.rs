//! Trust anchors and issuer change under load, by the steps of docs/install.md. Mutation tried: a renewal that does not hear of another
//! issuer (`Renewal::due`), and a proxy that believes its file alone (`Control::connect`).

use std::{fs, sync::atomic::Ordering::Relaxed};

use weir_tests::{
    authority,
    load::Load,
    mesh::{Mesh, PATIENCE, PodOptions, ServiceOptions},
    nginx, wait,
};

/// New connections per second, each a handshake.
const RATE: u32 = 100;
const THREADS: u32 = 8;

/// Replaces one of control's files in one step.
fn place(mesh: &Mesh, name: &str, text: &str) {
    let aside = mesh.path("control/.aside");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, mesh.path("control").join(name)).unwrap();
}

fn until_checked(mesh: &Mesh, line: &str) {
    let mut last = String::new();
    let found = wait::within(PATIENCE, || {
        last = String::from_utf8_lossy(&mesh.weir(&["check"]).output().unwrap().stdout).into_owned();
        last.lines().any(|found| found == line).then_some(())
    });
    assert!(found.is_some(), "{line:?} is not in\n{last}");
}

/// Issuers of all certificates that pods present.
fn issuers(mesh: &Mesh) -> Vec<String> {
    let pods = mesh.weir_json(&["identity", "-A"]);
    let issuer = |pod: &serde_json::Value| pod.pointer("/certificates/0/issuer")?.as_str().map(str::to_owned);
    pods.as_array().unwrap().iter().map(|pod| issuer(pod).unwrap_or_default()).collect()
}

#[test]
fn anchors_and_issuer_rotate_without_a_restart_and_without_a_failed_handshake() {
    let mut mesh = Mesh::start();
    let client = mesh.pod(&PodOptions::new("client", 0));
    // An opaque port: no connection is shared, each shakes hands with the certificates of its moment.
    let far = mesh.pod(&PodOptions::new("web", 1).annotated("config.linkerd.io/opaque-ports", "8080"));
    let _nginx = nginx::start(&far, &mesh.path("nginx-web"), &mesh.path("logs"));
    let address = format!("{}:80", mesh.service(&ServiceOptions::new("web", 80, 8080), &[&far]));
    mesh.wait_ready(&[&client, &far]);
    let load = Load::start(&client.place.netns, address.parse().unwrap(), RATE, THREADS);
    let workers = [0, 1].map(|node| mesh.worker(node).expect("a worker"));

    authority::make(&mesh.path(""), "new-anchor", None);
    authority::make(&mesh.path(""), "new-issuer", Some("new-anchor"));
    let read = |name: &str| fs::read_to_string(mesh.path(name)).unwrap();
    let new = read("new-anchor.crt");
    place(&mesh, "ca.crt", &format!("{}{new}", read("control/ca.crt")));
    until_checked(&mesh, "√ all nodes trust the trust anchors in use (2)");

    // Control takes them when both are there, and fit.
    place(&mesh, "issuer.key", &read("new-issuer.key"));
    place(&mesh, "issuer.crt", &read("new-issuer.crt"));
    let renewed = || issuers(&mesh).iter().all(|issuer| issuer == "CN=new-issuer").then_some(());
    wait::until("all certificates are of the new issuer", PATIENCE * 2, renewed);
    until_checked(&mesh, "√ certificates of pods are of the issuer in use");

    place(&mesh, "ca.crt", &new);
    until_checked(&mesh, "√ all nodes trust the trust anchors in use (1)");
    let after = load.counts.answered.load(Relaxed) + 500;
    wait::until("answers after the rotation", PATIENCE, || (load.counts.answered.load(Relaxed) >= after).then_some(()));
    let counts = load.finish();
    assert_eq!(counts.total(), counts.answered.load(Relaxed), "{counts:?}");
    assert_eq!([0, 1].map(|node| mesh.worker(node).expect("a worker")), workers, "nothing was restarted");

    // The proxies' own files still hold the old anchor alone: what control told them counts too.
    mesh.kill_control();
    mesh.start_control();
    let late = mesh.pod(&PodOptions::new("late", 0));
    mesh.wait_ready(&[&late]);
}
