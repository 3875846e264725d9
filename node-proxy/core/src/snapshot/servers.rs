//! Control's Servers into policies. Must never default what is malformed: a word that is missing would let somebody in.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use weir_api::v1;

use super::convert::Reason;
use crate::{
    inbound::{Clients, Grant, Grants, Network, ServerPolicy, ServerRoutes},
    limits,
    route::{self, ObjectRef},
};

/// One Server.
pub(super) fn server(name: &str, resource: &v1::InboundServer) -> Result<ServerPolicy, Reason> {
    let object = object("object", resource.object.as_ref())?;
    if format!("{}/{}", object.namespace, object.name) != name {
        return Err(format!("object: {object} is not the resource's name"));
    }
    let all = || resource.routes.iter().flat_map(|one| &one.authorizations).chain(&resource.authorizations);
    let count = all().count();
    if count > limits::GRANTS_PER_SERVER {
        return Err(format!("authorizations: {count} of them, at most {} are taken", limits::GRANTS_PER_SERVER));
    }
    let named = |one: &v1::InboundAuthorization| {
        one.identities.len()
            + one.identity_suffixes.len()
            + one.networks.iter().map(|network| 1 + network.except.len()).sum::<usize>()
    };
    let named: usize = all().map(named).sum();
    if named > limits::GRANTED_PER_SERVER {
        let most = limits::GRANTED_PER_SERVER;
        return Err(format!("authorizations: {named} identities and networks, at most {most} are taken"));
    }
    let policy = ServerPolicy::new(Arc::new(object), grants(&resource.authorizations)?);
    Ok(ServerPolicy { routes: routes(&resource.routes)?, ..policy })
}

fn grants(given: &[v1::InboundAuthorization]) -> Result<Vec<Grant>, Reason> {
    let one = |(at, given)| grant(given).map_err(|reason| format!("authorizations[{at}].{reason}"));
    given.iter().enumerate().map(one).collect()
}

/// Routes that cannot be used would let through what they are there to stop.
fn routes(given: &[v1::InboundRoute]) -> Result<Option<ServerRoutes>, Reason> {
    let mut all = Vec::with_capacity(given.len());
    let mut granted: HashMap<ObjectRef, Vec<Grant>> = HashMap::new();
    for (at, one) in given.iter().enumerate() {
        let named = |reason| format!("routes[{at}].{reason}");
        let route = one.route.as_ref().ok_or_else(|| named("route: missing".to_owned()))?;
        let own = object("route.object", route.object.as_ref()).map_err(named)?;
        if route.is_consumer || route.first_wins || route.level() != v1::RouteLevel::Requests {
            return Err(named("route: not one of all clients' requests".to_owned()));
        }
        if granted.insert(own, grants(&one.authorizations).map_err(named)?).is_some() {
            return Err(named("route.object: there twice".to_owned()));
        }
        all.push(route.clone());
    }
    let Some(routes) = route::routes(&all).map_err(|error| format!("routes.{error}"))? else { return Ok(None) };
    let table = routes.into_requests().ok_or("routes: none of them decides about requests")?;
    let mut of = |object: &ObjectRef| Grants::new(granted.remove(object).unwrap_or_default());
    let grants = table.routes().iter().map(|route| of(&route.object)).collect();
    Ok(Some(ServerRoutes::new(table, grants)))
}

fn object(field: &str, given: Option<&v1::ObjectRef>) -> Result<ObjectRef, Reason> {
    let given = given.filter(|given| !given.name.is_empty() && !given.kind.is_empty());
    given.map(ObjectRef::from).ok_or_else(|| format!("{field}: missing"))
}

fn grant(given: &v1::InboundAuthorization) -> Result<Grant, Reason> {
    let names = |names: &[String]| -> Vec<Arc<str>> { names.iter().map(|name| Arc::from(name.as_str())).collect() };
    let clients = match v1::ClientKind::try_from(given.clients) {
        Ok(v1::ClientKind::ClientAnyone) => Clients::Anyone,
        Ok(v1::ClientKind::ClientTls) => Clients::Tls,
        Ok(v1::ClientKind::ClientAuthenticated) => Clients::Authenticated,
        Ok(v1::ClientKind::ClientIdentities) => {
            let (exact, suffixes) = (names(&given.identities), names(&given.identity_suffixes));
            if exact.iter().chain(&suffixes).any(|name| name.is_empty()) {
                return Err("identities: an empty one".to_owned());
            }
            Clients::Identities { exact, suffixes }
        }
        Ok(v1::ClientKind::Unspecified) => return Err("clients: missing".to_owned()),
        Err(error) => return Err(format!("clients: {error}")),
    };
    let networks = given
        .networks
        .iter()
        .enumerate()
        .map(|(at, given)| network(given).map_err(|reason| format!("networks[{at}].{reason}")));
    Ok(Grant {
        object: Arc::new(object("object", given.object.as_ref())?),
        cluster_networks: given.cluster_networks,
        networks: networks.collect::<Result<_, _>>()?,
        clients,
        audit: given.audit,
    })
}

fn network(given: &v1::Network) -> Result<Network, Reason> {
    let read = |field: &str, text: &str| text.parse::<IpNet>().map_err(|error| format!("{field}: {text:?}: {error}"));
    let except = given.except.iter().map(|text| read("except", text)).collect::<Result<_, _>>()?;
    Ok(Network { cidr: read("cidr", &given.cidr)?, except })
}
