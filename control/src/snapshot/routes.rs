//! The routes of a port, as nodes are told them. Must never leave a backend out: its share would go elsewhere.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use weir_api::v1::{self, http_backend, http_rule};
use weir_core::route::Size;

use super::{service_target, timeouts};
use crate::{
    index::Index,
    objects::{HttpRoute, Name, ObjectName, RouteBackend, RouteRule},
};

/// Routes attached to a port of a service, and all slices that the port then refers to: `own`, and those of backends.
pub(super) fn attached(index: &Index, service: &Name, port: u16, own: Vec<Name>) -> (Vec<v1::HttpRoute>, Vec<Name>) {
    let mut slices: BTreeSet<Name> = own.into_iter().collect();
    let routes = in_force(index, service).into_iter().filter(|(_, route)| is_attached(index, route, service, port));
    let routes = routes.map(|(name, route)| http_route(index, service, name, route, &mut slices)).collect();
    (routes, slices.into_iter().collect())
}

/// Routes of a service that nodes are told: of each namespace the oldest, as many as are compiled for the clients that they hold for. One
/// namespace must not be able to make nodes refuse what another one says.
pub(crate) fn in_force<'a>(index: &'a Index, service: &Name) -> Vec<(&'a ObjectName, &'a Arc<HttpRoute>)> {
    let mut sizes: HashMap<&str, Size> = HashMap::new();
    let mut routes = index.routes_of(service);
    routes.retain(|(name, route)| {
        let held = sizes.entry(&name.name.namespace).or_default();
        let size = held.and(route.size());
        if size.fits() {
            *held = size;
        }
        size.fits()
    });
    routes
}

fn is_attached(index: &Index, route: &HttpRoute, service: &Name, port: u16) -> bool {
    let declared = index.service(service).and_then(|service| service.ports.iter().find(|own| own.port == port));
    let mut parents = route.parents.iter().filter(|parent| parent.service == *service);
    declared.is_some_and(|declared| parents.any(|parent| parent.is_for(declared)))
}

fn http_route(
    index: &Index,
    service: &Name,
    own: &ObjectName,
    route: &HttpRoute,
    slices: &mut BTreeSet<Name>,
) -> v1::HttpRoute {
    v1::HttpRoute {
        object: Some(v1::ObjectRef {
            group: own.kind.group().to_owned(),
            kind: own.kind.as_str().to_owned(),
            namespace: own.name.namespace.to_string(),
            name: own.name.name.to_string(),
        }),
        is_consumer: own.name.namespace != service.namespace,
        hostnames: route.hostnames.clone(),
        rules: route.rules.iter().map(|rule| http_rule(index, service, route, rule, slices)).collect(),
    }
}

fn http_rule(
    index: &Index,
    service: &Name,
    route: &HttpRoute,
    rule: &RouteRule,
    slices: &mut BTreeSet<Name>,
) -> v1::HttpRule {
    let destination = match &rule.backends {
        None => http_rule::Destination::Itself(v1::Itself {}),
        Some(backends) => {
            let backends = backends.iter().map(|backend| http_backend(index, backend, slices)).collect();
            http_rule::Destination::Backends(v1::HttpBackends { backends })
        }
    };
    let service = index.service(service);
    // Annotations of a route stand above its rules, as they do for time limits; a Service's below.
    let of_service = || service.and_then(|service| service.retry.clone());
    let retry = route.retry.clone().or_else(|| rule.retry.clone()).or_else(of_service);
    v1::HttpRule {
        matches: rule.matches.clone(),
        filters: rule.filters.clone(),
        destination: Some(destination),
        timeouts: timeouts::in_force(service.and_then(|service| service.timeouts), route.timeouts, rule.timeouts),
        retry: retry.filter(|retry| retry.limit > 0),
    }
}

fn http_backend(index: &Index, backend: &RouteBackend, slices: &mut BTreeSet<Name>) -> v1::HttpBackend {
    let target = match &backend.target {
        Err(invalid) => http_backend::Target::Invalid(invalid.message.clone()),
        Ok((name, port)) => match resolved(index, name, *port) {
            Ok((target, own)) => {
                slices.extend(own);
                http_backend::Target::Service(target)
            }
            Err(reason) => http_backend::Target::Invalid(reason),
        },
    };
    v1::HttpBackend { weight: backend.weight, filters: backend.filters.clone(), target: Some(target) }
}

/// The service that a backend names, with its slices; or why there is none, for people.
pub(crate) fn resolved(index: &Index, name: &Name, port: u16) -> Result<(v1::ServiceTarget, Vec<Name>), String> {
    let service = index.service(name).ok_or_else(|| format!("Service {name} not found"))?;
    service_target(index, name, service, port).ok_or_else(|| format!("Service {name} has no port {port}"))
}
