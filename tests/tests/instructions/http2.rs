//! A unary gRPC call over HTTP/2 in clear, both sides, in fixed bytes (RFC 9113). Must never vary: no compression state, and one write
//! for each request and each answer, so that the proxies have the same to do each time.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use crate::paths::Exchange;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A window that is never used up.
const WINDOW: u32 = 1 << 30;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Connection {
    from: BufReader<TcpStream>,
    to: TcpStream,
}

impl Connection {
    /// Sends what a connection begins with, after `preface`.
    fn begin(stream: TcpStream, preface: &[u8]) -> io::Result<Connection> {
        let mut connection = Connection { from: BufReader::new(stream.try_clone()?), to: stream };
        let mut hello = preface.to_vec();
        frame(&mut hello, SETTINGS, 0, 0, &[]);
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        connection.to.write_all(&hello)?;
        Ok(connection)
    }

    /// The next frame that belongs to a call.
    fn next(&mut self) -> io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.from.read_exact(&mut head)?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
            self.from.read_exact(&mut payload)?;
            match kind {
                DATA | HEADERS => return Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }),
                SETTINGS | PING if flags & ACK == 0 => {
                    let mut answer = Vec::new();
                    frame(&mut answer, kind, ACK, 0, if kind == PING { &payload } else { &[] });
                    self.to.write_all(&answer)?;
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                other => return Err(io::Error::other(format!("a frame of type {other}"))),
            }
        }
    }
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    to.extend_from_slice(&length[1..]);
    to.extend([kind, flags]);
    to.extend(stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// Literal fields that enter no table (RFC 7541, 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Starts a server that answers each call with the bytes of its message.
pub(crate) fn serve(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    // They end with the process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; PREFACE.len()])?;
    let mut connection = Connection::begin(stream, &[])?;
    let head = fields(&[(":status", "200"), ("content-type", "application/grpc")]);
    let trailers = fields(&[("grpc-status", "0")]);
    loop {
        let Frame { kind, flags, stream, payload } = connection.next()?;
        if kind == HEADERS || flags & END_STREAM == 0 {
            continue;
        }
        let mut answer = Vec::new();
        frame(&mut answer, HEADERS, END_HEADERS, stream, &head);
        frame(&mut answer, DATA, 0, stream, &payload);
        frame(&mut answer, HEADERS, END_HEADERS | END_STREAM, stream, &trailers);
        connection.to.write_all(&answer)?;
    }
}

/// Calls with a message of 64 bytes.
pub(crate) fn call(stream: TcpStream) -> Exchange {
    let mut connection = Connection::begin(stream, PREFACE).unwrap();
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/demo.Echo/Unary"),
        (":authority", "grpc.demo:50051"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "weir"),
    ]);
    let mut message = vec![0, 0, 0, 0, 64];
    message.extend([b'x'; 64]);
    let mut id = 1;
    Box::new(move || {
        let mut request = Vec::new();
        frame(&mut request, HEADERS, END_HEADERS, id, &head);
        frame(&mut request, DATA, END_STREAM, id, &message);
        connection.to.write_all(&request).unwrap();
        let mut echoed = Vec::new();
        loop {
            let Frame { kind, flags, stream, payload } = connection.next().unwrap();
            assert_eq!(stream, id);
            if kind == DATA {
                echoed.extend(payload);
            }
            if flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(echoed, message);
        id += 2;
    })
}
