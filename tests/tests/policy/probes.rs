//! kubelet's probes where policy denies everyone. The node's own namespace plays kubelet: the kernel knows it by nothing else.
//!
//! Mutations tried: `is_from_node` true for everyone (forged probes pass), the kernel's hook without its comparison of namespaces (the same),
//! the path not compared (`/address` passes), `sk_lookup` without its look at direct probes (the application's TLS is not reached).

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use weir_tests::{authority, nginx, wait};

use crate::stage::{PATIENCE, Stage, curl, greeting};

const HTTP: &str = "ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /name, port: http}}, livenessProbe: {httpGet: {path: \"/?live\", port: 8080}}";
/// 20 times what a proxy waits before it dials for a server that may speak first (`limits::SILENCE`).
const SILENCE: Duration = Duration::from_millis(200);
const USER_AGENT: [&str; 2] = ["--user-agent", "kube-probe/1.34"];

/// What was declared passes from the node of the pod, over both families. Nothing else does, from there or elsewhere.
#[test]
fn declared_http_probes_pass_and_forged_ones_do_not() {
    let mut stage = Stage::start(HTTP);
    stage.set_policy("deny");
    let [kubelet, stranger] = [0, 1].map(|node| stage.mesh.fabric.node(node));
    let server = &stage.servers[0];
    let status = |from, path: &str| curl(from, &format!("http://{}:8080{path}", server.place.v4), &USER_AGENT).status;
    let status_v6 =
        |from, path: &str| curl(from, &format!("http://[{}]:8080{path}", server.place.v6), &USER_AGENT).status;
    assert_eq!((status(kubelet, "/name"), status_v6(kubelet, "/name")), (200, 200));
    // nginx answers this one with a 403 of its own.
    assert_eq!(curl(kubelet, &format!("http://{}:8080/?live", server.place.v4), &USER_AGENT).error, None);
    for path in ["/", "/address", "/name?more", "/name/", "//name", "/name/../address", "/?live&more"] {
        let found = curl(kubelet, &format!("http://{}:8080{path}", server.place.v4), &["--path-as-is"]).status;
        assert_eq!(found, 403, "{path} was not declared");
    }
    let post = curl(kubelet, &format!("http://{}:8080/name", server.place.v4), &["--request", "POST"]);
    assert_eq!(post.status, 403, "kubelet asks with GET");
    // The same request from elsewhere: another node, a pod beside it, one in the mesh, one on the other node's network.
    for (who, from) in [
        ("the other node", stranger),
        ("a plain pod", &stage.plain.place.netns),
        ("a meshed pod", &stage.client.place.netns),
    ] {
        assert_eq!((status(from, "/name"), status_v6(from, "/name")), (403, 403), "{who}");
    }
    // The port of HTTP/2 has no probe.
    assert_eq!(
        curl(kubelet, &format!("http://{}:8081/name", server.place.v4), &["--http2-prior-knowledge"]).status,
        403
    );
    let probes = stage.metric(0, "inbound_http_authz_allow_total", &["authz_name=\"probe\"", "srv_name=\"deny\""]);
    assert!((2.5..3.5).contains(&probes), "{probes}");
}

/// Someone with the very port numbers of a probe of a moment ago: what the kernel wrote down was for one connection of the node.
#[test]
fn the_four_numbers_of_a_probe_are_good_for_that_probe() {
    let mut stage = Stage::start(HTTP);
    stage.set_policy("deny");
    let server = &stage.servers[0];
    let url = format!("http://{}:8080/name", server.place.v4);
    for port in ["61001", "61002", "61003"] {
        let from_port = ["--local-port", port];
        assert_eq!(curl(stage.mesh.fabric.node(0), &url, &from_port).status, 200);
        assert_eq!(curl(stage.mesh.fabric.node(1), &url, &from_port).status, 403);
        assert_eq!(curl(&stage.plain.place.netns, &url, &from_port).status, 403);
    }
}

/// Without the kernel's word nobody is kubelet: what cannot be told is denied.
#[test]
fn a_node_that_cannot_know_denies() {
    let mut stage = Stage::start(HTTP);
    stage.set_policy("deny");
    let url = format!("http://{}:8080/name", stage.servers[0].place.v4);
    let kubelet = stage.mesh.fabric.node(0);
    assert_eq!(curl(kubelet, &url, &USER_AGENT).status, 200);
    let node = fs::metadata(kubelet.path()).unwrap().ino();
    fs::remove_file(format!("/sys/fs/bpf/weir-{node}/sock_ops")).unwrap();
    // The kernel detaches a moment later.
    wait::until("a denied probe", PATIENCE, || (curl(kubelet, &url, &USER_AGENT).status == 403).then_some(()));
}

/// A request that comes late finds the proxy waiting for it: nothing is decided before it is read.
#[test]
fn a_slow_probe_is_still_a_probe() {
    let mut stage = Stage::start(HTTP);
    stage.set_policy("deny");
    let at = SocketAddr::new(stage.servers[0].place.v4, 8080);
    let mut kept = crate::stage::Kept::open(stage.mesh.fabric.node(0), at);
    // The silence itself is what is tested: longer than that after which a server may have to speak first.
    wait::until_instant(Instant::now() + SILENCE);
    assert_eq!((kept.get("/name"), kept.get("/address"), kept.get("/name")), (200, 403, 200));
}

