//! What `weir check` shows: findings of control, then those of nodes. Must never say that something is well that was not looked at.

use std::{collections::BTreeSet, time::Duration};

use weir_api::v1::{self, CheckOutcome, CheckResult};

use crate::{
    kubernetes::{CONTROL, NAMESPACE},
    limits,
    plane::Plane,
    replicas::Gathered,
};

const IDENTITY: &str = "weir-identity";
const PODS: &str = "weir-data-plane";

/// Everything.
pub fn all(plane: &Plane, gathered: &Gathered) -> Vec<CheckResult> {
    let mut results = vec![manifests(plane), authority(gathered), issuer(plane)];
    results.extend([replicas(gathered), nodes(gathered), rejections(gathered)]);
    results.extend([trust(plane, gathered), certificates(plane, gathered)]);
    results.extend([pods(plane, gathered), refused(plane)]);
    for report in &gathered.reports {
        results.extend(report.checks.iter().cloned().map(|found| of_node(&report.node_name, found)));
    }
    results
}

/// What is wrong says on which node; what is well is the same on all of them.
fn of_node(node: &str, found: CheckResult) -> CheckResult {
    if found.hint.is_empty() { found } else { CheckResult { hint: format!("node {node}: {}", found.hint), ..found } }
}

fn result(category: &str, description: impl Into<String>, outcome: CheckOutcome, hint: String) -> CheckResult {
    CheckResult { category: category.to_owned(), description: description.into(), outcome: outcome.into(), hint }
}

/// Success when there is nothing wrong.
fn judged(category: &str, description: &str, bad: CheckOutcome, wrong: Vec<String>) -> CheckResult {
    let outcome = if wrong.is_empty() { CheckOutcome::Success } else { bad };
    let mut wrong = wrong;
    let more = wrong.len().saturating_sub(limits::NAMED_PER_CHECK);
    wrong.truncate(limits::NAMED_PER_CHECK);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    result(category, description, outcome, wrong.join("\n"))
}

fn manifests(plane: &Plane) -> CheckResult {
    let findings = plane.findings().iter().map(ToString::to_string).collect();
    judged(CONTROL, "all objects that the mesh reads are valid", CheckOutcome::Error, findings)
}

fn authority(gathered: &Gathered) -> CheckResult {
    let wrong = gathered
        .authority_problems
        .iter()
        .map(|(replica, problem)| format!("{replica}: {problem}; what was used before stays in use"));
    judged(CONTROL, "trust anchors and issuer as given are in use", CheckOutcome::Error, wrong.collect())
}

fn replicas(gathered: &Gathered) -> CheckResult {
    let missing = gathered.missing_replicas();
    let wrong = missing.iter().map(|replica| {
        let v1::Replica { name, address, problem, .. } = replica;
        format!(
            "{name} ({address}): {problem}; nodes that are connected to it are not in this answer: see `kubectl -n {NAMESPACE} logs {name}`, and whether a NetworkPolicy lets replicas of control reach each other"
        )
    });
    judged(CONTROL, "replicas of control answer each other", CheckOutcome::Error, wrong.collect())
}

fn issuer(plane: &Plane) -> CheckResult {
    let left = plane.issuer_left();
    let days = left.as_secs() / 86_400;
    let hint = format!("replace issuer certificate and key; {days} days are left");
    let outcome = match left {
        Duration::ZERO => CheckOutcome::Error,
        left if left < limits::ISSUER_ENDING => CheckOutcome::Warning,
        _enough => {
            return result(
                CONTROL,
                format!("issuer certificate is valid for {days} more days"),
                CheckOutcome::Success,
                String::new(),
            );
        }
    };
    result(CONTROL, "issuer certificate is about to end", outcome, hint)
}

fn nodes(gathered: &Gathered) -> CheckResult {
    let (reports, missing) = (&gathered.reports, &gathered.missing_nodes);
    if reports.is_empty() && missing.is_empty() {
        let hint = "no node is connected: is `weir-node proxy` running, and can it reach control?".to_owned();
        return result(CONTROL, "nodes are connected", CheckOutcome::Error, hint);
    }
    let wrong =
        missing.iter().map(|node| format!("node {node} did not answer within {:?}", limits::QUERY_WITHIN)).collect();
    judged(CONTROL, "connected nodes answer", CheckOutcome::Error, wrong)
}

fn rejections(gathered: &Gathered) -> CheckResult {
    let mut wrong = Vec::new();
    for node in gathered.nodes.values() {
        for rejection in &node.rejected {
            let key = rejection.key.clone().unwrap_or_default();
            wrong.push(format!(
                "node {} refused {} {}: {}",
                node.node_name,
                key.kind().as_str_name(),
                key.name,
                rejection.reason
            ));
        }
    }
    judged(CONTROL, "nodes take what they are sent", CheckOutcome::Error, wrong)
}

