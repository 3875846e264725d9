//! Decisions of the data plane, without I/O: time and randomness are arguments.
//!
//! Must never depend on tokio, hyper, tonic, kube or aya, so that the proxy, the control plane, `weir` and the tests all
//! run the very same code.

pub mod limits;

pub mod identity;
pub mod snapshot;

pub mod client_hello;
pub mod detect;
pub mod protocol;
pub mod transport_header;

pub mod balance;
pub mod breaker;
pub mod load;

pub mod inbound;
pub mod outbound;
pub mod request_policy;
pub mod retry;
pub mod route;
pub mod timeouts;
pub mod words;

pub mod classify;
mod cookie;
pub mod grpc;
pub mod proxy_error;
