//! grpcio's server and client of `flaky.py`. Must never take a call that did not arrive for one that failed.

use std::process::Command;

use weir_tests::{daemon::Daemon, python, wait};

use crate::stage::{PATIENCE, Stage};

/// Port of the server, at `v1`.
pub(crate) const GRPC: u16 = 50_051;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/routes/flaky.py");

/// A server at `v1` that fails every other call in its trailers.
pub(crate) fn serve(stage: &Stage) -> Daemon {
    serve_at(stage, 0)
}

/// The same at `v1` or `v2`.
pub(crate) fn serve_at(stage: &Stage, server: usize) -> Daemon {
    let pod = &stage.servers[server];
    let place = &pod.place.netns;
    let mut command: Command = place.command(python::interpreter().to_str().expect("a path in UTF-8"));
    command.args([PROGRAM, "serve", &format!("[::]:{GRPC}")]);
    let server = Daemon::start(&format!("{}-flaky", pod.name), command, &stage.mesh.path("logs"));
    wait::until("grpcio serves", PATIENCE, || {
        let open = pod.run("ss", &["-Hltn", &format!("sport = :{GRPC}")]);
        (!open.trim().is_empty()).then_some(())
    });
    server
}

/// Makes twenty calls; how many of them were answered with UNAVAILABLE. None when one of them had another end.
pub(crate) fn call(stage: &Stage, target: &str) -> Option<u32> {
    let said = stage
        .client
        .run("timeout", &["60", python::interpreter().to_str().expect("a path in UTF-8"), PROGRAM, "call", target]);
    said.trim().parse().ok()
}
