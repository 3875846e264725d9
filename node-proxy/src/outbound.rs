//! The way of a connection that a local workload opened: destination, protocol, then per request or per connection
//! endpoint, transport, upstream.
//!
//! Must never send plain what the snapshot says is meshed, and never guess about a destination that control did not name.

mod accrual;
mod attempt;
mod bounds;
mod choose;
mod connections;
mod http;
mod labels;
mod mirror;
mod retry;
pub(crate) mod route;
mod tcp;
pub use accrual::{Accrual, ClientsFault};

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use weir_core::{
    detect::Detected,
    protocol::Protocol,
    proxy_error::ProxyError,
    snapshot::{Destination, Workload},
};

use crate::{
    config::ResolveError,
    io::{Io, Prefixed, Transport},
    proxy::Worker,
    sniff::{self, Sniffed},
    telemetry::Direction,
};

/// One captured connection of a local workload.
pub struct Client {
    /// The worker that serves it.
    pub worker: Arc<Worker>,
    /// Whose it is.
    pub workload: Arc<Workload>,
    /// The application's own address and port.
    pub peer: SocketAddr,
    /// What it dialled.
    pub target: SocketAddr,
}

/// Serves one captured connection until it ends.
pub async fn serve(client: Client, tcp: TcpStream) {
    // Each phase boxed: what one needs must not be part of every connection, nor outlive it.
    let Some(Known { client, destination, io, protocol }) = Box::pin(identify(client, tcp)).await else { return };
    match protocol {
        None => Box::pin(connections::serve(client, destination, io)).await,
        Some(protocol @ (Protocol::Http1 | Protocol::Http2)) => {
            Box::pin(http::serve(client, destination, io, protocol)).await;
        }
        Some(Protocol::Tls) => Box::pin(tcp::serve_tls(client, destination, io)).await,
        Some(Protocol::Opaque | Protocol::Detect) => {
            let _ended = Box::pin(tcp::serve(client, &destination, io)).await;
        }
    }
}

/// A connection of which it is known where it goes and what it speaks.
struct Known {
    client: Arc<Client>,
    destination: Arc<Destination>,
    io: Io,
    /// None: routes decide about it as a whole, whatever it speaks.
    protocol: Option<Protocol>,
}

/// Finds out where a connection goes and what it speaks. `None` when it is over, or was served to its end meanwhile.
async fn identify(client: Client, tcp: TcpStream) -> Option<Known> {
    let mut io = Prefixed::new(Transport::Tcp(tcp));
    let client = Arc::new(client);
    let destination = match client.resolve().await {
        Ok(destination) => destination,
        Err(error) => {
            client.abandon(&io, &error);
            return None;
        }
    };
    if connections::decided(&client, &destination) {
        return Some(Known { client, destination, io, protocol: None });
    }
    let protocol = match destination.protocol() {
        Protocol::Detect => match detect(&client, &destination, &mut io).await {
            // The server spoke first, or the client never did: served to the end as opaque.
            Ok(protocol) => protocol?,
            Err(error) => {
                tracing::debug!(%error, target = %client.target, "connection ended before its protocol was known");
                return None;
            }
        },
        declared => declared,
    };
    Some(Known { client, destination, io, protocol: Some(protocol) })
}

async fn detect(
    client: &Arc<Client>,
    destination: &Arc<Destination>,
    io: &mut Io,
) -> std::io::Result<Option<Protocol>> {
    let detected = match sniff::sniff(io).await? {
        Sniffed::Is(detected) => detected,
        Sniffed::Silent => match Box::pin(tcp::serve_silent(client, destination, io)).await? {
            Some(detected) => detected,
            None => return Ok(None),
        },
    };
    client.worker.shared.telemetry.detect(Direction::Outbound, detected);
    Ok(Some(match detected {
        Detected::Http1 => Protocol::Http1,
        Detected::Http2 => Protocol::Http2,
        Detected::Tls => Protocol::Tls,
        Detected::Opaque => Protocol::Opaque,
    }))
}

impl Client {
    async fn resolve(&self) -> Result<Arc<Destination>, ProxyError> {
        let store = &self.worker.shared.store;
        if let Some(known) = store.snapshot().destination(&self.target) {
            store.touch(self.target);
            return Ok(Arc::clone(known));
        }
        store.destination(self.target).await.map_err(|error| {
            tracing::warn!(%error, target = %self.target, pod = %self.workload.pod.name, "destination unknown");
            match error {
                ResolveError::ControlUnavailable | ResolveError::Timeout => ProxyError::Unresolved,
                ResolveError::TooMany => ProxyError::LoadShed,
            }
        })
    }

    /// Ends a connection that cannot be served: reset, as a refused connection would be.
    fn abandon(&self, io: &Io, error: &ProxyError) {
        io.inner().reset_on_close();
        self.worker.shared.telemetry.tcp_error(Direction::Outbound, error);
    }
}
