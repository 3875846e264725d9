//! Who may call what of a node's pods: the contract's form of Servers. Must never let in more than the objects say: what does not fit is left
//! out, and lets nobody in.

use std::sync::Arc;

use ipnet::IpNet;
use prost::Message as _;
use weir_api::v1::{self, ClientKind, http_filter};
use weir_core::inbound::{Clients, DefaultPolicy, Network};

use crate::{
    index::Index,
    limits,
    objects::{
        HttpRoute, Kind, Name, ObjectName, Pod, RouteFilter,
        authorization::{AuthorizationPolicy, Policy, Required, Server, everywhere, label_of},
    },
};

/// What Servers say about a pod's ports.
#[derive(Debug, Default)]
pub(super) struct PodServers {
    /// Which Server decides about which ports: the first one that names a port.
    pub(super) ports: Vec<v1::ServerPorts>,
    /// Those of them that say what is spoken there, in the same order.
    pub(super) protocols: Vec<v1::PortProtocol>,
    /// The Servers, each once.
    pub(super) names: Vec<Name>,
    /// There are more than a node takes: what they name must not fall to the default policy.
    pub(super) is_cut: bool,
}

impl PodServers {
    /// Of one pod.
    pub(super) fn of(index: &Index, pod: &Pod) -> PodServers {
        let mut found = PodServers::default();
        for (name, server) in index.servers_of_pod(pod) {
            let ports = server.ports(&pod.named_ports);
            if found.ports.len() + ports.len() > weir_core::limits::SERVERS_PER_POD {
                found.is_cut = true;
                continue;
            }
            if ports.is_empty() {
                continue;
            }
            for (first, last) in ports {
                let range = v1::PortRange { first: first.into(), last: last.into() };
                found.ports.push(v1::ServerPorts { ports: Some(range), server: name.to_string() });
                found.protocols.push(v1::PortProtocol { ports: Some(range), protocol: server.protocol.into() });
            }
            found.names.push(name.clone());
        }
        found
    }
}

/// A Server and whom it and others let in.
pub fn inbound_server(index: &Index, name: &Name) -> Option<v1::InboundServer> {
    let server = index.server(name)?;
    let mut built =
        v1::InboundServer { object: Some(object(Kind::Server, name)), authorizations: Vec::new(), routes: Vec::new() };
    let mut room = Room::default();
    for (own, authorization) in index.server_authorizations(name, server) {
        let (cluster, networks) = match &authorization.networks {
            Some(networks) => (false, networks.as_slice()),
            None => (true, &[][..]),
        };
        let source = object(Kind::ServerAuthorization, own);
        room.put(&mut built.authorizations, grant(source, cluster, networks, &authorization.clients));
    }
    for (own, policy) in index.authorization_policies(name) {
        room.put_policy(index, &mut built.authorizations, own, policy);
    }
    if let Some(granted) = by_itself(server) {
        room.put(&mut built.authorizations, granted);
    }
    for (own, route) in index.routes_of_server(name) {
        let mut authorizations = Vec::new();
        for (policy_name, policy) in index.policies_of_route(own) {
            room.put_policy(index, &mut authorizations, policy_name, policy);
        }
        built.routes.push(v1::InboundRoute { route: Some(http_route(own, route)), authorizations });
    }
    if room.left_out > 0 {
        tracing::error!(server = %name, left_out = room.left_out, "more authorizations than nodes take: these let nobody in; name namespaces instead of service accounts, or split the Server");
    }
    let bytes = built.encoded_len();
    if bytes > 2 * limits::SERVER_BYTES {
        // Nodes would keep the last good one, which might let in whom this one does not.
        tracing::error!(server = %name, bytes, "more routes than nodes take: its ports are closed; give it fewer");
        (built.authorizations, built.routes) = (Vec::new(), Vec::new());
    }
    Some(built)
}

/// What of a route counts at the server: who its requests are, and what is done to them.
fn http_route(own: &ObjectName, route: &HttpRoute) -> v1::HttpRoute {
    let plain = |filter: &RouteFilter| match filter {
        RouteFilter::Plain(filter) => Some(v1::HttpFilter { filter: Some(http_filter::Filter::clone(filter)) }),
        RouteFilter::Mirror(_) => None,
    };
    let rules = route.rules.iter().map(|rule| v1::HttpRule {
        matches: rule.matches.clone(),
        filters: rule.filters.iter().filter_map(plain).collect(),
        destination: Some(v1::http_rule::Destination::Itself(v1::Itself {})),
        ..v1::HttpRule::default()
    });
    v1::HttpRoute {
        object: Some(own.to_api()),
        hostnames: route.hostnames.clone(),
        rules: rules.collect(),
        level: v1::RouteLevel::Requests.into(),
        ..v1::HttpRoute::default()
    }
}

