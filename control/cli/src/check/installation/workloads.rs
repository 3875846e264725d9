//! Whether control and the node parts run. Must never call a rollout done that Kubernetes has not looked at yet.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::Pod,
};
use kube::{Api, api::ListParams};

use super::super::finding::{Finding, Verdict, found};
use crate::{
    chart,
    cluster::{Cluster, ready},
    error::CliError,
    limits,
};

const CATEGORY: &str = "weir-existence";
/// Pods named in one hint: the first few tell the story of a thousand.
const NAMED: usize = 8;

/// Replicas, and node parts on all nodes.
pub(in super::super) async fn workloads(cluster: &Cluster) -> Vec<(String, Finding)> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let wanted = ListParams::default().labels(chart::PART_OF).limit(limits::OBJECTS_OF_A_KIND);
    // Only for the reasons: without them the counts still tell.
    let pods = cluster.ask("listing pods", pods.list(&wanted)).await.map(|list| list.items).unwrap_or_default();
    let mut all = vec![control(cluster, &pods).await];
    for name in ["weir-holder", "weir-proxy"] {
        all.extend(node_part(cluster, name, &pods).await);
    }
    all
}

fn waited(description: &str, problem: Option<(Verdict, String)>) -> (String, Finding) {
    let (category, finding) = found(CATEGORY, description, problem);
    (category, finding.worth_waiting())
}

fn unknown(description: &str, error: &CliError) -> (String, Finding) {
    let verdict = if matches!(error, CliError::Forbidden { .. }) { Verdict::Warning } else { Verdict::Error };
    waited(description, Some((verdict, error.line())))
}

async fn control(cluster: &Cluster, pods: &[Pod]) -> (String, Finding) {
    const DESCRIPTION: &str = "control plane replicas are ready";
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    match cluster.ask("looking at Deployment weir-control", deployments.get("weir-control")).await {
        Ok(deployment) => waited(DESCRIPTION, replicas(&deployment, &cluster.mesh, pods)),
        Err(error) => unknown(DESCRIPTION, &error),
    }
}

fn replicas(deployment: &Deployment, namespace: &str, pods: &[Pod]) -> Option<(Verdict, String)> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let (have, new) = (status.ready_replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
    let seen = status.observed_generation >= deployment.metadata.generation;
    if seen && wanted > 0 && have >= wanted && new >= wanted {
        return None;
    }
    let advice = format!("see `kubectl -n {namespace} describe deploy/weir-control`");
    let verdict = if have > 0 { Verdict::Warning } else { Verdict::Error };
    Some((
        verdict,
        format!("{have} of {wanted} ready, {new} of this version; {advice}{}", reasons("weir-control", pods)),
    ))
}

async fn node_part(cluster: &Cluster, name: &str, pods: &[Pod]) -> Vec<(String, Finding)> {
    let running = format!("{name} is ready on all nodes");
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let set = match cluster.ask(&format!("looking at DaemonSet {name}"), sets.get(name)).await {
        Ok(set) => set,
        Err(error) => return vec![unknown(&running, &error)],
    };
    let status = set.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= set.metadata.generation;
    let (wanted, have) = (status.desired_number_scheduled, status.number_ready);
    let advice = format!("see `kubectl -n {} describe pods -l app.kubernetes.io/name={name}`", cluster.mesh);
    let problem = if !seen || have < wanted {
        let without = without_pod(name, wanted, pods);
        Some((Verdict::Error, format!("on {have} of {wanted} nodes; {advice}{}{without}", reasons(name, pods))))
    } else if wanted == 0 {
        Some((
            Verdict::Error,
            format!("no node is meant to have it: see nodeSelector and tolerations of DaemonSet {name}"),
        ))
    } else {
        None
    };
    let mut all = vec![waited(&running, problem)];
    let old = wanted - status.updated_number_scheduled.unwrap_or(0);
    let hint = if name == "weir-holder" {
        format!(
            "on {old} nodes it is older: it is replaced when its pods are deleted; one node after the other, `kubectl -n {} delete pod …`",
            cluster.mesh
        )
    } else {
        format!("on {old} nodes it is older: its rollout goes on; {advice}")
    };
    all.push(waited(
        &format!("{name} is of the installed version on all nodes"),
        (old > 0).then_some((Verdict::Warning, hint)),
    ));
    all
}

