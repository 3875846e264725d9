//! Handshakes, by rustls. Must never return before the peer has proved what the configuration asks of it.

use std::{io, sync::Arc};

use bytes::Bytes;
use rustls::{
    ClientConfig, CommonState, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    secrets::Secrets,
    stream::{Begin, TlsStream},
};
use crate::limits;

/// What a handshake leads to.
pub struct Handshaken {
    /// Carries the application's bytes from here on.
    pub stream: TlsStream,
    /// The certificates that the peer proved to hold, its own first; verified by the configuration's verifier.
    pub peer: Option<Vec<CertificateDer<'static>>>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<Vec<u8>>,
}

/// Shakes hands as the client of `name`. Its last flight leaves with the first bytes written, or when it is flushed.
///
/// # Errors
/// What the socket returns; `InvalidData` when the peer did not prove `name` or broke the protocol.
pub async fn connect(config: Arc<ClientConfig>, name: ServerName<'static>, tcp: TcpStream) -> io::Result<Handshaken> {
    let mut connection = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    let mut wire = Wire::new(tcp, Bytes::new());
    drive(&mut connection, &mut wire).await?;
    let (peer, alpn) = proved(&connection);
    let (keys, secrets) = connection.dangerous_into_kernel_connection().map_err(invalid)?;
    let stream = TlsStream::new(wire.begin(), keys, Secrets::Client(secrets))?;
    Ok(Handshaken { stream, peer, alpn })
}

/// Shakes hands as the server. `read` was read from `tcp` before.
///
/// # Errors
/// What the socket returns; `InvalidData` when the peer's certificate is refused or it broke the protocol.
pub async fn accept(config: Arc<ServerConfig>, tcp: TcpStream, read: Bytes) -> io::Result<Handshaken> {
    let mut connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
    let mut wire = Wire::new(tcp, read);
    drive(&mut connection, &mut wire).await?;
    let (peer, alpn) = proved(&connection);
    let (keys, secrets) = connection.dangerous_into_kernel_connection().map_err(invalid)?;
    let stream = TlsStream::new(wire.begin(), keys, Secrets::Server(secrets))?;
    Ok(Handshaken { stream, peer, alpn })
}

fn proved(state: &CommonState) -> (Option<Vec<CertificateDer<'static>>>, Option<Vec<u8>>) {
    let peer = state.peer_certificates().map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect());
    (peer, state.alpn_protocol().map(<[u8]>::to_vec))
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Both of rustls' sides.
trait Side {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn is_handshaking(&self) -> bool;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        CommonState::is_handshaking(self)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        CommonState::is_handshaking(self)
    }
}

/// The socket, and what has been read or is to be written.
struct Wire {
    tcp: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    plain: Vec<u8>,
    closed: bool,
}

impl Wire {
    fn new(tcp: TcpStream, read: Bytes) -> Wire {
        Wire { tcp, incoming: read.into(), outgoing: Vec::new(), plain: Vec::new(), closed: false }
    }

    fn begin(self) -> Begin {
        Begin { tcp: self.tcp, cipher: self.incoming, plain: self.plain, out: self.outgoing, closed: self.closed }
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.incoming.len() >= limits::TLS_HANDSHAKE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS handshake of this length is none"));
        }
        self.incoming.reserve(4096);
        match self.tcp.read_buf(&mut self.incoming).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _more => Ok(()),
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            self.tcp.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }
}

/// What is to be done before rustls can go on.
enum Step {
    Again,
    Read,
    Failed(io::Error),
}

/// Until the handshake is complete and rustls has nothing left: neither of its own to send, nor of the peer's to deliver.
async fn drive(connection: &mut impl Side, wire: &mut Wire) -> io::Result<()> {
    loop {
        match step(connection, wire) {
            Step::Again if wire.closed && connection.is_handshaking() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Step::Again => {}
            Step::Read if !connection.is_handshaking() => return Ok(()),
            Step::Read => {
                wire.write().await?;
                wire.read().await?;
            }
            Step::Failed(error) => {
                // What rustls wants to tell the peer; that it does not get there changes nothing.
                while matches!(step(connection, wire), Step::Again) {}
                let _gone = wire.write().await;
                return Err(error);
            }
        }
    }
}

fn step(connection: &mut impl Side, wire: &mut Wire) -> Step {
    let UnbufferedStatus { discard, state } = connection.process(&mut wire.incoming);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut wire.outgoing),
        // Written when there is nothing left to do but to wait.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again
        }
        // The second: a server may write before it knows its client; we do not.
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::Read,
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(Ok(record)) = traffic.next_record() {
                wire.plain.extend_from_slice(record.payload);
            }
            Step::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            wire.closed = true;
            Step::Again
        }
        Ok(_early_data) => Step::Failed(io::Error::other("early data is not offered")),
        Err(error) => Step::Failed(invalid(error)),
    };
    wire.incoming.drain(..discard);
    step
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Step {
    let begin = outgoing.len();
    let mut room = 0;
    loop {
        outgoing.resize(begin + room, 0);
        match data.encode(&mut outgoing[begin..]) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Step::Again;
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
            Err(error) => return Step::Failed(io::Error::other(error)),
        }
    }
}
