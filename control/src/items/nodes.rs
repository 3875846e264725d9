//! What nodes say as items: pods, their identities, the nodes themselves. Must never take a replica's silence for a node's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weir_api::v1::{self, item};

use super::{Asked, Lazy};
use crate::{
    index::Index,
    objects::{Pod, Unfit},
    replicas::Gathered,
};

/// What nodes said about pods, by uid.
type Statuses<'a> = HashMap<&'a str, &'a v1::WorkloadStatus>;

pub(super) fn workloads<'a>(index: &'a Index, statuses: &'a Statuses<'a>, asked: &Asked) -> Vec<Lazy<'a>> {
    let wanted = index.pods().filter(|pod| asked.takes(&pod.reference.namespace, &pod.reference.name));
    let lazy = |pod: &'a Arc<Pod>| {
        let key = format!("Pod {}/{}", pod.reference.namespace, pod.reference.name);
        Lazy::new(key, move || item::Item::Workload(workload(index, pod, statuses)))
    };
    wanted.map(lazy).collect()
}

/// A pod, and what its node did about it.
pub(crate) fn workload(index: &Index, pod: &Pod, statuses: &Statuses<'_>) -> v1::PodStatus {
    let enabled = index.is_enabled(pod);
    let status = statuses.get(&*pod.uid).filter(|_| enabled);
    let reason = match (status, enabled) {
        (Some(status), _) => status.reason.clone(),
        (None, true) => format!("node {} has not said anything about it", pod.reference.node_name),
        (None, false) => pod
            .unfit
            .map_or("not opted in: neither the pod nor its namespace has label weir.mesh/enabled=true", Unfit::reason)
            .to_owned(),
    };
    v1::PodStatus {
        uid: pod.uid.to_string(),
        pod: Some(pod.reference.clone()),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        enabled,
        captured: status.is_some_and(|status| status.captured),
        reason,
        identity: pod.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        certificate_not_after: status.map_or(0, |status| status.certificate_not_after),
    }
}

/// Of pods that are in the mesh; `name` is the service account's.
pub(super) fn identities(index: &Index, statuses: &Statuses<'_>, asked: &Asked) -> Vec<Lazy<'static>> {
    let mut all: BTreeMap<&str, v1::IdentityItem> = BTreeMap::new();
    for pod in index.pods().filter(|pod| index.is_enabled(pod)) {
        let Some(identity) = &pod.identity else { continue };
        if !asked.takes(identity.namespace(), identity.service_account()) {
            continue;
        }
        let known = all.entry(identity.as_str()).or_default();
        known.pods += 1;
        let ends = statuses.get(&*pod.uid).map_or(0, |status| status.certificate_not_after);
        if ends > 0 {
            known.certified_pods += 1;
            known.certificate_not_after = match known.certificate_not_after {
                0 => ends,
                earlier => earlier.min(ends),
            };
        }
    }
    let lazy = |(identity, known): (&str, v1::IdentityItem)| {
        let identity = identity.to_owned();
        let key = format!("Identity {identity}");
        Lazy::new(key, move || item::Item::Identity(v1::IdentityItem { identity, ..known }))
    };
    all.into_iter().map(lazy).collect()
}

pub(super) fn nodes<'a>(index: &'a Index, gathered: &'a Gathered, trust: u64, asked: &Asked) -> Vec<Lazy<'a>> {
    let wanted = gathered.nodes.values().filter(|node| asked.takes("", &node.node_name));
    let lazy = |node: &'a v1::ConnectedNode| {
        let make = move || item::Item::Node(shown(index, node, trust));
        Lazy::new(format!("Node {}", node.node_name), make)
    };
    wanted.map(lazy).collect()
}

fn shown(index: &Index, node: &v1::ConnectedNode, trust: u64) -> v1::NodeItem {
    let is_meshed = |pod: &&Arc<Pod>| index.is_enabled(pod);
    let captured = node.statuses.iter().filter(|status| status.captured).count();
    v1::NodeItem {
        node_name: node.node_name.clone(),
        version: node.version.clone(),
        pods: count(index.pods_of_node(&node.node_name).filter(is_meshed).count()),
        captured_pods: count(captured),
        has_trust_bundle: node.trust_version == trust,
        rejected: node.rejected.clone(),
        out: node.out.clone(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
