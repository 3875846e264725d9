//! The document in ConfigMap `weir-status`: control's leader writes it, `weir check` and GitOps tools read it. Must stay readable by
//! the program of the version before: fields are added, and none changes its meaning.

use serde::{Deserialize, Serialize};

/// Name of the ConfigMap, in the namespace of the mesh.
pub const NAME: &str = "weir-status";
/// Key of the document in it.
pub const KEY: &str = "status.json";

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Of the replica that wrote it.
    pub version: String,
    /// Of all nodes.
    pub pods: Pods,
    /// As all replicas know them together.
    pub nodes: Nodes,
    /// `Ready`, `IdentityValid`, `NodesConnected`.
    pub conditions: Vec<Condition>,
}

/// Numbers of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pods {
    /// Opted in, and able to be in the mesh.
    pub enabled: usize,
    /// Of these, captured by their node.
    pub captured: usize,
    /// Of these, holding a certificate.
    pub certified: usize,
    /// Opted in, but refused: an event on each says why.
    pub refused: usize,
}

/// Nodes with a stream to some replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nodes {
    /// How many.
    pub connected: usize,
    /// Versions of their proxies, none twice, in order.
    pub versions: Vec<String>,
}

/// As conditions of Kubernetes' own objects are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What is said.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word, for programs.
    pub reason: String,
    /// For people: what to do about it.
    pub message: String,
    /// When `status` last changed, RFC 3339, UTC.
    pub last_transition_time: String,
}
