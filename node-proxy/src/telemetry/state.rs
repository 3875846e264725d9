//! What the rest of the process knows and a scrape, a report or the admin server asks for.
//!
//! Must never hand out a private key.

use std::{sync::Arc, time::Duration};

use weir_api::v1;
use weir_core::{identity::Identity, snapshot::Snapshot};

/// Asked on the admin runtime at each scrape and report: answers come from memory, without waiting.
pub trait NodeState: Send + Sync {
    /// Time on the clock that the endpoints' loads are kept with.
    fn now(&self) -> Duration;
    /// The configuration in force.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Control has sent all that this node asked for, or it was restored from the last time.
    fn synced(&self) -> bool;
    /// The stream to control is up at this moment.
    fn control_connected(&self) -> bool;
    /// Workloads that this node is to capture, with what became of each.
    fn captures(&self) -> Vec<Capture>;
    /// Certificates held.
    fn certificates(&self) -> Vec<Certificate>;
    /// Sockets made ahead of need by the holder.
    fn sockets_in_stock(&self) -> usize;
    /// Findings of the holder about the kernel, and whatever else `weir check` should show of this node.
    fn checks(&self) -> Vec<v1::CheckResult>;
    /// Arguments in force, for `/config`.
    fn arguments(&self) -> serde_json::Value;
}

/// What became of the capture of one workload.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Uid of the pod.
    pub uid: Arc<str>,
    /// Its new connections come to this proxy.
    pub captured: bool,
    /// Why not, for people; empty when captured.
    pub reason: String,
}

/// One certificate without its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Whose.
    pub identity: Identity,
    /// Unix seconds.
    pub not_after: i64,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}
