//! ConfigMap `weir-status`: what `weir check` and GitOps tools read without a right to ask control.
//!
//! Must never be written by a replica that does not lead, nor when nothing changed.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde::{Deserialize, Serialize};

use super::{CONTROL, Failure, NAMESPACE, election::Leadership, within};
use crate::{limits, plane::Plane};

const NAME: &str = "weir-status";
const KEY: &str = "status.json";

/// The content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    version: String,
    pods: Pods,
    nodes: Nodes,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pods {
    enabled: usize,
    captured: usize,
    certified: usize,
    refused: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Nodes {
    /// To the replica that writes.
    connected: usize,
    versions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

/// Writes while this replica leads.
pub(super) async fn follow(client: Client, plane: Arc<Plane>, mut leadership: Leadership) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut changes = plane.changes();
    let mut written: Option<Status> = None;
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = leadership.changed() => {}
            () = tokio::time::sleep(limits::STATUS_RESCAN) => {}
        }
        changes.mark_unchanged();
        if !plane.is_loaded() {
            continue;
        }
        if leadership.is_held() {
            if let Err(error) = update(&api, &plane, &leadership, &mut written).await {
                tracing::warn!(%error, "ConfigMap weir/weir-status cannot be written");
            }
        } else {
            // Another one may write meanwhile.
            written = None;
        }
        tokio::time::sleep(limits::STATUS_PAUSE).await;
    }
}

async fn update(
    api: &Api<ConfigMap>,
    plane: &Plane,
    leadership: &Leadership,
    written: &mut Option<Status>,
) -> Result<(), Failure> {
    if written.is_none() {
        let known = within(api.get_opt(NAME)).await?.and_then(|map| map.data).unwrap_or_default();
        *written = Some(known.get(KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default());
    }
    let before = written.clone().unwrap_or_default();
    let status = since(&before, observe(plane), &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if status == before || !leadership.is_held() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&status).map_err(|error| Failure::Other(error.to_string()))?;
    let map = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "labels": { "app.kubernetes.io/part-of": "weir" } },
        "data": { KEY: text },
    });
    within(api.patch(NAME, &PatchParams::apply(CONTROL).force(), &Patch::Apply(map))).await?;
    *written = Some(status);
    Ok(())
}

/// A condition keeps its time while its status stays.
fn since(before: &Status, mut status: Status, now: &str) -> Status {
    for condition in &mut status.conditions {
        let known = before.conditions.iter().find(|known| known.kind == condition.kind);
        condition.last_transition_time = match known {
            Some(known) if known.status == condition.status => known.last_transition_time.clone(),
            _ => now.to_owned(),
        };
    }
    status
}

fn observe(plane: &Plane) -> Status {
    let statuses = plane.statuses();
    let mut pods = Pods::default();
    {
        let index = plane.index();
        for pod in index.pods() {
            pods.refused += usize::from(index.is_refused(pod));
            if !index.is_enabled(pod) {
                continue;
            }
            // Of pods whose nodes speak to another replica, the mark says it.
            let (serving, said) = (index.is_serving(pod), statuses.get(&*pod.uid));
            pods.enabled += 1;
            pods.captured += usize::from(serving || said.is_some_and(|said| said.captured));
            pods.certified += usize::from(serving || said.is_some_and(|said| said.certificate_not_after > 0));
        }
    }
    let nodes = plane.nodes();
    let mut versions: Vec<String> = nodes.iter().map(|node| node.version.clone()).collect();
    versions.sort_unstable();
    versions.dedup();
    let conditions = conditions(plane, &pods, nodes.len());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pods,
        nodes: Nodes { connected: nodes.len(), versions },
        conditions,
    }
}

fn conditions(plane: &Plane, pods: &Pods, connected: usize) -> Vec<Condition> {
    let condition = |kind: &str, wrong: Option<(&str, String)>, right: &str| {
        let is_right = wrong.is_none();
        let (reason, message) = wrong.unwrap_or((right, String::new()));
        let status = if is_right { "True" } else { "False" }.to_owned();
        Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message, ..Condition::default() }
    };
    let left = plane.issuer_left();
    let identity = match plane.authority_problem() {
        Some(problem) => Some(("Refused", problem)),
        None if left < limits::ISSUER_ENDING => Some((
            "IssuerEnding",
            format!("the issuer's certificate ends in {} hours; replace it", left.as_secs() / 3_600),
        )),
        None => None,
    };
    let nodes = (connected == 0 && pods.enabled > 0).then(|| {
        ("None", "pods are opted in, but no node is connected: do the pods of DaemonSet weir-proxy run, and can they reach weir-control?".to_owned())
    });
    let missing = pods.enabled.saturating_sub(pods.captured.min(pods.certified));
    let ready = if identity.as_ref().is_some_and(|_| left.is_zero()) {
        Some(("IdentityInvalid", "no certificate can be signed".to_owned()))
    } else if missing > 0 {
        Some((
            "PodsMissing",
            format!("{missing} of {} pods that are opted in are not captured with a certificate", pods.enabled),
        ))
    } else {
        None
    };
    vec![
        condition("Ready", ready, "AllCaptured"),
        condition("IdentityValid", identity, "Valid"),
        condition("NodesConnected", nodes, "Connected"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: &str, message: &str) -> Status {
        let condition = Condition {
            kind: "Ready".to_owned(),
            status: ready.to_owned(),
            message: message.to_owned(),
            ..Condition::default()
        };
        Status { conditions: vec![condition], ..Status::default() }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let first = since(&Status::default(), status("False", "3 pods"), "t1");
        assert_eq!(first.conditions[0].last_transition_time, "t1");
        let second = since(&first, status("False", "2 pods"), "t2");
        assert_eq!(second.conditions[0].last_transition_time, "t1");
        assert_eq!(since(&second, status("False", "2 pods"), "t3"), second, "nothing new is nothing to write");
        assert_eq!(since(&second, status("True", ""), "t4").conditions[0].last_transition_time, "t4");
    }

    #[test]
    fn what_was_written_is_read_again_also_by_another_version() {
        let text = serde_json::to_string(&status("True", "")).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status("True", ""));
        let other = r#"{"version":"9.0.0","unknown":1}"#;
        assert_eq!(serde_json::from_str::<Status>(other).unwrap().version, "9.0.0");
    }
}
