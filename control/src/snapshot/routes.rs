//! The routes of a port, as nodes are told them. Must never leave a backend out: its share would go elsewhere.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use weir_api::v1::{self, http_backend, http_filter, http_rule, request_mirror};
use weir_core::route::Size;

use super::{Said, protocol, service_target, timeouts};
use crate::{
    index::Index,
    objects::{
        HttpRoute, Kind, Name, ObjectName, ParentRef, RouteBackend, RouteFilter, RouteMirror, RouteRule, Service,
        annotation::OPAQUE_PORTS,
    },
};

/// Routes attached to a port of a service, and all slices that the port then refers to: `own`, and those of backends.
pub(super) fn attached(index: &Index, service: &Name, port: u16, own: Vec<Name>) -> (Vec<v1::HttpRoute>, Vec<Name>) {
    let mut slices: BTreeSet<Name> = own.into_iter().collect();
    let in_force = InForce::of(index, service);
    let routes = in_force.routes.iter().filter(|(name, route)| {
        is_attached(index, name.kind, route, service, port) && !in_force.is_put_aside(name, port)
    });
    let routes = routes.map(|(name, route)| http_route(index, service, name, route, &mut slices)).collect();
    (routes, slices.into_iter().collect())
}

/// Routes of a service that nodes are told: of each namespace the oldest, as many as are compiled for the clients that they hold for. One
/// namespace must not be able to make nodes refuse what another one says.
pub(crate) struct InForce<'a> {
    routes: Vec<(&'a ObjectName, &'a Arc<HttpRoute>)>,
    names: HashSet<&'a ObjectName>,
    /// Namespaces and ports with a GRPCRoute.
    calls: HashSet<(&'a str, u16)>,
}

impl<'a> InForce<'a> {
    pub(crate) fn of(index: &'a Index, service: &Name) -> InForce<'a> {
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
        let mut calls = HashSet::new();
        for (name, route) in routes.iter().filter(|(name, _route)| name.kind == Kind::GrpcRoute) {
            let parents = route.parents.iter().filter(|parent| parent.service == *service);
            let ports = parents.flat_map(|parent| ports_for(index, parent));
            let held = ports.filter(|(_port, protocol)| speaks(name.kind, *protocol));
            calls.extend(held.map(|(port, _protocol)| (&*name.name.namespace, port)));
        }
        InForce { names: routes.iter().map(|(name, _route)| *name).collect(), routes, calls }
    }

    fn is_told(&self, route: &ObjectName) -> bool {
        self.names.contains(route)
    }

    /// Whether a GRPCRoute of the same namespace has the port: routes of the more specific kind stand instead of the others (Gateway API's
    /// GEP-1294), for those clients for whom they hold.
    fn is_put_aside(&self, route: &ObjectName, port: u16) -> bool {
        route.kind != Kind::GrpcRoute && self.calls.contains(&(&*route.name.namespace, port))
    }
}

/// Why nothing is made of a route on a port: the reason, as of condition `Accepted`, and words for people.
pub(crate) type Refusal = (&'static str, String);

impl InForce<'_> {
    /// Whether a route that means a port of the service is asked there.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn accepts(
        &self,
        route: &ObjectName,
        service: &Name,
        port: u16,
        protocol: v1::Protocol,
    ) -> Result<(), Refusal> {
        if !self.is_told(route) {
            let message = "older routes of this namespace, HTTPRoutes and GRPCRoutes together, have as many matches, regular expressions, backends or mirrors as nodes take for one Service";
            return Err(("TooManyMatches", message.to_owned()));
        }
        if !speaks(route.kind, protocol) {
            let spoken = if protocol == v1::Protocol::Opaque { "opaque" } else { "HTTP/1" };
            let message = format!(
                "port {port} of Service {service} is {spoken}: by its appProtocol, by annotation {OPAQUE_PORTS} of the Service or its namespace, or as a well-known port"
            );
            return Err(("UnsupportedProtocol", message));
        }
        if self.is_put_aside(route, port) {
            let message = format!("a GRPCRoute of this namespace has port {port} of Service {service}");
            return Err(("RouteReasonConflicted", message));
        }
        Ok(())
    }
}

fn is_attached(index: &Index, kind: Kind, route: &HttpRoute, service: &Name, port: u16) -> bool {
    let mut parents = route.parents.iter().filter(|parent| parent.service == *service);
    let is_it = |(own, protocol): (u16, v1::Protocol)| own == port && speaks(kind, protocol);
    parents.any(|parent| ports_for(index, parent).any(is_it))
}

/// The ports of its Service that a parent means, and what is spoken there.
pub(crate) fn ports_for<'a>(
    index: &'a Index,
    parent: &'a ParentRef,
) -> impl Iterator<Item = (u16, v1::Protocol)> + use<'a> {
    let service = index.service(&parent.service);
    let ports = service.into_iter().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let ports = ports.filter(|(_service, port)| parent.is_for(port));
    ports.map(|(service, port)| (port.port, protocol(index, &parent.service, service, port)))
}

