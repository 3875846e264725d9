//! The contract between control, nodes and the command line.
//!
//! All but [`status`] and what JSON needs is generated from `proto/` by `cargo xtask codegen` and committed, so that nobody needs protoc. Must never hold logic.

#[cfg(feature = "json")]
mod json;
#[cfg(feature = "status")]
pub mod status;

/// Service `Mesh` with all that it needs, as an encoded `google.protobuf.FileDescriptorSet`: for server reflection.
#[cfg(feature = "server")]
pub const MESH_DESCRIPTORS: &[u8] = include_bytes!("gen/mesh.descriptors");

/// Package `weir.mesh.v1`.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "gen/weir.mesh.v1.rs"]
pub mod v1;
