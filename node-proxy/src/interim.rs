//! Interim responses (1xx) on an HTTP/1 server connection, which hyper's servers have no way to send: written between its own bytes, when it has
//! none waiting. Must never write one within another message, nor for a request that is answered (RFC 9110 15.2).

mod heard;

use std::{
    cell::Cell,
    io::{self, Write as _},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::heard::{Heard, Listened};
use crate::{http::strip_hop_by_hop, limits};

thread_local! {
    // While a request is handled, whose it is: any attempt of it is sent by its client's own task, copies for mirrors by others.
    static CLIENT: Cell<Option<Told>> = const { Cell::new(None) };
}

/// Who is told of interim responses to one request.
#[derive(Clone)]
struct Told {
    interims: Arc<Interims>,
    request: u64,
}

/// A client that waits for the answer to one request: it gets the interim responses to it, all of them before the answer.
pub struct Waiting {
    interims: Arc<Interims>,
    /// Taken while the request is handled.
    told: Option<Told>,
}

impl Waiting {
    /// For the connection's next request.
    pub fn begin(interims: &Arc<Interims>) -> Waiting {
        let request = interims.begin();
        Waiting { interims: Arc::clone(interims), told: Some(Told { interims: Arc::clone(interims), request }) }
    }

    /// Handles the request, on its behalf.
    pub fn poll<F: Future>(&mut self, cx: &mut Context<'_>, handling: Pin<&mut F>) -> Poll<F::Output> {
        self.interims.register(cx);
        let before = CLIENT.replace(self.told.take());
        let polled = handling.poll(cx);
        self.told = CLIENT.replace(before);
        polled
    }

    /// The answer may follow: all interim responses are written, and no more are taken.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        self.interims.poll_end(cx)
    }
}

/// What passes between whoever hears interim responses and the connection that they go to.
#[derive(Default)]
pub struct Interims {
    state: Mutex<State>,
    // Of the state, so that a connection without them looks at no lock.
    is_waiting: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Which request is open: others' interim responses come too late.
    request: u64,
    /// The connection's task.
    task: Option<Waker>,
    queued: BytesMut,
}

impl Told {
    fn of_task() -> Option<Told> {
        let told = CLIENT.take();
        CLIENT.set(told.clone());
        told
    }

    fn push(&self, status: StatusCode, headers: &HeaderMap) {
        // hyper says it itself, when the request's body is wanted.
        if status != StatusCode::CONTINUE {
            self.interims.push(self.request, status, headers);
        }
    }
}

impl Interims {
    fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.request += 1;
        state.request
    }

    fn register(&self, cx: &Context<'_>) {
        let task = &mut self.state.lock().task;
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if self.is_waiting.load(Ordering::Acquire) {
            state.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.request += 1;
        Poll::Ready(())
    }

    fn push(&self, request: u64, status: StatusCode, headers: &HeaderMap) {
        let mut headers = headers.clone();
        strip_hop_by_hop(&mut headers, false);
        // They would be of a body, and there is none.
        headers.remove(header::CONTENT_LENGTH);
        let mut head = Vec::new();
        let reason = status.canonical_reason().unwrap_or_default();
        let _infallible = write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        for (name, value) in &headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let mut state = self.state.lock();
        if state.request != request || state.queued.len() + head.len() > limits::INTERIM_BYTES {
            return;
        }
        state.queued.extend_from_slice(&head);
        self.is_waiting.store(true, Ordering::Release);
        if let Some(task) = &state.task {
            task.wake_by_ref();
        }
    }

    /// What is to be written now, after `written`, which was taken before.
    fn take(&self, written: &mut BytesMut) {
        let mut state = self.state.lock();
        if written.is_empty() {
            std::mem::swap(written, &mut state.queued);
        }
        if written.is_empty() {
            self.is_waiting.store(false, Ordering::Release);
            if let Some(task) = &state.task {
                task.wake_by_ref();
            }
        }
    }
}

/// A server connection whose bytes hyper writes, and interim responses between them.
pub struct Interjected<T> {
    /// The connection.
    pub io: T,
    interims: Arc<Interims>,
    /// Begun: nothing may come before the rest of it.
    begun: BytesMut,
}

impl<T: AsyncWrite + Unpin> Interjected<T> {
    /// `io`, with what is given to `interims`.
    pub fn new(io: T, interims: Arc<Interims>) -> Interjected<T> {
        Interjected { io, interims, begun: BytesMut::new() }
    }

    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.begun))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.interims.is_waiting.load(Ordering::Acquire) {
            ready!(self.poll_begun(cx))?;
            self.interims.take(&mut self.begun);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Interjected<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Interjected<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(cx))?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(cx))?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    // hyper flushes when all of its own bytes are out, and after each turn.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_interims(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::HeaderValue;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn hint(interims: &Interims, request: u64, link: &str) {
        let headers = HeaderMap::from_iter([(header::LINK, HeaderValue::from_str(link).unwrap())]);
        interims.push(request, StatusCode::EARLY_HINTS, &headers);
    }

    fn ended(interims: &Interims) -> bool {
        interims.poll_end(&Context::from_waker(Waker::noop())).is_ready()
    }

    /// Whole, in their order, between what hyper writes, however little the client takes at a time.
    #[tokio::test]
    async fn they_stand_between_messages_whole() {
        let (near, mut far) = tokio::io::duplex(7);
        let interims = Arc::<Interims>::default();
        let mut io = Interjected::new(near, Arc::clone(&interims));
        interims.begin();
        let read = tokio::spawn(async move {
            let mut all = String::new();
            far.read_to_string(&mut all).await.unwrap();
            all
        });
        io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        hint(&interims, 1, "a");
        assert!(!ended(&interims), "the answer would overtake it");
        // One that has begun is finished before anything else; others wait for the flush.
        let begun = Pin::new(&mut io).poll_flush(&mut Context::from_waker(Waker::noop()));
        assert!(begun.is_pending());
        hint(&interims, 1, "b");
        io.write_all(b"1").await.unwrap();
        io.flush().await.unwrap();
        assert!(ended(&interims));
        io.write_all(b"2").await.unwrap();
        drop(io);
        let head = |link: &str| format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n");
        assert_eq!(read.await.unwrap(), format!("HTTP/1.1 100 Continue\r\n\r\n{}1{}2", head("a"), head("b")));
    }

    /// Those of an attempt that was given up come late: the answer may be on its way already.
    #[tokio::test]
    async fn what_comes_late_or_too_much_is_dropped() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let interims = Arc::<Interims>::default();
        let mut io = Interjected::new(near, Arc::clone(&interims));
        interims.begin();
        assert!(ended(&interims));
        hint(&interims, 1, "late");
        interims.begin();
        hint(&interims, 1, "of another request");
        io.flush().await.unwrap();
        io.write_all(b"only this").await.unwrap();
        let mut got = [0; 9];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"only this");

        let long = "x".repeat(limits::INTERIM_BYTES / 4);
        (0..10).for_each(|_| hint(&interims, 3, &long));
        io.flush().await.unwrap();
        drop(io);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > limits::INTERIM_BYTES / 2 && rest.len() <= limits::INTERIM_BYTES, "{}", rest.len());
    }
}
