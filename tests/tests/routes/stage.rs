//! A Service with two versions behind it, one on the client's node and one on the other, and a Service for each of them. Must never take
//! an answer for another one's.

use std::{collections::BTreeMap, fs, time::Duration};

use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, NAMESPACE, Pod, PodOptions, ServiceOptions, ServicePort},
    nginx, wait,
};

/// Longer than one slow answer keeps the balancer away from an endpoint: its average falls by e in ten seconds, and an answer on a machine that is
/// busy takes hundreds of times as long as others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Both servers are asked whatever one answer took: by default one slow answer on a busy machine keeps its server from having any for a minute. The
/// default has tests of its own, in `balancers`.
pub(crate) const TURNS: (&str, &str) = ("weir.mesh/balancer", "round-robin");
/// HTTP/1; of all three Services.
pub(crate) const HTTP1: u16 = 8080;
/// HTTP/2 in clear.
pub(crate) const HTTP2: u16 = 8081;

/// Of the answer to `/slow`.
pub(crate) const SLOW_BYTES: usize = 64 * 1024;

/// The stage.
pub(crate) struct Stage {
    pub(crate) client: Pod,
    /// `v1` on the other node, `v2` on the client's.
    pub(crate) servers: [Pod; 2],
    /// ClusterIP of `web`, which both are behind.
    pub(crate) web: String,
    addresses: [String; 2],
    _programs: Vec<Daemon>,
    pub(crate) mesh: Mesh,
}

/// What a client got.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    /// What the server says that it was asked: `server`, `uri`, `host`, `method`, `added`, `set`, `removed`,
    /// `timeout`, `weir`, `asked` (of `l5d-timeout`).
    pub(crate) asked: BTreeMap<String, String>,
}

impl Answer {
    /// Who answered; empty for the proxy.
    pub(crate) fn server(&self) -> &str {
        self.asked.get("server").map_or("", String::as_str)
    }

    /// `404`, or the name of who answered.
    pub(crate) fn who(&self) -> String {
        if self.status == 200 { self.server().to_owned() } else { self.status.to_string() }
    }
}

impl Stage {
    /// Brings it up.
    pub(crate) fn start() -> Stage {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let servers = [("v1", 1), ("v2", 0)].map(|(name, node)| mesh.pod(&PodOptions::new(name, node).named(name)));
        let options = |name: &str| {
            let mut options = ServiceOptions::new(name, HTTP1, HTTP1).port(http2());
            options.annotations = owned(&[TURNS]);
            options
        };
        let web = mesh.service(&options("web"), &[&servers[0], &servers[1]]);
        let addresses = [0, 1].map(|index| mesh.service(&options(&servers[index].name), &[&servers[index]]));
        let programs = servers.iter().map(|pod| program(&mesh, pod)).collect();
        mesh.wait_ready(&[&client, &servers[0], &servers[1]]);
        Stage { client, servers, web, addresses, _programs: programs, mesh }
    }

    /// A route of `web`, in force at the client's node.
    pub(crate) fn route(&self, spec: &str) {
        self.write_route("main", NAMESPACE, spec);
        self.knows(&format!("{NAMESPACE}/main"));
    }

    /// Waits until the client's node knows a route, on both ports.
    pub(crate) fn knows(&self, route: &str) {
        wait::until(&format!("{route} is in force"), PATIENCE, || {
            // A destination that nobody dialled is not known yet.
            self.get("/", &[]);
            self.get_http2("/", &[]);
            (self.mesh.admin(0, "/config").matches(&format!("\"HTTPRoute {route}-")).count() == 2).then_some(())
        });
    }

