//! One client pod, one server pod on its node and one on the other, with a service each.

use std::{
    net::{Ipv6Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, Pod, PodOptions, ServiceOptions, ServicePort},
    netns::run,
    nginx, wait,
};

use crate::wire::Wire;

/// HTTP/1 of nginx; nothing declared.
pub(crate) const HTTP1: u16 = 8080;
/// HTTP/2 of nginx; nothing declared.
pub(crate) const HTTP2: u16 = 8081;
/// HTTP/2 of nginx by the service's port 8082 with `appProtocol: kubernetes.io/h2c`.
pub(crate) const DECLARED_HTTP2: u16 = 8082;
/// For listeners of the tests' own; nothing declared.
pub(crate) const RAW: u16 = 9000;
/// Another one.
pub(crate) const OTHER: u16 = 9001;
/// TLS of the application's own.
pub(crate) const TLS: u16 = 8443;
/// Opaque by default.
pub(crate) const REDIS: u16 = 6379;
/// gRPC, nothing declared.
pub(crate) const GRPC: u16 = 50051;

/// A server's pod with its ClusterIP, and the way there from the client's pod.
pub(crate) struct Server {
    pub(crate) pod: Pod,
    pub(crate) address: String,
    pub(crate) way: &'static str,
    pub(crate) options: ServiceOptions,
}

impl Server {
    /// URL of a path over the ClusterIP.
    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.address)
    }

    /// Listens in the pod on all addresses.
    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        listen(&self.pod, port)
    }
}

/// A mesh with pods in it.
pub(crate) struct Stage {
    pub(crate) client: Pod,
    pub(crate) servers: [Server; 2],
    programs: Vec<Daemon>,
    // After the programs: its folder holds what they read.
    pub(crate) mesh: Mesh,
}

impl Stage {
    /// Brings it up, without programs in the pods.
    pub(crate) fn new() -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let servers = [("far", 1, "across nodes"), ("near", 0, "on one node")].map(|(name, node, way)| {
            let pod = mesh.pod(&PodOptions::new(name, node));
            let mut options = ServiceOptions::new(name, HTTP1, HTTP1);
            let ports =
                [("http2", HTTP2), ("raw", RAW), ("other", OTHER), ("tls", TLS), ("redis", REDIS), ("grpc", GRPC)];
            for (name, port) in ports {
                options = options.port(ServicePort { name, port, target: port, protocol: None });
            }
            let protocol = Some("kubernetes.io/h2c");
            options = options.port(ServicePort { name: "h2c", port: DECLARED_HTTP2, target: HTTP2, protocol });
            let address = mesh.service(&options, &[&pod]);
            Server { pod, address, way, options }
        });
        mesh.wait_ready(&[&client, &servers[0].pod, &servers[1].pod]);
        let stage = Stage { client, servers, programs: Vec::new(), mesh };
        for server in &stage.servers {
            stage.known(&server.options);
        }
        stage
    }

    /// A service over some of the servers, once control knows it: before that its address is nobody's.
    pub(crate) fn service(&mut self, options: &ServiceOptions, servers: &[usize]) -> String {
        let pods: Vec<&Pod> = servers.iter().map(|index| &self.servers[*index].pod).collect();
        let address = self.mesh.service(options, &pods);
        self.known(options);
        address
    }

    /// Waits until control knows the endpoints of a service, with their identities.
    fn known(&self, options: &ServiceOptions) {
        let authority = format!("{}.{}:{}", options.name, options.namespace, options.ports[0].port);
        wait::until(&format!("control knows {authority}"), Duration::from_secs(20), || {
            let output = self.mesh.weir(&["endpoints", &authority, "-o", "json"]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).contains("serviceaccount.identity").then_some(())
        });
    }

    /// The same, with nginx in both servers.
    pub(crate) fn with_nginx() -> Stage {
        let mut stage = Stage::new();
        for index in 0..stage.servers.len() {
            let pod = &stage.servers[index].pod;
            let folder = stage.folder(&format!("nginx-{}", pod.name));
            stage.programs.push(nginx::start(pod, &folder, &stage.mesh.path("logs")));
        }
        stage
    }

    /// A folder that goes with the mesh.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.mesh.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The server on the other node.
    pub(crate) fn far(&self) -> &Server {
        &self.servers[0]
    }

    /// Keeps a program until the stage goes.
    pub(crate) fn keep(&mut self, program: Daemon) {
        self.programs.push(program);
    }

    /// Starts a program in a pod, and waits until it listens.
    pub(crate) fn start(&self, pod: &Pod, name: &str, command: &[&str], port: u16) -> Daemon {
        let daemon = pod.daemon(name, command[0], &command[1..], &self.mesh.path("logs"));
        listening(pod, port, &daemon);
        daemon
    }

    /// A captured connection of the client's pod to a server's ClusterIP.
    pub(crate) fn dial(&self, server: &Server, port: u16) -> Wire {
        dial(&self.client, &format!("{}:{port}", server.address))
    }

    /// The sum of a metric's samples on a node whose labels contain all of `labels`.
    pub(crate) fn metric(&self, node: usize, name: &str, labels: &[&str]) -> f64 {
        let text = self.mesh.admin(node, "/metrics");
        let samples = text.lines().filter_map(|line| line.split_once(['{', ' ']).filter(|(family, _)| *family == name));
        let wanted = samples.filter(|(_, rest)| labels.iter().all(|label| rest.contains(label)));
        wanted.filter_map(|(_, rest)| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Connects from within a pod.
pub(crate) fn dial(pod: &Pod, to: &str) -> Wire {
    Wire::new(pod.place.netns.enter(|| TcpStream::connect(to)).unwrap_or_else(|error| panic!("{to}: {error}")))
}

/// Listens in a pod on all its addresses.
pub(crate) fn listen(pod: &Pod, port: u16) -> TcpListener {
    pod.place.netns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap()
}

/// Waits until something in the pod listens.
pub(crate) fn listening(pod: &Pod, port: u16, daemon: &Daemon) {
    let filter = format!("sport = :{port}");
    wait::until(&format!("port {port} of {} is open: {}", pod.name, daemon.log()), Duration::from_secs(20), || {
        (!pod.run("ss", &["-Hltn", &filter]).trim().is_empty()).then_some(())
    });
}

/// SHA-256 of a file.
pub(crate) fn digest(path: &std::path::Path) -> String {
    run(Command::new("sha256sum").arg(path)).split_whitespace().next().unwrap().to_owned()
}

/// A file of `mebibytes` of noise.
pub(crate) fn noise(path: &std::path::Path, mebibytes: usize) {
    run(Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", &format!("count={mebibytes}"), "status=none"])
        .arg(format!("of={}", path.display())));
}
