//! Who gets a request, from annotations to bytes: five servers that say their names, on both nodes, and a client on each.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Stdio},
};

use serde_json::Value;
use weir_tests::{
    daemon::Daemon,
    mesh::{Mesh, Pod, PodOptions, ServiceOptions, ServicePort},
    nginx, wait,
};

use crate::stage::{PATIENCE, owned};

const HTTP1: u16 = 9500;
const HTTP2: u16 = 9501;
/// Of no protocol that the mesh looks at.
const OPAQUE: u16 = 9502;
const SERVERS: usize = 5;
const KIND: &str = "weir.mesh/balancer";
const HASH: &str = "weir.mesh/balancer-hash";
const ZONE_OVERFLOW: &str = "weir.mesh/balancer-zone-overflow";
const SLOW_START: &str = "weir.mesh/balancer-slow-start";

struct Crowd {
    mesh: Mesh,
    /// One on each node.
    clients: [Pod; 2],
    servers: Vec<Pod>,
    _programs: Vec<Daemon>,
}

/// How often each server answered.
type Shares = BTreeMap<String, usize>;

impl Crowd {
    fn start() -> Crowd {
        let mut mesh = Mesh::start();
        let clients = [0, 1].map(|node| mesh.pod(&PodOptions::new("client", node)));
        let servers: Vec<Pod> = (0..SERVERS)
            .map(|at| mesh.pod(&PodOptions::new(&format!("crowd-{at}"), at % 2).named(&format!("s{at}"))))
            .collect();
        let programs = servers.iter().map(|pod| program(&mesh, pod)).collect();
        let all: Vec<&Pod> = clients.iter().chain(&servers).collect();
        mesh.wait_ready(&all);
        Crowd { mesh, clients, servers, _programs: programs }
    }

    /// A Service with these annotations over the first servers; its options and address.
    fn service(&mut self, name: &str, annotations: &[(&str, &str)], servers: usize) -> (ServiceOptions, String) {
        let port = |name, port, protocol| ServicePort { name, port, target: port, protocol };
        let mut options = ServiceOptions::new(name, HTTP1, HTTP1).port(port("http2", HTTP2, None));
        options = options.port(port("opaque", OPAQUE, Some("linkerd.io/opaque")));
        options.annotations = owned(annotations);
        let pods: Vec<&Pod> = self.servers[..servers].iter().collect();
        let address = self.mesh.service(&options, &pods);
        self.knows(0, &address, name, servers);
        (options, address)
    }

    /// Waits until a client's node knows so many endpoints of a Service.
    fn knows(&self, node: usize, address: &str, name: &str, count: usize) {
        let ready = [&format!("parent_name=\"{name}\"") as &str, "parent_port=\"9500\"", "endpoint_state=\"ready\""];
        wait::until(&format!("{name} has {count} endpoints"), PATIENCE, || {
            // A destination that nobody dialled is not known yet.
            self.ask(node, &format!("http://{address}:{HTTP1}/"), &[]);
            let text = self.mesh.admin(node, "/metrics");
            let own = text.lines().filter(|line| line.starts_with("outbound_http_balancer_endpoints{"));
            let mut own = own.filter(|line| ready.iter().all(|label| line.contains(label)));
            own.any(|line| line.ends_with(&format!(" {count}"))).then_some(())
        });
    }

    /// Says who is behind a Service now.
    fn behind(&self, (options, address): &(ServiceOptions, String), servers: &[usize]) {
        let pods: Vec<&Pod> = servers.iter().map(|at| &self.servers[*at]).collect();
        self.mesh.endpoints(options, address, &pods);
        self.knows(0, address, &options.name, servers.len());
    }

    /// The names of who answered.
    fn ask(&self, client: usize, url: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = vec!["--silent", "--max-time", "60"];
        arguments.extend(more);
        arguments.push(url);
        let said = self.clients[client].curl(&arguments).stdout;
        String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
    }

    fn shares(&self, address: &str, count: usize, more: &[&str]) -> Shares {
        let mut shares = Shares::new();
        for server in self.ask(0, &format!("http://{address}:{HTTP1}/?[1-{count}]"), more) {
            *shares.entry(server).or_default() += 1;
        }
        assert_eq!(shares.values().sum::<usize>(), count, "{shares:?}");
        shares
    }

