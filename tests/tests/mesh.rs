//! The first slice whole: captured, encrypted, balanced, measured.

use weir_tests::{
    mesh::{Mesh, PodOptions, ServiceOptions},
    nginx,
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
