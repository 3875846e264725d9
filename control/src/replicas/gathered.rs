//! What all replicas know, in one. Must never count a node twice.

use std::collections::{BTreeMap, HashMap};

use weir_api::v1;

use super::peers::Peer;

/// The shares of all replicas.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Connected nodes, by name.
    pub nodes: BTreeMap<String, v1::ConnectedNode>,
    /// Of nodes, by their names.
    pub reports: Vec<v1::Report>,
    /// Connected nodes that did not answer in time.
    pub missing_nodes: Vec<String>,
    /// All replicas, the answering one first.
    pub replicas: Vec<v1::Replica>,
    /// Replicas that do not use new anchors or a new issuer, and why.
    pub authority_problems: Vec<(String, String)>,
    /// Of the trust bundles that replicas tell their nodes; more than one while a new one is on its way.
    pub trust_versions: Vec<u64>,
}

impl Gathered {
    /// What the answering replica knows.
    pub(super) fn of(name: &str, own: v1::ShareResponse) -> Gathered {
        let mut gathered = Gathered::default();
        let replica = v1::Replica { name: name.to_owned(), ..v1::Replica::default() };
        gathered.take(replica, own);
        gathered
    }

    /// What another one said, or why it did not.
    pub(super) fn add(&mut self, peer: &Peer, share: Result<v1::ShareResponse, String>) {
        let replica =
            v1::Replica { name: peer.name.clone(), address: peer.address.to_string(), ..v1::Replica::default() };
        match share {
            Ok(share) => self.take(replica, share),
            Err(problem) => self.replicas.push(v1::Replica { problem, ..replica }),
        }
    }

    fn take(&mut self, replica: v1::Replica, share: v1::ShareResponse) {
        if !share.authority_problem.is_empty() {
            self.authority_problems.push((replica.name.clone(), share.authority_problem));
        }
        if !self.trust_versions.contains(&share.trust_version) {
            self.trust_versions.push(share.trust_version);
        }
        self.replicas.push(v1::Replica { version: share.version, ..replica });
        for node in share.nodes {
            let known = self.nodes.get(&node.node_name);
            if known.is_none_or(|known| node.age_ms < known.age_ms) {
                self.nodes.insert(node.node_name.clone(), node);
            }
        }
        for report in share.reports {
            if !self.reports.iter().any(|known| known.node_name == report.node_name) {
                self.reports.push(report);
            }
        }
        self.reports.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        self.missing_nodes.extend(share.missing_nodes);
        self.missing_nodes.sort();
        self.missing_nodes.dedup();
        // A node that has just changed its replica answers the new one.
        let reports = &self.reports;
        self.missing_nodes.retain(|node| !reports.iter().any(|report| report.node_name == *node));
    }

    /// Replicas whose nodes are not in here.
    pub fn missing_replicas(&self) -> Vec<v1::Replica> {
        self.replicas.iter().filter(|replica| !replica.problem.is_empty()).cloned().collect()
    }

    /// What nodes said about pods, by uid.
    pub fn statuses(&self) -> HashMap<&str, &v1::WorkloadStatus> {
        let all = self.nodes.values().flat_map(|node| &node.statuses);
        all.map(|status| (status.uid.as_str(), status)).collect()
    }
}
