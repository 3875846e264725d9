//! The mesh on a real Kubernetes cluster: API server, kubelets, containerd, kube-proxy. Run by `cargo xtask cluster test`.
//!
//! Each test brings the mesh to where it needs it by the commands that users have, so that they run in any order.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test is a panic")]

#[path = "cluster/shop.rs"]
mod shop;

#[path = "cluster/load.rs"]
mod load;

#[path = "cluster/tap.rs"]
mod tap;

#[path = "cluster/nodes.rs"]
mod nodes;

#[path = "cluster/installing.rs"]
mod installing;

#[path = "cluster/opting_in.rs"]
mod opting_in;

#[path = "cluster/operations.rs"]
mod operations;

#[path = "cluster/leaving.rs"]
mod leaving;

#[path = "cluster/change.rs"]
mod change;

#[path = "cluster/policy.rs"]
mod policy;

#[path = "cluster/rotation.rs"]
mod rotation;

#[path = "cluster/routes.rs"]
mod routes;

#[path = "cluster/conformance.rs"]
mod conformance;

#[path = "cluster/outage.rs"]
mod outage;

#[path = "cluster/scrape.rs"]
mod scrape;

#[path = "cluster/footprint.rs"]
mod footprint;

#[path = "cluster/removal.rs"]
mod removal;
