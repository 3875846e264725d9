//! The mesh with its pods, their programs and the clients. Must never opt a pod in by itself: the demo shows that step.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    kube_proxy::{self, Forward},
    load::{self, Load},
    machine::Machine,
};
use crate::{
    daemon::Daemon,
    mesh::{Mesh, NAMESPACE, PATIENCE, Pod, PodOptions, ServiceOptions, ServicePort},
    nginx,
};

/// Length of a client's round: what is open when pods are opted in ends within it.
const ROUND_SECONDS: &str = "4";
/// Between rounds of redis-benchmark, which has no rate of its own.
const REDIS_PAUSE: Duration = Duration::from_millis(500);
/// Pods: owner and index of the node. Servers, then clients.
const PODS: [(&str, usize); 11] = [
    ("web", 0),
    ("web", 1),
    ("api", 1),
    ("redis", 1),
    ("mail", 1),
    ("curl", 0),
    ("wrk", 0),
    ("h2load", 0),
    ("grpc-client", 0),
    ("redis-client", 0),
    ("mail-client", 0),
];
/// Payloads that carry a marker of their own.
pub(super) const MARKED: [&str; 5] = ["HTTP/1.1", "HTTP/2", "gRPC", "redis", "server first"];

/// Everything; taken down in this order.
#[derive(Debug)]
pub(super) struct Stage {
    /// Clients at work.
    pub(super) loads: Vec<Load>,
    programs: Vec<Daemon>,
    /// All pods.
    pub(super) pods: Vec<Pod>,
    /// Names and ClusterIPs of services.
    pub(super) services: BTreeMap<&'static str, String>,
    /// The mesh.
    pub(super) mesh: Mesh,
    markers: Vec<String>,
    scripts: PathBuf,
    machine: Machine,
}

impl Stage {
    /// Starts control and both nodes, and all pods outside the mesh.
    pub(super) fn new(machine: Machine) -> Stage {
        let mesh = Mesh::start();
        mesh.manifest("namespace", &namespace(false));
        let scripts = mesh.path("programs");
        fs::create_dir(&scripts).expect("a folder");
        let texts = [
            ("wrk.lua", include_str!("programs/wrk.lua")),
            ("mail.py", include_str!("programs/mail.py")),
            ("echo.py", include_str!("programs/echo.py")),
        ];
        for (name, text) in texts {
            fs::write(scripts.join(name), text).expect("a script");
        }
        // Unlike anything that is on the wire for another reason.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let markers = (0..MARKED.len()).map(|index| format!("weir-demo-{index}-{now:x}")).collect();
        let (loads, programs, pods) = (Vec::new(), Vec::new(), Vec::new());
        let mut stage = Stage { loads, programs, pods, services: BTreeMap::new(), mesh, markers, scripts, machine };
        for (owner, node) in PODS {
            let pod = stage.mesh.pod(&PodOptions::new(owner, node));
            stage.pods.push(pod);
        }
        stage.start_servers();
        stage.make_services();
        stage
    }