    /// Writes an HTTPRoute for each port of `web`: `PORT` in `spec` is the port's number.
    pub(crate) fn write_route(&self, name: &str, namespace: &str, spec: &str) {
        let each = [HTTP1, HTTP2].map(|port| {
            let spec = spec.replace("PORT", &port.to_string());
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}-{port}, namespace: {namespace}}}\n\
                 spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, namespace: {NAMESPACE}, port: {port}}}]\n{spec}\n"
            )
        });
        self.mesh.manifest(&format!("route-{namespace}-{name}"), &each.join("---\n"));
    }

    /// A request to `web`.
    pub(crate) fn get(&self, path: &str, more: &[&str]) -> Answer {
        ask(&self.client, &format!("http://{}:{HTTP1}{path}", self.web), more)
    }

    /// The same over HTTP/2.
    pub(crate) fn get_http2(&self, path: &str, more: &[&str]) -> Answer {
        let more: Vec<&str> = more.iter().copied().chain(["--http2-prior-knowledge"]).collect();
        ask(&self.client, &format!("http://{}:{HTTP2}{path}", self.web), &more)
    }

    /// How often each server answers `count` requests, on kept connections.
    pub(crate) fn shares(&self, count: usize) -> BTreeMap<String, usize> {
        let url = format!("http://{}:{HTTP1}/[1-{count}]", self.web);
        let said = self.client.curl(&["--silent", "--max-time", "60", &url]).stdout;
        let mut shares = BTreeMap::new();
        for line in String::from_utf8_lossy(&said).lines() {
            if let Some(server) = line.strip_prefix("server=") {
                *shares.entry(server.to_owned()).or_insert(0) += 1;
            }
        }
        shares
    }

    /// All samples of a family at a node that have these labels, together.
    pub(crate) fn sum(&self, node: usize, family: &str, labels: &[&str]) -> f64 {
        let text = self.mesh.admin(node, "/metrics");
        let own = text.lines().filter(|line| line.split_once('{').is_some_and(|(name, _)| name == family));
        let own = own.filter(|line| labels.iter().all(|label| line.contains(label)));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A service's ClusterIP by the number of its server.
    pub(crate) fn address(&self, server: usize) -> &str {
        &self.addresses[server]
    }
}

/// nginx that says what it was asked.
fn program(mesh: &Mesh, pod: &Pod) -> Daemon {
    let said = "server=$server_name\\nuri=$request_uri\\nhost=$host\\nmethod=$request_method\\nadded=$http_x_added\\nset=$http_x_set\\ntimeout=$http_grpc_timeout\\nweir=$http_weir_timeout\\nasked=$http_l5d_timeout\\nremoved=$http_x_removed\\n";
    let name = &pod.name;
    // Refused after three seconds; and eight seconds for one answer.
    let late = "location /late { auth_delay 3s; auth_basic late; auth_basic_user_file /dev/null; }";
    let slow = format!("location = /slow {{ root {{FOLDER}}/files; limit_rate {}; }}", SLOW_BYTES / 8);
    let fails = "location /down { return 503; } location /gateway { return 504; }";
    let (flaky, code) = if name == "v2" {
        (
            "location /flaky { return 503; } location /tardy { auth_delay 3s; auth_basic late; auth_basic_user_file /dev/null; }",
            14,
        )
    } else {
        ("", 0)
    };
    let call =
        format!("location /call {{ default_type application/grpc; add_header grpc-status {code}; return 200; }}");
    let body = format!(
        "add_header x-own mine; add_header x-secret hidden; {late} {slow} {fails} {flaky} {call} location / {{ return 200 \"{said}\"; }}"
    );
    let servers = format!(
        "server {{ listen [::]:{HTTP1} ipv6only=off; server_name {name}; {body} }}\n\
         server {{ listen [::]:{HTTP2} ipv6only=off http2; server_name {name}; {body} }}\n"
    );
    let folder = mesh.path(&format!("nginx-{name}"));
    let daemon = nginx::run(&pod.place.netns, name, &servers, &folder, &mesh.path("logs"));
    fs::write(folder.join("files/slow"), vec![b'x'; SLOW_BYTES]).expect("a file");
    daemon
}

/// One request with curl out of a pod.
pub(crate) fn ask(client: &Pod, url: &str, more: &[&str]) -> Answer {
    let mut arguments = vec!["--silent", "--max-time", "10", "--include"];
    arguments.extend(more);
    arguments.push(url);
    let said = client.curl(&arguments).stdout;
    let text = String::from_utf8_lossy(&said);
    // Before a large body.
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
    let pair = |line: &str, sign: char| {
        line.split_once(sign).map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.filter_map(|line| pair(line, ':')).collect();
    Answer { status, headers, asked: body.lines().filter_map(|line| pair(line, '=')).collect() }
}

pub(crate) fn owned(annotations: &[(&str, &str)]) -> Vec<(String, String)> {
    annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn http2() -> ServicePort {
    ServicePort { name: "http2", port: HTTP2, target: HTTP2, protocol: None }
}

/// A Service with both servers behind it, which take turns unless `annotations` says otherwise.
pub(crate) fn service(stage: &mut Stage, name: &str, annotations: &[(&str, &str)]) -> String {
    let mut options = ServiceOptions::new(name, HTTP1, HTTP1).port(http2());
    options.annotations = owned(annotations);
    if annotations.iter().all(|(key, _value)| *key != TURNS.0) {
        options.annotations.extend(owned(&[TURNS]));
    }
    stage.mesh.service(&options, &[&stage.servers[0], &stage.servers[1]])
}