    /// Who answers each of sixty users, each asked thrice in a row.
    fn owners(&self, client: usize, address: &str, header: impl Fn(usize) -> String) -> Vec<String> {
        let owner = |user: usize| {
            let answers = self.ask(client, &format!("http://{address}:{HTTP1}/?[1-3]"), &["-H", &header(user)]);
            assert!(answers.len() == 3 && answers.iter().all(|one| *one == answers[0]), "{user}: {answers:?}");
            answers[0].clone()
        };
        (0..60).map(owner).collect()
    }
}

/// nginx that says its name; with `/held` it takes half a minute for the body.
fn program(mesh: &Mesh, pod: &Pod) -> Daemon {
    let name = &pod.name;
    let body = format!(
        "location = /held {{ root {{FOLDER}}/files; limit_rate 8192; }} location / {{ return 200 \"{name}\\n\"; }}"
    );
    let listen = [HTTP1, OPAQUE].map(|port| format!("listen [::]:{port} ipv6only=off;")).concat();
    let servers =
        format!("server {{ {listen} {body} }}\nserver {{ listen [::]:{HTTP2} ipv6only=off http2; {body} }}\n");
    let folder = mesh.path(&format!("nginx-{name}"));
    let daemon = nginx::run(&pod.place.netns, name, &servers, &folder, &mesh.path("logs"));
    std::fs::write(folder.join("files/held"), vec![b'x'; 30 * 8192]).expect("a file");
    daemon
}

fn is_even(shares: &Shares, servers: usize) -> bool {
    let (fewest, most) = (shares.values().min(), shares.values().max());
    shares.len() == servers && most.zip(fewest).is_some_and(|(most, fewest)| most - fewest <= 1)
}

/// Exact over requests one after the other and over many at a time, whichever worker has them; over one connection and over one for each; and
/// again when a server goes.
#[test]
fn round_robin_is_exact() {
    let mut crowd = Crowd::start();
    let service = crowd.service("turns", &[(KIND, "round-robin")], SERVERS);
    for more in [&[][..], &["-H", "connection: close"], &["--parallel", "--parallel-max", "20"]] {
        let shares = crowd.shares(&service.1, 302, more);
        assert!(is_even(&shares, SERVERS), "{more:?}: {shares:?}");
    }
    crowd.behind(&service, &[0, 2, 4]);
    let shares = crowd.shares(&service.1, 100, &[]);
    assert!(is_even(&shares, 3) && !shares.contains_key("s1"), "{shares:?}");
    let mut connections = Shares::new();
    // Each answer ends its connection.
    for _ in 0..30 {
        let said = crowd.ask(0, &format!("http://{}:{OPAQUE}/", service.1), &["-H", "connection: close"]);
        *connections.entry(said.concat()).or_default() += 1;
    }
    assert!(is_even(&connections, 3), "opaque: {connections:?}");
}

/// One user, one server: from both nodes and over both versions of HTTP. With a server gone its users move and nobody else; with it back they do,
/// too.
#[test]
fn a_hash_of_a_header_moves_only_what_it_must() {
    let mut crowd = Crowd::start();
    let service = crowd.service("users", &[(KIND, "consistent-hash"), (HASH, "header:X-User")], SERVERS);
    let user = |user: usize| format!("x-user: user-{user}");
    let before = crowd.owners(0, &service.1, user);
    let servers: std::collections::BTreeSet<&String> = before.iter().collect();
    assert_eq!(servers.len(), SERVERS, "{before:?}");
    assert_eq!(crowd.owners(1, &service.1, user), before, "from the other node");
    let http2 = format!("http://{}:{HTTP2}/", service.1);
    let over_http2 = crowd.ask(0, &http2, &["--http2-prior-knowledge", "-H", "X-User: user-7"]);
    assert_eq!(over_http2, [before[7].clone()]);
    crowd.behind(&service, &[0, 1, 3, 4]);
    let meanwhile = crowd.owners(0, &service.1, user);
    let mut moved = 0;
    for (one, other) in before.iter().zip(&meanwhile) {
        assert!(one == other || one == "s2", "{before:?} {meanwhile:?}");
        moved += usize::from(one != other);
    }
    assert_eq!(moved, before.iter().filter(|owner| *owner == "s2").count());
    crowd.behind(&service, &[0, 1, 2, 3, 4]);
    assert_eq!(crowd.owners(0, &service.1, user), before);
    // Without the header: as by default, where one slow answer keeps a server from having any.
    let shares = crowd.shares(&service.1, 200, &[]);
    assert!(shares.len() > 1, "{shares:?}");
}

