//! Opaque connections of a local workload: one endpoint each, TLS of the application's own included.
//!
//! Must never dial a second endpoint once a byte of the client's has left.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::io::AsyncWriteExt as _;
use weir_core::{
    balance::Balancer,
    detect::Detected,
    outbound::Transport as Way,
    proxy_error::ProxyError,
    snapshot::{Destination, Endpoint},
};

use super::{
    Client,
    choose::{Goal, Path},
};
use crate::{
    copy,
    dial::{self, DialError},
    inbound::{Server, end},
    io::{Io, Prefixed, Transport},
    limits, sniff,
    telemetry::Direction,
};

/// An upstream for one opaque connection.
struct Upstream {
    joined: Joined,
    path: Path,
}

/// What of it is needed for as long as the connection lasts.
struct Joined {
    io: Io,
    /// Boxed: nothing of it is looked at for each byte.
    kept: Box<Kept>,
}

struct Kept {
    /// The receiving half, when the endpoint is on this node.
    local: Option<Server>,
    _counted: Option<Counted>,
}

/// A connection that its endpoint's balancer counts as open until this is dropped.
struct Counted(Arc<Endpoint>);

impl Counted {
    fn begin(endpoint: &Arc<Endpoint>, now: Duration) -> Counted {
        endpoint.load.start(now);
        Counted(Arc::clone(endpoint))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.load.leave();
    }
}

/// Copies until both sides are done. Says how it ended.
pub(super) fn serve(
    client: Arc<Client>,
    destination: &Arc<Destination>,
    io: Io,
) -> impl Future<Output = Result<(), ProxyError>> + use<> {
    let goal = Box::new(client.goal_itself(destination));
    serve_goal(client, goal, io)
}

/// The same where somebody decided about it. The goal is boxed for what this holds as long as the connection.
pub(super) async fn serve_goal(client: Arc<Client>, goal: Box<Goal>, mut io: Io) -> Result<(), ProxyError> {
    // Boxed: what a dial needs must not be kept for as long as the connection.
    match Box::pin(client.begin(goal, &io)).await {
        Ok((mut upstream, meter)) => join(&mut io, &mut upstream, meter).await,
        Err(error) => {
            client.abandon(&io, &error);
            Err(error)
        }
    }
}

async fn join(io: &mut Io, joined: &mut Joined, mut meter: copy::Both) -> Result<(), ProxyError> {
    let copied = {
        let mut copied = pin!(copy::copy(io, &mut joined.io, &mut meter));
        match &joined.kept.local {
            Some(server) => Box::pin(server.unless_revoked(copied)).await,
            // The server's own node ends what it no longer allows.
            None => copied.as_mut().await,
        }
    };
    let ended = copied.as_ref().map(|_done| ()).map_err(|_broken| ProxyError::UpstreamBroken);
    end(copied, io, &joined.io);
    ended
}

/// TLS of the application's own: passed through, its server name counted.
pub(super) async fn serve_tls(client: Arc<Client>, destination: Arc<Destination>, mut io: Io) {
    client.count_tls(&mut io).await;
    let _ended = serve(client, &destination, io).await;
}

/// The client is silent: dial, and let whoever speaks first decide. `None` when the connection was served to its end.
pub(super) async fn serve_silent(
    client: &Arc<Client>,
    destination: &Arc<Destination>,
    io: &mut Io,
) -> io::Result<Option<Detected>> {
    let goal = client.goal_itself(destination);
    let mut upstream = match Box::pin(client.open(&goal, io)).await {
        Ok(upstream) => upstream,
        Err(error) => {
            client.abandon(io, &error);
            return Ok(None);
        }
    };
    let client_spoke = tokio::select! {
        biased;
        read = upstream.joined.io.read_ahead() => { read?; false }
        read = io.read_ahead() => { read?; true }
    };
    let detected = if client_spoke { sniff::spoken(io).await? } else { Detected::Opaque };
    match detected {
        Detected::Http1 | Detected::Http2 => {
            // HTTP goes over pooled connections: the one dialled meanwhile ends in order.
            let _gone = upstream.joined.io.shutdown().await;
            Ok(Some(detected))
        }
        Detected::Opaque | Detected::Tls => {
            if detected == Detected::Tls {
                client.count_tls(io).await;
            }
            let meter = client.meter(&goal, &upstream);
            let _ended = join(io, &mut upstream.joined, meter).await;
            Ok(None)
        }
    }
}

