//! Generates `control/api/src/gen` from `control/api/proto` without protoc. Must never run as part of a build.

use std::{fs, path::Path};

use crate::child::{Failure, Outcome};

const PROTO_ROOT: &str = "control/api/proto";
const GENERATED: &str = "control/api/src/gen";
const FILES: [&str; 5] = [
    "weir/mesh/v1/resources.proto",
    "weir/mesh/v1/reports.proto",
    "weir/mesh/v1/nodes.proto",
    "weir/mesh/v1/replicas.proto",
    "weir/mesh/v1/mesh.proto",
];

/// Writes the generated code, or with `check` compares it with what is committed.
///
/// # Errors
/// A proto file that does not compile, a file that cannot be written, or (with `check`) a difference.
pub(crate) fn run(check: bool) -> Outcome {
    let descriptors = protox::compile(FILES, [PROTO_ROOT])?;
    let scratch = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(scratch.path())
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .build_transport(false)
        .compile_fds(descriptors)?;
    let produced = fs::read_to_string(scratch.path().join("weir.mesh.v1.rs"))?;
    let target = Path::new(GENERATED).join("weir.mesh.v1.rs");
    if check {
        let committed = fs::read_to_string(&target).unwrap_or_default();
        if committed != produced {
            return Err(Failure::new(format!(
                "{} is not what the proto files say: run `cargo xtask codegen`",
                target.display()
            )));
        }
        return Ok(());
    }
    fs::create_dir_all(GENERATED)?;
    fs::write(target, produced)?;
    Ok(())
}
