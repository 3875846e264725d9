//! The port of a Service that somebody asks about. Must never guess one of several.

use std::{net::SocketAddr, sync::Arc};

use tonic::Status;
use weir_api::v1::{self, destination::Target};

use crate::{
    index::Index,
    objects::{Name, Service, ServicePort},
    snapshot,
};

/// A Service.
pub(crate) fn service(index: &Index, namespace: &str, name: &str) -> Result<(Name, Arc<Service>), Status> {
    if namespace.is_empty() || name.is_empty() {
        return Err(Status::invalid_argument("service: its namespace and name are needed"));
    }
    let name = Name::new(namespace, name);
    match index.service(&name) {
        Some(service) => Ok((name, Arc::clone(service))),
        None => Err(Status::not_found(format!("there is no Service {name}: check its name and its namespace"))),
    }
}

/// One of its ports: the only one where none is named.
pub(crate) fn port<'a>(name: &Name, service: &'a Service, port: u32) -> Result<&'a ServicePort, Status> {
    let all = || {
        let shown = service.ports.iter().map(|port| match &*port.name {
            "" => port.port.to_string(),
            named => format!("{} ({named})", port.port),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    if service.ports.is_empty() {
        return Err(Status::failed_precondition(format!(
            "Service {name} has no TCP port: nothing of it is in the mesh"
        )));
    }
    if port == 0 {
        return match &*service.ports {
            [only] => Ok(only),
            [first, ..] => {
                let example = format!("{}:{}", name.name, first.port);
                Err(Status::invalid_argument(format!(
                    "Service {name} has several ports, name one as in {example}: {}",
                    all()
                )))
            }
            [] => Err(Status::failed_precondition(format!("Service {name} has no TCP port"))),
        };
    }
    let found = service.ports.iter().find(|declared| u32::from(declared.port) == port);
    found.ok_or_else(|| Status::not_found(format!("Service {name} has no TCP port {port}; it has {}", all())))
}

/// What nodes are told of a port, with the address that it is told for.
pub(crate) fn told(
    index: &Index,
    name: &Name,
    service: &Service,
    port: u16,
) -> Result<(SocketAddr, v1::ServiceTarget), Status> {
    let Some(address) = service.addresses.first() else {
        return Err(Status::failed_precondition(format!(
            "Service {name} has no ClusterIP (it is headless, or has no pods of its own): its endpoints are dialled by their own addresses, for which no route and no annotation of the Service holds"
        )));
    };
    let address = SocketAddr::new(*address, port);
    let (destination, _slices) = snapshot::destination(index, address);
    match destination.target {
        Some(Target::Service(target)) if target.namespace == *name.namespace && target.name == *name.name => {
            Ok((address, target))
        }
        Some(Target::Service(target)) => Err(Status::failed_precondition(format!(
            "ClusterIP {} of Service {name} is taken for that of Service {}/{}: two Services must not have the same",
            address.ip(),
            target.namespace,
            target.name
        ))),
        _other => Err(Status::internal(format!("Service {name} is not found by its own address {address}"))),
    }
}

/// As the contract names a port.
pub(crate) fn reference(name: &Name, port: &ServicePort) -> v1::ServicePortRef {
    v1::ServicePortRef {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        port: port.port.into(),
        port_name: port.name.to_string(),
    }
}

/// The same of what nodes are told.
pub(crate) fn of_target(target: &v1::ServiceTarget) -> v1::ServicePortRef {
    v1::ServicePortRef {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        port: target.port,
        port_name: target.port_name.clone(),
    }
}
