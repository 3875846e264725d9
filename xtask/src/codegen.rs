//! Generates `control/api/src/gen` from `control/api/proto` without protoc. Must never run as part of a build.

use std::{fs, path::Path};

use prost::Message as _;

use crate::child::{Failure, Outcome};

const PROTO_ROOT: &str = "control/api/proto";
const GENERATED: &str = "control/api/src/gen";
const FILES: [&str; 8] = [
    "weir/mesh/v1/resources.proto",
    "weir/mesh/v1/reports.proto",
    "weir/mesh/v1/nodes.proto",
    "weir/mesh/v1/replicas.proto",
    "weir/mesh/v1/explain.proto",
    "weir/mesh/v1/items.proto",
    "weir/mesh/v1/writes.proto",
    "weir/mesh/v1/mesh.proto",
];

/// Choices stand beside the fields of their message, and protocols are names.
const JSON_FIELDS: [(&str, &str); 15] = [
    ("Destination.target", "flatten"),
    ("HttpRule.destination", "flatten"),
    ("HttpMatch.path", "flatten"),
    ("GrpcMethod.service", "flatten"),
    ("GrpcMethod.method", "flatten"),
    ("ValueMatch.value", "flatten"),
    ("HttpFilter.filter", "flatten"),
    ("RequestMirror.target", "flatten"),
    ("PathModifier.path", "flatten"),
    ("HttpBackend.target", "flatten"),
    ("Resource.body", "flatten"),
    ("Way.what", "flatten"),
    ("BackendPolicy.target", "flatten"),
    ("ServiceTarget.protocol", "serialize_with = \"crate::json::protocol\""),
    ("PortProtocol.protocol", "serialize_with = \"crate::json::protocol\""),
];

/// What the API says of itself.
const API: &str = "weir/mesh/v1/mesh.proto";

/// Writes the generated code, or with `check` compares it with what is committed.
///
/// # Errors
/// A proto file that does not compile, a file that cannot be written, or (with `check`) a difference.
pub(crate) fn run(check: bool) -> Outcome {
    let descriptors = protox::compile(FILES, [PROTO_ROOT])?;
    let scratch = tempfile::tempdir()?;
    let mut build = tonic_prost_build::configure();
    // What people may look at: as JSON, with the names of protobuf's own JSON form.
    for (path, attribute) in JSON_FIELDS {
        build = build.field_attribute(path, format!("#[cfg_attr(feature = \"json\", serde({attribute}))]"));
    }
    build
        .out_dir(scratch.path())
        .type_attribute(
            ".",
            "#[cfg_attr(feature = \"json\", derive(serde::Serialize), serde(rename_all = \"camelCase\"))]",
        )
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .build_transport(false)
        .compile_fds(descriptors)?;
    fs::create_dir_all(GENERATED)?;
    // With the comments: who asks the API what it offers reads them.
    let described = protox::compile([API], [PROTO_ROOT])?.encode_to_vec();
    put(check, "weir.mesh.v1.rs", &fs::read(scratch.path().join("weir.mesh.v1.rs"))?)?;
    put(check, "mesh.descriptors", &described)
}

fn put(check: bool, name: &str, produced: &[u8]) -> Outcome {
    let target = Path::new(GENERATED).join(name);
    if check && fs::read(&target).unwrap_or_default() != produced {
        let reason = format!("{} is not what the proto files say: run `cargo xtask codegen`", target.display());
        return Err(Failure::new(reason));
    }
    if !check {
        fs::write(target, produced)?;
    }
    Ok(())
}
