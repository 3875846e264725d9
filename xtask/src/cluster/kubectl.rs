//! Questions to the cluster by way of kubectl. Must never wait: each call has a short deadline, callers ask again.

use std::{path::PathBuf, process::Command};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::Place;
use crate::child::{self, Outcome};

/// An API server that takes longer is not ready.
const DEADLINE: &str = "--request-timeout=10s";

/// kubectl as the cluster's administrator.
#[derive(Debug)]
pub(super) struct Kubectl {
    program: PathBuf,
    config: PathBuf,
}

/// One node, as the API server has it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ready: bool,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

impl Kubectl {
    pub(super) fn new(place: &Place, program: PathBuf) -> Self {
        Self { program, config: place.admin() }
    }

    /// What kubectl prints for these arguments.
    ///
    /// # Errors
    /// kubectl's own message.
    pub(super) fn ask(&self, arguments: &[&str]) -> Outcome<String> {
        child::output(Command::new(&self.program).arg("--kubeconfig").arg(&self.config).arg(DEADLINE).args(arguments))
    }

    /// Creates or changes what the file says.
    ///
    /// # Errors
    /// kubectl's own message.
    pub(super) fn apply(&self, file: &str) -> Outcome {
        self.ask(&["apply", "--server-side", "--force-conflicts", "--filename", file]).map(drop)
    }

    /// Does the API server say that it is ready?
    pub(super) fn is_ready(&self) -> bool {
        self.ask(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer.trim() == "ok")
    }

    /// The nodes.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub(super) fn nodes(&self) -> Outcome<Vec<Node>> {
        nodes(&self.ask(&["get", "nodes", "--output", "json"])?)
    }

    /// Does the API server say that this node is Ready?
    pub(super) fn is_node_ready(&self, name: &str) -> bool {
        self.nodes().unwrap_or_default().iter().any(|node| node.name == name && node.ready)
    }

    /// When a node last said that it lives; nothing while that cannot be told.
    pub(super) fn heartbeat(&self, node: &str) -> Option<String> {
        let lease = ["--namespace", "kube-node-lease", "get", "lease", node, "--output", "jsonpath={.spec.renewTime}"];
        self.ask(&lease).ok().filter(|time| !time.is_empty())
    }

    /// How many pods of a Deployment serve.
    ///
    /// # Errors
    /// The API server cannot be asked, or there is no such Deployment.
    pub(super) fn available(&self, namespace: &str, deployment: &str) -> Outcome<u64> {
        let json = self.ask(&["--namespace", namespace, "get", "deployment", deployment, "--output", "json"])?;
        let object: Value = serde_json::from_str(&json)?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        Ok(if current { object["status"]["availableReplicas"].as_u64().unwrap_or(0) } else { 0 })
    }
}

fn nodes(json: &str) -> Outcome<Vec<Node>> {
    let list: List = serde_json::from_str(json)?;
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let node = |node: &Value| Some(Node { name: node["metadata"]["name"].as_str()?.to_owned(), ready: ready(node) });
    Ok(list.items.iter().filter_map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::{Node, nodes};

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let json = r#"{"items": [
            {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            {"metadata": {"name": "c"}}]}"#;
        let expected = [("a", true), ("b", false), ("c", false)];
        let expected = expected.map(|(name, ready)| Node { name: name.into(), ready });
        assert_eq!(nodes(json).expect("a list"), expected);
    }
}
