//! `config.linkerd.io/default-inbound-policy`. Mutation tried: `all-authenticated` does not look at the
//! identity; the first table fails.

use std::net::SocketAddr;

use weir_tests::{mesh::Pod, netns::Netns};

use crate::stage::{Answer, Kept, OUTSIDE, Stage, curl, greeting};

const NOBODY: &str = "unauthorized request: the default policy is deny";
const UNPROVEN: &str = "unauthorized request: the default policy asks for mutual TLS";
const FAR: &str = "unauthorized request: the client is outside the networks of the cluster";

fn url(pod: &Pod) -> String {
    format!("http://{}:8080/name", pod.place.v4)
}

fn allowed() -> Answer {
    Answer { status: 200, error: None }
}

fn denied(why: &str) -> Answer {
    Answer { status: 403, error: Some(why.to_owned()) }
}

/// Each policy, for each way in: mTLS over the wire and the bridge on one node, plaintext from within the cluster's networks and from outside.
#[test]
fn every_policy_decides_for_every_way_in() {
    let mut stage = Stage::start("ports: []");
    for (policy, meshed, inside, outside) in [
        ("deny", denied(NOBODY), denied(NOBODY), denied(NOBODY)),
        ("all-unauthenticated", allowed(), allowed(), allowed()),
        ("all-authenticated", allowed(), denied(UNPROVEN), denied(UNPROVEN)),
        ("cluster-unauthenticated", allowed(), allowed(), denied(FAR)),
        ("cluster-authenticated", allowed(), denied(UNPROVEN), denied(UNPROVEN)),
        ("audit", allowed(), allowed(), allowed()),
    ] {
        stage.set_policy(policy);
        let [near, far] = &stage.servers;
        for (way, server) in [("bridge", near), ("wire", far)] {
            assert_eq!(curl(&stage.client.place.netns, &url(server), &[]), meshed, "{policy}: {way}");
        }
        for server in [near, far] {
            assert_eq!(curl(&stage.plain.place.netns, &url(server), &[]), inside, "{policy}: {} plain", server.name);
        }
        // Also the node's own processes, which kubelet is one of: nothing here is declared as a probe.
        assert_eq!(curl(stage.mesh.fabric.node(0), &url(near), &[]), inside, "{policy}: from the node");
        let from_outside = curl(stage.mesh.fabric.node(1), &url(near), &["--interface", OUTSIDE]);
        assert_eq!(from_outside, outside, "{policy}: from outside");
    }
    let counted = |node: usize, what: &str, labels: &[&str]| {
        stage.metric(node, &format!("inbound_http_authz_{what}_total"), labels)
    };
    for policy in
        ["all-unauthenticated", "all-authenticated", "cluster-unauthenticated", "cluster-authenticated", "audit"]
    {
        let (server, authorization) = (format!("srv_name=\"{policy}\""), format!("authz_name=\"{policy}\""));
        assert!(counted(1, "allow", &[&server, &authorization, "tls=\"true\""]) > 0.5, "{policy}");
    }
    assert!(counted(1, "deny", &["srv_name=\"deny\"", "client_id=\"client.demo.serviceaccount"]) > 0.5);
    assert!(counted(0, "deny", &["srv_name=\"all-authenticated\"", "tls=\"no_identity\""]) > 0.5);
    assert!(counted(0, "allow", &["srv_name=\"deny\""]) < 0.5);
}

/// A namespace's policy is its pods', and theirs comes first.
#[test]
fn a_namespace_decides_for_pods_that_say_nothing() {
    let mut stage = Stage::start("ports: []");
    let namespace = |policy: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: demo\n  labels: {{weir.mesh/enabled: \"true\"}}\n  annotations: {{config.linkerd.io/default-inbound-policy: {policy}}}\n"
        )
    };
    stage.mesh.manifest("namespace", &namespace("deny"));
    stage.wait_policy("deny");
    assert_eq!(curl(&stage.client.place.netns, &url(&stage.servers[1]), &[]), denied(NOBODY));
    stage.set_policy("all-authenticated");
    assert_eq!(curl(&stage.client.place.netns, &url(&stage.servers[1]), &[]), allowed());
    // One that nobody knows is named, and lets nobody in.
    stage.write_policy("denied");
    stage.wait_policy("deny");
    assert_eq!(curl(&stage.client.place.netns, &url(&stage.servers[1]), &[]), denied(NOBODY));
    weir_tests::wait::until("the finding", crate::stage::PATIENCE, || {
        let log = stage.mesh.control().log();
        (log.contains("config.linkerd.io/default-inbound-policy") && log.contains("none of all-unauthenticated"))
            .then_some(())
    });
    for server in &stage.servers {
        assert_eq!(curl(&stage.client.place.netns, &url(server), &[]), denied(NOBODY), "{}", server.name);
    }
}

