//! Who sees which address: ClusterIP, pod addresses, both families, pods outside the mesh.

use weir_tests::{
    mesh::{NAMESPACE, PodOptions, ServiceOptions},
    nginx, wait,
};

use crate::{
    stage::{HTTP1, RAW, Stage, dial, listen},
    wire::{PATIENCE, Wire},
};

/// The client's own address, as IPv4 where nginx listens on both families.
fn plain(text: &str) -> String {
    text.trim().trim_start_matches("::ffff:").to_owned()
}

/// HTTP over ClusterIP and pod address, in both families: the application sees the client pod's own address.
#[test]
fn the_application_sees_the_clients_own_address() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        let place = &server.pod.place;
        let own = &stage.client.place;
        for (host, wanted) in [
            (server.address.clone(), own.v4),
            (place.v4.to_string(), own.v4),
            (format!("[{}]", place.v6), own.v6),
            (format!("[::ffff:{}]", place.v4), own.v4),
        ] {
            let seen = stage.client.get(&format!("http://{host}:{HTTP1}/address"));
            assert_eq!(plain(&seen), wanted.to_string(), "{} by {host}", server.way);
            let name = stage.client.get(&format!("http://{host}:{HTTP1}/name"));
            assert_eq!(name.trim(), server.pod.name, "{} by {host}", server.way);
        }
    }
}

/// The same for opaque connections; and what the client asked for is what its socket says.
#[test]
fn opaque_connections_keep_both_addresses() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let place = &server.pod.place;
        let own = &stage.client.place;
        for (host, wanted) in [
            (server.address.clone(), own.v4),
            (place.v4.to_string(), own.v4),
            (format!("[{}]", place.v6), own.v6),
            (format!("[::ffff:{}]", place.v4), own.v4),
        ] {
            let mut client = dial(&stage.client, &format!("{host}:{RAW}"));
            client.send("\0opaque");
            let app = Wire::accept(&listener);
            let seen = app.tcp.peer_addr().unwrap().ip().to_canonical();
            assert_eq!(seen, wanted, "{} by {host}", server.way);
            assert_eq!(client.tcp.peer_addr().unwrap().to_string(), format!("{host}:{RAW}"), "getpeername");
        }
    }
}

/// All of it is mTLS: the application is told who asks, by pod address as by ClusterIP, in both families.
#[test]
fn every_address_of_a_pod_is_in_the_mesh() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let place = &server.pod.place;
        for host in
            [server.address.clone(), place.v4.to_string(), format!("[{}]", place.v6), format!("[::ffff:{}]", place.v4)]
        {
            let mut client = dial(&stage.client, &format!("{host}:{RAW}"));
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = Wire::accept(&listener).head();
            assert_eq!(head.get("l5d-client-id"), Some(stage.client.identity().as_str()), "{} by {host}", server.way);
        }
    }
}

/// A service with an IPv6 ClusterIP and IPv6 endpoints.
#[test]
fn a_service_of_ipv6_is_balanced_over_ipv6_endpoints() {
    let stage = Stage::with_nginx();
    let slices: String = stage.servers.iter().map(|server| {
        format!(
            "- {{addresses: [\"{}\"], conditions: {{ready: true}}, nodeName: node-{}, targetRef: {{kind: Pod, name: {}, namespace: {NAMESPACE}}}}}\n",
            server.pod.place.v6, server.pod.place.node + 1, server.pod.name
        )
    }).collect();
    stage.mesh.manifest(
        "service-six",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: six, namespace: {NAMESPACE}}}\nspec:\n  clusterIP: \"fd96::6\"\n  clusterIPs: [\"fd96::6\"]\n  \
             ipFamilies: [IPv6]\n  ports:\n  - {{name: main, port: 80, targetPort: 8080, protocol: TCP}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: six-slice\n  namespace: {NAMESPACE}\n  labels: {{kubernetes.io/service-name: six}}\n\
             addressType: IPv6\nports:\n- {{name: main, port: 8080, protocol: TCP}}\nendpoints:\n{slices}"
        ),
    );
    let mut seen = std::collections::BTreeSet::new();
    wait::until("both endpoints of the service answer", PATIENCE, || {
        seen.insert(String::from_utf8_lossy(&stage.client.curl(&["http://[fd96::6]/name"]).stdout).trim().to_owned());
        (seen.contains("far-2") && seen.contains("near-1")).then_some(())
    });
    assert_eq!(plain(&stage.client.get("http://[fd96::6]/address")), stage.client.place.v6.to_string());
}

