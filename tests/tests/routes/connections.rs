//! TLSRoutes and TCPRoutes, from YAML to bytes.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use weir_tests::{
    daemon::Daemon,
    mesh::{NAMESPACE, ServiceOptions},
    netns::run,
    nginx, wait,
};

use crate::stage::{HTTP1, PATIENCE, Stage};

const TLS: u16 = 8443;

fn route(kind: &str, name: &str, parent: &str, port: u16, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: {parent}, port: {port}}}]\n{spec}\n---\n"
    )
}

/// Each answer's server, of requests on a connection of their own; empty for connections that were broken off.
fn shares(stage: &Stage, count: usize) -> BTreeMap<String, usize> {
    let url = format!("http://{}:{HTTP1}/[1-{count}]", stage.web);
    let more = ["--silent", "--header", "connection: close", "--write-out", "end=%{http_code}\n", &url];
    let said = stage.client.curl(&more).stdout;
    let mut shares = BTreeMap::new();
    for line in String::from_utf8_lossy(&said).lines() {
        let server = match line.split_once('=') {
            Some(("server", server)) => server,
            Some(("end", "000")) => "",
            _other => continue,
        };
        *shares.entry(server.to_owned()).or_insert(0) += 1;
    }
    shares
}

fn weights(backends: &[(&str, u32)]) -> String {
    let each: Vec<String> =
        backends.iter().map(|(name, weight)| format!("{{name: {name}, port: {HTTP1}, weight: {weight}}}")).collect();
    let rules = format!("  rules: [{{backendRefs: [{}]}}]", each.join(", "));
    route("TCPRoute", "shares", "web", HTTP1, &rules)
}

/// Whatever is spoken: an HTTPRoute of the port would stand instead.
#[test]
fn a_tcp_route_shares_connections() {
    let stage = Stage::start();
    stage.mesh.manifest("route", &weights(&[("v1", 3), ("v2", 1)]));
    let of_route = ["route_kind=\"TCPRoute\"", "route_name=\"shares\"", "parent_name=\"web\""];
    let opened = |stage: &Stage| stage.sum(0, "outbound_tcp_route_open_total", &of_route);
    wait::until("the route is in force", PATIENCE, || {
        shares(&stage, 1);
        (opened(&stage) > 0.5).then_some(())
    });
    let before = opened(&stage);
    let found = shares(&stage, 400);
    // Five standard deviations of a binomial distribution are 43.
    assert!((57..143).contains(&found["v2"]) && found["v1"] + found["v2"] == 400, "{found:?}");
    assert!((opened(&stage) - before - 400.0).abs() < 0.5, "each connection is counted");
    // A connection stays where it is.
    assert_eq!(stage.shares(50).len(), 1);
    stage.mesh.manifest("route", &weights(&[("v1", 0), ("v2", 1)]));
    wait::until("all goes to v2", PATIENCE, || (shares(&stage, 30).get("v2") == Some(&30)).then_some(()));
    // Who is none keeps its share, and breaks it off.
    stage.mesh.manifest("route", &weights(&[("v2", 1), ("missing", 1)]));
    wait::until("a share breaks off", PATIENCE, || shares(&stage, 20).contains_key("").then_some(()));
    // Counted afresh: what showed the change may have begun before it.
    let found = shares(&stage, 200);
    assert!((60..140).contains(&found["v2"]) && found[""] + found["v2"] == 200, "{found:?}");
    let broken: Vec<&str> = of_route.iter().copied().chain(["error=\"invalid_backend\""]).collect();
    assert!(stage.sum(0, "outbound_tcp_route_close_total", &broken) > 59.0);
    // Requests are decided about again as soon as there is an HTTPRoute.
    stage.route("  rules: [{backendRefs: [{name: v1, port: PORT}]}]");
    assert_eq!(shares(&stage, 20), BTreeMap::from([("v1".to_owned(), 20)]));
    let policy = stage.mesh.weir_json(&["policy", "svc/web", "--namespace", NAMESPACE]);
    assert!(policy.to_string().contains("an HTTPRoute of this namespace has port 8080"), "{policy}");
}

fn certificate(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=any", "-keyout"]).arg(folder.join("own.key")).arg("-out").arg(folder.join("own.pem"));
    run(&mut openssl);
}

