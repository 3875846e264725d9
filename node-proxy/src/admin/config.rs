//! `/config`: effective configuration and state for people and scripts. Must never hold a private key.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_core::{
    protocol::PortRange,
    snapshot::{Destination, Endpoint, PodRef, Target, Workload},
};

use super::LogLevel;
use crate::telemetry::NodeState;

pub(super) fn effective(state: &dyn NodeState, log_level: &LogLevel) -> Value {
    let snapshot = state.snapshot();
    let captures = state.captures();
    let now = state.now();
    let server = |((first, last), name): &(PortRange, Arc<str>)| {
        let policy = snapshot.server(name);
        json!({
            "ports": [first, last],
            "name": &**name,
            // None while the node does not know its policies: nobody may call the ports.
            "authorizations": policy.map(|policy| policy.grants.all().iter().map(|grant| format!("{} {}", grant.object.kind, grant.object.name)).collect::<Vec<_>>()),
        })
    };
    let workload = |workload: &Workload| {
        let capture = captures.iter().find(|capture| capture.uid == workload.uid);
        json!({
            "uid": &*workload.uid,
            "pod": pod(&workload.pod),
            "addresses": workload.addresses,
            "identity": workload.identity.as_str(),
            "captured": capture.is_some_and(|capture| capture.captured),
            "reason": capture.map(|capture| capture.reason.as_str()),
            "access_log": format!("{:?}", workload.access_log),
            "default_inbound_policy": workload.policy.default.name(),
            "servers": workload.policy.servers.iter().map(server).collect::<Vec<_>>(),
        })
    };
    let endpoint = |endpoint: &Endpoint| {
        json!({
            "address": endpoint.address,
            "uid": &*endpoint.uid,
            "pod": pod(&endpoint.pod),
            "ready": endpoint.ready,
            "identity": endpoint.identity.as_ref().map(|identity| identity.as_str()),
            "protocol": format!("{:?}", endpoint.protocol),
            "latency_ms": endpoint.load.latency_ms(now),
            "pending": endpoint.load.pending(),
        })
    };
    let destination = |destination: &Destination| match &destination.target {
        Target::Service(service) => json!({
            "address": destination.address,
            "service": format!("{}/{}", service.namespace, service.name),
            "port": service.port,
            "protocol": format!("{:?}", service.protocol),
            "endpoints": service.endpoints.iter().map(|each| endpoint(each)).collect::<Vec<_>>(),
            "routes": service.routes.iter().flat_map(|routes| routes.objects()).map(|route| format!("{} {route}", route.kind)).collect::<Vec<_>>(),
        }),
        Target::Pod(pod) => json!({ "address": destination.address, "pod": endpoint(pod) }),
        Target::Unknown => json!({ "address": destination.address, "unknown": true }),
    };
    let identities: Vec<Value> = state
        .certificates()
        .iter()
        .map(|certificate| json!({ "identity": certificate.identity.as_str(), "not_after": certificate.not_after }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "arguments": state.arguments(),
        "log_level": log_level.current(),
        "control_connected": state.control_connected(),
        "synced": state.synced(),
        "trust_domain": snapshot.trust_domain(),
        "sockets_in_stock": state.sockets_in_stock(),
        "identities": identities,
        "workloads": snapshot.workloads().map(|each| workload(each)).collect::<Vec<_>>(),
        "destinations": snapshot.destinations().map(|each| destination(each)).collect::<Vec<_>>(),
    })
}

fn pod(pod: &PodRef) -> Value {
    let PodRef { namespace, name, service_account, owner_kind, owner_name, node_name, zone, pod_template_hash } = pod;
    json!({
        "namespace": &**namespace,
        "name": &**name,
        "service_account": &**service_account,
        "owner_kind": &**owner_kind,
        "owner_name": &**owner_name,
        "node_name": &**node_name,
        "zone": &**zone,
        "pod_template_hash": &**pod_template_hash,
    })
}
