//! Programs that nobody here wrote, and raw sockets where no program misbehaves well enough, through a whole mesh:
//! two nodes, real capture, every test across the nodes and, where it matters, within one.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

#[path = "interop/errors.rs"]
mod errors;
#[path = "interop/http1.rs"]
mod http1;
#[path = "interop/stage.rs"]
mod stage;
#[path = "interop/wire.rs"]
mod wire;