impl Client {
    async fn count_tls(&self, io: &mut Io) {
        // An error comes up again with the first byte that is copied.
        let name = sniff::server_name(io).await.unwrap_or_default();
        self.worker.shared.telemetry.passed_tls(Direction::Outbound, name.as_deref());
    }

    /// An upstream, and what counts both connections.
    async fn begin(&self, goal: Box<Goal>, io: &Io) -> Result<(Joined, copy::Both), ProxyError> {
        let upstream = self.open(&goal, io).await?;
        let meter = self.meter(&goal, &upstream);
        Ok((upstream.joined, meter))
    }

    fn meter(&self, goal: &Goal, upstream: &Upstream) -> copy::Both {
        let telemetry = &self.worker.shared.telemetry;
        let mut meter = copy::Both::new(
            telemetry.tcp(&self.source_labels(&goal.destination)).open(),
            telemetry.tcp(&self.tcp_labels(&upstream.path, goal.service())).open(),
        );
        if let Some(local) = &upstream.joined.kept.local {
            let (source, destination) = local.guards();
            meter.and(source, destination);
        }
        meter
    }

    /// What was dialled.
    fn goal_itself(&self, destination: &Arc<Destination>) -> Goal {
        let balancer = destination.service().map(|service| &service.balancer);
        let key = balancer.and_then(|balancer| balancer.key_of_connection(self.peer.ip()));
        Goal { destination: Arc::clone(destination), backend: None, route: None, classes: None, key, session: None }
    }

    async fn open(&self, goal: &Goal, io: &Io) -> Result<Upstream, ProxyError> {
        let mut failed = None;
        let balancer = goal.service().map(|service| &service.balancer);
        for _ in 0..limits::POOL_RETRIES {
            let endpoint = self.choose_opaque(goal, failed.as_deref()).await?;
            let path = self.path(endpoint.as_ref());
            let began = self.worker.shared.now();
            if let Some(endpoint) = &endpoint {
                endpoint.load.start(began);
            }
            let dialled = Box::pin(self.dial(&path, io)).await;
            let now = self.worker.shared.now();
            // Opaque connections are balanced by how long connecting takes.
            let cost = if dialled.is_ok() { now - began } else { limits::FAILURE_COST };
            if let Some(endpoint) = &endpoint {
                endpoint.load.finish(now, cost);
            }
            match dialled {
                Ok((io, local)) => {
                    let counts = balancer.is_some_and(Balancer::counts_connections);
                    let counted = endpoint.filter(|_| counts).map(|endpoint| Counted::begin(&endpoint, now));
                    let kept = Box::new(Kept { local, _counted: counted });
                    return Ok(Upstream { joined: Joined { io, kept }, path });
                }
                Err(Some(error)) => tracing::debug!(%error, pod = %self.workload.pod.name, "endpoint not reached"),
                Err(None) => return Err(ProxyError::ConnectFailed),
            }
            failed = endpoint;
            if failed.is_none() {
                break;
            }
        }
        Err(ProxyError::ConnectFailed)
    }

    /// `Err(None)`: the receiving half on this node refused, and has said so.
    async fn dial(&self, path: &Path, io: &Io) -> Result<(Io, Option<Server>), Option<DialError>> {
        let shared = &self.worker.shared;
        match &path.transport {
            Way::Local { server } => {
                let local = Server::bridged(self, server, path.address);
                let app = local.bridge(io).await.ok_or(None)?;
                Ok((app, Some(local)))
            }
            Way::Mtls { server } => {
                let io = dial::mutual_tls(shared, &self.workload, path.address, server, None).await.map_err(Some)?;
                Ok((io, None))
            }
            Way::Plain { .. } => {
                let tcp = dial::plain(shared, &self.workload, path.address).await.map_err(Some)?;
                Ok((Prefixed::new(Transport::Tcp(tcp)), None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_three<A, B, C, F: Future>(_begin: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_connection_holds_is_small() {
        assert!(of_three(serve_goal) <= limits::CONNECTION_FUTURE_BYTES, "{} bytes", of_three(serve_goal));
    }
}
