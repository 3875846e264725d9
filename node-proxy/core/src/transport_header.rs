//! Linkerd's transport header: what follows inside an mTLS connection between proxies.
//!
//! Wire format: preface, u32 big-endian length, protobuf message
//! `{1: port (int32), 2: name (string), 3: session_protocol {1: http1 {} | 2: http2 {}}}`. Must never allocate what the peer merely announces.

use bytes::{BufMut as _, BytesMut};
use prost::Message as _;

/// ALPN that says that a transport header comes first.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";
/// Port of every pod in the mesh at which peers speak mTLS with a transport header, and nothing else (Linkerd's `inbound` port).
///
/// On an application's own port a peer whose ClientHello is late would be taken for a client that waits for the server to speak first.
pub const INBOUND_PORT: u16 = 4143;
const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";
/// A port, a DNS name and some framing.
const MESSAGE_BYTES: usize = 1024;

/// What is spoken after the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionProtocol {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Port of the application.
    pub port: u16,
    /// Name to forward to (gateways).
    pub name: Option<String>,
    /// None: opaque bytes.
    pub session_protocol: Option<SessionProtocol>,
}

/// Why the bytes are no transport header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another beginning.
    #[error("transport header: the preface is missing; the peer speaks another protocol under this ALPN")]
    Preface,
    /// Announced too long.
    #[error("transport header: {0} bytes announced, at most {MESSAGE_BYTES} are taken")]
    TooLong(usize),
    /// Not the message.
    #[error("transport header: {0}")]
    Message(prost::DecodeError),
    /// No port in it.
    #[error("transport header: {0} is no port")]
    Port(i32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, tag = "1")]
    port: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    session: Option<WireSession>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSession {
    #[prost(message, optional, tag = "1")]
    http1: Option<WireEmpty>,
    #[prost(message, optional, tag = "2")]
    http2: Option<WireEmpty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEmpty {}

impl TransportHeader {
    /// Appends the header.
    pub fn encode(&self, into: &mut BytesMut) {
        let session = self.session_protocol.map(|protocol| WireSession {
            http1: (protocol == SessionProtocol::Http1).then_some(WireEmpty {}),
            http2: (protocol == SessionProtocol::Http2).then_some(WireEmpty {}),
        });
        let message = Wire { port: i32::from(self.port), name: self.name.clone().unwrap_or_default(), session };
        let bytes = message.encode_to_vec();
        into.extend_from_slice(PREFACE);
        into.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        into.extend_from_slice(&bytes);
    }

    /// Reads a header and how many bytes it took; `None` when more are needed.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(TransportHeader, usize)>, HeaderError> {
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] != PREFACE[..common] {
            return Err(HeaderError::Preface);
        }
        let Some((length, rest)) = bytes.get(PREFACE.len()..).and_then(|rest| rest.split_first_chunk::<4>()) else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES {
            return Err(HeaderError::TooLong(length));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let wire = Wire::decode(message).map_err(HeaderError::Message)?;
        let port = u16::try_from(wire.port).ok().filter(|port| *port > 0).ok_or(HeaderError::Port(wire.port))?;
        let session_protocol = match wire.session {
            Some(WireSession { http2: Some(_), .. }) => Some(SessionProtocol::Http2),
            Some(WireSession { http1: Some(_), .. }) => Some(SessionProtocol::Http1),
            _ => None,
        };
        let name = (!wire.name.is_empty()).then_some(wire.name);
        Ok(Some((TransportHeader { port, name, session_protocol }, PREFACE.len() + 4 + length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_linkerds() {
        let header = TransportHeader { port: 4321, name: None, session_protocol: Some(SessionProtocol::Http1) };
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        assert_eq!(&bytes[..], b"transport.l5d.io/v1\r\n\r\n\0\0\0\x07\x08\xe1\x21\x1a\x02\x0a\x00");
    }

    #[test]
    fn refusals() {
        let with = |length: u32, message: &[u8]| [PREFACE, &length.to_be_bytes(), message].concat();
        assert_eq!(TransportHeader::decode(b"GET"), Err(HeaderError::Preface));
        assert_eq!(TransportHeader::decode(&with(1 << 30, b"")), Err(HeaderError::TooLong(1 << 30)));
        assert_eq!(TransportHeader::decode(&with(0, b"")), Err(HeaderError::Port(0)));
        assert_eq!(TransportHeader::decode(&with(4, b"\x08\x80\x80\x04")), Err(HeaderError::Port(65536)));
        assert_eq!(TransportHeader::decode(&PREFACE[..7]), Ok(None));
    }

    proptest! {
        #[test]
        fn round_trip(port in 1_u16.., name in proptest::option::of("[a-z.]{1,60}"), session in 0..3) {
            let session_protocol = [None, Some(SessionProtocol::Http1), Some(SessionProtocol::Http2)][session as usize];
            let header = TransportHeader { port, name, session_protocol };
            let mut bytes = BytesMut::new();
            header.encode(&mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"rest");
            prop_assert_eq!(TransportHeader::decode(&bytes), Ok(Some((header, length))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = TransportHeader::decode(&bytes);
            let mut framed = PREFACE.to_vec();
            framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            framed.extend(&bytes);
            let _ = TransportHeader::decode(&framed);
        }
    }
}