/// What a route sends to another Service is balanced as that one asks for, by the header as the rule leaves it.
#[test]
fn a_backends_own_balancer_decides() {
    let mut crowd = Crowd::start();
    let (_options, front) = crowd.service("front", &[(KIND, "round-robin")], SERVERS);
    crowd.service("users", &[(KIND, "consistent-hash"), (HASH, "header:x-user")], SERVERS);
    let rule = |path: &str, set: &str| {
        format!("  - {{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: users, port: {HTTP1}}}]{set}}}\n")
    };
    let set = ", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-user, value: all}]}}]";
    crowd.mesh.manifest(
        "route-front",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: front, namespace: demo}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: front}}]\n  rules:\n{}{}",
            rule("/own", ""),
            rule("/all", set)
        ),
    );
    let of = |path: &str, user: usize| {
        let url = format!("http://{front}:{HTTP1}{path}?[1-6]");
        let mut said = crowd.ask(0, &url, &["-H", &format!("x-user: user-{user}")]);
        said.sort();
        said.dedup();
        said
    };
    wait::until("the route is in force", PATIENCE, || (of("/own", 0).len() == 1).then_some(()));
    let own: Vec<Vec<String>> = (0..20).map(|user| of("/own", user)).collect();
    assert!(own.iter().all(|servers| servers.len() == 1) && own.iter().any(|servers| *servers != own[0]), "{own:?}");
    let all: Vec<Vec<String>> = (0..20).map(|user| of("/all", user)).collect();
    assert!(all.iter().all(|servers| servers.len() == 1 && *servers == all[0]), "{all:?}");
}

#[test]
fn a_hash_of_a_cookie_keeps_a_session() {
    let mut crowd = Crowd::start();
    let (_options, address) = crowd.service("carts", &[(KIND, "consistent-hash"), (HASH, "cookie:Cart")], SERVERS);
    let owners = crowd.owners(0, &address, |user| format!("cookie: other={}; Cart={user}; cart=9", 100 - user));
    assert_eq!(crowd.owners(0, &address, |user| format!("cookie: Cart={user}")), owners, "whatever else is said");
    let servers: std::collections::BTreeSet<&String> = owners.iter().collect();
    assert_eq!(servers.len(), SERVERS, "{owners:?}");
    let shares = crowd.shares(&address, 200, &["-H", "cookie: cart=1"]);
    assert!(shares.len() > 1, "another cookie: {shares:?}");
}

/// A client pod stays with its server, with HTTP and with what is none.
#[test]
fn a_hash_of_the_source_keeps_a_client() {
    let mut crowd = Crowd::start();
    let (_options, address) = crowd.service("homes", &[(KIND, "consistent-hash"), (HASH, "source")], SERVERS);
    let more: Vec<Pod> = (0..6).map(|at| crowd.mesh.pod(&PodOptions::new(&format!("guest-{at}"), at % 2))).collect();
    crowd.mesh.wait_ready(&more.iter().collect::<Vec<_>>());
    let mut homes = std::collections::BTreeSet::new();
    for client in &more {
        let mut said = String::new();
        for port in [HTTP1, HTTP1, OPAQUE, OPAQUE] {
            let url = format!("http://{address}:{port}/?[1-5]");
            said += &String::from_utf8_lossy(&client.curl(&["-H", "connection: close", &url]).stdout);
        }
        let answers: Vec<&str> = said.lines().collect();
        assert!(answers.len() == 20 && answers.iter().all(|one| *one == answers[0]), "{}: {answers:?}", client.name);
        homes.insert(answers[0].to_owned());
    }
    assert!(homes.len() > 1, "{homes:?}");
}

/// A request that has its answer's head and waits for the body.
fn hold(crowd: &Crowd, address: &str, port: u16) -> Child {
    let mut curl = crowd.clients[0].command("curl");
    let url = format!("http://{address}:{port}/held");
    curl.args(["--silent", "--include", "--no-buffer", "--max-time", "60", &url]).stdout(Stdio::piped());
    let mut curl = curl.spawn().expect("curl");
    let mut first = [0; 8];
    curl.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a head");
    curl
}

fn let_go(held: &mut [Child]) {
    for curl in held {
        // It may have ended meanwhile.
        let _ended = curl.kill();
        let _status = curl.wait();
    }
}