/// Before an issuer may be changed, and before an old anchor may go, every node must know: a handshake needs both sides.
fn trust(plane: &Plane, gathered: &Gathered) -> CheckResult {
    let current = plane.trust_version();
    let nodes = gathered.nodes.values().filter(|node| node.trust_version != current);
    let mut wrong: Vec<String> = nodes.map(|node| format!("node {} has not taken them yet", node.node_name)).collect();
    if gathered.trust_versions.iter().any(|version| *version != current) {
        wrong.push("replicas of control do not agree on them yet".to_owned());
    }
    let index = plane.index();
    let enabled = index.pods().filter(|pod| index.is_enabled(pod));
    let silent: BTreeSet<&str> = enabled
        .map(|pod| pod.reference.node_name.as_str())
        .filter(|name| !gathered.nodes.contains_key(*name))
        .collect();
    wrong.extend(silent.iter().map(|node| format!("node {node} is not connected, and trusts what it was told last")));
    if !wrong.is_empty() {
        wrong.push("neither change the issuer nor remove a trust anchor before they have".to_owned());
    }
    let count = plane.authority.current().anchors.len();
    judged(IDENTITY, &format!("all nodes trust the trust anchors in use ({count})"), CheckOutcome::Warning, wrong)
}

fn certificates(plane: &Plane, gathered: &Gathered) -> CheckResult {
    let current = plane.authority.current();
    let mut wrong: Vec<String> = Vec::new();
    for report in &gathered.reports {
        for workload in report.workloads.iter().filter(|workload| !workload.certificate_chain.is_empty()) {
            if !current.issuer.has_signed(&workload.certificate_chain, &workload.identity) {
                let pod = workload.pod.clone().unwrap_or_default();
                wrong.push(format!("{}/{} on node {}", pod.namespace, pod.name, report.node_name));
            }
        }
    }
    wrong.sort();
    if !wrong.is_empty() {
        let within = limits::RENEWED_WITHIN;
        wrong.insert(0, format!("nodes renew within {within:?} of a change of the issuer; do not remove the former one's trust anchor before. Still of another issuer:"));
    }
    let silent = gathered.missing_nodes.iter().map(|node| format!("node {node}"));
    let replicas = gathered.missing_replicas();
    let silent = silent.chain(replicas.iter().map(|replica| format!("the nodes of replica {}", replica.name)));
    wrong.extend(silent.map(|silent| format!("{silent}: did not answer, and may have others: do not go on before")));
    judged(IDENTITY, "certificates of pods are of the issuer in use", CheckOutcome::Warning, wrong)
}

fn pods(plane: &Plane, gathered: &Gathered) -> CheckResult {
    let statuses = gathered.statuses();
    let index = plane.index();
    let mut wrong: Vec<String> = index
        .pods()
        .filter(|pod| index.is_enabled(pod))
        .filter_map(|pod| {
            let name = format!("{}/{}", pod.reference.namespace, pod.reference.name);
            let node = &pod.reference.node_name;
            match statuses.get(&*pod.uid) {
                Some(status) if status.captured && status.certificate_not_after > 0 => None,
                Some(status) if status.captured => Some(format!(
                    "{name}: captured, but has no certificate: its connections wait; see `kubectl -n {NAMESPACE} logs` of weir-proxy on node {node} and of weir-control"
                )),
                Some(status) => Some(format!("{name}: not captured: {}", status.reason)),
                None => Some(format!(
                    "{name}: node {node} has not said anything about it: does weir-proxy run there (`kubectl -n {NAMESPACE} get pods -o wide`), and can it reach weir-control?"
                )),
            }
        })
        .collect();
    wrong.sort();
    judged(PODS, "pods that are opted in are captured and have certificates", CheckOutcome::Error, wrong)
}

fn refused(plane: &Plane) -> CheckResult {
    let index = plane.index();
    let refused = index.pods().filter(|pod| index.is_refused(pod));
    let mut wrong: Vec<String> = refused
        .filter_map(|pod| Some(format!("{}/{}: {}", pod.reference.namespace, pod.reference.name, pod.unfit?.reason())))
        .collect();
    wrong.sort();
    judged(PODS, "pods that are opted in can be meshed", CheckOutcome::Warning, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, CaArgs};

    #[test]
    fn certificates_are_not_well_while_somebody_has_not_said_which_ones_it_has() {
        let state = tempfile::tempdir().unwrap();
        let args = CaArgs { trust_anchors: None, issuer_certificate: None, issuer_key: None, certificate_hours: 24 };
        let authority = Authority::open(&args, state.path(), "cluster.local").unwrap();
        let plane = Plane::new("cluster.local".to_owned(), authority, None);
        assert_eq!(certificates(&plane, &Gathered::default()).outcome(), CheckOutcome::Success);
        let node = Gathered { missing_nodes: vec!["n-1".to_owned()], ..Gathered::default() };
        let silent = v1::Replica { name: "c-1".to_owned(), problem: "no".to_owned(), ..v1::Replica::default() };
        let replica = Gathered { replicas: vec![silent], ..Gathered::default() };
        for (gathered, named) in [(node, "node n-1"), (replica, "replica c-1")] {
            let found = certificates(&plane, &gathered);
            assert!(found.outcome() == CheckOutcome::Warning && found.hint.contains(named), "{found:?}");
        }
    }
}
