//! Learns a connection's protocol from its first bytes, without ever stalling a protocol in which the server speaks first.
//!
//! Must never consume a byte: what was looked at is still to be read.

use std::io;

use tokio::time::{Instant, timeout_at};
use weir_core::{
    client_hello::{self, SniResult},
    detect::{Detected, detect},
};

use crate::{io::Io, limits};

/// What the first bytes said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// The protocol.
    Is(Detected),
    /// The client has not spoken: the server may have to.
    Silent,
}

/// Looks at the first bytes of a connection. Silence is over after [`limits::SILENCE`].
///
/// # Errors
/// What reading returns.
pub async fn sniff(io: &mut Io) -> io::Result<Sniffed> {
    if io.prefix().is_empty() {
        match timeout_at(Instant::now() + limits::SILENCE, io.read_ahead()).await {
            Ok(Ok(_count)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Ok(Sniffed::Silent),
        }
    }
    spoken(io).await.map(Sniffed::Is)
}

/// The same for a client that has begun to speak, or has closed its half: bytes that dribble too long are opaque.
///
/// # Errors
/// What reading returns.
pub async fn spoken(io: &mut Io) -> io::Result<Detected> {
    let deadline = Instant::now() + limits::DETECT_TIMEOUT;
    loop {
        if io.prefix().is_empty() {
            return Ok(Detected::Opaque);
        }
        if let Some(detected) = detect(io.prefix()) {
            return Ok(detected);
        }
        if io.prefix().len() >= limits::DETECT_BYTES {
            return Ok(Detected::Opaque);
        }
        match timeout_at(deadline, io.read_ahead()).await {
            Ok(Ok(0)) | Err(_) => return Ok(Detected::Opaque),
            Ok(Ok(_count)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// The same for a client that was silent and that no server will speak to first: waits for it as long as detection may take.
///
/// # Errors
/// What reading returns.
pub async fn late(io: &mut Io) -> io::Result<Detected> {
    match timeout_at(Instant::now() + limits::DETECT_TIMEOUT, io.read_ahead()).await {
        Ok(Ok(_count)) => spoken(io).await,
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Ok(Detected::Opaque),
    }
}

/// What a connection begins with, as far as TLS is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// No ClientHello, or none in time.
    Other,
    /// One, and the server name that it asks for, in lower case.
    Tls(Option<String>),
}

/// Waits for a ClientHello at the start of `io`, as long as detection may take.
///
/// # Errors
/// What reading returns.
pub async fn hello(io: &mut Io) -> io::Result<Hello> {
    let deadline = Instant::now() + limits::DETECT_TIMEOUT;
    loop {
        match client_hello::server_name(io.prefix()) {
            SniResult::Name(name) => return Ok(Hello::Tls(Some(name))),
            SniResult::None => return Ok(Hello::Tls(None)),
            SniResult::NotTls => return Ok(Hello::Other),
            SniResult::NeedMore if io.prefix().len() >= limits::DETECT_BYTES => return Ok(Hello::Other),
            SniResult::NeedMore => {}
        }
        match timeout_at(deadline, io.read_ahead()).await {
            Ok(Ok(0)) | Err(_) => return Ok(Hello::Other),
            Ok(Ok(_count)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// The server name that the ClientHello at the start of `io` asks for; none when it names none, or does not say so in time.
///
/// # Errors
/// What reading returns.
pub async fn server_name(io: &mut Io) -> io::Result<Option<String>> {
    Ok(match hello(io).await? {
        Hello::Tls(name) => name,
        Hello::Other => None,
    })
}
