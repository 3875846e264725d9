//! ConfigMap `weir-status`: what `weir check` and GitOps tools read without a right to ask control.
//!
//! Must never be written by a replica that does not lead, nor when nothing changed.

use std::{sync::Arc, time::Instant};

use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use weir_api::status::{Condition, KEY, NAME, Nodes, Pods, Status};

use super::{CONTROL, Failure, NAMESPACE, election::Leadership, within};
use crate::{
    ejected::Ejected,
    limits,
    plane::Plane,
    replicas::{Gathered, Replicas},
};

/// Writes while this replica leads.
pub(super) async fn follow(client: Client, plane: Arc<Plane>, replicas: Arc<Replicas>, mut leadership: Leadership) {
    let mut changes = plane.changes();
    let mut writer = Writer { api: Api::namespaced(client, NAMESPACE), written: None };
    let mut ejected = Ejected::default();
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
            let observed = match replicas.gather(None).await {
                Ok(gathered) => {
                    let news = ejected.look(&gathered, &plane.index(), Instant::now(), &Timestamp::now().to_string());
                    news.into_iter().for_each(|notice| plane.notify(notice));
                    observe(&plane, &gathered)
                }
                Err(status) => {
                    tracing::warn!(reason = status.message(), "what replicas know cannot be gathered");
                    continue;
                }
            };
            if let Err(error) = writer.update(observed, &leadership, Instant::now()).await {
                tracing::warn!(%error, "ConfigMap weir/weir-status cannot be written");
            }
        } else {
            // Another one may write meanwhile.
            writer.written = None;
            ejected = Ejected::default();
        }
        tokio::time::sleep(limits::STATUS_PAUSE).await;
    }
}

/// Writes what differs from what was written.
struct Writer {
    api: Api<ConfigMap>,
    /// And the resource version that it has since, and when it was looked at.
    written: Option<(Status, Option<String>, Instant)>,
}

impl Writer {
    async fn update(&mut self, observed: Status, leadership: &Leadership, now: Instant) -> Result<(), Failure> {
        // Nobody watches whether it is still there.
        let is_fresh = |at: Instant| now.duration_since(at) < limits::RESTORED_WITHIN;
        let (before, version, at) = match self.written.take() {
            Some(written) if is_fresh(written.2) => written,
            _else => {
                let (found, version) = self.read().await?;
                (found, version, now)
            }
        };
        let status = since(&before, observed, &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if status == before || !leadership.is_held() {
            self.written = Some((before, version, at));
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&status).map_err(|error| Failure::Other(error.to_string()))?;
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            // A leader that was stopped here, and goes on when another one leads, is refused as a conflict.
            "metadata": { "name": NAME, "labels": { "app.kubernetes.io/part-of": "weir" }, "resourceVersion": version },
            "data": { KEY: text },
        });
        let params = PatchParams::apply(CONTROL).force();
        let map = within(self.api.patch(NAME, &params, &Patch::Apply(map))).await?;
        self.written = Some((status, map.metadata.resource_version, now));
        Ok(())
    }

    async fn read(&self) -> Result<(Status, Option<String>), Failure> {
        let Some(map) = within(self.api.get_opt(NAME)).await? else { return Ok((Status::default(), None)) };
        let text = map.data.unwrap_or_default().remove(KEY).unwrap_or_default();
        Ok((serde_json::from_str(&text).unwrap_or_default(), map.metadata.resource_version))
    }
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

fn observe(plane: &Plane, gathered: &Gathered) -> Status {
    let statuses = gathered.statuses();
    let mut pods = Pods::default();
    {
        let index = plane.index();
        for pod in index.pods() {
            pods.refused += usize::from(index.is_refused(pod));
            if !index.is_enabled(pod) {
                continue;
            }
            // Of pods whose nodes are silent at the moment, the mark says it.
            let (serving, said) = (index.is_serving(pod), statuses.get(&*pod.uid));
            pods.enabled += 1;
            pods.captured += usize::from(serving || said.is_some_and(|said| said.captured));
            pods.certified += usize::from(serving || said.is_some_and(|said| said.certificate_not_after > 0));
        }
    }
    let nodes = &gathered.nodes;
    let mut versions: Vec<String> = nodes.values().map(|node| node.version.clone()).collect();
    versions.sort_unstable();
    versions.dedup();
    let conditions = conditions(plane, &pods, gathered);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pods,
        nodes: Nodes { connected: nodes.len(), versions },
        conditions,
    }
}

fn conditions(plane: &Plane, pods: &Pods, gathered: &Gathered) -> Vec<Condition> {
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
    let nodes = (gathered.nodes.is_empty() && pods.enabled > 0).then(|| {
        let missing = gathered.missing_replicas();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|replica| replica.name.as_str()).collect();
            return ("ReplicasMissing", format!("no node is connected to this replica, and others do not answer: {}", names.join(", ")));
        }
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
    use std::time::Duration;

    use super::*;
    use crate::{fixtures::api::Api as Server, kubernetes::election::Election};

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

    #[tokio::test]
    async fn a_status_that_somebody_deleted_or_edited_is_written_again() {
        let path = "/api/v1/namespaces/weir/configmaps/weir-status";
        let (server, client) = Server::start().await;
        let (_release, released) = tokio::sync::oneshot::channel();
        let (election, mut leadership) = Election::new(&client, "me".to_owned());
        tokio::spawn(election.run(released));
        leadership.changed().await;
        let mut writer = Writer { api: Api::namespaced(client, NAMESPACE), written: None };
        let begin = Instant::now();
        let mut update = async |after: Duration| {
            writer.update(status("True", ""), &leadership, begin + after).await.unwrap();
            server.asked("PATCH")
        };
        assert_eq!(update(Duration::ZERO).await, 1);
        server.remove(path);
        assert_eq!(update(limits::RESTORED_WITHIN / 2).await, 1);
        assert_eq!(update(limits::RESTORED_WITHIN).await, 2);
        server.put(path, &serde_json::json!({"data": {KEY: "{}"}}));
        assert_eq!(update(limits::RESTORED_WITHIN * 2).await, 3);
        assert_eq!(update(limits::RESTORED_WITHIN * 3).await, 3, "as it was written");
    }
}
