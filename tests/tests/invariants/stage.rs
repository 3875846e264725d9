//! The mesh that the tests of invariants begin with. Must never differ between them.

use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, Pod, PodOptions, ServiceOptions},
    nginx,
};

/// A client on node 1, nginx on both nodes, and a service over the second.
pub(crate) struct Stage {
    pub(crate) client: Pod,
    pub(crate) near: Pod,
    pub(crate) far: Pod,
    /// `10.96.…:80` of a service over the far replica alone.
    pub(crate) far_service: String,
    /// Over both.
    pub(crate) service: String,
    _running: Vec<Daemon>,
    pub(crate) mesh: Mesh,
}

impl Stage {
    pub(crate) fn start() -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let near = mesh.pod(&PodOptions::new("web", 0));
        let far = mesh.pod(&PodOptions::new("web", 1));
        let logs = mesh.path("logs");
        let start = |pod: &Pod| nginx::start(pod, &mesh.path(&format!("nginx-{}", pod.name)), &logs);
        let running = vec![start(&near), start(&far)];
        let far_service = format!("{}:80", mesh.service(&ServiceOptions::new("far", 80, 8080), &[&far]));
        let service = format!("{}:80", mesh.service(&ServiceOptions::new("web", 80, 8080), &[&near, &far]));
        mesh.wait_ready(&[&client, &near, &far]);
        Stage { client, near, far, far_service, service, _running: running, mesh }
    }
}
