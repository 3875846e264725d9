//! What `weir check` shows: findings of control, then those of nodes. Must never say that something is well that was not looked at.

use std::time::Duration;

use weir_api::v1::{self, CheckOutcome, CheckResult};

use crate::{limits, plane::Plane};

const CONTROL: &str = "weir-control";
const PODS: &str = "weir-data-plane";

/// Everything.
pub fn all(plane: &Plane, reports: &[v1::Report], missing: &[String]) -> Vec<CheckResult> {
    let mut results = vec![manifests(plane), authority(plane), issuer(plane), nodes(reports, missing)];
    results.push(rejections(plane));
    results.push(pods(plane));
    results.push(refused(plane));
    for report in reports {
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
    result(category, description, outcome, wrong.join("\n"))
}

fn manifests(plane: &Plane) -> CheckResult {
    let mut findings: Vec<String> = plane.findings().iter().map(ToString::to_string).collect();
    let more = findings.len().saturating_sub(limits::FINDINGS_PER_FILE);
    findings.truncate(limits::FINDINGS_PER_FILE);
    if more > 0 {
        findings.push(format!("and {more} more"));
    }
    judged(CONTROL, "all manifests are valid", CheckOutcome::Error, findings)
}

fn authority(plane: &Plane) -> CheckResult {
    let wrong = plane.authority_problem().map(|problem| format!("{problem}; what was used before stays in use"));
    judged(CONTROL, "trust anchors and issuer as given are in use", CheckOutcome::Error, wrong.into_iter().collect())
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

fn nodes(reports: &[v1::Report], missing: &[String]) -> CheckResult {
    if reports.is_empty() && missing.is_empty() {
        let hint = "no node is connected: is `weir-node proxy` running, and can it reach control?".to_owned();
        return result(CONTROL, "nodes are connected", CheckOutcome::Error, hint);
    }
    let wrong =
        missing.iter().map(|node| format!("node {node} did not answer within {:?}", limits::QUERY_WITHIN)).collect();
    judged(CONTROL, "connected nodes answer", CheckOutcome::Error, wrong)
}

fn rejections(plane: &Plane) -> CheckResult {
    let mut wrong = Vec::new();
    for node in plane.nodes() {
        for rejection in node.rejected.lock().iter() {
            let key = rejection.key.clone().unwrap_or_default();
            wrong.push(format!(
                "node {} refused {} {}: {}",
                node.name,
                key.kind().as_str_name(),
                key.name,
                rejection.reason
            ));
        }
    }
    judged(CONTROL, "nodes take what they are sent", CheckOutcome::Error, wrong)
}

fn pods(plane: &Plane) -> CheckResult {
    let statuses = plane.statuses();
    let index = plane.index();
    let mut wrong: Vec<String> = index
        .pods()
        .filter(|pod| index.is_enabled(pod))
        .filter_map(|pod| {
            let name = format!("{}/{}", pod.reference.namespace, pod.reference.name);
            match statuses.get(&*pod.uid) {
                Some(status) if status.captured && status.certificate_not_after > 0 => None,
                Some(status) if status.captured => Some(format!("{name}: captured, but has no certificate yet")),
                Some(status) => Some(format!("{name}: not captured: {}", status.reason)),
                None => Some(format!("{name}: node {} has not said anything about it", pod.reference.node_name)),
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