/// gRPC is told in its own words.
#[test]
fn grpc_gets_permission_denied() {
    let mut stage = Stage::start("ports: []");
    stage.set_policy("deny");
    for server in &stage.servers {
        let url = format!("http://{}:8081/demo.Demo/Call", server.place.v4);
        let headers = ["--http2-prior-knowledge", "--header", "content-type: application/grpc", "--data", ""];
        let mut command = stage.client.command("curl");
        command.args(["--silent", "--max-time", "10", "--output", "/dev/null", "--dump-header", "-"]);
        let output = command.args(headers).arg(&url).output().unwrap();
        let head = String::from_utf8_lossy(&output.stdout).into_owned();
        for wanted in ["HTTP/2 200", "grpc-status: 7", &format!("grpc-message: {NOBODY}")] {
            assert!(head.contains(wanted), "{}: {wanted} in {head}", server.name);
        }
    }
}

/// HTTP is decided per request. Mutation tried: the view of a connection is never looked up anew; the second status is 200.
#[test]
fn a_change_is_in_force_for_the_next_request_of_open_connections() {
    let mut stage = Stage::start("ports: []");
    let ways: [(&str, &Netns, usize); 4] = [
        ("bridge", &stage.client.place.netns, 0),
        ("wire", &stage.client.place.netns, 1),
        ("plain", &stage.plain.place.netns, 0),
        ("plain over the wire", &stage.plain.place.netns, 1),
    ];
    let at = |index: usize| SocketAddr::new(stage.servers[index].place.v4, 8080);
    let mut kept: Vec<(&str, Kept)> = ways.map(|(way, from, index)| (way, Kept::open(from, at(index)))).into();
    for (policy, status) in [("all-unauthenticated", 200), ("deny", 403), ("audit", 200), ("deny", 403)] {
        stage.set_policy(policy);
        for (way, connection) in &mut kept {
            assert_eq!(connection.get("/name"), status, "{policy}: {way}");
        }
    }
}

/// Bytes that nobody reads are decided about when they come; the application never hears of a denied client. Mutation tried: `dial`
/// goes on after a denial.
#[test]
fn opaque_connections_are_closed_before_the_application_hears_of_them() {
    let mut stage = Stage::start("ports: []");
    let logs = stage.mesh.path("logs");
    let greeters: Vec<_> = stage
        .servers
        .iter()
        .map(|server| {
            server.daemon(
                "greeter",
                "socat",
                &["TCP6-LISTEN:7025,ipv6only=0,fork,reuseaddr", "SYSTEM:echo greeting; cat"],
                &logs,
            )
        })
        .collect();
    let ask = |stage: &Stage| -> Vec<bool> {
        let clients = [&stage.client, &stage.plain].map(|pod| &pod.place.netns);
        let to = |index: usize| SocketAddr::new(stage.servers[index].place.v4, 7025);
        clients.into_iter().flat_map(|from| [0, 1].map(|index| greeting(from, to(index)).is_some())).collect()
    };
    weir_tests::wait::until("greetings", crate::stage::PATIENCE, || {
        ask(&stage).iter().all(|heard| *heard).then_some(())
    });
    for (policy, meshed, plain) in [("deny", false, false), ("all-authenticated", true, false), ("audit", true, true)] {
        stage.set_policy(policy);
        assert_eq!(ask(&stage), [meshed, meshed, plain, plain], "{policy}");
    }
    for node in [0, 1] {
        let denied = stage.metric(node, "inbound_tcp_authz_deny_total", &["srv_name=\"deny\"", "target_port=\"7025\""]);
        assert!(denied > 1.5, "node {node}: {denied}");
        let allowed = stage.metric(node, "inbound_tcp_authz_allow_total", &["authz_name=\"all-authenticated\""]);
        assert!(allowed > 0.5, "node {node}: {allowed}");
    }
    for greeter in greeters {
        stage.keep(greeter);
    }
}
