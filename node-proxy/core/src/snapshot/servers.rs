//! Control's Servers into policies. Must never default what is malformed: a word that is missing would let somebody in.

use std::sync::Arc;

use ipnet::IpNet;
use weir_api::v1;

use super::convert::Reason;
use crate::{
    inbound::{Clients, Grant, Network, ServerPolicy},
    limits,
    route::ObjectRef,
};

/// One Server.
pub(super) fn server(name: &str, resource: &v1::InboundServer) -> Result<ServerPolicy, Reason> {
    let object = object("object", resource.object.as_ref())?;
    if format!("{}/{}", object.namespace, object.name) != name {
        return Err(format!("object: {object} is not the resource's name"));
    }
    let count = resource.authorizations.len();
    if count > limits::GRANTS_PER_SERVER {
        return Err(format!("authorizations: {count} of them, at most {} are taken", limits::GRANTS_PER_SERVER));
    }
    let named = |one: &v1::InboundAuthorization| {
        one.identities.len()
            + one.identity_suffixes.len()
            + one.networks.iter().map(|network| 1 + network.except.len()).sum::<usize>()
    };
    let all: usize = resource.authorizations.iter().map(named).sum();
    if all > limits::GRANTED_PER_SERVER {
        let most = limits::GRANTED_PER_SERVER;
        return Err(format!("authorizations: {all} identities and networks, at most {most} are taken"));
    }
    let grants = resource
        .authorizations
        .iter()
        .enumerate()
        .map(|(at, given)| grant(given).map_err(|reason| format!("authorizations[{at}].{reason}")));
    Ok(ServerPolicy::new(Arc::new(object), grants.collect::<Result<_, _>>()?))
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
