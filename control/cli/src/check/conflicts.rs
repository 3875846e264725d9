//! Who else handles the traffic of pods here: Cilium's socket load balancing, other meshes' agents on nodes.
//!
//! Must never call something absent that it may not look for.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Namespace},
};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::finding::{Finding, Verdict, found};
use crate::{cluster::Cluster, error::CliError, limits};

const CATEGORY: &str = "network-conflicts";
const SOCKETS: &str = "Cilium leaves the connections of pods as they are";
const EXCLUSIVE: &str = "Cilium leaves other CNI plugins in place";
const MESHES: &str = "no other mesh has agents on the nodes";
const SHARED: &str = "no namespace is in two meshes";
/// Its agents read it at their start.
const CILIUM: &str = "cilium-config";
const CILIUM_NAMESPACE: &str = "kube-system";
/// DaemonSets by which other meshes take pods.
const AGENTS: [(&str, &str); 3] = [
    ("istio-cni-node", "Istio's CNI plugin"),
    ("ztunnel", "Istio's ambient mode"),
    ("linkerd-cni", "Linkerd's CNI plugin"),
];

/// A problem, if there is one.
type Problem = Option<(Verdict, String)>;

/// All that is in the way, as far as the user may see it.
pub(super) async fn findings(cluster: &Cluster) -> Vec<(String, Finding)> {
    let mut all = Vec::new();
    let mut hidden = Vec::new();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), CILIUM_NAMESPACE);
    let config = cluster.ask("looking for Cilium (ConfigMap kube-system/cilium-config)", maps.get_opt(CILIUM)).await;
    let config = config.map(|map| map.and_then(|map| map.data).unwrap_or_default());
    let both = config.map(|config| [(SOCKETS, sockets(&config)), (EXCLUSIVE, exclusive(&config))]);
    judged(&mut all, &mut hidden, (SOCKETS, "ConfigMap kube-system/cilium-config"), both);

    let some = ListParams::default().limit(limits::OBJECTS_OF_A_KIND);
    let sets: Api<DaemonSet> = Api::all(cluster.client.clone());
    let sets = cluster.ask("looking for agents of other meshes (DaemonSets)", sets.list(&some)).await;
    let agents = sets.map(|sets| [(MESHES, agents(&sets.items))]);
    judged(&mut all, &mut hidden, (MESHES, "DaemonSets of all namespaces"), agents);

    let ours = ListParams::default().labels("weir.mesh/enabled=true").limit(limits::OBJECTS_OF_A_KIND);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespaces = cluster.ask("looking at namespaces", namespaces.list(&ours)).await;
    let shared = namespaces.map(|namespaces| [(SHARED, shared(&namespaces.items))]);
    judged(&mut all, &mut hidden, (SHARED, "namespaces"), shared);
    if !hidden.is_empty() {
        let hint = format!("you may not read {}: not checked", hidden.join(", "));
        all.push(found(CATEGORY, "everything that may be in the way can be seen", Some((Verdict::Warning, hint))));
    }
    all
}

