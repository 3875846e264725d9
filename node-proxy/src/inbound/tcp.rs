//! Opaque connections to a local workload. Must never dial the application for a client that is not allowed.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use weir_core::detect::Detected;

use super::Server;
use crate::{
    copy::{self, CopyError},
    dial,
    io::{Io, Prefixed, Transport},
    sniff,
    telemetry::{Direction, TcpGuard},
};

/// Copies until both sides are done.
pub(super) async fn serve(server: Arc<Server>, mut client: Io) {
    // Boxed: what a dial needs must not be kept for as long as the connection.
    if let Some(mut app) = Box::pin(server.dial(&client)).await {
        server.join(&mut client, &mut app).await;
    }
}

/// The client is silent: the application may be the one to speak first. What the client said after all, or `None` when the
/// connection was served to its end.
pub(super) async fn serve_silent(server: &Server, client: &mut Io) -> io::Result<Option<Detected>> {
    if !server.is_open() {
        // Nothing is dialled for it; what it says may be a request, which is answered, or a probe.
        return sniff::late(client).await.map(Some);
    }
    let Some(mut app) = Box::pin(server.dial(client)).await else { return Ok(None) };
    let spoke_first = tokio::select! {
        biased;
        read = app.read_ahead() => { read?; false }
        read = client.read_ahead() => { read?; true }
    };
    let detected = if spoke_first { sniff::spoken(client).await? } else { Detected::Opaque };
    if detected == Detected::Opaque {
        server.join(client, &mut app).await;
        return Ok(None);
    }
    // HTTP goes over pooled connections, and TLS may be for us: the one dialled meanwhile is not needed.
    Ok(Some(detected))
}

impl Server {
    async fn dial(&self, client: &Io) -> Option<Io> {
        let telemetry = &self.worker.shared.telemetry;
        if let Err(denied) = self.connection() {
            client.inner().reset_on_close();
            telemetry.tcp_error(Direction::Inbound, &denied);
            return None;
        }
        match dial::app(&self.worker.shared, &self.workload, self.client.peer.ip(), self.target).await {
            Ok(tcp) => Some(Prefixed::new(Transport::Tcp(tcp))),
            Err(error) => {
                tracing::debug!(%error, pod = %self.workload.pod.name, "application not reached");
                client.inner().reset_on_close();
                telemetry.tcp_error(Direction::Inbound, &weir_core::proxy_error::ProxyError::ConnectFailed);
                None
            }
        }
    }

    /// Opaque bytes between the client and the application, counted on both sides.
    pub(crate) async fn join(&self, client: &mut Io, app: &mut Io) {
        let (source, destination) = self.guards();
        let mut meter = copy::Both::new(source, destination);
        // Boxed: it is larger than what copies, and idle.
        let copied = Box::pin(self.unless_revoked(pin!(copy::copy(client, app, &mut meter)))).await;
        end(copied, client, app);
    }

    /// Goes on for as long as policy allows the connection.
    ///
    /// Whether it still does is asked when policies change, not each time that bytes come: that would cost an exchange 4 %.
    pub(crate) async fn unless_revoked(
        &self,
        mut copied: Pin<&mut impl Future<Output = Result<(), CopyError>>>,
    ) -> Result<(), CopyError> {
        let mut changes = self.policy_changes();
        let mut revoked = pin!(self.revoked());
        let mut is_first = true;
        poll_fn(|context| {
            if std::mem::take(&mut is_first) || changes.has_changed().is_ok_and(|changed| changed) {
                changes.mark_unchanged();
                if revoked.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(CopyError::Revoked));
                }
            }
            copied.as_mut().poll(context)
        })
        .await
    }

    /// Counts of the client's and of the application's connection.
    pub(crate) fn guards(&self) -> (TcpGuard, TcpGuard) {
        let telemetry = &self.worker.shared.telemetry;
        (telemetry.tcp(&self.tcp_labels(true)).open(), telemetry.tcp(&self.tcp_labels(false)).open())
    }

    /// The bridge's way in: a connection of a client pod on this node.
    ///
    /// `None` when the client may not, or the application does not answer; the client was reset then.
    pub(crate) async fn bridge(&self, client: &Io) -> Option<Io> {
        self.dial(client).await
    }
}

/// A reset on one side is a reset on the other.
pub(crate) fn end(copied: Result<(), CopyError>, first: &Io, second: &Io) {
    match copied {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(%error, "opaque connection broke off");
            first.inner().reset_on_close();
            second.inner().reset_on_close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_two<A, B, F: Future>(_begin: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_connection_holds_is_small() {
        assert!(of_two(serve) <= crate::limits::CONNECTION_FUTURE_BYTES, "{} bytes", of_two(serve));
    }
}
