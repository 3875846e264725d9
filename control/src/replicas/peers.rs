//! Which other replicas there are, and whether a caller is one. Must never take anybody's word for it but the issuer's.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use tonic::Status;
use weir_core::identity::Identity;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{
    index::Index,
    kubernetes::{CONTROL, NAMESPACE},
    objects::Name,
};

/// The port of control's Service for its endpoints, the replicas.
const PORT: &str = "grpc";

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Of its pod, else its address.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// New connections may go to it.
    pub(super) is_ready: bool,
}

/// All but `me`, by name. One that is not ready is asked too: nodes may still be connected to it.
pub(super) fn others(index: &Index, me: &str) -> Vec<Peer> {
    let mut others: Vec<Peer> = Vec::new();
    for slice in index.slices_of(&Name::new(NAMESPACE, CONTROL)).filter_map(|name| index.slice(name)) {
        let Some((_, port)) = slice.ports.iter().find(|(name, _)| **name == *PORT) else { continue };
        for endpoint in &slice.endpoints {
            let address = SocketAddr::new(endpoint.address, *port);
            let name = endpoint.pod.as_ref().map_or_else(|| address.to_string(), |pod| pod.name.to_string());
            // With two families of addresses, a pod is in two slices.
            if name != me && !others.iter().any(|known| known.name == name) {
                others.push(Peer { name, address, is_ready: endpoint.ready });
            }
        }
    }
    others.sort_by(|a, b| a.name.cmp(&b.name));
    others
}

/// Whether a verified certificate is control's own.
pub(super) fn authenticate(chain: Option<&Vec<CertificateDer<'static>>>, identity: &Identity) -> Result<(), Status> {
    let Some(leaf) = chain.and_then(|chain| chain.first()) else {
        return Err(Status::unauthenticated("only replicas of control may ask this: no client certificate came"));
    };
    let names = X509Certificate::from_der(leaf).ok().and_then(|(_rest, leaf)| {
        let names = leaf.subject_alternative_name().ok().flatten()?;
        let dns = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _other => None,
        });
        Some(dns.collect::<Vec<_>>())
    });
    let names = names.unwrap_or_default();
    if names == [identity.as_str()] {
        return Ok(());
    }
    Err(Status::permission_denied(format!("only replicas of control may ask this, not {names:?}")))
}
