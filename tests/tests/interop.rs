//! Programs that nobody here wrote, and raw sockets where no program misbehaves well enough, through a whole mesh:
//! two nodes, real capture, every test across the nodes and, where it matters, within one.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

#[path = "interop/addresses.rs"]
mod addresses;
#[path = "interop/endpoints.rs"]
mod endpoints;
#[path = "interop/errors.rs"]
mod errors;
#[path = "interop/grpc.rs"]
mod grpc;
#[path = "interop/http1.rs"]
mod http1;
#[path = "interop/http2.rs"]
mod http2;
#[path = "interop/opaque.rs"]
mod opaque;
#[path = "interop/proxies.rs"]
mod proxies;
#[path = "interop/stage.rs"]
mod stage;
#[path = "interop/tls.rs"]
mod tls;
#[path = "interop/wire.rs"]
mod wire;
