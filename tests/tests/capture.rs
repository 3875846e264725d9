//! Capture as root against real namespaces, a real holder and real kernel programs; the tests play the proxy.
//!
//! Each row of the pitfall index in `docs/` that one machine can show is a test by name.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test is a panic")]
#![expect(clippy::print_stderr, reason = "what a failed cleanup says belongs to the test's output")]

#[path = "capture/churn.rs"]
mod churn;
#[path = "capture/inbound.rs"]
mod inbound;
#[path = "capture/lifecycle.rs"]
mod lifecycle;
#[path = "capture/maps.rs"]
mod maps;
#[path = "capture/newcomers.rs"]
mod newcomers;
#[path = "capture/outbound.rs"]
mod outbound;
#[path = "capture/probes.rs"]
mod probes;
#[path = "capture/proxy.rs"]
mod proxy;
#[path = "capture/restart.rs"]
mod restart;
#[path = "capture/stage.rs"]
mod stage;