/// A pod that calls itself: over loopback, its own address and the ClusterIP of its service.
#[test]
fn a_pod_reaches_itself() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        let place = &server.pod.place;
        for host in ["127.0.0.1".to_owned(), place.v4.to_string(), format!("[{}]", place.v6), server.address.clone()] {
            assert_eq!(
                server.pod.get(&format!("http://{host}:{HTTP1}/name")).trim(),
                server.pod.name,
                "{} by {host}",
                server.way
            );
        }
    }
}

/// Pods without the mesh: reached in plain, and their own requests arrive, in both directions and on both nodes.
#[test]
fn pods_outside_the_mesh_are_reached_and_reach_in() {
    let mut stage = Stage::with_nginx();
    for node in 0..2 {
        let options = PodOptions::new("outside", node).enabled(false);
        let pod = stage.mesh.pod(&options);
        let folder = stage.folder(&format!("outside-{node}"));
        let running = nginx::start(&pod, &folder, &stage.mesh.path("logs"));
        stage.keep(running);
        let address = stage.mesh.service(&ServiceOptions::new(&format!("outside-{node}"), HTTP1, HTTP1), &[&pod]);
        for host in [address, pod.place.v4.to_string(), format!("[{}]", pod.place.v6)] {
            wait::until(&format!("outside of the mesh by {host}"), PATIENCE, || {
                let got = stage.client.curl(&[&format!("http://{host}:{HTTP1}/name")]);
                (String::from_utf8_lossy(&got.stdout).trim() == pod.name).then_some(())
            });
        }
        for server in &stage.servers {
            let url = format!("http://{}:{HTTP1}/address", server.pod.place.v4);
            assert_eq!(plain(&pod.get(&url)), pod.place.v4.to_string(), "into the mesh, from node {node}");
            let listener = server.listen(RAW);
            let mut client = dial(&pod, &format!("{}:{RAW}", server.pod.place.v4));
            client.send("GET / HTTP/1.1\r\nHost: a\r\nl5d-client-id: forged\r\n\r\n");
            assert_eq!(Wire::accept(&listener).head().get("l5d-client-id"), None, "a claimed identity came through");
        }
    }
}

/// An address that nobody knows is dialled as it is, and a port that nobody opened is an answer at once.
#[test]
fn unknown_destinations_are_forwarded() {
    let stage = Stage::new();
    let node = stage.mesh.fabric.node(1);
    let listener = node.enter(|| std::net::TcpListener::bind("10.80.0.2:7000")).unwrap();
    let mut client = dial(&stage.client, "10.80.0.2:7000");
    client.send("\0plain");
    let mut app = Wire::accept(&listener);
    assert_eq!(app.exactly(6), b"\0plain");
    assert_eq!(app.tcp.peer_addr().unwrap().ip(), stage.client.place.v4);
    let mut nobody = dial(&stage.client, "10.80.0.2:7001");
    nobody.send("\0plain");
    assert_eq!(nobody.end(), crate::wire::End::Reset);
}

/// What listens on loopback only is not there for others, with the mesh as without.
#[test]
fn what_listens_on_loopback_stays_there() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.pod.place.netns.enter(|| std::net::TcpListener::bind(("127.0.0.1", RAW))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let got = stage.client.curl(&["-o", "/dev/null", "-w", "%{http_code}", &server.url(RAW, "/")]);
        assert_eq!(String::from_utf8_lossy(&got.stdout), "502", "{}", server.way);
        assert!(listener.accept().is_err(), "{}: reached over loopback", server.way);
    }
}

/// An application that starts late, or again, gets its port, although connections to and from that port number are open.
#[test]
fn an_application_gets_its_port_while_captured_connections_are_open() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut client = stage.dial(server, RAW);
        client.send("\0open");
        let mut app = Wire::accept(&listener);
        assert_eq!(app.exactly(5), b"\0open");
        // The server's port has an open connection; so has the client's, outwards.
        drop(listener);
        let _again = listen(&server.pod, RAW);
        let _client_serves_too = listen(&stage.client, RAW);
        app.send("still");
        assert_eq!(client.exactly(5), b"still", "{}", server.way);
    }
}
