//! Ends mutual TLS with a local workload's certificate. Must never end TLS that is the application's own.

use std::{io, sync::Arc};

use weir_core::{
    identity::Identity,
    snapshot::Workload,
    transport_header::{self, TransportHeader},
};

use crate::{
    identities::Identities,
    io::{Io, Prefixed, Transport},
    limits,
    proxy::Worker,
    tls,
};

/// What came out of a handshake.
pub(super) struct Accepted {
    pub(super) io: Io,
    /// Who the client proved to be, if it did.
    pub(super) client: Option<Identity>,
    /// What the client said follows, if it speaks the transport protocol.
    pub(super) header: Option<TransportHeader>,
}

/// Handshake, the client's identity, and the transport header where ALPN says that there is one.
pub(super) async fn accept(worker: &Arc<Worker>, workload: &Workload, io: Io) -> io::Result<Accepted> {
    let identities = &worker.shared.identities;
    identities.ready(&workload.identity, limits::CERTIFICATE_WAIT).await;
    let config = identities
        .server_config(&workload.identity)
        .ok_or_else(|| io::Error::other(format!("no certificate for {} yet", workload.identity)))?;
    let (prefix, transport) = io.into_parts();
    let Transport::Tcp(tcp) = transport else {
        return Err(io::Error::other("mTLS inside mTLS"));
    };
    let tls::Handshaken { stream, peer, alpn } = tls::accept(config, tcp, prefix).await?;
    let client = peer.as_deref().and_then(Identities::peer_identity);
    let has_header = alpn.as_deref() == Some(transport_header::ALPN);
    let mut io = Prefixed::new(Transport::Tls(Box::new(stream)));
    let header = if has_header { Some(super::read_header(&mut io).await?) } else { None };
    Ok(Accepted { io, client, header })
}
