//! The way to control through the API server: trust anchors, a token that is good for minutes, and a forwarded port.
//!
//! Must never keep a token longer than the command runs.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use tokio::io::DuplexStream;

use super::Cluster;
use crate::{error::CliError, limits};

/// The account whose tokens let people look.
pub(crate) const VIEWER: &str = "weir-viewer";
/// What such a token is for.
const AUDIENCE: &str = "weir.mesh/api";
/// Published by control.
const ANCHORS: (&str, &str) = ("weir-trust-anchors", "ca.crt");
const CONTROL_PODS: &str = "app.kubernetes.io/name=weir-control";
const CONTROL_PORT: u16 = 8086;

/// How to reach control in a cluster.
#[derive(Clone)]
pub(crate) struct Route {
    cluster: Cluster,
    /// A ready replica.
    pub(crate) pod: String,
    /// PEM.
    pub(crate) anchors: String,
    pub(crate) token: String,
    /// Trust domain of the installation, where it could be read.
    pub(crate) trust_domain: Option<String>,
}

/// Everything that is needed, asked for at once. Of several failures the one that explains the others is told, whichever came first.
pub(crate) async fn route(cluster: &Cluster) -> Result<Route, CliError> {
    let (pod, anchors, token, trust_domain) =
        tokio::join!(pod(cluster), anchors(cluster), token(cluster), trust_domain(cluster));
    Ok(Route { cluster: cluster.clone(), pod: pod?, anchors: anchors?, token: token?, trust_domain: trust_domain? })
}

impl Route {
    /// A connection to control's port in its pod.
    pub(crate) async fn open(&self) -> Result<DuplexStream, CliError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.cluster.mesh);
        let doing = format!("forwarding port {CONTROL_PORT} of pod {}", self.pod);
        let mut forwarder = self.cluster.ask(&doing, pods.portforward(&self.pod, &[CONTROL_PORT])).await?;
        forwarder
            .take_stream(CONTROL_PORT)
            .ok_or_else(|| CliError::Kubernetes { doing, reason: "the API server opened no stream".to_owned() })
    }
}

async fn pod(cluster: &Cluster) -> Result<String, CliError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let wanted = ListParams::default().labels(CONTROL_PODS).limit(limits::OBJECTS_OF_A_KIND);
    let pods = cluster.ask("looking for weir-control", pods.list(&wanted)).await?.items;
    if pods.is_empty() {
        return Err(CliError::NotInstalled { namespace: cluster.mesh.clone() });
    }
    let found = pods.iter().find(|pod| ready(pod)).and_then(|pod| pod.metadata.name.clone());
    found.ok_or_else(|| CliError::NoReadyControl { pods: pods.len(), namespace: cluster.mesh.clone() })
}

/// Whether a pod is ready, and stays.
pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

async fn anchors(cluster: &Cluster) -> Result<String, CliError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let (name, key) = ANCHORS;
    let map = cluster.ask("reading the trust anchors (ConfigMap weir-trust-anchors)", maps.get_opt(name)).await?;
    let found = map.and_then(|map| map.data?.remove(key));
    found.ok_or_else(|| CliError::NoAnchors { namespace: cluster.mesh.clone() })
}

async fn token(cluster: &Cluster) -> Result<String, CliError> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            expiration_seconds: Some(limits::TOKEN_SECONDS),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let parameters = PostParams::default();
    let call = accounts.create_subresource("token", VIEWER, &parameters, &request);
    let answer: TokenRequest = cluster.ask("asking for a token of service account weir-viewer", call).await?;
    let token = answer.status.map(|status| status.token).filter(|token| !token.is_empty());
    token.ok_or_else(|| CliError::Kubernetes {
        doing: "asking for a token of service account weir-viewer".to_owned(),
        reason: "the answer holds none".to_owned(),
    })
}

/// Who may not read it gets the default.
async fn trust_domain(cluster: &Cluster) -> Result<Option<String>, CliError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let call = maps.get_opt(crate::install::installed::CONFIG);
    let map = match cluster.ask("reading what is installed (ConfigMap weir-config)", call).await {
        Err(CliError::Forbidden { .. }) => None,
        map => map?,
    };
    let values = map.and_then(|map| map.data?.remove("values.yaml"));
    let values: Option<serde_json::Value> = values.and_then(|text| serde_yaml_ng::from_str(&text).ok());
    Ok(values.and_then(|values| Some(values.get("trustDomain")?.as_str()?.to_owned())))
}
