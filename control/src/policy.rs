//! What is in force for a Service, and from which object each part comes. Must never work anything out that the snapshots do not: it asks them.

pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonic::Status;
use weir_api::v1::{self, http_filter, request_mirror};

use crate::{
    index::Index,
    limits,
    objects::{HttpRoute, Name, ObjectName, Service, ServicePort},
    parse::Finding,
    service_port,
    snapshot::{self, InForce},
};
use settings::Place;

/// Answers `weir policy`. `findings`: all that is refused at this moment.
///
/// # Errors
/// No such Service or port, or too many ports for one answer.
pub fn policy(index: &Index, findings: &[Finding], asked: &v1::PolicyRequest) -> Result<v1::PolicyResponse, Status> {
    let (name, service) = service_port::service(index, &asked.namespace, &asked.service)?;
    let client = if asked.client_namespace.is_empty() { &asked.namespace } else { &asked.client_namespace };
    let ports: Vec<&ServicePort> = match asked.port {
        0 if service.ports.len() > limits::SHOWN_PORTS => {
            let (count, example) = (service.ports.len(), service.ports[0].port);
            let message = format!(
                "Service {name} has {count} ports: name the one that is meant, as in svc/{}:{example}",
                name.name
            );
            return Err(Status::invalid_argument(message));
        }
        0 => service.ports.iter().collect(),
        port => vec![service_port::port(&name, &service, port)?],
    };
    let mut all = settings::of_requests(&name, &service, None);
    all.extend(settings::of_service(index, &name, &service));
    let own = ObjectName { kind: crate::objects::Kind::Service, name: name.clone() }.to_string();
    let flaws = findings.iter().filter(|finding| finding.object.as_deref() == Some(&own));
    let flaw = |finding: &Finding| v1::Flaw { field: finding.field.clone(), reason: finding.reason.clone() };
    let of_route = |finding: &Finding| v1::Flaw {
        field: format!("{} {}", finding.object.as_deref().unwrap_or_default(), finding.field),
        reason: format!("{}; the route is refused, and may be one of this Service's", finding.reason),
    };
    let of_routes = unplaced(index, findings, [&*name.namespace, client]).map(of_route);
    let flaws: Vec<v1::Flaw> = flaws.map(flaw).chain(of_routes).collect();
    let mut left = Left { routes: limits::EXPLAINED_ROUTES, rules: limits::SHOWN_RULES };
    let attached = Attached::of(index, &name, &service, client, findings);
    Ok(v1::PolicyResponse {
        namespace: asked.namespace.clone(),
        service: asked.service.clone(),
        client_namespace: client.clone(),
        settings: all,
        ports: ports.into_iter().map(|port| attached.port(port, &mut left)).collect(),
        flaws,
    })
}

/// What one answer has room for.
struct Left {
    routes: usize,
    rules: usize,
}

/// Refused routes of these namespaces that have no good version: nobody has read whose they are.
pub(crate) fn unplaced<'a>(
    index: &'a Index,
    findings: &'a [Finding],
    namespaces: [&'a str; 2],
) -> impl Iterator<Item = &'a Finding> {
    let is_there = move |finding: &&Finding| {
        let parts = finding.object.as_deref().and_then(|object| {
            let (kind, name) = object.split_once(' ')?;
            Some((kind, name.split_once('/')?.0))
        });
        parts.is_some_and(|(kind, namespace)| {
            (kind.contains("Route") || kind == "ServiceProfile" || kind == "TrafficSplit")
                && namespaces.contains(&namespace)
        })
    };
    let is_known = move |finding: &&Finding| {
        index.routes().any(|(name, _route)| finding.object.as_deref().is_some_and(|object| name.to_string() == object))
    };
    findings
        .iter()
        .filter(move |finding| is_there(finding))
        .take(limits::SHOWN_REFUSED)
        .filter(move |finding| !is_known(finding))
}

