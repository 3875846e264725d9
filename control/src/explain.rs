//! What becomes of one request, and why: decided by the code that nodes run, over what they are told. Must never decide anything itself, and
//! never hold the index while it decides: the largest routes take seconds to compile.

mod candidates;
mod request;
#[cfg(test)]
mod tests;
mod ways;

use std::{collections::HashMap, sync::Arc};

use tonic::Status;
use weir_api::v1;
use weir_core::route::{self, Routes, Selected, Table};

use self::request::Asked;
use crate::{
    index::Index,
    limits,
    objects::{HttpRoute, Name, ObjectName, Pod, Service},
    parse::Finding,
    policy::{
        self, Attached,
        settings::{self, Place},
    },
    service_port,
};

/// All that an answer needs of the index.
pub struct Gathered {
    asked: Asked,
    client: v1::ExplainRequest,
    name: Name,
    service: Arc<Service>,
    reference: v1::ServicePortRef,
    port: u16,
    protocol: v1::Setting,
    /// As nodes are told it.
    told: v1::ServiceTarget,
    /// Endpoints of the dialled Service, and of each that the routes name, in the order of [`route::services`].
    own: Endpoints,
    backends: Vec<(v1::ServicePortRef, Endpoints)>,
    routes: Vec<(ObjectName, Arc<HttpRoute>)>,
    aside: Vec<v1::RouteAside>,
    pods: u32,
    meshed: u32,
    notes: Vec<String>,
}

/// How many a port has.
#[derive(Clone, Copy, Debug, Default)]
struct Endpoints {
    all: u32,
    ready: u32,
}

/// Takes from the index what an answer needs. `findings`: all that is refused at this moment.
///
/// # Errors
/// No such Service or port, or no request that could be sent.
pub fn gather(index: &Index, findings: &[Finding], given: v1::ExplainRequest) -> Result<Gathered, Status> {
    if given.client_namespace.is_empty() {
        return Err(Status::invalid_argument("client_namespace: the client's namespace is needed"));
    }
    let (name, service) = service_port::service(index, &given.namespace, &given.service)?;
    let port = service_port::port(&name, &service, given.port)?;
    let (_address, told) = service_port::told(index, &name, &service, port.port)?;
    let asked = Asked::of(&given, port.port, told.protocol())?;
    let attached = Attached::of(index, &name, &service, &given.client_namespace, findings);
    let (_in_force, said) = attached.said(port);
    let routes = said.iter().map(|said| (said.name.clone(), Arc::clone(said.route))).collect();
    let refused = said.iter().filter(|said| said.is_in_force && !said.reason.is_empty());
    let mut notes: Vec<String> = refused.map(|said| format!("{}: {}", said.name, said.reason)).collect();
    let unplaced = policy::unplaced(index, findings, [&*name.namespace, &*given.client_namespace]);
    notes.extend(unplaced.map(|finding| format!("{}; it may be one of this Service's", finding_of_route(finding))));
    let aside = said.iter().filter(|said| !said.is_in_force).take(limits::EXPLAINED_ROUTES);
    let aside = aside.map(|said| v1::RouteAside { route: Some(said.name.to_api()), reason: said.reason.clone() });
    let aside = aside.collect();
    let of_connections = said.iter().find(|said| said.is_in_force && said.route.level != v1::RouteLevel::Requests);
    notes.extend(of_connections.map(|said| {
        format!(
            "{} decides about whole connections to this port: no request on them is looked at; see `weir policy`",
            said.name
        )
    }));
    let (pods, meshed) = clients(index, &given);
    notes.extend(of_clients(&given, pods, meshed));
    if told.local_only {
        notes.push(
            "internalTrafficPolicy is Local: only endpoints of the client's own node get requests, which this answer does not tell apart"
                .to_owned(),
        );
    }
    if told.allow_l5d_request_headers && asked.has_own_policy() {
        notes.push("the request's own l5d-… headers stand above these time limits and retries".to_owned());
    }
    let mut known = HashMap::new();
    let backends = route::services(&told.http_routes).map(|target| {
        let reference = service_port::of_target(target);
        let key = (reference.namespace.clone(), reference.name.clone(), reference.port);
        let endpoints = *known.entry(key).or_insert_with(|| endpoints(index, target));
        (reference, endpoints)
    });
    let backends = backends.collect();
    let protocol = settings::protocol(index, &name, &service, port);
    Ok(Gathered {
        own: endpoints(index, &told),
        reference: service_port::reference(&name, port),
        port: port.port,
        client: given,
        service: Arc::clone(&service),
        asked,
        name,
        protocol,
        told,
        backends,
        routes,
        aside,
        pods,
        meshed,
        notes,
    })
}

