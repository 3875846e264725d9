//! Real nodes, pods and programs on this machine: what the suites, the demo and the benchmarks stand on.
//!
//! Must never touch the machine's own network namespace, and must end only processes that it started.

#![expect(clippy::expect_used, reason = "a failed step of a test is a panic")]

pub mod attack;
pub mod authority;
pub mod bench;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod fabric;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod nginx;
pub mod python;
pub mod stop;
pub mod wait;
pub mod wire;