fn judged<const N: usize>(
    all: &mut Vec<(String, Finding)>,
    hidden: &mut Vec<&'static str>,
    (first, source): (&str, &'static str),
    answer: Result<[(&str, Problem); N], CliError>,
) {
    match answer {
        Ok(problems) => {
            all.extend(problems.into_iter().map(|(description, problem)| found(CATEGORY, description, problem)));
        }
        Err(CliError::Forbidden { .. }) => hidden.push(source),
        Err(error) => all.push(found(CATEGORY, first, Some((Verdict::Warning, error.line())))),
    }
}

fn is(config: &BTreeMap<String, String>, key: &str, value: &str) -> bool {
    config.get(key).is_some_and(|found| found == value)
}

/// It turns a ClusterIP into one pod's address within connect(2), before the mesh sees what was dialled.
fn sockets(config: &BTreeMap<String, String>) -> Problem {
    let replaces = ["true", "strict"].iter().any(|value| is(config, "kube-proxy-replacement", value));
    let on = replaces || is(config, "bpf-lb-sock", "true");
    (on && !is(config, "bpf-lb-sock-hostns-only", "true")).then(|| {
        let hint = "its socket load balancing (bpf-lb-sock, kube-proxy-replacement) chooses a pod for each connection to a Service before the mesh sees it: no balancing by request, no metrics and routes of the Service. Set `socketLB.hostNamespaceOnly=true` in Cilium's Helm values (bpf-lb-sock-hostns-only in ConfigMap kube-system/cilium-config), then `kubectl -n kube-system rollout restart ds/cilium`";
        (Verdict::Warning, hint.to_owned())
    })
}

/// It removes what was chained behind it, and pods would start before they are captured.
fn exclusive(config: &BTreeMap<String, String>) -> Problem {
    is(config, "cni-exclusive", "true").then(|| {
        let hint = "it takes away the CNI plugin by which pods wait until they are captured (cni-exclusive): set `cni.exclusive=false` in Cilium's Helm values, then `kubectl -n kube-system rollout restart ds/cilium` and `kubectl -n weir delete pods -l app.kubernetes.io/name=weir-holder`";
        (Verdict::Error, hint.to_owned())
    })
}

fn agents(sets: &[DaemonSet]) -> Problem {
    let mut lines: Vec<String> = Vec::new();
    for set in sets {
        let name = set.name_any();
        if let Some((_, what)) = AGENTS.iter().find(|(agent, _)| *agent == name) {
            let namespace = set.namespace().unwrap_or_default();
            lines.push(format!("DaemonSet {namespace}/{name} ({what}): a pod that two meshes take loses its connections; keep their namespaces apart, or remove the other one"));
        }
    }
    lines.sort();
    (!lines.is_empty()).then(|| (Verdict::Warning, lines.join("\n")))
}

fn shared(namespaces: &[Namespace]) -> Problem {
    let mut lines: Vec<String> = Vec::new();
    for namespace in namespaces {
        let labels = namespace.labels();
        let other = ["istio.io/dataplane-mode", "istio-injection", "istio.io/rev"].into_iter().find_map(|key| {
            let value = labels.get(key).filter(|value| !matches!(value.as_str(), "none" | "disabled"))?;
            Some((key, value))
        });
        if let Some((key, value)) = other {
            let name = namespace.name_any();
            lines.push(format!(
                "{name} ({key}={value}): `kubectl label namespace {name} {key}-`, or weir.mesh/enabled-"
            ));
        }
    }
    (!lines.is_empty()).then(|| (Verdict::Error, lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(problem: Problem) -> Option<Verdict> {
        problem.map(|(verdict, _)| verdict)
    }

    #[test]
    fn cilium_by_its_settings() {
        let config = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!((sockets(&config(&[])), exclusive(&config(&[]))), (None, None), "no Cilium");
        assert_eq!(verdict(sockets(&config(&[("bpf-lb-sock", "true")]))), Some(Verdict::Warning));
        assert_eq!(
            verdict(sockets(&config(&[("kube-proxy-replacement", "true"), ("bpf-lb-sock", "false")]))),
            Some(Verdict::Warning)
        );
        let apart = [("kube-proxy-replacement", "strict"), ("bpf-lb-sock-hostns-only", "true")];
        assert_eq!(sockets(&config(&apart)), None);
        assert_eq!(sockets(&config(&[("kube-proxy-replacement", "false"), ("bpf-lb-sock", "false")])), None);
        assert_eq!(verdict(exclusive(&config(&[("cni-exclusive", "true")]))), Some(Verdict::Error));
        assert_eq!(exclusive(&config(&[("cni-exclusive", "false")])), None);
    }

    #[test]
    fn other_meshes_are_named_with_what_they_share() {
        let set = |name: &str| -> DaemonSet {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "istio-system"}})).unwrap()
        };
        assert_eq!(agents(&[set("kube-proxy"), set("weir-proxy")]), None);
        let (_, hint) = agents(&[set("ztunnel"), set("kube-proxy"), set("istio-cni-node")]).unwrap();
        assert_eq!(hint.lines().count(), 2);
        assert!(hint.starts_with("DaemonSet istio-system/istio-cni-node (Istio's CNI plugin)"), "{hint}");

        let namespace = |name: &str, labels: serde_json::Value| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
        };
        let alone = [namespace("a", json!({})), namespace("b", json!({"istio.io/dataplane-mode": "none"}))];
        assert_eq!(shared(&alone), None);
        let (verdict, hint) = shared(&[namespace("shop", json!({"istio.io/dataplane-mode": "ambient"}))]).unwrap();
        assert!(
            verdict == Verdict::Error && hint.contains("kubectl label namespace shop istio.io/dataplane-mode-"),
            "{hint}"
        );
    }
}