    /// The pod with this name.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).expect("a pod of the table")
    }

    /// What is searched on the wire, in the order of [`MARKED`].
    pub(super) fn markers(&self) -> Vec<&str> {
        self.markers.iter().map(String::as_str).collect()
    }

    /// Whether the gRPC part is there.
    pub(super) fn has_grpc(&self) -> bool {
        self.machine.grpc
    }

    /// Lets the namespace's pods into the mesh, as `kubectl label` would; returns when peers can speak mTLS to all.
    pub(super) fn opt_in(&self) {
        self.mesh.manifest("namespace", &namespace(true));
        self.mesh.wait_ready(&self.pods.iter().collect::<Vec<_>>());
    }

    fn script(&self, name: &str) -> String {
        self.scripts.join(name).display().to_string()
    }

    fn start_servers(&mut self) {
        let logs = self.mesh.path("logs");
        for (name, marker) in [("web-1", 0), ("web-2", 0), ("api-2", 1)] {
            let folder = self.mesh.path(&format!("nginx-{name}"));
            let server = nginx::start(self.pod(name), &folder, &logs);
            self.programs.push(server);
            // 1 KiB, as a small answer of an API is.
            fs::write(folder.join("files/item"), format!("{:1024}\n", self.markers[marker])).expect("a file to serve");
        }
        let python = self.machine.python.display().to_string();
        let mut servers = vec![
            (
                "redis-2",
                "redis-server".to_owned(),
                words("--port 6379 --protected-mode no --save --appendonly no"),
                "Ready to accept",
            ),
            (
                "mail-2",
                python.clone(),
                vec![self.script("mail.py"), "serve".into(), "2525".into(), self.markers[4].clone()],
                "serving",
            ),
        ];
        if self.machine.grpc {
            servers.push(("api-2", python, vec![self.script("echo.py"), "serve".into(), "50051".into()], "serving"));
        }
        for (pod, program, arguments, ready) in servers {
            let mut command = self.pod(pod).command(&program);
            command.args(arguments).current_dir(&self.scripts);
            let mut server = Daemon::start(&format!("{pod}-server"), command, &logs);
            server.wait_for(ready, PATIENCE);
            self.programs.push(server);
        }
    }

    fn make_services(&mut self) {
        let h2c = Some("kubernetes.io/h2c");
        // web and mail declare no protocol: it is detected. 6379 is opaque by default.
        let api = ServiceOptions::new("api", 8081, 8081).protocol("kubernetes.io/h2c");
        let grpc = ServicePort { name: "grpc", port: 50051, target: 50051, protocol: h2c };
        let services = [
            ("web", ServiceOptions::new("web", 80, 8080)),
            ("api", api.port(grpc)),
            ("redis", ServiceOptions::new("redis", 6379, 6379)),
            ("mail", ServiceOptions::new("mail", 2525, 2525)),
        ];
        let mut forwards = Vec::new();
        for (name, options) in services {
            let pods: Vec<&Pod> = self.pods.iter().filter(|pod| pod.owner == name).collect();
            let address = self.mesh.service(&options, &pods);
            for port in &options.ports {
                let pods = pods.iter().map(|pod| format!("{} . {}", pod.place.v4, port.target)).collect();
                forwards.push(Forward { address: address.clone(), port: port.port, pods });
            }
            self.services.insert(name, address);
        }
        kube_proxy::install(&self.mesh, &forwards);
    }

    /// A client of the service's web pods that opens a new connection for each request.
    pub(super) fn connections(&self, seconds: u64) -> Command {
        let mut command = self.wrk(8);
        command.args(["-c12", &format!("-d{seconds}s"), "-H", "Connection: close"]);
        command.arg(format!("http://{}/item", self.services["web"]));
        command
    }

    fn wrk(&self, delay_ms: u32) -> Command {
        let mut command = self.pod("wrk-1").command("wrk");
        command.env("DELAY_MS", delay_ms.to_string()).args(["-t1", "--timeout", "5s", "-s", &self.script("wrk.lua")]);
        command
    }

    /// Starts all clients.
    pub(super) fn start_clients(&mut self) {
        let at = |service: &str| self.services[service].clone();
        let python = self.machine.python.display().to_string();
        let client = |pod: &str, program: &str, arguments: Vec<String>| {
            let mut command = self.pod(pod).command(program);
            command.args(arguments);
            command
        };
        let mut wrk = self.wrk(25);
        wrk.args(["-c4", &format!("-d{ROUND_SECONDS}s"), &format!("http://{}/item", at("web"))]);
        let mut curl = words("--silent --output /dev/null --max-time 5 --rate 10/s --write-out");
        curl.extend(["%{http_code} %{time_total}\\n".to_owned(), format!("http://{}/name?[1-40]", at("web"))]);
        let mut h2load = words(&format!("-D {ROUND_SECONDS} -c 2 -m 2 --rps 25"));
        h2load.push(format!("http://{}:8081/item", at("api")));
        let redis =
            words(&format!("-h {} -c 2 -n {} --csv SET demo {}", at("redis"), load::REDIS_ROUND, self.markers[3]));
        let mail = vec![self.script("mail.py"), "call".into(), at("mail"), "2525".into(), ROUND_SECONDS.into()];
        let mut loads = vec![
            Load::start("curl → web", client("curl-1", "curl", curl), load::read_curl, Duration::ZERO),
            Load::start("wrk → web", wrk, load::read_json, Duration::ZERO),
            Load::start("h2load → api", client("h2load-1", "h2load", h2load), load::read_h2load, Duration::ZERO),
            Load::start(
                "redis-benchmark → redis",
                client("redis-client-1", "redis-benchmark", redis),
                load::read_redis,
                REDIS_PAUSE,
            ),
            Load::start("mail client → mail", client("mail-client-1", &python, mail), load::read_json, Duration::ZERO),
        ];
        if self.machine.grpc {
            let target = format!("{}:50051", at("api"));
            let call =
                vec![self.script("echo.py"), "call".into(), target, ROUND_SECONDS.into(), self.markers[2].clone()];
            let command = client("grpc-client-1", &python, call);
            loads.insert(3, Load::start("gRPC client → api", command, load::read_json, Duration::ZERO));
        }
        self.loads = loads;
    }
}

/// The manifest of the namespace; this label is all that opting in takes.
pub(super) fn namespace(enabled: bool) -> String {
    let labels = if enabled { "\n  labels:\n    weir.mesh/enabled: \"true\"" } else { "" };
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}{labels}\n")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
