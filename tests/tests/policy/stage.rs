//! A client, a server on its node and one on the other, and whoever is outside the mesh. Must never wait for less than what the proxies say.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, Pod, PodOptions},
    netns::Netns,
    nginx, wait,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const POLICY: &str = "config.linkerd.io/default-inbound-policy";
/// Outside of all that is a cluster's by default.
pub(crate) const OUTSIDE: &str = "198.51.100.1";

/// The stage.
pub(crate) struct Stage {
    pub(crate) client: Pod,
    /// On the client's node, and on the other.
    pub(crate) servers: [Pod; 2],
    /// Not in the mesh, on the first node.
    pub(crate) plain: Pod,
    programs: Vec<Daemon>,
    pub(crate) mesh: Mesh,
}

/// What somebody got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `l5d-proxy-error`
    pub(crate) error: Option<String>,
}

impl Stage {
    /// nginx in both servers; `container` is what their manifests say more of it.
    pub(crate) fn start(container: &str) -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let servers = [0, 1].map(|node| mesh.pod(&PodOptions::new("web", node).container(container)));
        let plain = mesh.pod(&PodOptions::new("plain", 0).enabled(false));
        let logs = mesh.path("logs");
        let start = |pod: &Pod| nginx::start(pod, &mesh.path(&format!("nginx-{}", pod.name)), &logs);
        let programs = servers.iter().map(start).collect();
        mesh.wait_ready(&[&client, &servers[0], &servers[1]]);
        // The other node's host has an address that is nobody's in the cluster.
        mesh.fabric.node(1).ip(&format!("address add {OUTSIDE}/32 dev lo"));
        mesh.fabric.node(0).ip(&format!("route add {OUTSIDE}/32 via 10.80.0.2"));
        Stage { client, servers, plain, programs, mesh }
    }

    /// Keeps a program until the stage goes.
    pub(crate) fn keep(&mut self, program: Daemon) {
        self.programs.push(program);
    }

    /// Annotates both servers, and waits until their nodes know.
    pub(crate) fn set_policy(&mut self, policy: &str) {
        self.write_policy(policy);
        self.wait_policy(policy);
    }

    /// Annotates both servers, and waits for nothing.
    pub(crate) fn write_policy(&mut self, policy: &str) {
        for server in &mut self.servers {
            server.annotations = vec![(POLICY.to_owned(), policy.to_owned())];
            self.mesh.describe(server);
        }
    }

    /// Waits until both servers' nodes know this policy.
    pub(crate) fn wait_policy(&self, policy: &str) {
        for server in &self.servers {
            wait::until(&format!("{policy} in force at {}", server.name), PATIENCE, || {
                let config: serde_json::Value =
                    serde_json::from_str(&self.mesh.admin(server.place.node, "/config")).ok()?;
                let own = config["workloads"].as_array()?.iter().find(|known| known["uid"] == server.uid.as_str())?;
                (own["default_inbound_policy"] == policy).then_some(())
            });
        }
    }

    /// The sum of a metric's samples on a node whose labels contain all of `labels`.
    pub(crate) fn metric(&self, node: usize, name: &str, labels: &[&str]) -> f64 {
        let text = self.mesh.admin(node, "/metrics");
        let samples = text.lines().filter_map(|line| line.split_once('{').filter(|(family, _)| *family == name));
        let wanted = samples.filter(|(_, rest)| labels.iter().all(|label| rest.contains(label)));
        wanted.filter_map(|(_, rest)| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// One request with curl out of a namespace.
pub(crate) fn curl(from: &Netns, url: &str, more: &[&str]) -> Answer {
    let mut command = from.command("curl");
    command.args(["--silent", "--max-time", "10", "--output", "/dev/null", "--dump-header", "-"]);
    let output = command.args(more).arg(url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // After a redirect the last answer counts.
    let head = text.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let error = head.lines().find_map(|line| line.strip_prefix("l5d-proxy-error: ")).map(str::to_owned);
    Answer { status, error }
}

/// What a connection out of a namespace hears first; none when it is refused, reset or closed.
pub(crate) fn greeting(from: &Netns, to: SocketAddr) -> Option<String> {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Nothing will follow: nobody has to wait whether it is a request.
    stream.shutdown(Shutdown::Write).ok()?;
    let mut said = [0; 9];
    stream.read_exact(&mut said).ok()?;
    Some(String::from_utf8_lossy(&said).into_owned())
}

/// A kept connection that speaks HTTP/1.
pub(crate) struct Kept(BufReader<TcpStream>);

impl Kept {
    pub(crate) fn open(from: &Netns, to: SocketAddr) -> Kept {
        let stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Kept(BufReader::new(stream))
    }

    /// Status of the next request.
    pub(crate) fn get(&mut self, path: &str) -> u16 {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection was closed");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}
