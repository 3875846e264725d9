//! The hot paths: what a client in a pod does over one connection, again and again. Must never send an exchange that differs from
//! the one before, nor one before the answer to the last.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use weir_tests::{
    attack,
    daemon::Daemon,
    mesh::{HttpRules, Mesh, NAMESPACE, PATIENCE, Pod, PodOptions, ServiceOptions},
    nginx, wait,
};

use crate::http2;

/// One exchange, its answer checked.
pub(crate) type Exchange = Box<dyn FnMut() + Send>;

const HTTP1_PORT: u16 = 8080;
const GRPC_PORT: u16 = 50051;
const OPAQUE_PORT: u16 = 6379;

/// Over two nodes by a route of one rule.
pub(crate) const ONE_RULE: &str = "http1-one-rule";
/// The same with a rule that would be ready to retry.
pub(crate) const READY_TO_RETRY: &str = "http1-ready-to-retry";
/// By the last of 10,000 rules, beside 100 regular expressions.
pub(crate) const MANY_RULES: &str = "http1-10000-rules";
/// Services of the far server with routes, and what these have.
const RULED: [(HttpRules<'_>, &str); 3] = [
    (RULE, "/0"),
    (HttpRules { service: "retry", more: "    retry: {codes: [500, 502, 503], attempts: 2}\n", ..RULE }, "/0"),
    // A prefix comes after whole paths and regular expressions.
    (HttpRules { service: "many", rules: 10_000, patterns: 100, ..RULE }, "/9998"),
];
const RULE: HttpRules<'_> = HttpRules { service: "rule", port: HTTP1_PORT, rules: 1, patterns: 0, more: "" };

/// A client on node 1, servers on both nodes, and a service over each.
pub(crate) struct Stage {
    client: Pod,
    // A pod's namespace ends with it.
    _servers: [Pod; 2],
    near: SocketAddr,
    far: SocketAddr,
    ruled: [SocketAddr; 3],
    grpc: SocketAddr,
    opaque: SocketAddr,
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
        let mut running: Vec<Daemon> =
            [&near, &far].map(|pod| nginx::start(pod, &mesh.path(&format!("nginx-{}", pod.name)), &logs)).into();
        let words = ["--port", &OPAQUE_PORT.to_string(), "--protected-mode", "no", "--save", ""];
        let mut redis = far.daemon("redis", "redis-server", &words, &logs);
        redis.wait_for("Ready to accept", PATIENCE);
        running.push(redis);
        far.place.netns.enter(|| http2::serve(GRPC_PORT));
        let mut service = |name: &str, port: u16, pod: &Pod| -> SocketAddr {
            format!("{}:{port}", mesh.service(&ServiceOptions::new(name, port, port), &[pod])).parse().unwrap()
        };
        let near_address = service("near", HTTP1_PORT, &near);
        let far_address = service("far", HTTP1_PORT, &far);
        let ruled = RULED.map(|(rules, _path)| service(rules.service, HTTP1_PORT, &far));
        let (grpc, opaque) = (service("grpc", GRPC_PORT, &far), service("redis", OPAQUE_PORT, &far));
        for (rules, _path) in RULED {
            mesh.manifest(&format!("routes-{}", rules.service), &rules.manifest().0);
        }
        mesh.wait_ready(&[&client, &near, &far]);
        Stage {
            client,
            _servers: [near, far],
            near: near_address,
            far: far_address,
            ruled,
            grpc,
            opaque,
            _running: running,
            mesh,
        }
    }

    /// Waits until the proxies, started anew, serve every service.
    pub(crate) fn wait_served(&self) {
        for address in [self.near, self.far] {
            let url = format!("http://{address}/name");
            wait::until(&url, PATIENCE, || self.client.curl(&["--fail", &url]).status.success().then_some(()));
        }
        for ((rules, path), address) in RULED.into_iter().zip(self.ruled) {
            let url = format!("http://{address}{path}/name");
            let routes = format!("HTTPRoute {NAMESPACE}/{}-", rules.service);
            wait::until(&url, PATIENCE, || {
                // A destination that nobody dialled is not known yet.
                self.client.curl(&["--silent", &url]);
                (self.mesh.admin(0, "/config").matches(&routes).count() == rules.manifest().1).then_some(())
            });
        }
        http2::call(self.connect(self.grpc))();
        opaque(self.connect(self.opaque))();
        // A node writes everything that it knows down after each change, also of what is dialled: 10,000 rules cost as much as 1,000 exchanges.
        let state = self.mesh.path(&Mesh::node_name(0)).join("proxy/state.bin");
        wait::until("the last destination on disk", PATIENCE, || {
            let (state, address) = (fs::read(&state).unwrap_or_default(), self.opaque.to_string());
            state.windows(address.len()).any(|part| part == address.as_bytes()).then_some(())
        });
    }

    /// Fails when node 2's proxy took anything in clear, or not all of what it should have.
    pub(crate) fn assert_encrypted(&self) {
        let metrics = self.mesh.admin(1, "/metrics");
        let accepted = |line: &&str| {
            line.starts_with("tcp_open_total{")
                && ["direction=\"inbound\"", "peer=\"src\""].iter().all(|label| line.contains(label))
        };
        let lines: Vec<&str> = metrics.lines().filter(accepted).collect();
        assert!(lines.iter().all(|line| line.contains("tls=\"true\"")), "{lines:#?}");
        for port in [HTTP1_PORT, GRPC_PORT, OPAQUE_PORT] {
            let label = format!("target_port=\"{port}\"");
            assert!(lines.iter().any(|line| line.contains(&label)), "nothing to port {port} in {lines:#?}");
        }
    }

    fn connect(&self, address: SocketAddr) -> TcpStream {
        let stream = self.client.place.netns.enter(|| attack::connect(address).unwrap());
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Each opens its connection when it is asked for.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&'static str, Exchange)> {
        let names = [
            "http1-two-nodes",
            "http1-one-node",
            "http2-two-nodes",
            "opaque-two-nodes",
            ONE_RULE,
            READY_TO_RETRY,
            MANY_RULES,
        ];
        let ruled = |at: usize| http1(self.connect(self.ruled[at]), RULED[at].1, "web-2");
        names.into_iter().map(move |name| {
            let path = match name {
                "http1-two-nodes" => http1(self.connect(self.far), "", "web-2"),
                "http1-one-node" => http1(self.connect(self.near), "", "web-1"),
                ONE_RULE => ruled(0),
                READY_TO_RETRY => ruled(1),
                MANY_RULES => ruled(2),
                "http2-two-nodes" => http2::call(self.connect(self.grpc)),
                _opaque => opaque(self.connect(self.opaque)),
            };
            (name, path)
        })
    }
}

/// Of `/name` below a path.
fn http1(mut stream: TcpStream, below: &str, server: &str) -> Exchange {
    let request = format!("GET {below}/name HTTP/1.1\r\nhost: web.demo\r\nuser-agent: weir\r\naccept: */*\r\n\r\n");
    let body = format!("\r\n\r\n{server}\n").into_bytes();
    Box::new(move || {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let mut have = 0;
        while !answer[..have].ends_with(&body) {
            let read = stream.read(&mut answer[have..]).unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..have]));
            have += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..have]));
    })
}

/// 64 bytes there, 50 back.
fn opaque(mut stream: TcpStream) -> Exchange {
    let payload = format!("$43\r\n{}\r\n", "x".repeat(43));
    let request = format!("*2\r\n$4\r\nECHO\r\n{payload}");
    assert_eq!(request.len(), 64);
    Box::new(move || {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; payload.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, payload.as_bytes());
    })
}
