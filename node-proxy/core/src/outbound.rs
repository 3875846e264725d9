//! Where a local workload's connection goes, and how. Must never choose plain for an endpoint that has an identity
//! and is not the client itself.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    identity::Identity,
    proxy_error::ProxyError,
    snapshot::{Destination, Endpoint, Snapshot, Target, Workload},
};

/// What to do with a connection or request.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Pick one of the service's endpoints.
    Balance,
    /// This endpoint.
    Endpoint(Arc<Endpoint>),
    /// The dialled address, in plain.
    Forward,
    /// Nothing: answer with this.
    Refuse(ProxyError),
}

/// Why there is no TLS (values of Linkerd's label `no_tls_reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoTlsReason {
    /// Within one pod.
    Loopback,
    /// The endpoint is not in the mesh.
    NotProvidedByServiceDiscovery,
    /// Excluded by the operator.
    PortSkipped,
    /// The client came in plain.
    NoTlsFromRemote,
}

impl NoTlsReason {
    /// Value of the label.
    pub fn label(self) -> &'static str {
        match self {
            NoTlsReason::Loopback => "loopback",
            NoTlsReason::NotProvidedByServiceDiscovery => "not_provided_by_service_discovery",
            NoTlsReason::PortSkipped => "port_skipped",
            NoTlsReason::NoTlsFromRemote => "no_tls_from_remote",
        }
    }
}

/// How an endpoint is reached.
#[derive(Clone, Debug)]
pub enum Transport {
    /// On this node: the receiving half is called directly.
    Local {
        /// Whose receiving half.
        server: Arc<Workload>,
    },
    /// Mutual TLS.
    Mtls {
        /// Who the server has to prove to be.
        server: Identity,
    },
    /// As it is.
    Plain {
        /// Why.
        reason: NoTlsReason,
    },
}

/// What to do with `client`'s connection to `dialled`.
pub fn plan(client: &Workload, dialled: SocketAddr, destination: &Destination) -> Plan {
    match &destination.target {
        Target::Service(_) => Plan::Balance,
        Target::Pod(endpoint) => Plan::Endpoint(Arc::clone(endpoint)),
        // The kernel programs let a pod's own address pass; if one comes all the same, forwarding it would come back.
        Target::Unknown if client.addresses.contains(&dialled.ip()) => Plan::Refuse(ProxyError::Loop),
        Target::Unknown => Plan::Forward,
    }
}

/// How `client` reaches `endpoint`.
pub fn transport(client: &Workload, endpoint: &Endpoint, snapshot: &Snapshot) -> Transport {
    if client.addresses.contains(&endpoint.address.ip()) {
        return Transport::Plain { reason: NoTlsReason::Loopback };
    }
    let Some(identity) = &endpoint.identity else {
        return Transport::Plain { reason: NoTlsReason::NotProvidedByServiceDiscovery };
    };
    let port = endpoint.address.port();
    match snapshot.workload_by_address(endpoint.address.ip()) {
        // The uid tells a pod from the one that had its address before; a name that differs is for the handshake to refuse.
        Some(server) if server.uid == endpoint.uid && server.identity == *identity => {
            if skips(server, port) {
                Transport::Plain { reason: NoTlsReason::PortSkipped }
            } else {
                Transport::Local { server: Arc::clone(server) }
            }
        }
        _ => Transport::Mtls { server: identity.clone() },
    }
}

fn skips(server: &Workload, port: u16) -> bool {
    server.capture.skip_inbound_ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

#[cfg(test)]
mod tests {
    use weir_api::v1::{self, ResourceKind, resource::Body};

    use super::*;
    use crate::snapshot::{apply, tests::endpoint};

    const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";

    fn snapshot() -> Snapshot {
        let workload = |uid: &str, address: &str, skip: u32| v1::Resource {
            key: Some(v1::ResourceKey { kind: ResourceKind::Workload.into(), name: uid.into() }),
            version: 1,
            body: Some(Body::Workload(v1::Workload {
                uid: uid.into(),
                addresses: vec![address.into()],
                identity: WEB.into(),
                default_policy: v1::DefaultPolicy::AllUnauthenticated.into(),
                capture: Some(v1::CaptureSettings {
                    skip_inbound_ports: vec![v1::PortRange { first: skip, last: skip }],
                    ..Default::default()
                }),
                ..Default::default()
            })),
        };
        apply(
            &Snapshot::default(),
            std::time::Duration::ZERO,
            vec![workload("c", "10.1.0.1", 9), workload("s", "10.1.0.2", 9)],
            vec![],
        )
        .snapshot
    }

    fn way(address: &str, uid: &str, identity: bool) -> String {
        let snapshot = snapshot();
        let client = snapshot.workload_by_uid("c").unwrap();
        let mut endpoint = endpoint(address, uid);
        endpoint.identity = identity.then(|| WEB.parse().unwrap());
        match transport(client, &endpoint, &snapshot) {
            Transport::Local { server } => format!("local {}", server.uid),
            Transport::Mtls { .. } => "mtls".into(),
            Transport::Plain { reason } => reason.label().into(),
        }
    }

    #[test]
    fn ways() {
        assert_eq!(way("10.1.0.2:80", "s", true), "local s");
        assert_eq!(way("10.1.0.2:9", "s", true), "port_skipped");
        assert_eq!(way("10.1.0.2:80", "older", true), "mtls", "an address that changed hands");
        assert_eq!(way("10.2.0.7:80", "far", true), "mtls");
        assert_eq!(way("10.2.0.7:80", "far", false), "not_provided_by_service_discovery");
        assert_eq!(way("10.1.0.1:80", "c", true), "loopback");
    }

    #[test]
    fn the_bridge_is_only_for_who_the_server_has_to_be() {
        let snapshot = snapshot();
        let client = snapshot.workload_by_uid("c").unwrap();
        let mut endpoint = endpoint("10.1.0.2:80", "s");
        endpoint.identity = Some("db.shop.serviceaccount.identity.linkerd.cluster.local".parse().unwrap());
        assert!(matches!(transport(client, &endpoint, &snapshot), Transport::Mtls { .. }), "the handshake refuses it");
    }
}
