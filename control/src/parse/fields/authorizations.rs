//! Fields of Linkerd's inbound policy (`policy.linkerd.io`). Must never refuse an object for a field that is not here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{IntOrString, Metadata};

/// `policy.linkerd.io/Server`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct Server {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<ServerSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct ServerSpec {
    pub(in crate::parse) pod_selector: Option<LabelSelector>,
    pub(in crate::parse) external_workload_selector: Option<LabelSelector>,
    pub(in crate::parse) port: Option<IntOrString>,
    pub(in crate::parse) proxy_protocol: Option<String>,
    pub(in crate::parse) access_policy: Option<String>,
}

/// `metav1.LabelSelector`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct LabelSelector {
    pub(in crate::parse) match_labels: Option<BTreeMap<String, String>>,
    pub(in crate::parse) match_expressions: Option<Vec<LabelExpression>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct LabelExpression {
    pub(in crate::parse) key: String,
    pub(in crate::parse) operator: String,
    pub(in crate::parse) values: Option<Vec<String>>,
}

/// `policy.linkerd.io/ServerAuthorization`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ServerAuthorization {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<ServerAuthorizationSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ServerAuthorizationSpec {
    pub(in crate::parse) server: Option<ServerRef>,
    pub(in crate::parse) client: Option<Client>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ServerRef {
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) selector: Option<LabelSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct Client {
    pub(in crate::parse) networks: Option<Vec<Cidr>>,
    pub(in crate::parse) unauthenticated: Option<bool>,
    #[serde(rename = "meshTLS")]
    pub(in crate::parse) mesh_tls: Option<MeshTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct MeshTls {
    #[serde(rename = "unauthenticatedTLS")]
    pub(in crate::parse) unauthenticated_tls: Option<bool>,
    pub(in crate::parse) identities: Option<Vec<String>>,
    pub(in crate::parse) service_accounts: Option<Vec<ServiceAccountRef>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ServiceAccountRef {
    pub(in crate::parse) name: String,
    pub(in crate::parse) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct Cidr {
    pub(in crate::parse) cidr: String,
    pub(in crate::parse) except: Option<Vec<String>>,
}

/// `policy.linkerd.io/AuthorizationPolicy`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct AuthorizationPolicy {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<AuthorizationPolicySpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct AuthorizationPolicySpec {
    pub(in crate::parse) target_ref: Option<PolicyRef>,
    pub(in crate::parse) required_authentication_refs: Option<Vec<PolicyRef>>,
}

/// `gateway.networking.k8s.io` policy references: without group it is core.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct PolicyRef {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: String,
    pub(in crate::parse) name: String,
    pub(in crate::parse) namespace: Option<String>,
}

/// `policy.linkerd.io/MeshTLSAuthentication`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct MeshTlsAuthentication {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<MeshTlsAuthenticationSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct MeshTlsAuthenticationSpec {
    pub(in crate::parse) identities: Option<Vec<String>>,
    pub(in crate::parse) identity_refs: Option<Vec<PolicyRef>>,
}

/// `policy.linkerd.io/NetworkAuthentication`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct NetworkAuthentication {
    pub(in crate::parse) spec: Option<NetworkAuthenticationSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct NetworkAuthenticationSpec {
    pub(in crate::parse) networks: Option<Vec<Cidr>>,
}
