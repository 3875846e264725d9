//! The traffic secrets behind the keys, as rustls keeps them for key updates.
//!
//! Must never hand a secret out twice: each update makes the next one.

use rustls::{
    ConnectionTrafficSecrets, client::ClientConnectionData, kernel::KernelConnection, server::ServerConnectionData,
};

use super::TlsError;

/// Of either side of a connection.
pub(super) enum Secrets {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Secrets {
    /// The next secrets for sending (RFC 8446 7.2), and the sequence number that they begin with.
    pub(super) fn next_sent(&mut self) -> Result<(u64, ConnectionTrafficSecrets), TlsError> {
        let next = match self {
            Secrets::Client(secrets) => secrets.update_tx_secret(),
            Secrets::Server(secrets) => secrets.update_tx_secret(),
        };
        next.map_err(|_rustls| TlsError::Key)
    }

    /// The next secrets for receiving.
    pub(super) fn next_received(&mut self) -> Result<(u64, ConnectionTrafficSecrets), TlsError> {
        let next = match self {
            Secrets::Client(secrets) => secrets.update_rx_secret(),
            Secrets::Server(secrets) => secrets.update_rx_secret(),
        };
        next.map_err(|_rustls| TlsError::Key)
    }
}
