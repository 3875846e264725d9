//! The way of a connection to a local workload: TLS, client identity, protocol, then per request or per connection
//! the decision whether it may pass, and the application.
//!
//! Must never let a byte reach an application that `weir_core::inbound` did not allow.

mod http;
mod policy;
mod redirects;
mod tcp;
pub use redirects::Redirects;
pub(crate) use tcp::end;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};
use weir_core::{
    detect::Detected,
    identity::Identity,
    outbound::NoTlsReason,
    protocol::Protocol,
    snapshot::{PodRef, Workload},
    transport_header::{self, SessionProtocol, TransportHeader},
};

use self::policy::View;
use crate::{
    io::{Io, Prefixed, Transport},
    limits, outbound,
    pool::{PoolKey, Via},
    proxy::Worker,
    sniff::{self, Sniffed},
    telemetry::{Direction, TcpLabels, TlsLabel},
};

/// The receiving half for one client of one port of a local workload, whether it came over the wire or over the bridge.
pub struct Server {
    worker: Arc<Worker>,
    workload: Arc<Workload>,
    /// Address and port of the application.
    target: SocketAddr,
    client: Client,
    key: Arc<PoolKey>,
    view: Mutex<View>,
}

/// Who is served.
struct Client {
    /// Its address, as the application is to see it.
    peer: SocketAddr,
    /// Who it proved to be.
    identity: Option<Identity>,
    /// Its labels, when it is a pod of this node.
    pod: Option<Arc<PodRef>>,
    tls: TlsLabel,
    /// The kernel saw this connection leave the node's own network namespace.
    from_node: bool,
}

impl Client {
    /// Somebody of whom nothing is proven but the address.
    fn plain(io: &Io, workload: &Workload, peer: SocketAddr) -> Client {
        let from_node = policy::is_from_node(io, workload);
        let tls = TlsLabel::NoIdentity(NoTlsReason::NoTlsFromRemote);
        Client { peer, identity: None, pod: None, tls, from_node }
    }
}

/// Serves one captured connection until it ends.
pub async fn serve(worker: Arc<Worker>, workload: Arc<Workload>, tcp: TcpStream, peer: SocketAddr, target: SocketAddr) {
    let io = Prefixed::new(Transport::Tcp(tcp));
    if let Err(error) = accept(worker, workload, io, peer, target).await {
        tracing::debug!(%error, %peer, %target, "inbound connection ended early");
    }
}

async fn accept(
    worker: Arc<Worker>,
    workload: Arc<Workload>,
    io: Io,
    peer: SocketAddr,
    target: SocketAddr,
) -> std::io::Result<()> {
    // Boxed, and gone when the connection begins: finding out what it is needs more than it does.
    let known = if target.port() == transport_header::INBOUND_PORT {
        // Never anything but mTLS: nothing is dialled, and nothing said, before the handshake is done.
        Box::pin(mutual_tls(worker, workload, io, peer, target)).await?
    } else {
        Box::pin(identify(worker, workload, io, peer, target)).await?
    };
    if let Some(Known { server, io, protocol }) = known {
        server.dispatch(io, protocol).await;
    }
    Ok(())
}

/// A connection of which it is known who the client is and what it speaks.
struct Known {
    server: Arc<Server>,
    io: Io,
    protocol: Protocol,
}

/// Finds out what a connection is that may be anything. `None` when it was served to its end meanwhile.
async fn identify(
    worker: Arc<Worker>,
    workload: Arc<Workload>,
    mut io: Io,
    peer: SocketAddr,
    target: SocketAddr,
) -> std::io::Result<Option<Known>> {
    let detected = match sniff::sniff(&mut io).await? {
        Sniffed::Is(detected) => detected,
        Sniffed::Silent => {
            let (worker, workload) = (Arc::clone(&worker), Arc::clone(&workload));
            let client = Client::plain(&io, &workload, peer);
            let server = Server::new(worker, workload, target, client);
            match Box::pin(tcp::serve_silent(&server, &mut io)).await? {
                Some(detected) => detected,
                None => return Ok(None),
            }
        }
    };
    if detected == Detected::Tls {
        let name = sniff::server_name(&mut io).await?;
        if name.as_deref() == Some(workload.identity.as_str()) {
            return Box::pin(mutual_tls(worker, workload, io, peer, target)).await;
        }
        worker.shared.telemetry.passed_tls(Direction::Inbound, name.as_deref());
    }
    let protocol = match (workload.ports.lookup(target.port()), detected) {
        (_, Detected::Tls) => Protocol::Tls,
        (Protocol::Detect, detected) => protocol_of(detected),
        (declared, _) => declared,
    };
    let client = Client::plain(&io, &workload, peer);
    let server = Arc::new(Server::new(worker, workload, target, client));
    Ok(Some(Known { server, io, protocol }))
}

