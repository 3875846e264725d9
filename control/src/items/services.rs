//! Services as items: what is in force for each, and their endpoints. Must never decide differently from what nodes are told.

use std::sync::Arc;

use weir_api::v1::{self, item};

use super::{Asked, Lazy};
use crate::{
    index::Index,
    objects::{Name, Service},
    parse::Finding,
    policy, snapshot,
};

pub(super) fn policies<'a>(index: &'a Index, findings: &'a [Finding], asked: &Asked) -> Vec<Lazy<'a>> {
    let wanted = index.services().filter(|(name, _service)| asked.takes(&name.namespace, &name.name));
    let lazy = |(name, _service): (&'a Name, &'a Arc<Service>)| {
        Lazy::new(format!("Service {name}"), move || item::Item::Service(in_force(index, findings, name)))
    };
    wanted.map(lazy).collect()
}

/// What cannot be said in one answer is said to be so.
fn in_force(index: &Index, findings: &[Finding], name: &Name) -> v1::PolicyResponse {
    let asked = v1::PolicyRequest {
        namespace: name.namespace.to_string(),
        service: name.name.to_string(),
        ..v1::PolicyRequest::default()
    };
    policy::policy(index, findings, &asked).unwrap_or_else(|status| v1::PolicyResponse {
        flaws: vec![v1::Flaw { field: "spec.ports".to_owned(), reason: status.message().to_owned() }],
        namespace: asked.namespace,
        service: asked.service,
        ..v1::PolicyResponse::default()
    })
}

pub(super) fn endpoints<'a>(index: &'a Index, asked: &Asked) -> Vec<Lazy<'a>> {
    let wanted = index.services().filter(|(name, _service)| asked.takes(&name.namespace, &name.name));
    let mut all = Vec::new();
    for (name, service) in wanted {
        for port in &service.ports {
            for endpoint in of_port(index, name, &port.name) {
                // A dual-stack one has an address of each family.
                let key = format!("Endpoint {name}:{} {} {}", port.port, endpoint.address, endpoint.port);
                all.push(Lazy::new(key, move || item::Item::Endpoint(endpoint)));
            }
        }
    }
    // Two slices may name one endpoint while it moves from one to the other.
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all.dedup_by(|one, other| one.key == other.key);
    all
}

/// Endpoints of the port of a Service that has this name.
pub(crate) fn of_port(index: &Index, name: &Name, port_name: &str) -> Vec<v1::ServiceEndpoint> {
    let mut endpoints = Vec::new();
    for slice in index.slices_of(name).filter_map(|slice| snapshot::endpoints(index, slice)) {
        let Some(port) = slice.ports.iter().find(|port| port.name == port_name) else { continue };
        endpoints.extend(slice.endpoints.into_iter().map(|endpoint| v1::ServiceEndpoint {
            namespace: name.namespace.to_string(),
            service: name.name.to_string(),
            address: endpoint.address,
            port: port.port,
            pod: endpoint.pod,
            ready: endpoint.ready,
            identity: endpoint.identity,
        }));
    }
    endpoints
}
