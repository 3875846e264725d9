//! The first slice whole: captured, encrypted, balanced, measured.

#[path = "mesh/api.rs"]
mod api;

use weir_tests::{
    mesh::{Mesh, PATIENCE, PodOptions, ServiceOptions},
    nginx, wait,
};

/// A request from one node reaches replicas on both, with the pods' own identities, and is counted.
#[test]
fn a_request_crosses_the_mesh() {
    let mut mesh = Mesh::start();
    let client = mesh.pod(&PodOptions::new("client", 0));
    let servers = [mesh.pod(&PodOptions::new("web", 0)), mesh.pod(&PodOptions::new("web", 1))];
    let logs = mesh.path("logs");
    let _running: Vec<_> =
        servers.iter().map(|pod| nginx::start(pod, &mesh.path(&format!("nginx-{}", pod.name)), &logs)).collect();
    let web = mesh.service(&ServiceOptions::new("web", 80, 8080), &[&servers[0], &servers[1]]);
    mesh.wait_ready(&[&client, &servers[0], &servers[1]]);
    let mut seen = std::collections::BTreeSet::new();
    for _round in 0..40 {
        seen.insert(client.get(&format!("http://{web}/name")));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["web-1\n", "web-2\n"]);
}

/// Its node never let go of it, and says so when it is asked. Mutation tried: nodes that do not answer a workload that they have.
#[test]
fn a_pod_that_is_opted_out_and_in_again_at_once_is_in_the_mesh_again() {
    let mut mesh = Mesh::start();
    let mut web = mesh.pod(&PodOptions::new("web", 1));
    mesh.wait_ready(&[&web]);
    for _round in 0..3 {
        web.enabled = Some(false);
        mesh.describe(&web);
        let serving = mesh.path("control/serving");
        wait::until("control knows that it is opted out", PATIENCE, || {
            std::fs::read_to_string(&serving).is_ok_and(|text| !text.contains(&web.uid)).then_some(())
        });
        web.enabled = Some(true);
        mesh.describe(&web);
        mesh.wait_ready(&[&web]);
    }
}
