//! Opens connections from inside a pod's network namespace: to other nodes, or to the pod's own application.
//!
//! Must never dial from the node's own namespace, and never over TLS without verifying the expected identity.

mod source;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use weir_core::{
    identity::Identity,
    snapshot::Workload,
    transport_header::{INBOUND_PORT, SessionProtocol, TransportHeader},
};

use crate::{
    handover::{Family, HandoverError, SocketKind},
    io::{Io, Prefixed, Transport},
    limits,
    proxy::Shared,
    tls,
};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The holder gave no socket in the pod's namespace.
    #[error("no socket in the namespace of pod {uid}: {source}; check that the weir-holder of this node runs")]
    Socket {
        /// Pod uid.
        uid: Arc<str>,
        /// What the holder or its absence said.
        source: HandoverError,
    },
    /// The kernel refused, or nobody answered.
    #[error("connect to {to}: {source}")]
    Connect {
        /// Address that was dialled.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("connect to {to}: no answer within {within:?}; a NetworkPolicy or a dead node may drop the packets")]
    ConnectTimeout {
        /// Address that was dialled.
        to: SocketAddr,
        /// How long we waited.
        within: std::time::Duration,
    },
    /// Our own certificate is not there.
    #[error("no certificate for {identity} yet; check `weir check` and the log of weir-control")]
    NoCertificate {
        /// The client workload's identity.
        identity: Identity,
    },
    /// TLS failed: most often another identity than the one expected.
    #[error("TLS with {to} as {expected}: {source}")]
    Handshake {
        /// Address that was dialled.
        to: SocketAddr,
        /// Identity that the peer had to prove.
        expected: Identity,
        /// What rustls said.
        source: io::Error,
    },
    /// TLS took too long.
    #[error("TLS with {to}: not done within {within:?}")]
    HandshakeTimeout {
        /// Address that was dialled.
        to: SocketAddr,
        /// How long we waited.
        within: std::time::Duration,
    },
}

impl DialError {
    /// Whether another source port may do: this one belongs to a connection in the pod's namespace. A SYN that meets the client's own
    /// connection over the wire, which has the same four numbers, is swallowed by it.
    fn is_port_in_use(&self) -> bool {
        match self {
            DialError::Connect { source, .. } => {
                matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
            }
            DialError::ConnectTimeout { .. } => true,
            _other => false,
        }
    }
}

/// Connects to `to` from the pod's own address.
///
/// # Errors
/// See [`DialError`].
pub async fn plain(shared: &Shared, client: &Workload, to: SocketAddr) -> Result<TcpStream, DialError> {
    let socket = socket(shared, &client.uid, SocketKind::Upstream, to).await?;
    connect(socket, to, limits::CONNECT_TIMEOUT).await
}

/// Connects to the pod's own application with the real client's address as source, where the kernel allows it.
///
/// # Errors
/// See [`DialError`].
pub async fn app(shared: &Shared, server: &Workload, client: IpAddr, to: SocketAddr) -> Result<TcpStream, DialError> {
    // Only the same family can be spoofed; a client behind translation shows up as the pod itself. A pod that calls itself needs
    // no spoofing, and answers to its own address would not reach a socket on lo.
    let own = client.is_ipv4() != to.is_ipv4() || server.addresses.contains(&client);
    if own {
        let socket = socket(shared, &server.uid, SocketKind::Upstream, to).await?;
        return connect(socket, to, limits::APP_CONNECT_TIMEOUT).await;
    }
    let mut attempt = 0;
    loop {
        let socket = socket(shared, &server.uid, SocketKind::App, to).await?;
        let dialled = match source::bind(&socket, client, attempt) {
            Ok(()) => connect(socket, to, limits::APP_CONNECT_TIMEOUT).await,
            Err(source) => Err(DialError::Connect { to, source }),
        };
        match dialled {
            Err(error) if attempt + 1 < source::ATTEMPTS && error.is_port_in_use() => attempt += 1,
            other => return other,
        }
    }
}

/// Connects over mutual TLS as `client`, and says in the transport header which port and protocol follow.
///
/// # Errors
/// See [`DialError`].
pub async fn mutual_tls(
    shared: &Shared,
    client: &Workload,
    to: SocketAddr,
    server: &Identity,
    session: Option<SessionProtocol>,
) -> Result<Io, DialError> {
    let config = match shared.identities.client_config(&client.identity) {
        Some(config) => config,
        None => wait_for_certificate(shared, &client.identity).await?,
    };
    let tcp = plain(shared, client, SocketAddr::new(to.ip(), INBOUND_PORT)).await?;
    let invalid = |source| DialError::Handshake { to, expected: server.clone(), source };
    let name = ServerName::try_from(server.as_str().to_owned()).map_err(|error| invalid(io::Error::other(error)))?;
    let handshake = Box::pin(tls::connect(config, name, tcp));
    let within = limits::HANDSHAKE_TIMEOUT;
    let mut tls = match timeout(within, handshake).await {
        Ok(done) => done.map_err(invalid)?.stream,
        Err(_elapsed) => return Err(DialError::HandshakeTimeout { to, within }),
    };
    let header = TransportHeader { port: to.port(), name: None, session_protocol: session };
    let mut bytes = bytes::BytesMut::with_capacity(64);
    header.encode(&mut bytes);
    tls.write_all(&bytes).await.map_err(invalid)?;
    tls.flush().await.map_err(invalid)?;
    Ok(Prefixed::new(Transport::Tls(Box::new(tls))))
}

async fn wait_for_certificate(shared: &Shared, identity: &Identity) -> Result<Arc<rustls::ClientConfig>, DialError> {
    shared.identities.ready(identity, limits::CERTIFICATE_WAIT).await;
    shared.identities.client_config(identity).ok_or_else(|| DialError::NoCertificate { identity: identity.clone() })
}

async fn socket(shared: &Shared, uid: &Arc<str>, kind: SocketKind, to: SocketAddr) -> Result<TcpSocket, DialError> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let fd = match shared.holder.try_socket(uid, kind, family) {
        Some(fd) => fd,
        None => shared
            .holder
            .socket(uid, kind, family)
            .await
            .map_err(|source| DialError::Socket { uid: Arc::clone(uid), source })?,
    };
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
}

async fn connect(socket: TcpSocket, to: SocketAddr, within: std::time::Duration) -> Result<TcpStream, DialError> {
    match timeout(within, socket.connect(to)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(source)) => Err(DialError::Connect { to, source }),
        Err(_elapsed) => Err(DialError::ConnectTimeout { to, within }),
    }
}
