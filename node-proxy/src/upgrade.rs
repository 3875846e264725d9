//! Joins two HTTP connections that have left HTTP: WebSocket and other upgrades, CONNECT.
//!
//! Must never look into the bytes.

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::copy;

/// The client's half of an upgrade, taken before its request is sent on.
pub struct ClientHalf(OnUpgrade);

/// Takes the client's half out of a request that asks for an upgrade.
pub fn take<B>(request: &mut Request<B>) -> Option<ClientHalf> {
    crate::http::wants_upgrade(request)
        .then(|| request.extensions_mut().remove::<OnUpgrade>())
        .flatten()
        .map(ClientHalf)
}

impl ClientHalf {
    /// Back to a request that was not sent, for the next one who may get it.
    pub fn give_back<B>(self, request: &mut Request<B>) {
        request.extensions_mut().insert(self.0);
    }
}

/// Whether the server agreed to what the request asked.
pub fn agreed(connect: bool, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success())
}

/// Copies bytes between both halves from when both connections have left HTTP, until `revoked` returns.
pub fn join(client: ClientHalf, response: &mut Response<Incoming>, revoked: impl Future<Output = ()> + Send + 'static) {
    let server = hyper::upgrade::on(response);
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client.0, server) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade agreed but a connection ended before it");
                return;
            }
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        let mut meter = copy::CountedBelow;
        let copied = tokio::select! {
            copied = copy::copy(&mut client, &mut server, &mut meter) => copied,
            () = revoked => Err(copy::CopyError::Revoked),
        };
        if let Err(error) = copied {
            tracing::debug!(%error, "upgraded connection broke off");
        }
    });
}