/// Ends mTLS with the workload's own certificate. `None` when the connection was served to its end meanwhile.
async fn mutual_tls(
    worker: Arc<Worker>,
    workload: Arc<Workload>,
    io: Io,
    peer: SocketAddr,
    mut target: SocketAddr,
) -> std::io::Result<Option<Known>> {
    let within = limits::HANDSHAKE_TIMEOUT + limits::CERTIFICATE_WAIT;
    let accepted = match timeout(within, tls::accept(&worker, &workload, io)).await {
        Ok(accepted) => accepted?,
        Err(_elapsed) => return Err(std::io::ErrorKind::TimedOut.into()),
    };
    let (mut io, client, header) = (accepted.io, accepted.client, accepted.header);
    let telemetry = &worker.shared.telemetry;
    let mut protocol = match &header {
        Some(header) => {
            telemetry.transport_header();
            target.set_port(header.port);
            match header.session_protocol {
                Some(SessionProtocol::Http1) => Protocol::Http1,
                Some(SessionProtocol::Http2) => Protocol::Http2,
                None => Protocol::Opaque,
            }
        }
        None if target.port() == transport_header::INBOUND_PORT => {
            return Err(std::io::Error::other("no transport header says which port is meant"));
        }
        None => workload.ports.lookup(target.port()),
    };
    let client = Client { peer, identity: client, pod: None, tls: TlsLabel::True, from_node: false };
    let server = Arc::new(Server::new(worker, workload, target, client));
    if protocol == Protocol::Detect {
        let detected = match sniff::sniff(&mut io).await? {
            Sniffed::Is(detected) => detected,
            Sniffed::Silent => match Box::pin(tcp::serve_silent(&server, &mut io)).await? {
                Some(detected) => detected,
                None => return Ok(None),
            },
        };
        protocol = protocol_of(detected);
    }
    Ok(Some(Known { server, io, protocol }))
}

fn protocol_of(detected: Detected) -> Protocol {
    match detected {
        Detected::Http1 => Protocol::Http1,
        Detected::Http2 => Protocol::Http2,
        Detected::Tls => Protocol::Tls,
        Detected::Opaque => Protocol::Opaque,
    }
}

impl Server {
    fn new(worker: Arc<Worker>, workload: Arc<Workload>, target: SocketAddr, client: Client) -> Server {
        let via = Via::App { client: client.peer.ip() };
        let key = Arc::new(PoolKey { from: Arc::clone(&workload.uid), to: target, via, is_copy: false });
        let view = Mutex::new(View::stale(Arc::clone(&workload)));
        Server { worker, workload, target, client, key, view }
    }

    /// For copies of requests alone.
    pub fn for_copies(mut self) -> Server {
        self.key = self.key.of_copies();
        self
    }

    /// The receiving half for a client pod of this node: no wire, no TLS, every check.
    pub fn bridged(client: &outbound::Client, workload: &Arc<Workload>, target: SocketAddr) -> Server {
        let (worker, workload) = (Arc::clone(&client.worker), Arc::clone(workload));
        let client = Client {
            peer: client.peer,
            identity: Some(client.workload.identity.clone()),
            pod: Some(Arc::clone(&client.workload.pod)),
            tls: TlsLabel::True,
            from_node: false,
        };
        Server::new(worker, workload, target, client)
    }

    async fn dispatch(self: Arc<Self>, io: Io, protocol: Protocol) {
        match protocol {
            // Boxed: what one protocol needs must not be part of every connection.
            Protocol::Http1 => Box::pin(http::serve_http1(self, io)).await,
            Protocol::Http2 => Box::pin(http::serve_http2(self, io)).await,
            Protocol::Tls | Protocol::Opaque | Protocol::Detect => Box::pin(tcp::serve(self, io)).await,
        }
    }

    fn tcp_labels(&self, peer_is_src: bool) -> TcpLabels {
        TcpLabels {
            direction: Direction::Inbound,
            peer_is_src,
            workload: Arc::clone(&self.workload.pod),
            peer: self.client.pod.clone(),
            tls: self.client.tls.clone(),
            client_id: self.client.identity.clone(),
            server_id: Some(self.workload.identity.clone()),
            target_addr: self.target,
            service: None,
            policy: Some(self.ruling()),
        }
    }
}

/// A header that takes longer than this to arrive is no header.
const HEADER_TIMEOUT: Duration = limits::HANDSHAKE_TIMEOUT;

async fn read_header(io: &mut Io) -> std::io::Result<TransportHeader> {
    let read = async {
        loop {
            match TransportHeader::decode(io.prefix()).map_err(std::io::Error::other)? {
                Some((header, length)) => {
                    io.consume(length);
                    return Ok(header);
                }
                None if io.read_ahead().await? == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    };
    match timeout(HEADER_TIMEOUT, read).await {
        Ok(header) => header,
        Err(_elapsed) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
