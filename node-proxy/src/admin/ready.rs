//! Whether this node may be called ready. Must never wait for control once it has a configuration.

use std::collections::{HashMap, HashSet};

use crate::telemetry::NodeState;

/// None when ready.
pub(super) fn reason_against(state: &dyn NodeState) -> Option<String> {
    if !state.synced() {
        return Some("no configuration yet: control has not answered and nothing was restored".to_owned());
    }
    let snapshot = state.snapshot();
    let captures: HashMap<_, _> = state.captures().into_iter().map(|capture| (capture.uid, capture.captured)).collect();
    let certificates = state.certificates();
    let held: HashSet<&str> = certificates.iter().map(|certificate| certificate.identity.as_str()).collect();
    let mut waiting: Vec<&str> = snapshot
        .workloads()
        .filter(|workload| captures.get(&workload.uid) == Some(&true))
        .map(|workload| workload.identity.as_str())
        .filter(|identity| !held.contains(identity))
        .collect();
    waiting.sort_unstable();
    waiting.dedup();
    (!waiting.is_empty()).then(|| format!("captured workloads wait for a certificate: {}", waiting.join(", ")))
}