/// What becomes of one route on one port.
pub(crate) struct Said<'a> {
    pub(crate) name: &'a ObjectName,
    pub(crate) route: &'a Arc<HttpRoute>,
    /// It is asked about requests of the client.
    pub(crate) is_in_force: bool,
    /// Why it is not, or what of it is not; for people.
    pub(crate) reason: String,
}

/// The routes of a Service, as clients of one namespace are served by them.
pub(crate) struct Attached<'a> {
    index: &'a Index,
    name: &'a Name,
    service: &'a Service,
    client: &'a str,
    findings: &'a [Finding],
    in_force: InForce<'a>,
}

impl<'a> Attached<'a> {
    pub(crate) fn of(
        index: &'a Index,
        name: &'a Name,
        service: &'a Service,
        client: &'a str,
        findings: &'a [Finding],
    ) -> Attached<'a> {
        Attached { index, name, service, client, findings, in_force: InForce::of(index, name) }
    }

    /// Routes that mean a port, in order of precedence, and whose routes are in force there.
    pub(crate) fn said(&self, port: &ServicePort) -> (v1::RoutesInForce, Vec<Said<'a>>) {
        let (protocol, _who) = snapshot::declared(self.index, self.name, self.service, port);
        let means =
            |route: &HttpRoute| route.parents.iter().any(|parent| parent.service == *self.name && parent.is_for(port));
        let routes = self.index.routes_of(self.name).into_iter().filter(|(_name, route)| means(route));
        let judged: Vec<_> = routes
            .map(|(name, route)| (name, route, self.in_force.accepts(name, self.name, port.port, protocol)))
            .collect();
        let is_consumer = |name: &ObjectName| name.name.namespace != self.name.namespace;
        let is_own = |name: &ObjectName| is_consumer(name) && *name.name.namespace == *self.client;
        let accepted =
            |of: &dyn Fn(&ObjectName) -> bool| judged.iter().any(|(name, _, taken)| taken.is_ok() && of(name));
        let in_force = if accepted(&is_own) {
            v1::RoutesInForce::ConsumerRoutes
        } else if accepted(&|name| !is_consumer(name)) {
            v1::RoutesInForce::ProducerRoutes
        } else {
            v1::RoutesInForce::NoRoutes
        };
        let reason = |name: &ObjectName, taken: Result<(), snapshot::Refusal>| match (taken, is_consumer(name)) {
            (Err((reason, message)), _) => Err(format!("{reason}: {message}")),
            (Ok(()), true) if !is_own(name) => {
                Err(format!("holds for clients of namespace {} alone", name.name.namespace))
            }
            (Ok(()), false) if in_force == v1::RoutesInForce::ConsumerRoutes => {
                Err(format!("routes of namespace {}, the client's own, hold instead", self.client))
            }
            (Ok(()), _) => Ok(self.refused(name)),
        };
        let said = judged.into_iter().map(|(name, route, taken)| {
            let reason = reason(name, taken);
            Said { name, route, is_in_force: reason.is_ok(), reason: reason.unwrap_or_else(|reason| reason) }
        });
        (in_force, said.collect())
    }

    /// Why a newer version of a route is not the one in force; empty where there is none.
    fn refused(&self, name: &ObjectName) -> String {
        let shown = name.to_string();
        let finding = self.findings.iter().find(|finding| finding.object.as_deref() == Some(&shown));
        finding.map_or_else(String::new, |finding| {
            format!("its newest version is refused ({}: {}); the last good one stays", finding.field, finding.reason)
        })
    }

    fn port(&self, port: &ServicePort, left: &mut Left) -> v1::PortPolicy {
        let (in_force, mut said) = self.said(port);
        // What decides comes first, whatever older routes others have.
        said.sort_by_key(|said| !said.is_in_force);
        let told = service_port::told(self.index, self.name, self.service, port.port).ok().map(|(_address, told)| told);
        let mut rules_left_out = 0;
        let shown = said.iter().take(left.routes).map(|said| {
            let route = self.route(said, told.as_ref(), left.rules);
            left.rules -= route.rules.len();
            rules_left_out += if said.is_in_force { said.route.rules.len() - route.rules.len() } else { 0 };
            route
        });
        let routes: Vec<v1::RoutePolicy> = shown.collect();
        left.routes -= routes.len();
        v1::PortPolicy {
            port: port.port.into(),
            name: port.name.to_string(),
            protocol: Some(settings::protocol(self.index, self.name, self.service, port)),
            routes_in_force: in_force.into(),
            routes_left_out: u32::try_from(said.len() - routes.len()).unwrap_or(u32::MAX),
            rules_left_out: u32::try_from(rules_left_out).unwrap_or(u32::MAX),
            routes,
        }
    }

    /// Rules as nodes are told them: those of a route that they are not told are left out.
    fn route(&self, said: &Said<'_>, told: Option<&v1::ServiceTarget>, most: usize) -> v1::RoutePolicy {
        let reference = said.name.to_api();
        let told =
            told.and_then(|told| told.http_routes.iter().find(|route| route.object.as_ref() == Some(&reference)));
        let rules = told.into_iter().flat_map(|told| &told.rules).zip(&said.route.rules).enumerate().take(most);
        let rules = rules.map(|(at, (told, rule))| {
            let place = Place { name: said.name, route: said.route, rule, at };
            self.rule(told, place)
        });
        v1::RoutePolicy {
            rules: rules.collect(),
            route: Some(reference),
            is_in_force: said.is_in_force,
            reason: said.reason.clone(),
            hostnames: said.route.hostnames.clone(),
        }
    }

    fn rule(&self, told: &v1::HttpRule, place: Place<'_>) -> v1::RulePolicy {
        let backends = match &told.destination {
            Some(v1::http_rule::Destination::Backends(backends)) => Some(backends),
            Some(v1::http_rule::Destination::Itself(_)) | None => None,
        };
        v1::RulePolicy {
            rule: u32::try_from(place.at).unwrap_or(u32::MAX),
            matches: told.matches.clone(),
            filters: told.filters.iter().map(shown).collect(),
            is_itself: backends.is_none(),
            backends: backends.into_iter().flat_map(|backends| &backends.backends).map(backend).collect(),
            settings: match place.route.level {
                v1::RouteLevel::Requests => settings::of_requests(self.name, self.service, Some(place)),
                // There is nothing that could be sent again, or be too late.
                v1::RouteLevel::Tls | v1::RouteLevel::Tcp => Vec::new(),
            },
            profile_condition: told.condition.clone(),
            name: told.name.clone(),
            classes: told.classes.clone(),
        }
    }
}

fn backend(told: &v1::HttpBackend) -> v1::BackendPolicy {
    let target = told.target.as_ref().map(|target| match target {
        v1::http_backend::Target::Service(service) => {
            v1::backend_policy::Target::Service(service_port::of_target(service))
        }
        v1::http_backend::Target::Invalid(reason) => v1::backend_policy::Target::Invalid(reason.clone()),
    });
    v1::BackendPolicy { weight: told.weight, target, filters: told.filters.iter().map(shown).collect() }
}

/// Without the slices of a mirror's Service, which only nodes want.
pub(crate) fn shown(filter: &v1::HttpFilter) -> v1::HttpFilter {
    let Some(http_filter::Filter::Mirror(mirror)) = &filter.filter else { return filter.clone() };
    let target = mirror.target.as_ref().map(|target| match target {
        request_mirror::Target::Service(service) => request_mirror::Target::Service(v1::ServiceTarget {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: service.port,
            port_name: service.port_name.clone(),
            ..v1::ServiceTarget::default()
        }),
        request_mirror::Target::Invalid(reason) => request_mirror::Target::Invalid(reason.clone()),
    });
    v1::HttpFilter { filter: Some(http_filter::Filter::Mirror(v1::RequestMirror { target, ..*mirror })) }
}