/// Of two servers one is busy with an answer: all others go to the other one, by count of requests whatever they take. Random cares for nothing.
#[test]
fn least_request_looks_at_what_is_open_and_random_at_nothing() {
    let mut crowd = Crowd::start();
    let (_options, least) = crowd.service("least", &[(KIND, "least-request")], 2);
    let (_options, random) = crowd.service("random", &[(KIND, "random")], 2);
    let idle = crowd.shares(&least, 200, &[]);
    assert!(idle.len() == 2 && idle.values().all(|count| *count > 50), "none is open: {idle:?}");
    let mut held = [hold(&crowd, &least, HTTP1), hold(&crowd, &random, HTTP1), hold(&crowd, &least, OPAQUE)];
    // Twenty in a row at one of two by chance: once in half a million.
    wait::until("one is busy", PATIENCE, || (crowd.shares(&least, 20, &[]).len() == 1).then_some(()));
    wait::until("one has a connection", PATIENCE, || {
        let close = ["-H", "connection: close"];
        let mut said = crowd.ask(0, &format!("http://{least}:{OPAQUE}/?[1-20]"), &close);
        said.sort();
        said.dedup();
        (said.len() == 1).then_some(())
    });
    let shares = crowd.shares(&random, 200, &[]);
    assert!(shares.len() == 2 && shares.values().all(|count| *count > 50), "{shares:?}");
    let_go(&mut held);
}

/// One more server comes: where it has an hour it gets a tenth of a share, where it has a moment a whole one soon. All of a new Service are equal
/// at once.
#[test]
fn a_new_server_starts_slowly() {
    let mut crowd = Crowd::start();
    let slow = crowd.service("slow", &[(KIND, "round-robin"), (SLOW_START, "1h")], 4);
    let quick = crowd.service("quick", &[(KIND, "round-robin"), (SLOW_START, "2s")], 4);
    for (_options, address) in [&slow, &quick] {
        let shares = crowd.shares(address, 100, &[]);
        assert!(is_even(&shares, 4), "a Service that is new: {shares:?}");
    }
    for service in [&slow, &quick] {
        crowd.behind(service, &[0, 1, 2, 3, 4]);
    }
    let shares = crowd.shares(&slow.1, 1000, &[]);
    let of_new = shares.get("s4").copied().unwrap_or_default();
    // On average 24 of 1000; a whole share were 200.
    assert!((3..70).contains(&of_new), "{shares:?}");
    let others: Vec<usize> = (0..4).map(|at| shares[&format!("s{at}")]).collect();
    assert!(others.iter().all(|count| (220..270).contains(count)), "nobody carries more of it than others: {shares:?}");
    wait::until("the new one has its share", PATIENCE, || is_even(&crowd.shares(&quick.1, 100, &[]), 5).then_some(()));
}

/// What is not understood is the default, and `weir policy` says so; what is, with its source.
#[test]
fn what_is_not_understood_is_said_and_is_the_default() {
    let mut crowd = Crowd::start();
    let (_options, address) = crowd.service("wrong", &[(KIND, "fastest"), (SLOW_START, "2d")], 3);
    assert!(crowd.shares(&address, 60, &[]).len() > 1);
    crowd.service("right", &[(KIND, "consistent-hash"), (HASH, "cookie:Cart")], 3);
    let of = |name: &str| crowd.mesh.weir_json(&["policy", &format!("svc/{name}:{HTTP1}"), "-n", "demo"]);
    let setting = |policy: &Value, name: &str| -> Value {
        let settings = policy["settings"].as_array().cloned().unwrap_or_default();
        settings.into_iter().find(|setting| setting["name"] == name).unwrap_or_default()
    };
    let wrong = of("wrong");
    assert_eq!(setting(&wrong, "balancer.kind")["value"], "peak-ewma");
    assert_eq!(setting(&wrong, "balancer.kind")["source"], Value::Null);
    let flaws = wrong["flaws"].to_string();
    assert!([KIND, SLOW_START].iter().all(|key| flaws.contains(&format!("metadata.annotations.{key}"))), "{flaws}");
    let right = of("right");
    let hash = setting(&right, "balancer.hash");
    assert_eq!(setting(&right, "balancer.kind")["value"], "consistent-hash");
    assert_eq!(
        (&hash["value"], &hash["source"]["field"]),
        (&"cookie:Cart".into(), &format!("metadata.annotations.{HASH}").into())
    );
}

