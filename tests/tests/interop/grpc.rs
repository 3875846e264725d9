//! grpcio as server and client.

use weir_tests::python;

use crate::stage::{GRPC, RAW, Stage};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/calls.py");

/// grpcio serves in both pods.
fn serving() -> Stage {
    let mut stage = Stage::new();
    let python = python::interpreter();
    for index in 0..2 {
        let command = [python.to_str().unwrap(), PROGRAM, "serve", "[::]:50051"];
        let running = stage.start(&stage.servers[index].pod, "grpc", &command, GRPC);
        stage.keep(running);
    }
    stage
}

/// Runs one case of the client against both servers.
fn case(stage: &Stage, name: &str, port: u16) {
    for server in &stage.servers {
        let target = format!("{}:{port}", server.address);
        let python = python::interpreter();
        let said = stage
            .client
            .run("timeout", &["60", python.to_str().unwrap(), PROGRAM, name, &target, &stage.client.identity()]);
        assert_eq!(said.trim(), "passed", "{}", server.way);
    }
}

/// Messages of all sizes, 500 at once, metadata both ways, and who asks.
#[test]
fn unary_calls() {
    let stage = serving();
    case(&stage, "unary", GRPC);
    // Each was counted with its gRPC status, on both nodes.
    for (node, direction) in [(0, "direction=\"outbound\""), (1, "direction=\"inbound\"")] {
        let counted =
            stage.metric(node, "response_total", &[direction, "grpc_status=\"0\"", "classification=\"success\""]);
        assert!(counted >= 505.0, "{direction}: {counted}");
    }
}

/// Client, server and bidirectional streams, each message on its own.
#[test]
fn streams() {
    case(&serving(), "streams", GRPC);
}

/// An answer before the client's stream is over reaches the client and stops the stream.
#[test]
fn an_early_answer_to_a_stream_arrives() {
    case(&serving(), "early", GRPC);
}

/// Every status with its text and binary details; failures are counted as such.
#[test]
fn statuses_and_their_details() {
    let stage = serving();
    case(&stage, "status", GRPC);
    for (status, classification) in [("13", "failure"), ("5", "success")] {
        let labels = [&format!("grpc_status=\"{status}\"")[..], &format!("classification=\"{classification}\"")];
        assert!(stage.metric(0, "response_total", &labels) >= 1.0, "{labels:?}: {}", stage.mesh.admin(0, "/metrics"));
    }
}

/// A deadline that passes ends the call on both sides.
#[test]
fn a_deadline_reaches_the_server() {
    case(&serving(), "deadline", GRPC);
}

/// A call given up by the client ends at the server.
#[test]
fn a_cancellation_reaches_the_server() {
    case(&serving(), "cancel", GRPC);
}

/// Nobody listens: UNAVAILABLE with the proxy's reason, in gRPC's own form.
#[test]
fn a_refused_connection_is_unavailable() {
    case(&Stage::new(), "unavailable", RAW);
}
