//! What became of routes: conditions `Accepted` and `ResolvedRefs` of each parent that is a Service (Gateway API), `Accepted` of each that is a
//! Server (Linkerd). Must never do I/O.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weir_api::v1;

use crate::{
    index::Index,
    objects::{HttpRoute, Kind, Name, ObjectName, ParentRef},
    plane::Plane,
    snapshot::{self, InForce},
};

/// One condition, but for when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `type`
    pub(crate) kind: &'static str,
    /// Empty reason of trouble: it is true.
    pub(crate) trouble: Option<(&'static str, String)>,
}

impl Condition {
    /// `status`
    pub(crate) fn status(&self) -> &'static str {
        if self.trouble.is_some() { "False" } else { "True" }
    }

    /// `reason`
    pub(crate) fn reason(&self) -> &'static str {
        self.trouble.as_ref().map_or(self.kind, |(reason, _)| reason)
    }

    /// `message`
    pub(crate) fn message(&self) -> &str {
        self.trouble.as_ref().map_or("", |(_, message)| message)
    }
}

/// What is to stand in the status of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// About the object of this generation.
    Taken {
        generation: i64,
        /// Of each of its parents that is a Service, in their order.
        conditions: Vec<[Condition; 2]>,
        /// Of each Server among its parents, by name; they are of its namespace.
        servers: BTreeMap<Arc<str>, Condition>,
    },
    /// Refused as a whole, for this reason; its last good version may still be in force.
    Refused(String),
}

/// What is to stand in the status of each route.
pub(crate) fn wanted(plane: &Plane) -> BTreeMap<ObjectName, Said> {
    let mut all: BTreeMap<ObjectName, Said> = {
        let index = plane.index();
        // Once for each Service: a thousand routes of one would look at each other a million times.
        let mut told = Told::new();
        let routes = index.routes().filter(|(name, _route)| Kind::ROUTES.contains(&name.kind));
        routes.map(|(name, route)| (name.clone(), taken(&index, &mut told, name, route))).collect()
    };
    for finding in plane.findings() {
        if let Some(named) = finding.object.as_deref().and_then(route_named) {
            let text = format!("{}: {}", finding.field, finding.reason);
            all.entry(named)
                .and_modify(|said| {
                    if !matches!(said, Said::Refused(_)) {
                        *said = Said::Refused(text.clone());
                    }
                })
                .or_insert(Said::Refused(text.clone()));
        }
    }
    all
}

/// The route that a finding is about, if it is about one: as `ObjectName` is written.
fn route_named(object: &str) -> Option<ObjectName> {
    let (kind, name) = object.split_once(' ')?;
    let kind = Kind::ROUTES.into_iter().find(|route| route.shown() == kind)?;
    let (namespace, name) = name.split_once('/')?;
    Some(ObjectName { kind, name: Name::new(namespace, name) })
}

/// Routes that nodes are told, by Service.
pub(crate) type Told<'a> = HashMap<&'a Name, InForce<'a>>;

fn taken<'a>(index: &'a Index, told: &mut Told<'a>, name: &ObjectName, route: &'a HttpRoute) -> Said {
    let servers = servers(index, route).map(|(server, accepted)| (Arc::clone(&server.name), accepted)).collect();
    Said::Taken { generation: route.generation, conditions: conditions(index, told, name, route), servers }
}

/// What there is to say of each parent of a route that is a Server.
pub(crate) fn servers<'a>(index: &Index, route: &'a HttpRoute) -> impl Iterator<Item = (&'a Name, Condition)> {
    route.servers.iter().map(|name| {
        let missing = || ("NoMatchingParent", format!("Server {name} not found"));
        (name, Condition { kind: "Accepted", trouble: index.server(name).is_none().then(missing) })
    })
}

/// What there is to say of each parent of a route that is a Service, in their order.
pub(crate) fn conditions<'a>(
    index: &'a Index,
    told: &mut Told<'a>,
    name: &ObjectName,
    route: &'a HttpRoute,
) -> Vec<[Condition; 2]> {
    let of = |parent| [accepted(index, told, name, parent), resolved(index, name, route)];
    route.parents.iter().map(of).collect()
}

fn accepted<'a>(index: &'a Index, told: &mut Told<'a>, route: &ObjectName, parent: &'a ParentRef) -> Condition {
    Condition { kind: "Accepted", trouble: refused(index, told, route, parent).err() }
}

/// Why nodes make nothing of a route on one of its parents: the reason, and words for people.
fn refused<'a>(
    index: &'a Index,
    told: &mut Told<'a>,
    route: &ObjectName,
    parent: &'a ParentRef,
) -> Result<(), (&'static str, String)> {
    let no_parent = |message: String| Err(("NoMatchingParent", message));
    let name = &parent.service;
    let Some(service) = index.service(name) else { return no_parent(format!("Service {name} not found")) };
    if service.addresses.is_empty() {
        return no_parent(format!("Service {name} has no ClusterIP"));
    }
    let ports: Vec<_> = snapshot::ports_for(index, parent).collect();
    if ports.is_empty() {
        return no_parent(format!("Service {name} has no such port"));
    }
    let in_force = told.entry(name).or_insert_with(|| InForce::of(index, name));
    let on_port = |(port, protocol): &(u16, v1::Protocol)| in_force.accepts(route, name, *port, *protocol);
    // One port is enough; of several why the first one is none.
    let mut each = ports.iter().map(on_port);
    let first = each.next().unwrap_or(Ok(()));
    if first.is_ok() || each.any(|port| port.is_ok()) { Ok(()) } else { first }
}

fn resolved(index: &Index, own: &ObjectName, route: &HttpRoute) -> Condition {
    let trouble = route.targets(&own.name.namespace).find_map(|target| match target {
        Err(invalid) => Some((invalid.reason, invalid.message.clone())),
        Ok((name, port)) => snapshot::resolved(index, &name, port).err().map(|message| ("BackendNotFound", message)),
    });
    Condition { kind: "ResolvedRefs", trouble }
}
