//! The fields that are read of Kubernetes' objects, and no others: what nobody uses is neither checked nor kept.
//!
//! Names and defaults are those of the Kubernetes API reference; a null is as good as a missing field, as with the API server. Must
//! never refuse an object for a field that is not here.

mod authorizations;
mod profiles;
mod routes;

use std::collections::BTreeMap;

use serde::Deserialize;

pub(super) use self::authorizations::{
    AuthorizationPolicy, Cidr, LabelSelector, MeshTls, MeshTlsAuthentication, NetworkAuthentication, PolicyRef, Server,
    ServerAuthorization,
};
pub(super) use self::profiles::{
    DstOverride, ProfileRetryBudget, ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, Scalar, ServiceProfile,
    ServiceProfileSpec, StatusRange, TrafficSplit,
};
pub(super) use self::routes::{
    BackendRef, ConnectionRoute, Cors, Fraction, GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, Header,
    HeaderModifier, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts,
    MirrorRef, ParentRef, PathModifier, RequestMirror, RouteParents, SessionPersistence, ValueMatch,
};

/// Metadata of any kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) owner_references: Option<Vec<OwnerReference>>,
    pub(super) creation_timestamp: Option<String>,
    pub(super) generation: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) controller: Option<bool>,
}

/// `v1/Namespace`, `v1/ServiceAccount`: only that they are, and what is said of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Plain {
    pub(super) metadata: Metadata,
}

/// `v1/Pod`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<PodSpec>,
    pub(super) status: Option<PodStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    pub(super) service_account_name: Option<String>,
    pub(super) service_account: Option<String>,
    pub(super) host_network: Option<bool>,
    pub(super) runtime_class_name: Option<String>,
    pub(super) containers: Option<Vec<Container>>,
    pub(super) init_containers: Option<Vec<Container>>,
}

impl PodSpec {
    /// All but ephemeral ones.
    pub(super) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().flatten().chain(self.init_containers.iter().flatten())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) ports: Option<Vec<ContainerPort>>,
    pub(super) readiness_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) lifecycle: Option<Lifecycle>,
}

/// A probe, or a hook: both name what kubelet does.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) http_get: Option<HttpGet>,
    pub(super) tcp_socket: Option<TcpSocket>,
    pub(super) grpc: Option<Grpc>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Lifecycle {
    pub(super) post_start: Option<Probe>,
    pub(super) pre_stop: Option<Probe>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HttpGet {
    pub(super) host: Option<String>,
    pub(super) path: Option<String>,
    pub(super) port: Option<IntOrString>,
    pub(super) scheme: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TcpSocket {
    pub(super) host: Option<String>,
    pub(super) port: Option<IntOrString>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Grpc {
    pub(super) port: i32,
}

/// A port by number or by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrString {
    Number(i32),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerPort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) container_port: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<PodIp>>,
    pub(super) conditions: Option<Vec<PodCondition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodCondition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

/// `v1/Service`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<ServiceSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Option<Vec<String>>,
    pub(super) ports: Option<Vec<ServicePort>>,
    pub(super) internal_traffic_policy: Option<String>,
    pub(super) session_affinity: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) app_protocol: Option<String>,
    pub(super) port: i32,
}

/// `discovery.k8s.io/v1/EndpointSlice`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: Metadata,
    pub(super) address_type: String,
    pub(super) ports: Option<Vec<EndpointPort>>,
    pub(super) endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointPort {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Option<Vec<String>>,
    pub(super) conditions: Option<EndpointConditions>,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) hints: Option<EndpointHints>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointHints {
    pub(super) for_zones: Option<Vec<Hint>>,
    pub(super) for_nodes: Option<Vec<Hint>>,
}

/// Of a zone or of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointConditions {
    pub(super) ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}
