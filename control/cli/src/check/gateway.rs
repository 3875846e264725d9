//! Gateway API: which of its resources people can create here. Must never call a version served that discovery does not name.

use std::collections::BTreeMap;

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};

use super::finding::{Finding, Verdict, found};
use crate::{cluster::Cluster, error::CliError};

/// Linkerd's name for it.
const CATEGORY: &str = "gateway-api-crd";
const INSTALLED: &str = "Gateway API CRDs are installed";
const GROUP: &str = "gateway.networking.k8s.io";
/// Kinds that a mesh is configured with, the versions that control reads of each, and whether most people want it.
const READ: [(&str, &[&str], bool); 4] = [
    ("HTTPRoute", &["v1", "v1beta1"], true),
    ("GRPCRoute", &["v1", "v1alpha2"], true),
    ("TLSRoute", &["v1", "v1alpha3", "v1alpha2"], false),
    ("TCPRoute", &["v1", "v1alpha2"], false),
];
const INSTALL: &str = "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml";
const BUNDLE: &str = "gateway.networking.k8s.io/bundle-version";
const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// Versions by kind.
type Served = BTreeMap<String, Vec<String>>;

/// What is served, and of which bundle.
pub(super) async fn findings(cluster: &Cluster) -> Vec<(String, Finding)> {
    match served(cluster).await {
        Ok(served) => judge(&served, &bundle(cluster).await),
        Err(error) => vec![found(CATEGORY, INSTALLED, Some((Verdict::Warning, error.line())))],
    }
}

/// By discovery, which every user may ask.
async fn served(cluster: &Cluster) -> Result<Served, CliError> {
    let doing = "asking which versions of Gateway API are served";
    let groups = cluster.ask(doing, cluster.client.list_api_groups()).await?;
    let group = groups.groups.into_iter().find(|group| group.name == GROUP);
    let mut served = Served::new();
    for version in group.into_iter().flat_map(|group| group.versions) {
        let resources = cluster.ask(doing, cluster.client.list_api_group_resources(&version.group_version)).await?;
        // `httproutes/status` is of the same kind.
        for resource in resources.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            served.entry(resource.kind).or_default().push(version.version.clone());
        }
    }
    Ok(served)
}

/// As the definition says it, to who may read it.
async fn bundle(cluster: &Cluster) -> String {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &ApiResource::from_gvk(&kind));
    let name = format!("httproutes.{GROUP}");
    let definition =
        cluster.ask("reading the definition of HTTPRoute", definitions.get_opt(&name)).await.ok().flatten();
    let annotations = definition.and_then(|definition| definition.metadata.annotations).unwrap_or_default();
    let Some(bundle) = annotations.get(BUNDLE) else { return String::new() };
    let channel = annotations.get(CHANNEL).map_or(String::new(), |channel| format!(", {channel} channel"));
    format!(" (bundle {bundle}{channel})")
}

fn judge(served: &Served, bundle: &str) -> Vec<(String, Finding)> {
    if served.is_empty() {
        let hint =
            format!("not installed: HTTPRoute and GRPCRoute cannot be created. Where they are wanted: `{INSTALL}`");
        return vec![found(CATEGORY, INSTALLED, Some((Verdict::Warning, hint)))];
    }
    let mut all = vec![found(CATEGORY, &format!("{INSTALLED}{bundle}"), None)];
    for (kind, read, is_wanted) in READ {
        let problem = match served.get(kind) {
            None if !is_wanted => continue,
            None => Err(format!("not installed{bundle}: `{INSTALL}`")),
            Some(versions) => read.iter().find(|one| versions.iter().any(|found| found == *one)).ok_or_else(|| {
                let only = versions.join(", ");
                format!("served as {only} only{bundle}: those objects are not read. Upgrade to bundle v1.1.0 or later: `{INSTALL}`")
            }),
        };
        let version = problem.as_ref().map_or_else(|_none| read.first(), |one| Some(one)).copied().unwrap_or_default();
        let hint = problem.err().map(|hint| (Verdict::Warning, hint));
        all.push(found(CATEGORY, &format!("{kind} is served as {version}"), hint));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(served: &[(&str, &[&str])]) -> Vec<(String, Verdict, String)> {
        let versions = |all: &[&str]| all.iter().map(|version| (*version).to_owned()).collect();
        let served = served.iter().map(|(kind, all)| ((*kind).to_owned(), versions(all))).collect();
        let found = judge(&served, " (bundle v1.0.0)").into_iter();
        found.map(|(_, finding)| (finding.description, finding.result, finding.hint)).collect()
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let none = lines(&[]);
        assert!(
            none.len() == 1 && none[0].1 == Verdict::Warning && none[0].2.contains("standard-install.yaml"),
            "{none:?}"
        );
    }

    #[test]
    fn versions_that_are_not_read_are_named() {
        let old = [("HTTPRoute", &["v1", "v1beta1"][..]), ("GRPCRoute", &["v1alpha1"]), ("TCPRoute", &["v1alpha2"])];
        let old = lines(&[&old[..], &[("Gateway", &["v1"])]].concat());
        assert_eq!(
            old[0],
            ("Gateway API CRDs are installed (bundle v1.0.0)".to_owned(), Verdict::Success, String::new())
        );
        assert_eq!((old[1].0.as_str(), old[1].1), ("HTTPRoute is served as v1", Verdict::Success));
        assert_eq!((old[2].0.as_str(), old[2].1), ("GRPCRoute is served as v1", Verdict::Warning));
        assert!(old[2].2.contains("served as v1alpha1 only (bundle v1.0.0)") && old[2].2.contains("v1.1.0"), "{old:?}");
        assert_eq!((old[3].0.as_str(), old[3].1, old.len()), ("TCPRoute is served as v1alpha2", Verdict::Success, 4));
        let half = lines(&[("HTTPRoute", &["v1beta1"])]);
        assert_eq!(
            (half[1].0.as_str(), half[1].1, half.len()),
            ("HTTPRoute is served as v1beta1", Verdict::Success, 3)
        );
        assert!(half[2].1 == Verdict::Warning && half[2].2.starts_with("not installed"), "{half:?}");
    }
}
