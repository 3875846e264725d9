//! Routes, ServiceProfiles and TrafficSplits as items. Must never show as in force what nodes are not told.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use weir_api::v1::{self, backend_policy::Target, item};

use super::{Asked, Lazy};
use crate::{
    index::Index,
    objects::{HttpRoute, Kind, Name, ObjectName, RouteBackend, RouteRule},
    parse::Finding,
    route_status::{self, Condition},
    snapshot,
};

/// Routes that nodes are told, by Service: worked out once, for all routes of it.
pub(super) type Told<'a> = RefCell<route_status::Told<'a>>;

pub(super) fn all<'a>(index: &'a Index, told: &'a Told<'a>, findings: &'a [Finding], asked: &Asked) -> Vec<Lazy<'a>> {
    let refused: BTreeMap<&str, &Finding> =
        findings.iter().rev().filter_map(|finding| Some((finding.object.as_deref()?, finding))).collect();
    let read = index.routes().map(|(name, route)| (name.clone(), Some(route)));
    let known: BTreeSet<&ObjectName> = index.routes().map(|(name, _route)| name).collect();
    // What could not be read even once is there nevertheless.
    let unread = refused.keys().filter_map(|object| named(object)).filter(|name| !known.contains(name));
    let all = read.chain(unread.map(|name| (name, None)));
    let wanted = all.filter(|(name, _route)| asked.takes(&name.name.namespace, &name.name.name));
    let lazy = |(name, route): (ObjectName, Option<&'a std::sync::Arc<HttpRoute>>)| {
        let key = name.to_string();
        let finding = refused.get(key.as_str()).copied();
        Lazy::new(key, move || item::Item::Route(shown(index, told, &name, route.map(AsRef::as_ref), finding)))
    };
    wanted.map(lazy).collect()
}

/// The route that a finding is about: as [`ObjectName`] is written.
fn named(object: &str) -> Option<ObjectName> {
    let (kind, name) = object.split_once(' ')?;
    let kind = Kind::ALL.into_iter().filter(|kind| kind.is_route()).find(|route| route.shown() == kind)?;
    let (namespace, name) = name.split_once('/')?;
    Some(ObjectName { kind, name: Name::new(namespace, name) })
}

fn shown<'a>(
    index: &'a Index,
    told: &Told<'a>,
    name: &ObjectName,
    route: Option<&'a HttpRoute>,
    finding: Option<&Finding>,
) -> v1::RouteItem {
    let refused = finding.map_or_else(String::new, |finding| format!("{}: {}", finding.field, finding.reason));
    let empty = v1::RouteItem { route: Some(name.to_api()), refused, ..v1::RouteItem::default() };
    let Some(route) = route else { return empty };
    let conditions = route_status::conditions(index, &mut told.borrow_mut(), name, route);
    let parents = route.parents.iter().zip(&conditions).map(|(parent, conditions)| v1::RouteParent {
        namespace: parent.service.namespace.to_string(),
        service: parent.service.name.to_string(),
        port: parent.port.unwrap_or_default().into(),
        port_name: parent.section.as_deref().unwrap_or_default().to_owned(),
        conditions: conditions.iter().map(condition).collect(),
        server: String::new(),
    });
    let servers = route_status::servers(index, route).map(|(server, accepted)| v1::RouteParent {
        namespace: server.namespace.to_string(),
        server: server.name.to_string(),
        conditions: vec![condition(&accepted)],
        ..v1::RouteParent::default()
    });
    v1::RouteItem {
        generation: route.generation,
        hostnames: route.hostnames.clone(),
        parents: parents.chain(servers).collect(),
        rules: route.rules.iter().map(|rule| shown_rule(index, route, rule)).collect(),
        ..empty
    }
}

fn condition(condition: &Condition) -> v1::RouteCondition {
    v1::RouteCondition {
        r#type: condition.kind.to_owned(),
        status: condition.trouble.is_none(),
        reason: condition.reason().to_owned(),
        message: condition.message().to_owned(),
    }
}

fn shown_rule(index: &Index, route: &HttpRoute, rule: &RouteRule) -> v1::RouteItemRule {
    // What a profile or a split names is the same for each of its rules.
    let overrides = route.overrides().iter().map(|one| backend(index, one.weight, Ok((&one.service, one.port))));
    let own = rule.backends.iter().flatten().map(|backend_of: &RouteBackend| {
        let target = backend_of.target.as_ref();
        backend(
            index,
            backend_of.weight,
            target.map(|(name, port)| (name, Some(*port))).map_err(|why| why.message.clone()),
        )
    });
    let backends: Vec<v1::BackendPolicy> = overrides.chain(own).collect();
    v1::RouteItemRule { is_itself: rule.backends.is_none() && route.overrides().is_empty(), backends }
}

/// `port`: none for that of the request.
fn backend(index: &Index, weight: u32, target: Result<(&Name, Option<u16>), String>) -> v1::BackendPolicy {
    let found = target.and_then(|(name, port)| match port {
        Some(number) => snapshot::resolved(index, name, number).map(|_found| (name, port)),
        None => Ok((name, port)),
    });
    let target = match found {
        Ok((name, port)) => Target::Service(v1::ServicePortRef {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            port: port.unwrap_or_default().into(),
            ..v1::ServicePortRef::default()
        }),
        Err(why) => Target::Invalid(why),
    };
    v1::BackendPolicy { weight, target: Some(target), filters: Vec::new() }
}