/// `internalTrafficPolicy: Local`: clients get the servers of their own node and no others.
#[test]
fn a_local_service_is_served_by_the_clients_node() {
    let mut crowd = Crowd::start();
    let mut options = ServiceOptions::new("near", HTTP1, HTTP1);
    options.local_only = true;
    let pods: Vec<&Pod> = crowd.servers.iter().collect();
    let address = crowd.mesh.service(&options, &pods);
    for (client, expected) in [(0, &["s0", "s2", "s4"][..]), (1, &["s1", "s3"])] {
        let url = format!("http://{address}:{HTTP1}/?[1-100]");
        wait::until("all of the node's servers answer, and nobody else", PATIENCE, || {
            let mut who = crowd.ask(client, &url, &[]);
            who.sort();
            who.dedup();
            (who == expected).then_some(())
        });
    }
}

/// `hints.forZones`, as Kubernetes writes them for `trafficDistribution`: clients stay in their zone while somebody there is ready. Seen to fail
/// before they were read.
#[test]
fn clients_stay_in_their_zone_while_somebody_there_is_ready() {
    let mut crowd = Crowd::start();
    let mut options = ServiceOptions::new("zoned", HTTP1, HTTP1);
    options.zones = vec!["a", "b"];
    let pods: Vec<&Pod> = crowd.servers.iter().collect();
    let address = crowd.mesh.service(&options, &pods);
    let url = format!("http://{address}:{HTTP1}/?[1-100]");
    let answer = |crowd: &Crowd, client: usize, expected: &[&str]| {
        wait::until("all of the zone's servers answer, and nobody else", PATIENCE, || {
            let mut who = crowd.ask(client, &url, &[]);
            who.sort();
            who.dedup();
            (who == expected).then_some(())
        });
    };
    answer(&crowd, 0, &["s0", "s2", "s4"]);
    answer(&crowd, 1, &["s1", "s3"]);
    for server in [1, 3] {
        crowd.servers[server].ready = false;
    }
    let pods: Vec<&Pod> = crowd.servers.iter().collect();
    crowd.mesh.endpoints(&options, &address, &pods);
    answer(&crowd, 1, &["s0", "s2", "s4"]);
    answer(&crowd, 0, &["s0", "s2", "s4"]);
}

/// Two open requests at each server of the zone, then others help, as long as that is so; whatever hints say. Connections that are not looked into
/// count as well. Seen to fail with hints that are followed nevertheless: nobody helps.
#[test]
fn requests_leave_their_zone_when_it_has_enough_to_do() {
    let mut crowd = Crowd::start();
    let port = |name, port, protocol| ServicePort { name, port, target: port, protocol };
    let mut options = ServiceOptions::new("kept", HTTP1, HTTP1).port(port("opaque", OPAQUE, Some("linkerd.io/opaque")));
    options.annotations = owned(&[(KIND, "least-request"), (ZONE_OVERFLOW, "2")]);
    options.zones = vec!["a", "b"];
    // Two in each zone: each choice looks at both.
    let pods: Vec<&Pod> = crowd.servers[..4].iter().collect();
    let address = crowd.mesh.service(&options, &pods);
    for (port, more) in [(HTTP1, &[][..]), (OPAQUE, &["-H", "connection: close"][..])] {
        let url = format!("http://{address}:{port}/?[1-50]");
        let who = |client: usize| {
            let mut who = crowd.ask(client, &url, more);
            who.sort();
            who.dedup();
            who
        };
        let answer = |client: usize, expected: &[&str]| {
            wait::until(&format!("port {port} is answered by {expected:?} alone"), PATIENCE, || {
                (who(client) == expected).then_some(())
            });
        };
        answer(0, &["s0", "s2"]);
        answer(1, &["s1", "s3"]);
        // Again, should one of the last look's requests have counted yet when a held one was sent: two and two it has to be.
        wait::until(&format!("port {port}: the zone is full, and left"), PATIENCE, || {
            let mut held: Vec<Child> = (0..4).map(|_| hold(&crowd, &address, port)).collect();
            let who = who(0);
            let_go(&mut held);
            (who == ["s1", "s3"]).then_some(())
        });
        answer(0, &["s0", "s2"]);
    }
    let policy = crowd.mesh.weir_json(&["policy", "svc/kept", "--namespace", "demo"]);
    assert!(policy.to_string().contains("balancer.zoneOverflow"), "{policy}");
}
