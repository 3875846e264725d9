//! The routes of a port, as nodes are told them. Must never leave a backend out: its share would go elsewhere.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use weir_api::v1::{self, http_backend, http_filter, http_rule, request_mirror};
use weir_core::route::Size;

use super::{Said, profiles::Profiles, protocol, service_target, timeouts};
use crate::{
    index::Index,
    objects::{
        HttpRoute, Kind, Name, ObjectName, Override, ParentRef, RouteBackend, RouteFilter, RouteMirror, RouteRule,
        Service, annotation::OPAQUE_PORTS,
    },
};

/// Routes attached to a port of a service, and all slices that the port then refers to: `own`, and those of backends.
pub(super) fn attached(index: &Index, service: &Name, port: u16, own: Vec<Name>) -> (Vec<v1::HttpRoute>, Vec<Name>) {
    let mut slices: BTreeSet<Name> = own.into_iter().collect();
    let in_force = InForce::of(index, service);
    let routes = in_force.routes.iter().filter(|(name, route)| {
        is_attached(index, name.kind, route, service, port)
            && in_force.aside(name, route, port).is_none()
            && affinity_of(index, service, route).is_none()
    });
    let dialled = (service, port);
    let routes = routes.map(|(name, route)| {
        let overrides = in_force.profiles.overrides(name);
        http_route(index, dialled, name, route, overrides, &mut slices)
    });
    let routes = routes.collect();
    (routes, slices.into_iter().collect())
}

/// Routes of a service that nodes are told: of each namespace the oldest, as many as are compiled for the clients that they hold for. One
/// namespace must not be able to make nodes refuse what another one says.
pub(crate) struct InForce<'a> {
    index: &'a Index,
    routes: Vec<(&'a ObjectName, &'a Arc<HttpRoute>)>,
    names: HashMap<&'a ObjectName, &'a Arc<HttpRoute>>,
    /// Of each namespace and port the kind that stands instead of others, and the oldest of it.
    leading: HashMap<(&'a str, u16), &'a ObjectName>,
    profiles: Profiles<'a>,
    service: Name,
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
        let mut leading: HashMap<(&str, u16), &ObjectName> = HashMap::new();
        for (name, route) in routes.iter().filter(|(name, _route)| !name.kind.is_profile()) {
            let parents = route.parents.iter().filter(|parent| parent.service == *service);
            let ports = parents.flat_map(|parent| ports_for(index, parent));
            for (port, _protocol) in ports.filter(|(_port, protocol)| speaks(name.kind, *protocol)) {
                let held = leading.entry((&*name.name.namespace, port)).or_insert(name);
                if rank(name.kind) < rank(held.kind) {
                    *held = name;
                }
            }
        }
        let (names, profiles) = (routes.iter().copied().collect(), Profiles::of(&routes));
        InForce { index, names, routes, leading, profiles, service: service.clone() }
    }

    fn is_told(&self, route: &ObjectName) -> bool {
        self.names.contains_key(route)
    }

    /// Why others stand instead of a route on a port. A profile does so for all routes of its namespace, and that of the Service's own for
    /// everybody's. A route of a more specific kind of the same namespace does so for the others (Gateway API's GEP-1294), for those clients for
    /// whom they hold; and of TCPRoutes the oldest (Linkerd).
    fn aside(&self, name: &ObjectName, route: &HttpRoute, port: u16) -> Option<String> {
        let behind = || {
            let leading = *self.leading.get(&(&*name.name.namespace, port)).filter(|_| !name.kind.is_profile())?;
            let (has, service) = (format!("port {port} of Service"), &self.service);
            if rank(leading.kind) < rank(name.kind) {
                let article = if leading.kind.as_str().starts_with('H') { "an" } else { "a" };
                return Some(format!("{article} {} of this namespace has {has} {service}", leading.kind.as_str()));
            }
            let is_second = name.kind == Kind::TcpRoute && leading != name;
            is_second.then(|| format!("{leading}, which is older, has {has} {service}"))
        };
        self.profiles.aside(name, route, &self.service).or_else(behind)
    }
}

/// Of two kinds the smaller one stands instead of the other (Gateway API, `parentRefs` of routes).
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::GrpcRoute => 0,
        Kind::TlsRoute => 2,
        Kind::TcpRoute => 3,
        _requests => 1,
    }
}

