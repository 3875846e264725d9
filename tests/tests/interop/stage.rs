//! One client pod, one server pod on its node and one on the other, with a service each.

use std::{
    env,
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
pub const HTTP1: u16 = 8080;
/// HTTP/2 of nginx; nothing declared.
pub const HTTP2: u16 = 8081;
/// HTTP/2 of nginx by the service's port 8082 with `appProtocol: kubernetes.io/h2c`.
pub const DECLARED_HTTP2: u16 = 8082;
/// For listeners of the tests' own; nothing declared.
pub const RAW: u16 = 9000;
/// Another one.
pub const OTHER: u16 = 9001;
/// TLS of the application's own.
pub const TLS: u16 = 8443;
/// Opaque by default.
pub const REDIS: u16 = 6379;
/// gRPC, nothing declared.
pub const GRPC: u16 = 50051;

/// A server's pod with its ClusterIP, and the way there from the client's pod.
pub struct Server {
    pub pod: Pod,
    pub address: String,
    pub way: &'static str,
    pub options: ServiceOptions,
}

impl Server {
    /// URL of a path over the ClusterIP.
    pub fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.address)
    }

    /// Listens in the pod on all addresses.
    pub fn listen(&self, port: u16) -> TcpListener {
        listen(&self.pod, port)
    }
}

/// A mesh with pods in it.
pub struct Stage {
    pub client: Pod,
    pub servers: [Server; 2],
    programs: Vec<Daemon>,
    // After the programs: its folder holds what they read.
    pub mesh: Mesh,
}

impl Stage {
    /// Brings it up, without programs in the pods.
    pub fn new() -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let servers = [("far", 1, "across nodes"), ("near", 0, "on one node")].map(|(name, node, way)| {
            let pod = mesh.pod(&PodOptions::new(name, node));
            let mut options = ServiceOptions::new(name, HTTP1, HTTP1);
            let ports = [("http2", HTTP2), ("raw", RAW), ("other", OTHER), ("tls", TLS), ("redis", REDIS), ("grpc", GRPC)];
            for (name, port) in ports {
                options = options.port(ServicePort { name, port, target: port, protocol: None });
            }
            let protocol = Some("kubernetes.io/h2c");
            options = options.port(ServicePort { name: "h2c", port: DECLARED_HTTP2, target: HTTP2, protocol });
            let address = mesh.service(&options, &[&pod]);
            Server { pod, address, way, options }
        });
        mesh.wait_ready(&[&client, &servers[0].pod, &servers[1].pod]);
        Stage { client, servers, programs: Vec::new(), mesh }
    }

    /// The same, with nginx in both servers.
    pub fn with_nginx() -> Stage {
        let mut stage = Stage::new();
        for index in 0..stage.servers.len() {
            let pod = &stage.servers[index].pod;
            let folder = stage.folder(&format!("nginx-{}", pod.name));
            stage.programs.push(nginx::start(pod, &folder, &stage.mesh.path("logs")));
        }
        stage
    }

    /// A folder that goes with the mesh.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.mesh.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The server on the other node.
    pub fn far(&self) -> &Server {
        &self.servers[0]
    }

    /// The server on the client's node.
    pub fn near(&self) -> &Server {
        &self.servers[1]
    }

    /// Keeps a program until the stage goes.
    pub fn keep(&mut self, program: Daemon) {
        self.programs.push(program);
    }

    /// Starts a program in a pod, and waits until it listens.
    pub fn start(&self, pod: &Pod, name: &str, command: &[&str], port: u16) -> Daemon {
        let daemon = pod.daemon(name, command[0], &command[1..], &self.mesh.path("logs"));
        listening(pod, port, &daemon);
        daemon
    }

    /// A captured connection of the client's pod to a server's ClusterIP.
    pub fn dial(&self, server: &Server, port: u16) -> Wire {
        dial(&self.client, &format!("{}:{port}", server.address))
    }

    /// The sum of a metric's samples on a node whose labels contain all of `labels`.
    pub fn metric(&self, node: usize, name: &str, labels: &[&str]) -> f64 {
        let text = self.mesh.admin(node, "/metrics");
        let samples = text.lines().filter_map(|line| line.split_once(['{', ' ']).filter(|(family, _)| *family == name));
        let wanted = samples.filter(|(_, rest)| labels.iter().all(|label| rest.contains(label)));
        wanted.filter_map(|(_, rest)| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Connects from within a pod.
pub fn dial(pod: &Pod, to: &str) -> Wire {
    Wire::new(pod.place.netns.enter(|| TcpStream::connect(to)).unwrap_or_else(|error| panic!("{to}: {error}")))
}

/// Listens in a pod on all its addresses.
pub fn listen(pod: &Pod, port: u16) -> TcpListener {
    pod.place.netns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap()
}

/// Waits until something in the pod listens.
pub fn listening(pod: &Pod, port: u16, daemon: &Daemon) {
    let filter = format!("sport = :{port}");
    wait::until(&format!("port {port} of {} is open: {}", pod.name, daemon.log()), Duration::from_secs(20), || {
        (!pod.run("ss", &["-Hltn", &filter]).trim().is_empty()).then_some(())
    });
}

/// The Python that has grpcio and Envoy.
pub fn python() -> PathBuf {
    let given = env::var_os("WEIR_PYTHON").map(PathBuf::from);
    let path = given.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/weir/python/bin/python3"));
    assert!(path.is_file(), "{} is not there: `cargo xtask test` makes it", path.display());
    path
}

/// SHA-256 of a file.
pub fn digest(path: &std::path::Path) -> String {
    run(Command::new("sha256sum").arg(path)).split_whitespace().next().unwrap().to_owned()
}

/// A file of `mebibytes` of noise.
pub fn noise(path: &std::path::Path, mebibytes: usize) {
    run(Command::new("dd").args(["if=/dev/urandom", "bs=1M", &format!("count={mebibytes}"), "status=none"]).arg(format!("of={}", path.display())));
}
