//! Envoy and HAProxy as applications: a client's own proxy before the mesh, a server's own proxy behind it.

use weir_tests::python;

use crate::stage::{HTTP1, HTTP2, OTHER, RAW, Server, Stage};

/// What curl gets over a proxy in the client's pod: HTTP/1 and HTTP/2, body and reason phrases of nginx.
fn through(stage: &Stage, port: u16, server: &Server) {
    let url = format!("http://127.0.0.1:{port}");
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let got = stage.client.curl(&[flag, "-w", "%{http_version} %{http_code}", &format!("{url}/name")]);
        let wanted = format!("{}\n{version} 200", server.pod.name);
        assert_eq!(String::from_utf8_lossy(&got.stdout), wanted, "{} {flag} by port {port}: {got:?}", server.way);
    }
    let said = stage.client.run("h2load", &["-n", "1000", "-c", "2", "-m", "20", &format!("{url}/name")]);
    assert!(said.contains("1000 succeeded, 0 failed, 0 errored"), "{}: {said}", server.way);
    assert!(said.contains("status codes: 1000 2xx"), "{}: {said}", server.way);
    let got = stage.client.curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("{url}/error")]);
    assert_eq!(String::from_utf8_lossy(&got.stdout), "503", "{}", server.way);
}

/// An Envoy listener on `port` to `address:to`; HTTP/2 towards the cluster when `http2`.
fn envoy(port: u16, address: &str, to: u16, http2: bool) -> String {
    let upstream = if http2 { "http2_protocol_options: {}" } else { "http_protocol_options: {}" };
    format!(
        "static_resources:\n  listeners:\n  - address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}\n    filter_chains:\n    - filters:\n      \
         - name: http\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: in\n          codec_type: AUTO\n          route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: out}}}}]}}]}}\n          \
         http_filters: [{{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]\n  \
         clusters:\n  - name: out\n    type: STATIC\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        explicit_http_config: {{{upstream}}}\n    \
         load_assignment: {{cluster_name: out, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: {to}}}}}}}}}]}}]}}\n"
    )
}

#[test]
fn envoy_before_and_behind_the_mesh() {
    let mut stage = Stage::with_nginx();
    let binary = python::interpreter().with_file_name("envoy");
    let mut start = |name: &str, index: Option<usize>, port: u16, address: &str, to: u16, http2: bool| {
        let file = stage.folder("envoy").join(format!("{name}.yaml"));
        std::fs::write(&file, envoy(port, address, to, http2)).unwrap();
        let pod = index.map_or(&stage.client, |index| &stage.servers[index].pod);
        let identifier = (port + u16::from(index == Some(1))).to_string();
        let command = [
            binary.to_str().unwrap(),
            "-c",
            file.to_str().unwrap(),
            "--base-id",
            &identifier,
            "--concurrency",
            "1",
            "-l",
            "warn",
        ];
        let running = stage.start(pod, name, &command, port);
        stage.keep(running);
    };
    let addresses = ["10.96.0.1", "10.96.0.2"];
    for (index, address) in addresses.into_iter().enumerate() {
        let port = 15_000 + u16::try_from(index).unwrap() * 10;
        // Before: HTTP/1 and HTTP/2 to nginx.
        start(&format!("front1-{index}"), None, port, address, HTTP1, false);
        start(&format!("front2-{index}"), None, port + 1, address, HTTP2, true);
        // Behind: this port of the server's pod is an Envoy in front of its nginx; and before it another one.
        start(&format!("back-{index}"), Some(index), RAW, "127.0.0.1", HTTP1, false);
        start(&format!("front3-{index}"), None, port + 2, address, RAW, true);
    }
    for (index, server) in stage.servers.iter().enumerate() {
        assert_eq!(server.address, addresses[index]);
        let port = 15_000 + u16::try_from(index).unwrap() * 10;
        (0..3).for_each(|front| through(&stage, port + front, server));
    }
}

#[test]
fn haproxy_before_and_behind_the_mesh() {
    let mut stage = Stage::with_nginx();
    for index in 0..2 {
        let server = &stage.servers[index];
        let address = server.address.clone();
        let proxy = |port: u16, to: String| {
            format!(
                "frontend in{port}\n  bind :::{port} v4v6\n  default_backend out{port}\nbackend out{port}\n  server one {to}\n"
            )
        };
        let common = "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
        let port = 15_000 + u16::try_from(index).unwrap() * 10;
        let back = proxy(RAW, format!("127.0.0.1:{HTTP1}")) + &proxy(OTHER, format!("127.0.0.1:{HTTP2} proto h2"));
        let front = proxy(port, format!("{address}:{HTTP1}"))
            + &proxy(port + 1, format!("{address}:{HTTP2} proto h2"))
            + &proxy(port + 2, format!("{address}:{RAW}"))
            + &proxy(port + 3, format!("{address}:{OTHER} proto h2"));
        let folder = stage.folder("haproxy");
        let mut running = Vec::new();
        for (name, pod, text, open) in [("front", &stage.client, front, port), ("back", &server.pod, back, RAW)] {
            let file = folder.join(format!("{name}-{index}.cfg"));
            std::fs::write(&file, format!("{common}{text}")).unwrap();
            let command = ["haproxy", "-db", "-f", file.to_str().unwrap()];
            running.push(stage.start(pod, &format!("haproxy-{index}"), &command, open));
        }
        running.into_iter().for_each(|program| stage.keep(program));
        let server = &stage.servers[index];
        (0..4).for_each(|front| through(&stage, port + front, server));
    }
}

/// HAProxy says what a page will need before it has the page. Over HTTP/2 hyper says it to nobody (`docs/life-of-a-request.md`): the answer is whole.
#[test]
fn early_hints_of_haproxy_reach_curl() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let pod = &stage.servers[index].pod;
        let file = stage.folder("hints").join(format!("{index}.cfg"));
        let text = format!(
            "defaults\n  mode http\n  timeout client 30s\nfrontend in\n  bind :::{RAW} v4v6\n  bind :::{OTHER} v4v6 proto h2\n  \
             http-request early-hint Link \"</a.css>; rel=preload\"\n  http-request return status 200 content-type text/plain string whole\n"
        );
        std::fs::write(&file, text).unwrap();
        let running =
            stage.start(pod, &format!("hints-{index}"), &["haproxy", "-db", "-f", file.to_str().unwrap()], RAW);
        stage.keep(running);
        let server = &stage.servers[index];
        let got = stage.client.curl(&["--http1.1", "--dump-header", "-", &format!("http://{}:{RAW}/", server.address)]);
        let got = String::from_utf8_lossy(&got.stdout).to_lowercase();
        let heads: Vec<&str> = got.split("\r\n\r\n").collect();
        assert_eq!(heads.len(), 3, "{}: {got}", server.way);
        assert!(heads[0].starts_with("http/1.1 103") && heads[0].contains("link: </a.css>; rel=preload"), "{got}");
        assert!(heads[1].starts_with("http/1.1 200") && !heads[1].contains("link:"), "{got}");
        assert_eq!(heads[2], "whole", "{}", server.way);
        let http2 = ["--http2-prior-knowledge", "--dump-header", "-", &format!("http://{}:{OTHER}/", server.address)];
        let got = String::from_utf8_lossy(&stage.client.curl(&http2).stdout).to_lowercase();
        assert!(got.starts_with("http/2 200") && got.ends_with("\r\n\r\nwhole"), "{}: {got}", server.way);
    }
}