/// What a resource may hold.
#[derive(Default)]
struct Room {
    grants: usize,
    bytes: usize,
    named: usize,
    left_out: usize,
}

impl Room {
    fn put_policy(
        &mut self,
        index: &Index,
        granted: &mut Vec<v1::InboundAuthorization>,
        own: &Name,
        policy: &AuthorizationPolicy,
    ) {
        if let Some((clients, networks)) = required(index, policy) {
            self.put(granted, grant(object(Kind::AuthorizationPolicy, own), false, &networks, &clients));
        }
    }

    fn put(&mut self, all: &mut Vec<v1::InboundAuthorization>, granted: v1::InboundAuthorization) {
        let networks: usize = granted.networks.iter().map(|network| 1 + network.except.len()).sum();
        let named = self.named + granted.identities.len() + granted.identity_suffixes.len() + networks;
        let bytes = self.bytes + granted.encoded_len() + limits::FIELD_BYTES;
        if self.grants >= weir_core::limits::GRANTS_PER_SERVER
            || named > weir_core::limits::GRANTED_PER_SERVER
            || bytes > limits::SERVER_BYTES
        {
            self.left_out += 1;
            return;
        }
        (self.bytes, self.named, self.grants) = (bytes, named, self.grants + 1);
        all.push(granted);
    }
}

fn object(kind: Kind, name: &Name) -> v1::ObjectRef {
    v1::ObjectRef {
        group: kind.group().to_owned(),
        kind: label_of(kind),
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
    }
}

/// `None` while something that it refers to is not there.
fn required(index: &Index, policy: &AuthorizationPolicy) -> Option<(Clients, Vec<Network>)> {
    let clients = match &policy.clients {
        Required::Nothing => Clients::Anyone,
        Required::These(clients) => clients.clone(),
        Required::Object(own) => match index.authentication(own)? {
            Policy::MeshTls(clients) => clients.clone(),
            _other => return None,
        },
    };
    let networks = match &policy.networks {
        Required::Nothing => everywhere(),
        Required::These(networks) => networks.clone(),
        Required::Object(own) => match index.authentication(own)? {
            Policy::Networks(networks) => networks.clone(),
            _other => return None,
        },
    };
    Some((clients, networks))
}

/// `accessPolicy`, which stands in metrics as Linkerd's default policies do.
fn by_itself(server: &Server) -> Option<v1::InboundAuthorization> {
    let (cluster, clients) = match server.access {
        DefaultPolicy::Deny => return None,
        DefaultPolicy::Audit | DefaultPolicy::AllUnauthenticated => (false, Clients::Anyone),
        DefaultPolicy::AllAuthenticated => (false, Clients::Authenticated),
        DefaultPolicy::ClusterUnauthenticated => (true, Clients::Anyone),
        DefaultPolicy::ClusterAuthenticated => (true, Clients::Authenticated),
    };
    let source =
        v1::ObjectRef { kind: "default".to_owned(), name: server.access.name().to_owned(), ..v1::ObjectRef::default() };
    let networks = if cluster { Vec::new() } else { everywhere() };
    let granted = grant(source, cluster, &networks, &clients);
    Some(v1::InboundAuthorization { audit: server.access == DefaultPolicy::Audit, ..granted })
}

fn grant(source: v1::ObjectRef, cluster: bool, networks: &[Network], clients: &Clients) -> v1::InboundAuthorization {
    let text = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect();
    let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
    let (kind, identities, identity_suffixes) = match clients {
        Clients::Anyone => (ClientKind::ClientAnyone, Vec::new(), Vec::new()),
        Clients::Tls => (ClientKind::ClientTls, Vec::new(), Vec::new()),
        Clients::Authenticated => (ClientKind::ClientAuthenticated, Vec::new(), Vec::new()),
        Clients::Identities { exact, suffixes } => (ClientKind::ClientIdentities, names(exact), names(suffixes)),
    };
    let networks =
        networks.iter().map(|network| v1::Network { cidr: network.cidr.to_string(), except: text(&network.except) });
    v1::InboundAuthorization {
        object: Some(source),
        cluster_networks: cluster,
        networks: networks.collect(),
        clients: kind.into(),
        identities,
        identity_suffixes,
        audit: false,
    }
}
