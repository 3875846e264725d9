//! Findings about this node for `weir check`. Must never say "fine" about what was not looked at.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use weir_api::v1::{CheckOutcome, CheckResult};
use weir_core::snapshot::Snapshot;

use crate::telemetry::NodeState;

/// Category of the findings made here.
const CATEGORY: &str = "weir-node";

pub(super) fn all(state: &dyn NodeState, snapshot: &Snapshot) -> Vec<CheckResult> {
    let mut results = vec![control(state), captures(state), certificates(state, snapshot)];
    results.extend(state.checks());
    results
}

fn result(description: &str, outcome: CheckOutcome, hint: String) -> CheckResult {
    CheckResult { category: CATEGORY.to_owned(), description: description.to_owned(), outcome: outcome.into(), hint }
}

fn control(state: &dyn NodeState) -> CheckResult {
    let description = "node is connected to control";
    if state.control_connected() {
        return result(description, CheckOutcome::Success, String::new());
    }
    let hint =
        "the node serves with the last configuration it had: check that control runs, that its address and the node's \
                token are right, and the proxy's log"
            .to_owned();
    result(description, CheckOutcome::Warning, hint)
}

fn captures(state: &dyn NodeState) -> CheckResult {
    let description = "all workloads of the node are captured";
    let refused: Vec<String> = state
        .captures()
        .into_iter()
        .filter(|capture| !capture.captured)
        .map(|capture| format!("{}: {}", capture.uid, capture.reason))
        .collect();
    if refused.is_empty() {
        return result(description, CheckOutcome::Success, String::new());
    }
    result(description, CheckOutcome::Error, format!("not captured: {}", refused.join("; ")))
}

fn certificates(state: &dyn NodeState, snapshot: &Snapshot) -> CheckResult {
    let description = "all workloads of the node have a valid certificate";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).cast_signed();
    let certificates = state.certificates();
    let valid: HashSet<&str> = certificates
        .iter()
        .filter(|certificate| certificate.not_after > now)
        .map(|certificate| certificate.identity.as_str())
        .collect();
    let mut without: Vec<&str> = snapshot
        .workloads()
        .map(|workload| workload.identity.as_str())
        .filter(|identity| !valid.contains(identity))
        .collect();
    without.sort_unstable();
    without.dedup();
    if without.is_empty() {
        return result(description, CheckOutcome::Success, String::new());
    }
    let hint = format!("none for {}: check the log of control for refused certificate requests", without.join(", "));
    result(description, CheckOutcome::Error, hint)
}
