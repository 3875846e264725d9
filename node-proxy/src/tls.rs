//! Mutual TLS 1.3 of the data plane: rustls shakes hands, our own record layer carries the bytes.
//!
//! Must never decide whom to trust, and never send or take application data before the handshake is complete.
//!
//! rustls copies each byte twice on its way out and three times on its way in, and an idle connection of its holds 8 KiB. This
//! seals from the caller's buffer into the one that is written, opens from the one that was read into the caller's, and holds keys
//! and secrets only.

mod handshake;
mod record;
mod secrets;
mod stream;

pub use handshake::{Handshaken, accept, connect};
pub use stream::TlsStream;

/// What a peer did that ends a connection. The connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A record's type, version or length is not allowed here (RFC 8446 5.1).
    #[error("a TLS record has type {0} or a length that is not allowed here")]
    Record(u8),
    /// A record is not what the peer sealed.
    #[error("a TLS record was changed on its way, or is not from the peer")]
    BadRecord,
    /// A message that must not come after the handshake (RFC 8446 4.6).
    #[error("TLS handshake message {0} must not come here")]
    Unexpected(u8),
    /// A handshake message longer than any that we can use.
    #[error("a TLS handshake message is longer than {} bytes", crate::limits::TLS_MESSAGE_BYTES)]
    TooLong,
    /// The peer gave up (RFC 8446 6.2).
    #[error("the peer ended TLS with alert {0}")]
    Alert(u8),
    /// rustls or aws-lc could not make or use a key.
    #[error("a TLS key could not be made or used")]
    Key,
}

impl TlsError {
    /// What the peer is told (RFC 8446 6.2); none when it was the peer who ended it.
    fn alert(self) -> Option<u8> {
        match self {
            TlsError::Record(_) => Some(22),
            TlsError::BadRecord => Some(20),
            TlsError::Unexpected(_) => Some(10),
            TlsError::TooLong => Some(50),
            TlsError::Alert(_) => None,
            TlsError::Key => Some(80),
        }
    }
}

impl From<TlsError> for std::io::Error {
    fn from(error: TlsError) -> std::io::Error {
        let kind = match error {
            TlsError::Alert(_) => std::io::ErrorKind::ConnectionReset,
            _ => std::io::ErrorKind::InvalidData,
        };
        std::io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests;