/// A Service with TLS of the servers' own behind it, and one for each of them.
fn secured(stage: &mut Stage) -> (String, Vec<Daemon>) {
    let mut programs = Vec::new();
    for pod in &stage.servers {
        let folder = stage.mesh.path(&format!("tls-{}", pod.name));
        std::fs::create_dir_all(&folder).expect("a folder");
        certificate(&folder);
        let shown = folder.display();
        let servers = format!(
            "server {{ listen [::]:{TLS} ipv6only=off ssl; ssl_certificate {shown}/own.pem; ssl_certificate_key {shown}/own.key;\n\
             location / {{ return 200 \"{} $ssl_server_name\\n\"; }} }}",
            pod.name
        );
        let folder = folder.join("nginx");
        programs.push(nginx::run(&pod.place.netns, &pod.name, &servers, &folder, &stage.mesh.path("logs")));
    }
    for index in [0, 1] {
        let options = ServiceOptions::new(&format!("secure-{}", stage.servers[index].name), TLS, TLS);
        stage.mesh.service(&options, &[&stage.servers[index]]);
    }
    let address = stage.mesh.service(&ServiceOptions::new("secure", TLS, TLS), &[&stage.servers[0], &stage.servers[1]]);
    (address, programs)
}

/// The name stays the client's own, and so does the session: nothing of it is opened.
#[test]
fn a_tls_route_goes_by_the_name_that_is_asked_for() {
    let mut stage = Stage::start();
    let (address, _programs) = secured(&mut stage);
    let rules = |to: &str| format!("  rules: [{{backendRefs: [{{name: secure-{to}, port: {TLS}}}]}}]");
    let routes = [("one", "one.example", "v1"), ("any", "'*.two.example'", "v2"), ("below", "b.two.example", "v1")];
    let routes = routes.map(|(name, hostname, to)| {
        route("TLSRoute", name, "secure", TLS, &format!("  hostnames: [{hostname}]\n{}", rules(to)))
    });
    let ask = |stage: &Stage, name: &str| -> Output {
        let (resolve, url) = (format!("{name}:{TLS}:{address}"), format!("https://{name}:{TLS}/"));
        stage.client.curl(&["--silent", "--insecure", "--max-time", "10", "--resolve", &resolve, &url])
    };
    let said = |stage: &Stage, name: &str| String::from_utf8_lossy(&ask(stage, name).stdout).trim_end().to_owned();
    wait::until("both answer", PATIENCE, || {
        let found: Vec<String> = (0..8).map(|_| said(&stage, "x.example")).collect();
        ["v1 x.example", "v2 x.example"].iter().all(|one| found.iter().any(|said| said == one)).then_some(())
    });
    stage.mesh.manifest("routes", &routes.concat());
    wait::until("the routes are in force", PATIENCE, || said(&stage, "x.example").is_empty().then_some(()));
    for _ in 0..6 {
        assert_eq!(said(&stage, "one.example"), "v1 one.example");
        assert_eq!(said(&stage, "a.two.example"), "v2 a.two.example");
        assert_eq!(said(&stage, "b.two.example"), "v1 b.two.example");
        // A name that no route has, none at all, and what is no TLS.
        assert_ne!(ask(&stage, "two.example").status.code(), Some(0));
        let [bare, plain] = ["https", "http"].map(|scheme| format!("{scheme}://{address}:{TLS}/"));
        for url in [bare, plain] {
            let got = stage.client.curl(&["--silent", "--insecure", "--max-time", "10", &url]);
            assert!(got.status.code() != Some(0) && got.stdout.is_empty(), "{url}: {got:?}");
        }
    }
    let of_route = ["route_kind=\"TLSRoute\"", "route_name=\"any\"", "parent_port=\"8443\""];
    assert!((stage.sum(0, "outbound_tls_route_open_total", &of_route) - 6.0).abs() < 0.5);
    let ended: Vec<&str> = of_route.iter().copied().chain(["error=\"\""]).collect();
    wait::until("their ends are counted", PATIENCE, || {
        (stage.sum(0, "outbound_tls_route_close_total", &ended) > 5.5).then_some(())
    });
    stage.mesh.remove_manifest("routes");
    wait::until("the Service takes all names again", PATIENCE, || {
        (!said(&stage, "x.example").is_empty()).then_some(())
    });
}