/// The Service with `sessionAffinity: ClientIP` that a rule with sessions of its own sends requests to: the two do not go together, and such a
/// route is refused (GEP-1619).
fn affinity_of(index: &Index, parent: &Name, route: &HttpRoute) -> Option<Name> {
    let has = |name: &Name| index.service(name).is_some_and(|service| service.client_affinity);
    let mut rules = route.rules.iter().filter(|rule| rule.sessions.is_some());
    rules.find_map(|rule| match &rule.backends {
        None => has(parent).then(|| parent.clone()),
        Some(backends) => {
            let mut names = backends.iter().filter_map(|backend| backend.target.as_ref().ok());
            names.find(|(name, _port)| has(name)).map(|(name, _port)| name.clone())
        }
    })
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
            let message = "older routes of this namespace, those of all kinds together, have as many matches, regular expressions, backends or mirrors as nodes take for one Service";
            return Err(("TooManyMatches", message.to_owned()));
        }
        if !speaks(route.kind, protocol) {
            let spoken = match protocol {
                v1::Protocol::Opaque => "opaque",
                v1::Protocol::Http2 => "HTTP/2",
                _other => "HTTP/1",
            };
            let message = format!(
                "port {port} of Service {service} is {spoken}: by its appProtocol, by annotation {OPAQUE_PORTS} of the Service or its namespace, or as a well-known port"
            );
            return Err(("UnsupportedProtocol", message));
        }
        let Some(held) = self.names.get(route) else { return Ok(()) };
        if let Some(message) = self.aside(route, held, port) {
            return Err(("RouteReasonConflicted", message));
        }
        match affinity_of(self.index, service, held) {
            Some(with) => Err((
                "UnsupportedValue",
                format!(
                    "Service {with} has sessionAffinity ClientIP, and a rule that sends requests to it has sessionPersistence: leave one of them out"
                ),
            )),
            None => Ok(()),
        }
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

/// Whether a route of this kind can hold where that is spoken: neither requests nor names are seen on an opaque port, calls are HTTP/2 (Linkerd,
/// too, asks HTTPRoutes alone on a port of HTTP/1), and where HTTP is declared requests are decided about.
fn speaks(kind: Kind, protocol: v1::Protocol) -> bool {
    match protocol {
        v1::Protocol::Opaque => kind == Kind::TcpRoute,
        v1::Protocol::Http1 => !matches!(kind, Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute),
        v1::Protocol::Http2 => !matches!(kind, Kind::TlsRoute | Kind::TcpRoute),
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
    (service, port): (&Name, u16),
    own: &ObjectName,
    route: &HttpRoute,
    overrides: &[Override],
    slices: &mut BTreeSet<Name>,
) -> v1::HttpRoute {
    let mut told = Told { index, namespace: &own.name.namespace, slices };
    let overridden = if route.profile.is_some() { told.overridden(overrides, port) } else { None };
    let rules = route.rules.iter().map(|rule| {
        let backends = rule.backends.as_ref().map(|all| all.iter().map(|one| told.backend(one)).collect());
        let backends: Option<Vec<v1::HttpBackend>> = overridden.clone().or(backends);
        told.rule(service, route, rule, backends)
    });
    let rules = rules.collect();
    let (object, first_wins) = (Some(own.to_api()), route.profile.is_some());
    let is_consumer = own.name.namespace != service.namespace;
    let (hostnames, level) = (route.hostnames.clone(), route.level.into());
    v1::HttpRoute { object, is_consumer, hostnames, rules, first_wins, level }
}

impl Told<'_> {
    /// Where a profile sends its requests; none to the Service itself. What is not there leaves its share to the others, as what has no
    /// endpoints does (Linkerd).
    fn overridden(&mut self, overrides: &[Override], port: u16) -> Option<Vec<v1::HttpBackend>> {
        let each = overrides.iter().map(|one| (one.weight, self.service(&one.service, one.port.unwrap_or(port))));
        let each: Vec<_> = each.collect();
        let is_any = each.iter().any(|(weight, target)| *weight > 0 && target.is_ok());
        let backends = each.into_iter().map(|(weight, target)| {
            let (weight, target) = match target {
                Ok(target) => (weight, http_backend::Target::Service(target)),
                Err(reason) => (if is_any { 0 } else { weight }, http_backend::Target::Invalid(reason)),
            };
            v1::HttpBackend { weight, filters: Vec::new(), target: Some(target) }
        });
        Some(backends.collect()).filter(|backends: &Vec<_>| !backends.is_empty())
    }

    fn rule(
        &mut self,
        service: &Name,
        route: &HttpRoute,
        rule: &RouteRule,
        backends: Option<Vec<v1::HttpBackend>>,
    ) -> v1::HttpRule {
        let destination = match backends {
            None => http_rule::Destination::Itself(v1::Itself {}),
            Some(backends) => http_rule::Destination::Backends(v1::HttpBackends { backends }),
        };
        if route.level != v1::RouteLevel::Requests {
            return v1::HttpRule { destination: Some(destination), ..v1::HttpRule::default() };
        }
        let service = self.index.service(service);
        let (retry, _who) = retry_in_force(service.map(|service| &**service), route, rule);
        v1::HttpRule {
            matches: rule.matches.clone(),
            filters: self.filters(&rule.filters),
            destination: Some(destination),
            timeouts: timeouts::in_force(service.and_then(|service| service.timeouts), route.timeouts, rule.timeouts),
            retry: retry.filter(|retry| retry.limit > 0).cloned(),
            condition: rule.of_profile.as_ref().map(|own| own.condition.clone()),
            name: rule.of_profile.as_ref().map(|own| own.name.to_string()).unwrap_or_default(),
            classes: rule.of_profile.as_ref().and_then(|own| own.classes.clone()),
            session_persistence: rule.sessions.clone(),
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
