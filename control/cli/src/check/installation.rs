//! The installation: whether it may be made, whether it is there, and whether it runs. Must never guess why a pod does not run.

mod workloads;

use std::collections::BTreeSet;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::ConfigMap,
};
use kube::{Api, api::PostParams};
use weir_api::status::{KEY, NAME, Pods, Status};

pub(super) use self::workloads::workloads;
use super::finding::{Finding, Verdict, found};
use crate::{
    chart::{ChartError, Object, Overrides},
    cluster::Cluster,
    error::CliError,
    install::installed::{self, KINDS, Kind},
};

pub(super) const BEFORE: &str = "pre-kubernetes-setup";
const EXISTENCE: &str = "weir-existence";
const STATUS: &str = "weir-status";
const CONFIG: &str = "what is installed is known (ConfigMap weir-config)";

/// Of a cluster without a mesh: what applying `wanted` will need.
pub(super) async fn before(cluster: &Cluster, wanted: &[Object]) -> Vec<(String, Finding)> {
    let held = installed::values(cluster).await;
    let problem = match held {
        Err(CliError::NotInstalled { .. } | CliError::Missing { .. } | CliError::Forbidden { .. }) => None,
        Ok(_) => Some((Verdict::Error, "it is: use `weir upgrade` and `weir check` without --pre".to_owned())),
        Err(error) => Some((Verdict::Error, error.line())),
    };
    let mut all = vec![found(BEFORE, "the mesh is not installed yet", problem)];
    let needed: BTreeSet<(String, String)> = wanted
        .iter()
        .map(|object| object.reference())
        .map(|reference| (reference.group().to_owned(), reference.kind))
        .collect();
    for kind in KINDS.iter().rev().filter(|kind| needed.contains(&(kind.0.to_owned(), kind.2.to_owned()))) {
        all.push(found(BEFORE, &format!("can create {}", kind.3), may_create(cluster, kind).await));
    }
    all
}

async fn may_create(cluster: &Cluster, (group, version, _, plural, namespaced): &Kind) -> Option<(Verdict, String)> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some((*group).to_owned()),
                version: Some((*version).to_owned()),
                resource: Some((*plural).to_owned()),
                verb: Some("create".to_owned()),
                namespace: namespaced.then(|| cluster.mesh.clone()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let parameters = PostParams::default();
    let answer = cluster.ask("asking what you may do", reviews.create(&parameters, &review)).await;
    match answer.map(|review| review.status.is_some_and(|status| status.allowed)) {
        Ok(true) => None,
        Ok(false) => {
            let place = if *namespaced { format!(" in namespace {}", cluster.mesh) } else { String::new() };
            let stage = if *namespaced { "--stage mesh" } else { "--stage cluster" };
            Some((
                Verdict::Error,
                format!(
                    "you may not create {plural}{place}: let somebody who may apply `weir install {stage}`, or give you the right"
                ),
            ))
        }
        Err(error) => Some((Verdict::Error, error.line())),
    }
}

/// What is installed; `None` when there is nothing to check.
pub(super) async fn config(cluster: &Cluster) -> (Vec<(String, Finding)>, Option<Overrides>) {
    match installed::recorded(cluster).await {
        Ok(overrides) => (vec![found(EXISTENCE, CONFIG, None)], Some(overrides)),
        // Somebody who may not read it can still ask control; what is installed is then taken to be the default.
        Err(error @ CliError::Forbidden { .. }) => {
            (vec![found(EXISTENCE, CONFIG, Some((Verdict::Warning, error.line())))], Some(Overrides::default()))
        }
        Err(error) => (vec![found(EXISTENCE, CONFIG, Some((Verdict::Error, error.line())))], None),
    }
}

/// What was recorded is no set of values of this version.
pub(super) fn unreadable(error: &ChartError) -> (String, Finding) {
    let hint = format!("{error}; the installation is of another version than this program: use that version's");
    found("weir-config", "the installation's values are known to this version", Some((Verdict::Warning, hint)))
}

/// What control says of itself where everybody can read it.
pub(super) async fn status(cluster: &Cluster) -> Vec<(String, Finding)> {
    const WRITTEN: &str = "control writes its status (ConfigMap weir-status)";
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let problem = |verdict, hint| {
        let (category, finding) = found(STATUS, WRITTEN, Some((verdict, hint)));
        vec![(category, finding.worth_waiting())]
    };
    let text = match cluster.ask("reading ConfigMap weir-status", maps.get_opt(NAME)).await {
        Ok(map) => map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY)),
        Err(error) => return problem(Verdict::Warning, error.line()),
    };
    let Some(text) = text else {
        return problem(
            Verdict::Error,
            format!("there is none: see `kubectl -n {} logs deploy/weir-control`", cluster.mesh),
        );
    };
    match serde_json::from_str::<Status>(&text) {
        Ok(status) => {
            let mut all = vec![found(STATUS, WRITTEN, None)];
            all.extend(of_status(&status));
            all
        }
        Err(error) => problem(Verdict::Warning, format!("it is not as this version writes it: {error}")),
    }
}

fn of_status(status: &Status) -> Vec<(String, Finding)> {
    let mut all = Vec::new();
    for condition in &status.conditions {
        let problem = (condition.status != "True").then(|| {
            let verdict = if condition.status == "False" { Verdict::Error } else { Verdict::Warning };
            (verdict, format!("{}: {}", condition.reason, condition.message))
        });
        let (category, finding) = found(STATUS, &format!("condition {} holds", condition.kind), problem);
        all.push((category, finding.worth_waiting()));
    }
    let Pods { enabled, captured, certified, refused } = status.pods.clone();
    let description = format!("{captured} of {enabled} opted-in pods are captured, {certified} have certificates");
    // Which ones, and why, control says by name.
    let behind = captured < enabled || certified < enabled;
    let hint = || (Verdict::Warning, "see weir-data-plane below, and the events of the pods".to_owned());
    all.push(found(STATUS, &description, behind.then(hint)));
    let hint = || {
        let hint = format!(
            "{refused} are not: `kubectl get events -A --field-selector reason=MeshRefused` says which, and what to do"
        );
        (Verdict::Warning, hint)
    };
    all.push(found(STATUS, "all pods that want to be in the mesh can be", (refused > 0).then(hint)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_counts() {
        let text = r#"{"version": "1", "pods": {"enabled": 3, "captured": 2, "certified": 2, "refused": 1},
            "conditions": [{"type": "Ready", "status": "True"},
            {"type": "IdentityValid", "status": "False", "reason": "Expired", "message": "the issuer ended"}]}"#;
        let findings = of_status(&serde_json::from_str(text).unwrap());
        let lines: Vec<(&str, Verdict)> =
            findings.iter().map(|(_, finding)| (finding.description.as_str(), finding.result)).collect();
        assert_eq!(
            lines,
            [
                ("condition Ready holds", Verdict::Success),
                ("condition IdentityValid holds", Verdict::Error),
                ("2 of 3 opted-in pods are captured, 2 have certificates", Verdict::Warning),
                ("all pods that want to be in the mesh can be", Verdict::Warning),
            ]
        );
        assert_eq!(findings[1].1.hint, "Expired: the issuer ended");
        assert!(of_status(&Status::default()).iter().all(|(_, finding)| finding.result == Verdict::Success));
    }
}
