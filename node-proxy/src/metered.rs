//! A connection that counts its bytes as they pass. Must never change one.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{fair, io::Io, telemetry::TcpGuard};

/// What is known of a connection from outside while an HTTP codec owns it.
pub struct Meter {
    guard: TcpGuard,
    stuck: AtomicBool,
}

impl Meter {
    /// Counts on `guard`, which is open for as long as this is.
    pub fn new(guard: TcpGuard) -> Arc<Meter> {
        Arc::new(Meter { guard, stuck: AtomicBool::new(false) })
    }

    /// Whether the last write waits for a peer that does not read.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    fn wrote(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = poll {
            self.guard.add_write(count as u64);
        }
        self.stuck.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }

    fn flushed(&self, poll: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.stuck.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }
}

/// A connection and its meter.
pub struct Metered {
    /// The connection.
    pub io: Io,
    /// Counts its bytes.
    pub meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(fair::poll_proceed(cx));
        let poll = Pin::new(&mut this.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        fair::spend(read);
        this.meter.guard.add_read(read as u64);
        poll
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.meter.wrote(poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.meter.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.meter.flushed(poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
