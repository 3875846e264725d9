//! The subjects side by side: one mesh, captured pods for Weir, pods outside of it for everyone else.
//!
//! Must never let a subject's traffic pass another subject's processes.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    generate::Http,
    hops::{self, GRPC, HTTP1, HTTP2},
    process::{self, Memory},
    serve::{ECHO, SINK},
};
use crate::{
    daemon::Daemon,
    fabric::NODES,
    mesh::{Mesh, Pod, PodOptions, ServiceOptions, ServicePort},
    netns::Netns,
    wait,
};

/// Longest wait for the first request through the mesh.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lets thousands of new connections per second reuse the default range of ports.
const PORT_REUSE: (&str, &str) = ("ipv4/tcp_tw_reuse", "1");
/// Congestion control that makes runs comparable, the first that the machine allows in a namespace: BBR paces by timers, which costs everyone differently.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "reno"];

/// What stands between client and server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Subject {
    /// Nothing.
    Direct,
    /// nginx, one plaintext hop.
    Nginx,
    /// HAProxy, one plaintext hop.
    Haproxy,
    /// nghttpx, one plaintext hop; HTTP/2 only.
    Nghttpx,
    /// Weir, client and server on different nodes.
    TwoNodes,
    /// Weir, client and server on one node.
    SameNode,
}

impl Subject {
    /// As options call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Subject::Direct => "direct",
            Subject::Nginx => "nginx",
            Subject::Haproxy => "haproxy",
            Subject::Nghttpx => "nghttpx",
            Subject::TwoNodes => "two",
            Subject::SameNode => "same",
        }
    }

    /// As the table calls it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Subject::Direct => "direct",
            Subject::Nginx => "nginx, one hop",
            Subject::Haproxy => "HAProxy, one hop",
            Subject::Nghttpx => "nghttpx, one hop",
            Subject::TwoNodes => "**Weir, two nodes**",
            Subject::SameNode => "**Weir, same node**",
        }
    }
}

/// A service over one pod of the mesh, with the ports of all scenarios.
pub(super) fn service(mesh: &mut Mesh, name: &str, pod: &Pod) -> IpAddr {
    let port = |name, port, protocol| ServicePort { name, port, target: port, protocol };
    let options = ServiceOptions::new(name, HTTP1, HTTP1);
    let options = [("http2", HTTP2), ("grpc", GRPC)]
        .into_iter()
        .fold(options, |options, (name, number)| options.port(port(name, number, Some("kubernetes.io/h2c"))));
    let options = options.port(port("sink", SINK, None)).port(port("echo", ECHO, None));
    mesh.service(&options, &[pod]).parse().expect("an address")
}

/// Sets what makes runs comparable.
pub(super) fn tune(netns: &Netns) {
    netns.sysctl(PORT_REUSE.0, PORT_REUSE.1);
    let set = |name: &&str| netns.enter(|| fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name).is_ok());
    assert!(CONGESTION_CONTROLS.iter().any(set), "the kernel allows none of {CONGESTION_CONTROLS:?}");
}

