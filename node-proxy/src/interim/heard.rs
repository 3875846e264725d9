//! Interim responses as a server sends them, read from what passes to hyper, which reads over them. hyper would say them too
//! (`hyper::ext::on_informational`), for 800 instructions of each request that has none.
//!
//! Must never change a byte, nor look at one that is not before the head of a final response.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Told;
use crate::limits;

/// `HTTP/1.1 1`
const BEGIN: usize = 10;

/// Who hears the interim responses of an HTTP/1 connection to a server.
#[derive(Default)]
pub struct Heard {
    to: Mutex<Option<Told>>,
    // Of `to`: between responses there is nothing to look at.
    is_listening: AtomicBool,
}

impl Heard {
    /// What comes next answers the request that is about to be sent: of the client whose request the current task handles.
    pub fn listen(&self) {
        let to = Told::of_task();
        self.is_listening.store(to.is_some(), Ordering::Release);
        *self.to.lock() = to;
    }

    fn say(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(to) = &*self.to.lock() {
            to.push(status, headers);
        }
    }

    fn stop(&self) {
        self.is_listening.store(false, Ordering::Release);
        *self.to.lock() = None;
    }
}

/// A connection to a server, listened to.
pub struct Listened<T> {
    io: T,
    heard: Arc<Heard>,
    /// Of an interim response that has not come whole.
    head: Vec<u8>,
}

impl<T> Listened<T> {
    /// Tells `heard`.
    pub fn new(io: T, heard: Arc<Heard>) -> Listened<T> {
        Listened { io, heard, head: Vec::new() }
    }

    fn listen(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.head.is_empty() && bytes.len() >= BEGIN && !is_interim(bytes) {
            return self.heard.stop();
        }
        self.head.extend_from_slice(bytes);
        while let Some(length) = self.next() {
            self.head.drain(..length);
        }
    }

    /// Length of the interim response that the bytes at hand begin with; none where it is not whole, or none.
    fn next(&mut self) -> Option<usize> {
        if self.head.len() < BEGIN {
            return None;
        }
        let parsed = if is_interim(&self.head) { parse(&self.head) } else { Parsed::Final };
        match parsed {
            Parsed::Interim { length, status, headers } => {
                self.heard.say(status, &headers);
                return Some(length);
            }
            Parsed::Partial if self.head.len() <= limits::INTERIM_BYTES => {}
            Parsed::Partial | Parsed::Final => {
                self.heard.stop();
                self.head = Vec::new();
            }
        }
        None
    }
}

fn is_interim(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.") && bytes.get(8..BEGIN) == Some(b" 1")
}

enum Parsed {
    Interim {
        length: usize,
        status: StatusCode,
        headers: HeaderMap,
    },
    Partial,
    /// Or nothing that hyper would take either.
    Final,
}

#[cold]
fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_malformed) => return Parsed::Final,
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    match status.filter(|status| *status != StatusCode::SWITCHING_PROTOCOLS) {
        Some(status) => {
            let field = |field: &httparse::Header<'_>| {
                let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_bytes(field.value).ok()?))
            };
            let mut headers = HeaderMap::new();
            for (name, value) in response.headers.iter().filter_map(field) {
                headers.append(name, value);
            }
            Parsed::Interim { length, status, headers }
        }
        None => Parsed::Final,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listened<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let poll = Pin::new(&mut this.io).poll_read(cx, buf);
        if this.heard.is_listening.load(Ordering::Acquire) {
            this.listen(buf.filled().get(before..).unwrap_or_default());
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listened<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::interim::{Interims, Waiting};

    /// What a client is told of a server's bytes that come in such pieces; the bytes themselves pass as they are.
    async fn told(pieces: &[&[u8]]) -> Vec<u8> {
        let heard = Arc::<Heard>::default();
        let interims = Arc::<Interims>::default();
        let mut waiting = Waiting::begin(&interims);
        let mut handling = std::pin::pin!(async { heard.listen() });
        std::future::poll_fn(|cx| waiting.poll(cx, handling.as_mut())).await;
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut io = Listened::new(near, Arc::clone(&heard));
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            let mut got = vec![0; piece.len()];
            io.read_exact(&mut got).await.unwrap();
            assert_eq!(got, *piece);
        }
        interims.state.lock().queued.to_vec()
    }

    const STREAM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\nLink: <b>\r\n\r\nHTTP/1.0 199\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <body>\r\n\r\n....";
    const TOLD: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\nlink: <b>\r\n\r\nHTTP/1.1 199 \r\n\r\n";

    #[tokio::test]
    async fn interim_responses_are_heard_however_they_come() {
        for at in 0..STREAM.len() {
            for then in [0, 1, 9, 10, 11, 40] {
                let (first, rest) = STREAM.split_at(at);
                let (second, third) = rest.split_at(then.min(rest.len()));
                let got = told(&[first, second, third]).await;
                assert_eq!(got, TOLD, "{at} {then}: {}", String::from_utf8_lossy(&got));
            }
        }
        let each: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(told(&each).await, TOLD);
    }

    #[tokio::test]
    async fn what_is_no_interim_response_says_nothing() {
        let long = format!("HTTP/1.1 103 Early Hints\r\nLink: {}", "x".repeat(limits::INTERIM_BYTES));
        for stream in [
            &b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n: no name\r\n\r\n",
            b"HTTP/1.1 1x3\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
            long.as_bytes(),
        ] {
            let got = told(&[stream, b"\r\n\r\n"]).await;
            assert!(got.is_empty(), "{}: {}", String::from_utf8_lossy(stream), String::from_utf8_lossy(&got));
        }
    }
}