fn finding_of_route(finding: &Finding) -> String {
    format!("{} is refused ({}: {})", finding.object.as_deref().unwrap_or_default(), finding.field, finding.reason)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Pods that the client may be, and how many of them are opted in.
fn clients(index: &Index, given: &v1::ExplainRequest) -> (u32, u32) {
    let is_it = |pod: &Pod| {
        let reference = &pod.reference;
        let named = match given.client_kind.as_str() {
            "" => true,
            "pod" => reference.name == given.client_name,
            kind => reference.owner_kind == kind && reference.owner_name == given.client_name,
        };
        reference.namespace == given.client_namespace && named
    };
    let pods: Vec<&Arc<Pod>> = index.pods().filter(|pod| is_it(pod)).collect();
    (count(pods.len()), count(pods.iter().filter(|pod| index.is_enabled(pod)).count()))
}

fn of_clients(given: &v1::ExplainRequest, pods: u32, meshed: u32) -> Option<String> {
    let who = match given.client_kind.as_str() {
        "" => format!("namespace {}", given.client_namespace),
        kind => format!("{kind} {}/{}", given.client_namespace, given.client_name),
    };
    match (pods, meshed) {
        (0, _) => Some(format!("no pod of {who} is known: this is what one would get; check its name and namespace")),
        (pods, 0) => Some(format!(
            "none of the {pods} pods of {who} is in the mesh: what they send goes its way without any of this; see `weir check`"
        )),
        (pods, meshed) if meshed < pods => Some(format!(
            "{} of the {pods} pods of {who} are not in the mesh: what they send goes its way without any of this",
            pods - meshed
        )),
        _all => None,
    }
}

fn endpoints(index: &Index, target: &v1::ServiceTarget) -> Endpoints {
    let names = target.endpoints.iter().filter_map(|name| name.split_once('/'));
    let slices = names.filter_map(|(namespace, name)| index.slice(&Name::new(namespace, name)));
    let slices = slices.filter(|slice| slice.ports.iter().any(|(name, _port)| **name == *target.port_name));
    slices.fold(Endpoints::default(), |sum, slice| Endpoints {
        all: sum.all.saturating_add(count(slice.endpoints.len())),
        ready: sum.ready.saturating_add(count(slice.endpoints.iter().filter(|endpoint| endpoint.ready).count())),
    })
}

/// What decided.
struct Decided<'a> {
    table: &'a Table,
    selected: Option<Selected>,
}

impl Gathered {
    /// Decides, and says why.
    ///
    /// # Errors
    /// Routes that nodes refuse.
    pub fn answer(self) -> Result<v1::ExplainResponse, Status> {
        let routes = route::routes(&self.told.http_routes).map_err(|invalid| {
            let message =
                format!("nodes refuse the routes of Service {}, and go by the last good ones: {invalid}", self.name);
            Status::failed_precondition(message)
        })?;
        let table = routes.as_ref().and_then(|routes: &Routes| routes.of_client(&self.client.client_namespace));
        let facts = self.asked.facts();
        let is_ready = |backend: usize| self.backends.get(backend).is_some_and(|(_, endpoints)| endpoints.ready > 0);
        let (selected, ways) = match table {
            Some(table) => {
                let (selected, ways) = route::ways(table, &facts, self.port, is_ready);
                let decided = Decided { table, selected };
                (selected, ways.iter().map(|way| self.way(&decided, way)).collect())
            }
            None => (None, vec![self.itself()]),
        };
        let (candidates, left_out) = match table {
            Some(table) => self.candidates(table, &facts, selected),
            None => (Vec::new(), 0),
        };
        let settings = match (table, selected) {
            // There is nothing to send.
            (Some(_), None) => Vec::new(),
            (Some(table), Some(at)) => settings::of_requests(&self.name, &self.service, self.place(table, at)),
            (None, _) => settings::of_requests(&self.name, &self.service, None),
        };
        Ok(v1::ExplainResponse {
            routes_in_force: self.in_force(table).into(),
            service: Some(self.reference),
            protocol: Some(self.protocol),
            method: self.asked.method.to_string(),
            path: self.asked.whole_path(),
            authority: self.asked.authority,
            client_pods: self.pods,
            client_pods_meshed: self.meshed,
            candidates,
            candidates_left_out: left_out,
            aside: self.aside,
            ways,
            settings,
            notes: self.notes,
        })
    }

    fn in_force(&self, table: Option<&Table>) -> v1::RoutesInForce {
        match table.and_then(|table| table.routes().first()) {
            None => v1::RoutesInForce::NoRoutes,
            Some(route) if *route.object.namespace == *self.name.namespace => v1::RoutesInForce::ProducerRoutes,
            Some(_other) => v1::RoutesInForce::ConsumerRoutes,
        }
    }

    /// The rule that won, as its object has it.
    fn place(&self, table: &Table, at: Selected) -> Option<Place<'_>> {
        let object = &table.routes().get(at.route)?.object;
        let (name, route) = self.routes.iter().find(|(name, _route)| name.is(object))?;
        Some(Place { name, route, rule: route.rules.get(at.rule)?, at: at.rule })
    }
}