/// The congestion control of the namespace.
pub(super) fn congestion_control(netns: &Netns) -> String {
    netns
        .enter(|| fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    // In this order they end.
    _origins: [[Daemon; 2]; 3],
    nginx: Daemon,
    haproxy: Daemon,
    nghttpx: Daemon,
    client: Pod,
    plain_client: Pod,
    /// Addresses of: plain origin, pods of nginx, HAProxy and nghttpx, services of both nodes.
    addresses: [IpAddr; 6],
    _pods: Vec<Pod>,
    mesh: Mesh,
}

impl Stage {
    /// Starts all subjects and sees a request through each.
    pub(super) fn start() -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let near = mesh.pod(&PodOptions::new("near", 0));
        let far = mesh.pod(&PodOptions::new("far", 1));
        let mut plain = |name: &str, node| mesh.pod(&PodOptions::new(name, node).enabled(false));
        let [plain_client, nginx, haproxy, nghttpx] =
            ["plain", "nginx", "haproxy", "nghttpx"].map(|name| plain(name, 0));
        let plain_origin = plain("origin", 1);
        for pod in [&client, &near, &far, &plain_client, &nginx, &haproxy, &nghttpx, &plain_origin] {
            tune(&pod.place.netns);
        }
        (0..NODES).for_each(|node| tune(mesh.fabric.node(node)));
        let logs = mesh.path("logs");
        let folder = |name: &str| mesh.path(&format!("bench-{name}"));
        let origins = [&near, &far, &plain_origin].map(|pod| hops::origin(pod, &folder(&pod.name), &logs));
        let behind = plain_origin.place.v4;
        let nginx_hop = hops::nginx_hop(&nginx, behind, &folder("nginx"), &logs);
        let haproxy_hop = hops::haproxy_hop(&haproxy, behind, &folder("haproxy"), &logs);
        let nghttpx_hop = hops::nghttpx_hop(&nghttpx, behind, &folder("nghttpx"), &logs);
        let services = [service(&mut mesh, "far", &far), service(&mut mesh, "near", &near)];
        mesh.wait_ready(&[&client, &near, &far]);
        let addresses = [behind, nginx.place.v4, haproxy.place.v4, nghttpx.place.v4, services[0], services[1]];
        let pods = vec![near, far, plain_origin, nginx, haproxy, nghttpx];
        let (nginx, haproxy, nghttpx) = (nginx_hop, haproxy_hop, nghttpx_hop);
        let stage =
            Stage { _origins: origins, nginx, haproxy, nghttpx, client, plain_client, addresses, _pods: pods, mesh };
        stage.check();
        stage
    }

    /// A request through each subject; Weir's must have been counted as mTLS.
    fn check(&self) {
        for subject in [Subject::Direct, Subject::Nginx, Subject::Haproxy, Subject::TwoNodes, Subject::SameNode] {
            let what = format!("a request through {}", subject.name());
            let address = self.address(subject, HTTP1);
            wait::until(&what, PATIENCE, || self.client(subject).enter(|| Http::connect(address)?.get()).ok());
        }
        wait::until("a request counted as mTLS", PATIENCE, || {
            let counted = |line: &str| line.starts_with("request_total{") && line.contains("tls=\"true\"");
            self.mesh.admin(0, "/metrics").lines().any(counted).then_some(())
        });
    }

    /// Namespace of the subject's client.
    pub(super) fn client(&self, subject: Subject) -> &Netns {
        let weir = matches!(subject, Subject::TwoNodes | Subject::SameNode);
        if weir { &self.client.place.netns } else { &self.plain_client.place.netns }
    }

    /// Where the subject's client connects to.
    pub(super) fn address(&self, subject: Subject, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[subject as usize], port)
    }

    /// A folder for what load generators leave.
    pub(super) fn folder(&self) -> std::path::PathBuf {
        self.mesh.path("logs")
    }

    /// Processor time of the subject so far: all processes of Weir for either of its paths.
    pub(super) fn cpu(&self, subject: Subject) -> Duration {
        process::cpu(&match subject {
            Subject::Direct => Vec::new(),
            Subject::Nginx => vec![self.nginx.pid()],
            Subject::Haproxy => vec![self.haproxy.pid()],
            Subject::Nghttpx => vec![self.nghttpx.pid()],
            Subject::TwoNodes | Subject::SameNode => {
                let nodes = (0..NODES).flat_map(|node| [self.mesh.proxy(node).pid(), self.mesh.holder(node).pid()]);
                nodes.chain([self.mesh.control().pid()]).collect()
            }
        })
    }

    /// What all namespaces use.
    pub(super) fn congestion_control(&self) -> String {
        congestion_control(&self.client.place.netns)
    }

    /// Memory of the proxies.
    pub(super) fn memory(&self) -> Vec<ProxyMemory> {
        proxies(&self.mesh)
    }
}

/// Memory of one node's proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyMemory {
    /// Of the worker, which carries traffic.
    pub(super) worker: Memory,
    /// Of its supervisor.
    pub(super) supervisor: Memory,
}

/// Memory of each node's proxy.
pub(super) fn proxies(mesh: &Mesh) -> Vec<ProxyMemory> {
    let of = |node| {
        let worker = mesh.worker(node).expect("a running worker");
        ProxyMemory { worker: process::memory(worker), supervisor: process::memory(mesh.proxy(node).pid()) }
    };
    (0..NODES).map(of).collect()
}
