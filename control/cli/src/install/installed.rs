//! What is installed in a cluster. Must never take an object for the mesh's that does not carry its label.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;

use crate::{
    chart::{self, Overrides, Reference, Stage},
    cluster::Cluster,
    error::CliError,
    limits,
};

/// Records what the installation was rendered with.
pub(crate) const CONFIG: &str = "weir-config";
/// Helm's mark on objects that it installed.
const HELM: &str = "meta.helm.sh/release-name";

/// A kind of object that the mesh has, or had in an older version: group, version, kind, plural, whether it is in a namespace.
pub(crate) type Kind = (&'static str, &'static str, &'static str, &'static str, bool);

/// Kinds in the order in which they can be deleted. What an old version had stays here, for `prune`.
pub(crate) const KINDS: [Kind; 15] = [
    // First: a holder that ends asks whether it was uninstalled, and a token whose account stays gone for some seconds says so.
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("", "v1", "Service", "services", true),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true),
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    ("", "v1", "PersistentVolume", "persistentvolumes", false),
    ("", "v1", "Namespace", "namespaces", false),
];

/// What was set when the installation was rendered, for who is about to change it.
pub(crate) async fn values(cluster: &Cluster) -> Result<Overrides, CliError> {
    let map = config(cluster).await?;
    if map.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(HELM)) {
        return Err(CliError::Argument(
            "helm installed this mesh, and would take back what is changed beside it: use `helm upgrade` and `helm uninstall`".to_owned(),
        ));
    }
    overrides(&map, &cluster.mesh)
}

/// As `values`, whoever installed it.
pub(crate) async fn recorded(cluster: &Cluster) -> Result<Overrides, CliError> {
    overrides(&config(cluster).await?, &cluster.mesh)
}

async fn config(cluster: &Cluster) -> Result<ConfigMap, CliError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let map = cluster.ask("reading what is installed (ConfigMap weir-config)", maps.get_opt(CONFIG)).await?;
    map.ok_or_else(|| CliError::NotInstalled { namespace: cluster.mesh.clone() })
}

fn overrides(map: &ConfigMap, mesh: &str) -> Result<Overrides, CliError> {
    let read = |key: &str| -> Result<Value, CliError> {
        let text = map.data.as_ref().and_then(|data| data.get(key)).map(String::as_str).unwrap_or_default();
        let value: Result<Value, _> = serde_yaml_ng::from_str(text);
        value.ok().filter(Value::is_object).ok_or_else(|| {
            CliError::Argument(format!(
                "ConfigMap {CONFIG} in namespace {mesh} holds no {key}: somebody changed it; use `weir install` with all values, instead of `weir upgrade`"
            ))
        })
    };
    Ok(Overrides::of_installed(&read("values.yaml")?, &read("defaults.yaml")?))
}

/// Every object with the mesh's label, of the kinds that it has; of one stage only, for people without rights to the other.
pub(super) async fn objects(cluster: &Cluster, stage: Option<Stage>) -> Result<Vec<Reference>, CliError> {
    let mut found = Vec::new();
    for kind in KINDS.iter().filter(|kind| stage.is_none_or(|stage| (stage == Stage::Mesh) == kind.4)) {
        match of_kind(cluster, kind).await {
            // A kind of somebody else's that this cluster does not have.
            Err(CliError::Missing { .. }) => {}
            Err(CliError::Forbidden { .. }) if !is_served(cluster, kind).await? => {}
            of_kind => found.extend(of_kind?),
        }
    }
    Ok(found)
}

/// Whether the cluster knows a kind's group: what it does not know is forbidden to most people, not missing.
async fn is_served(cluster: &Cluster, (group, version, ..): &Kind) -> Result<bool, CliError> {
    if group.is_empty() {
        return Ok(true);
    }
    let group = format!("{group}/{version}");
    match cluster.ask("asking what the cluster has", cluster.client.list_api_group_resources(&group)).await {
        Err(CliError::Missing { .. }) => Ok(false),
        served => served.map(|_resources| true),
    }
}

/// Objects of one kind with the mesh's label.
pub(crate) async fn of_kind(cluster: &Cluster, kind: &Kind) -> Result<Vec<Reference>, CliError> {
    let (group, version, kind, plural, namespaced) = *kind;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = if namespaced {
        Api::namespaced_with(cluster.client.clone(), &cluster.mesh, &resource)
    } else {
        Api::all_with(cluster.client.clone(), &resource)
    };
    let wanted = ListParams::default().labels(chart::PART_OF).limit(limits::OBJECTS_OF_A_KIND);
    let listed = cluster.ask(&format!("listing {plural}"), api.list(&wanted)).await?;
    let references = listed.items.into_iter().map(|object| Reference {
        api_version: resource.api_version.clone(),
        kind: kind.to_owned(),
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
    });
    Ok(references.collect())
}