fn of_workload<'a>(name: &str, pods: &'a [Pod]) -> impl Iterator<Item = &'a Pod> {
    pods.iter().filter(move |pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("app.kubernetes.io/name")).is_some_and(|of| of == name)
    })
}

/// Why pods of a workload are not ready, each reason on a line.
fn reasons(name: &str, pods: &[Pod]) -> String {
    let lines: BTreeSet<String> = of_workload(name, pods).filter(|pod| !ready(pod)).map(reason).collect();
    let mut text: String = lines.iter().take(NAMED).map(|line| format!("\n{line}")).collect();
    if lines.len() > NAMED {
        text.push_str(&format!("\nand {} more", lines.len() - NAMED));
    }
    text
}

/// Nodes on which there is not even a pod that could say why; what may not be seen is not missing.
fn without_pod(name: &str, wanted: i32, pods: &[Pod]) -> String {
    let nodes: BTreeSet<&str> =
        of_workload(name, pods).filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
    let missing = usize::try_from(wanted).unwrap_or(0).saturating_sub(nodes.len());
    if missing == 0 || pods.is_empty() {
        return String::new();
    }
    format!(
        "\n{missing} nodes have no pod of it: see `kubectl describe ds/{name}` in the mesh's namespace for quota and admission"
    )
}

fn reason(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node yet");
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let waiting = containers.iter().filter_map(|container| container.state.as_ref()?.waiting.as_ref()).next();
    let unscheduled = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let why = match (waiting, unscheduled) {
        (Some(waiting), _) => {
            let (reason, message) = (waiting.reason.as_deref(), waiting.message.as_deref());
            format!("{} {}", reason.unwrap_or_default(), message.unwrap_or_default()).trim().to_owned()
        }
        (None, Some(condition)) => condition.message.unwrap_or_default(),
        (None, None) if containers.is_empty() => "has not begun".to_owned(),
        (None, None) => "runs, but is not ready".to_owned(),
    };
    format!("{name} ({node}): {why}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(ready: i32, updated: i32, observed: i64) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": 2},
            "spec": {"replicas": 3, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready, "updatedReplicas": updated, "observedGeneration": observed},
        }))
        .unwrap()
    }

    #[test]
    fn replicas_of_control() {
        let verdict = |deployment: &Deployment| replicas(deployment, "weir", &[]).map(|(verdict, _)| verdict);
        assert_eq!(verdict(&deployment(3, 3, 2)), None);
        assert_eq!(verdict(&deployment(3, 3, 1)), Some(Verdict::Warning), "its status is of an older generation");
        assert_eq!(verdict(&deployment(2, 3, 2)), Some(Verdict::Warning));
        assert_eq!(verdict(&deployment(0, 3, 2)), Some(Verdict::Error));
    }

    #[test]
    fn pods_say_why() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "weir-proxy-x", "labels": {"app.kubernetes.io/name": "weir-proxy"}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"containerStatuses": [{"name": "proxy", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }))
        .unwrap();
        let pending: Pod = serde_json::from_value(json!({
            "metadata": {"name": "weir-proxy-y", "labels": {"app.kubernetes.io/name": "weir-proxy"}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes fit"}]},
        }))
        .unwrap();
        let text = reasons("weir-proxy", &[pod.clone(), pending]);
        assert_eq!(
            text,
            "\nweir-proxy-x (n1): ImagePullBackOff no such image\nweir-proxy-y (no node yet): 0/2 nodes fit"
        );
        assert_eq!(reasons("weir-control", std::slice::from_ref(&pod)), "");
        assert_eq!(without_pod("weir-proxy", 1, std::slice::from_ref(&pod)), "");
        assert!(without_pod("weir-proxy", 3, &[pod]).starts_with("\n2 nodes have no pod of it"));
    }
}