/// Whether a route of this kind can hold where that is spoken: no request is seen on an opaque port, and calls are HTTP/2 (Linkerd, too,
/// asks HTTPRoutes alone on a port of HTTP/1).
fn speaks(kind: Kind, protocol: v1::Protocol) -> bool {
    match protocol {
        v1::Protocol::Opaque => false,
        v1::Protocol::Http1 => kind != Kind::GrpcRoute,
        _ => true,
    }
}

/// What is sent again of a rule's requests, and whose word it is. Annotations of a route stand above its rules, as they do for time limits; a
/// Service's below.
pub(crate) fn retry_in_force<'a>(
    service: Option<&'a Service>,
    route: &'a HttpRoute,
    rule: &'a RouteRule,
) -> (Option<&'a v1::Retry>, Said) {
    let said = |retry: &'a Option<v1::Retry>, who: Said| retry.as_ref().map(|retry| (Some(retry), who));
    let of_service = || said(&service?.retry, Said::Service);
    let of_route = said(&route.retry, Said::Route).or_else(|| said(&rule.retry, Said::Rule));
    of_route.or_else(of_service).unwrap_or((None, Said::Default))
}

/// One route on its way to nodes.
struct Told<'a> {
    index: &'a Index,
    /// Of the route.
    namespace: &'a Arc<str>,
    slices: &'a mut BTreeSet<Name>,
}

fn http_route(
    index: &Index,
    service: &Name,
    own: &ObjectName,
    route: &HttpRoute,
    slices: &mut BTreeSet<Name>,
) -> v1::HttpRoute {
    let mut told = Told { index, namespace: &own.name.namespace, slices };
    v1::HttpRoute {
        object: Some(own.to_api()),
        is_consumer: own.name.namespace != service.namespace,
        hostnames: route.hostnames.clone(),
        rules: route.rules.iter().map(|rule| told.rule(service, route, rule)).collect(),
    }
}

impl Told<'_> {
    fn rule(&mut self, service: &Name, route: &HttpRoute, rule: &RouteRule) -> v1::HttpRule {
        let destination = match &rule.backends {
            None => http_rule::Destination::Itself(v1::Itself {}),
            Some(backends) => {
                let backends = backends.iter().map(|backend| self.backend(backend)).collect();
                http_rule::Destination::Backends(v1::HttpBackends { backends })
            }
        };
        let service = self.index.service(service);
        let (retry, _who) = retry_in_force(service.map(|service| &**service), route, rule);
        v1::HttpRule {
            matches: rule.matches.clone(),
            filters: self.filters(&rule.filters),
            destination: Some(destination),
            timeouts: timeouts::in_force(service.and_then(|service| service.timeouts), route.timeouts, rule.timeouts),
            retry: retry.filter(|retry| retry.limit > 0).cloned(),
        }
    }

    fn backend(&mut self, backend: &RouteBackend) -> v1::HttpBackend {
        let target = backend.target.as_ref().map_err(|invalid| invalid.message.clone());
        let target = match target.and_then(|(name, port)| self.service(name, *port)) {
            Ok(target) => http_backend::Target::Service(target),
            Err(reason) => http_backend::Target::Invalid(reason),
        };
        v1::HttpBackend { weight: backend.weight, filters: self.filters(&backend.filters), target: Some(target) }
    }

    fn filters(&mut self, filters: &[RouteFilter]) -> Vec<v1::HttpFilter> {
        let filters = filters.iter().map(|filter| match filter {
            RouteFilter::Plain(filter) => http_filter::Filter::clone(filter),
            RouteFilter::Mirror(mirror) => http_filter::Filter::Mirror(self.mirror(mirror)),
        });
        filters.map(|filter| v1::HttpFilter { filter: Some(filter) }).collect()
    }

    fn mirror(&mut self, mirror: &RouteMirror) -> v1::RequestMirror {
        let target = mirror.target(self.namespace).map_err(|invalid| invalid.message.clone());
        let target = match target.and_then(|(name, port)| self.service(&name, port)) {
            Ok(target) => request_mirror::Target::Service(target),
            Err(reason) => request_mirror::Target::Invalid(reason),
        };
        let RouteMirror { numerator, denominator, .. } = *mirror;
        v1::RequestMirror { numerator, denominator, target: Some(target) }
    }

    /// Its slices are the port's as well.
    fn service(&mut self, name: &Name, port: u16) -> Result<v1::ServiceTarget, String> {
        let (target, own) = resolved(self.index, name, port)?;
        self.slices.extend(own);
        Ok(target)
    }
}

/// The service that a backend names, with its slices; or why there is none, for people.
pub(crate) fn resolved(index: &Index, name: &Name, port: u16) -> Result<(v1::ServiceTarget, Vec<Name>), String> {
    let service = index.service(name).ok_or_else(|| format!("Service {name} not found"))?;
    service_target(index, name, service, port).ok_or_else(|| format!("Service {name} has no port {port}"))
}