/// kubelet goes straight to the application where it asks only whether somebody answers: an open port opens, a closed one refuses,
/// TLS is the application's own. For everyone else these ports are denied like the others.
#[test]
fn connection_probes_meet_the_application_itself() {
    let ports = "readinessProbe: {tcpSocket: {port: 7025}}, livenessProbe: {tcpSocket: {port: 7026}}, startupProbe: {httpGet: {path: /, port: 8443, scheme: HTTPS}}";
    let mut stage = Stage::start(ports);
    stage.set_policy("deny");
    let folder = stage.mesh.path("tls");
    fs::create_dir_all(&folder).unwrap();
    authority::self_signed(&folder, "tls");
    let (key, certificate) = (folder.join("tls.key"), folder.join("tls.crt"));
    let servers = format!(
        "server {{ listen [::]:8443 ipv6only=off ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ return 200 \"tls\\n\"; }} }}\n",
        certificate.display(),
        key.display()
    );
    let logs = stage.mesh.path("logs");
    let tls = nginx::run(&stage.servers[0].place.netns, "tls", &servers, &folder, &logs);
    stage.keep(tls);
    let arguments = ["TCP6-LISTEN:7025,ipv6only=0,fork,reuseaddr", "SYSTEM:echo greeting; cat"];
    let greeter = stage.servers[0].daemon("greeter", "socat", &arguments, &logs);
    stage.keep(greeter);
    let (kubelet, stranger) = (stage.mesh.fabric.node(0), stage.mesh.fabric.node(1));
    let server = &stage.servers[0].place;
    let at = |port| SocketAddr::new(server.v4, port);
    wait::until("the application's greeting", PATIENCE, || greeting(kubelet, at(7025)));
    assert_eq!(greeting(kubelet, SocketAddr::new(server.v6, 7025)).as_deref(), Some("greeting\n"));
    let closed = kubelet.enter(|| TcpStream::connect_timeout(&at(7026), PATIENCE)).unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused, "the application does not listen there");
    assert_eq!(curl(kubelet, &format!("https://{}:8443/", server.v4), &["--insecure"]).status, 200);
    for (who, from) in [("the other node", stranger), ("a plain pod", &stage.plain.place.netns)] {
        assert_eq!(greeting(from, at(7025)), None, "{who}");
        assert_eq!(curl(from, &format!("https://{}:8443/", server.v4), &["--insecure"]).status, 0, "{who}");
    }
}

/// gRPC's health check, and no other call.
#[test]
fn grpc_probes_pass() {
    let mut stage = Stage::start("readinessProbe: {grpc: {port: 8081}}");
    stage.set_policy("deny");
    let ask = |node: usize, path: &str| {
        let url = format!("http://{}:8081{path}", stage.servers[0].place.v4);
        let grpc = ["--http2-prior-knowledge", "--header", "content-type: application/grpc", "--data", ""];
        let answer = curl(stage.mesh.fabric.node(node), &url, &grpc);
        (answer.status, answer.error.is_some())
    };
    let health = "/grpc.health.v1.Health/Check";
    // The application knows no such service and says so; what is denied, is so in gRPC's words.
    assert_eq!((ask(0, health), ask(1, health), ask(0, "/demo.Demo/Call")), ((404, false), (200, true), (200, true)));
}

/// Where the policy lets the node in, it is let in by the policy; mTLS clients are not affected by what is declared.
#[test]
fn other_policies_let_probes_through_as_well() {
    let mut stage = Stage::start(HTTP);
    let url = format!("http://{}:8080/name", stage.servers[0].place.v4);
    for (policy, authorization) in
        [("all-authenticated", "probe"), ("cluster-authenticated", "probe"), ("audit", "audit")]
    {
        stage.set_policy(policy);
        assert_eq!(curl(stage.mesh.fabric.node(0), &url, &USER_AGENT).status, 200, "{policy}");
        let labels = [format!("srv_name=\"{policy}\""), format!("authz_name=\"{authorization}\"")];
        let counted = stage.metric(0, "inbound_http_authz_allow_total", &[&labels[0], &labels[1]]);
        assert!(counted > 0.5, "{policy}");
    }
}

/// kubelet follows redirects to the pod itself: only it, and only to where the application sent it.
#[test]
fn redirects_of_probes_are_followed() {
    let mut stage = Stage::start("readinessProbe: {httpGet: {path: /old, port: 9090}}");
    stage.set_policy("deny");
    let folder = stage.mesh.path("redirects");
    let servers = format!(
        "server {{ listen [::]:9090 ipv6only=off; absolute_redirect off; location = /old {{ return 302 /new; }}\n\
         location = /new {{ return 307 http://{}:9091/other; }} location / {{ return 200; }} }}\n\
         server {{ listen [::]:9091 ipv6only=off; location / {{ return 200; }} }}\n",
        stage.servers[0].place.v4
    );
    let logs = stage.mesh.path("logs");
    let application = nginx::run(&stage.servers[0].place.netns, "redirects", &servers, &folder, &logs);
    stage.keep(application);
    let at = |path: &str| format!("http://{}{path}", stage.servers[0].place.v4);
    let (kubelet, stranger) = (stage.mesh.fabric.node(0), stage.mesh.fabric.node(1));
    assert_eq!(curl(kubelet, &at(":9090/new"), &[]).status, 403, "nobody was sent there yet");
    assert_eq!(curl(kubelet, &at(":9090/old"), &["--location", "--max-redirs", "10"]).status, 200);
    for (url, allowed) in [(":9090/new", 307), (":9091/other", 200), (":9091/another", 403), (":9090/other", 403)] {
        assert_eq!(curl(kubelet, &at(url), &[]).status, allowed, "{url}");
        assert_eq!(curl(stranger, &at(url), &[]).status, 403, "{url} from the other node");
    }
}
