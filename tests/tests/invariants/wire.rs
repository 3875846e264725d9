//! Invariant 1. Mutation tried: `Transport::Plain` for meshed peers in core's outbound plan.

use std::{fs, net::TcpStream, time::Duration};

use weir_tests::{
    mesh::{PATIENCE, PodOptions, ServiceOptions},
    wait,
    wire::{Wire, holds},
};

use crate::stage::Stage;

/// What each payload carries.
const MARKER: &str = "weir-marker-3b1f77";

/// HTTP/1, HTTP/2, redis and opaque bytes between two nodes: the marker passes in clear before the pods are in the mesh, and never after.
#[test]
fn no_payload_passes_the_wire_in_clear() {
    let mut stage = Stage::start();
    let plain = stage.mesh.pod(&PodOptions::new("plain", 0).enabled(false));
    let bare = stage.mesh.pod(&PodOptions::new("bare", 1).enabled(false));
    let logs = stage.mesh.path("logs");
    let redis = ["--port", "6379", "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0"];
    let echo = ["TCP-LISTEN:7000,fork,reuseaddr", "EXEC:cat"];
    let mut running = Vec::new();
    for pod in [&stage.far, &bare] {
        let mut server = pod.daemon("redis", "redis-server", &redis, &logs);
        server.wait_for("Ready to accept", PATIENCE);
        running.push(server);
        running.push(pod.daemon("socat", "socat", &echo, &logs));
        let address = std::net::SocketAddr::new(pod.place.v4, 7000);
        wait::until("socat", PATIENCE, || {
            pod.place.netns.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok())
        });
    }
    running.push(weir_tests::nginx::start(&bare, &stage.mesh.path("nginx-bare"), &logs));
    for folder in ["nginx-bare", "nginx-web-2"] {
        fs::write(stage.mesh.path(folder).join("files/marker"), format!("{MARKER}-http2")).unwrap();
    }
    for port in [8080, 8081, 6379, 7000] {
        let name = format!("far-{port}");
        stage.mesh.service(&ServiceOptions::new(&name, port, port), &[&stage.far]);
    }
    let wire = Wire::tap(&stage.mesh.fabric, &logs, "clear");
    say_marker(&plain, &bare.place.v4.to_string());
    let clear = wire.finish();
    for kind in ["http1", "http2", "redis", "opaque"] {
        assert!(holds(&clear, &format!("{MARKER}-{kind}")), "{kind}: the search finds what is there");
    }
    let wire = Wire::tap(&stage.mesh.fabric, &logs, "meshed");
    say_marker(&stage.client, &stage.far.place.v4.to_string());
    let meshed = wire.finish();
    assert!(!holds(&meshed, MARKER));
    assert!(!holds(&meshed, "redis_version"), "answers are hidden as well");
    let size = |bytes: &[u8]| bytes.len();
    assert!(
        size(&meshed) > size(&clear) / 2,
        "the meshed traffic did pass this wire: {} and {} bytes",
        size(&meshed),
        size(&clear)
    );
    fs::write(logs.join("done"), "").unwrap();
}

/// One exchange of each kind, each with its marker.
fn say_marker(from: &weir_tests::mesh::Pod, to: &str) {
    let header = |kind: &str| format!("x-marker: {MARKER}-{kind}");
    let http1 = from.curl(&["--header", &header("http1"), &format!("http://{to}:8080/name")]);
    assert!(http1.status.success(), "{http1:?}");
    // HPACK would hide a header from the search; a body is sent as it is.
    let http2 = from.curl(&["--http2-prior-knowledge", &format!("http://{to}:8081/marker")]);
    assert_eq!(String::from_utf8_lossy(&http2.stdout), format!("{MARKER}-http2"), "{http2:?}");
    from.run("redis-cli", &["-h", to, "set", "key", &format!("{MARKER}-redis")]);
    assert!(from.run("redis-cli", &["-h", to, "info", "server"]).contains("redis_version"));
    let script = format!("printf '%s' '{MARKER}-opaque' | socat -t 5 - TCP:{to}:7000");
    assert_eq!(from.run("bash", &["-c", &script]), format!("{MARKER}-opaque"));
}

/// The certificate that a pod's port shows to anyone who asks in TLS is the pod's own, from the mesh's anchor.
#[test]
fn the_certificate_on_the_wire_is_the_pods_own() {
    let mut stage = Stage::start();
    let plain = stage.mesh.pod(&PodOptions::new("plain", 0).enabled(false));
    let identity = stage.far.identity();
    let anchors = stage.mesh.path("control/ca.crt");
    let script = format!(
        "openssl s_client -connect {}:8080 -servername {identity} -verify_hostname {identity} -verify_return_error -CAfile {} -alpn transport.l5d.io/v1 -tls1_3 </dev/null 2>&1",
        stage.far.place.v4,
        anchors.display()
    );
    let shown = plain.run("bash", &["-c", &format!("{script} || true")]);
    assert!(shown.contains("Verification: OK") || shown.contains("Verify return code: 0 (ok)"), "{shown}");
    assert!(
        shown.contains("Server Temp Key: X25519MLKEM768")
            || shown.contains("Negotiated TLS1.3 group: X25519MLKEM768")
            || shown.contains("X25519"),
        "{shown}"
    );
}
