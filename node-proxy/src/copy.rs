//! Copies opaque bytes both ways: half-close kept as half-close, reset as reset.
//!
//! Must never hold a buffer for a direction that is idle.

use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{fair, limits, telemetry::TcpGuard};

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::COPY_BYTES].into_boxed_slice());
}

/// Told of bytes as they move. `read` is from the first stream, `write` is to it.
pub trait Meter {
    /// Bytes that came from the first stream.
    fn read(&mut self, count: u64);
    /// Bytes that went to the first stream.
    fn write(&mut self, count: u64);
}

/// For connections that count their own bytes.
pub struct CountedBelow;

impl Meter for CountedBelow {
    fn read(&mut self, _count: u64) {}

    fn write(&mut self, _count: u64) {}
}

/// Counts on the connections of both sides, of one half of the mesh or, on one node, of two.
pub struct Both {
    halves: Vec<(TcpGuard, TcpGuard)>,
}

impl Both {
    /// `source` is the first stream's connection, `destination` the second's.
    pub fn new(source: TcpGuard, destination: TcpGuard) -> Both {
        Both { halves: vec![(source, destination)] }
    }

    /// Counts the same bytes for another half.
    pub fn and(&mut self, source: TcpGuard, destination: TcpGuard) {
        self.halves.push((source, destination));
    }
}

impl Meter for Both {
    fn read(&mut self, count: u64) {
        for (source, destination) in &mut self.halves {
            source.add_read(count);
            destination.add_write(count);
        }
    }

    fn write(&mut self, count: u64) {
        for (source, destination) in &mut self.halves {
            source.add_write(count);
            destination.add_read(count);
        }
    }
}

/// Why a copy ended before both sides were done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The first stream failed.
    #[error("the client's side failed: {0}")]
    First(#[source] io::Error),
    /// The second stream failed.
    #[error("the server's side failed: {0}")]
    Second(#[source] io::Error),
    /// A policy that came later no longer allows it.
    #[error("no longer allowed by policy")]
    Revoked,
    /// Half closed, and nothing more came.
    #[error("half closed and idle for too long")]
    HalfClosedIdle,
}

struct Flow {
    pending: Vec<u8>,
    start: usize,
    /// Bytes read at once: after what the sink took at once, so that little is held for one that is slow.
    step: usize,
    eof: bool,
    done: bool,
    flush: bool,
    // The kernel tells of a reset once: kept until what came before it is delivered.
    failed: Option<io::Error>,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            pending: Vec::new(),
            start: 0,
            step: limits::COPY_BYTES_FIRST,
            eof: false,
            done: false,
            flush: false,
            failed: None,
        }
    }
}

enum Blame {
    Source(io::Error),
    Sink(io::Error),
}

impl Flow {
    /// Moves bytes until one side would block. Ready when the source ended and the sink's write half is shut.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        mut count: impl FnMut(u64),
    ) -> Poll<Result<(), Blame>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.start < self.pending.len() {
                let sent = ready!(Pin::new(&mut *sink).poll_write(cx, &self.pending[self.start..]));
                self.start += sent.map_err(Blame::Sink)?;
                self.flush = true;
            }
            self.pending = Vec::new();
            self.start = 0;
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(Blame::Source(error)));
            }
            if self.eof {
                ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Blame::Sink)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let moved = SCRATCH.with_borrow_mut(|scratch| self.fill_and_send(cx, source, sink, scratch))?;
            match moved {
                Poll::Ready(bytes) => {
                    fair::spend(usize::try_from(bytes).unwrap_or(usize::MAX));
                    count(bytes);
                    ready!(fair::poll_proceed(cx));
                }
                Poll::Pending => {
                    if self.flush {
                        ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(Blame::Sink)?;
                        self.flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn fill_and_send<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        scratch: &mut [u8],
    ) -> Result<Poll<u64>, Blame>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut space = ReadBuf::new(&mut scratch[..self.step]);
        // TLS delivers a record at a time: several of them make one write worth its cost.
        while space.remaining() >= 16 * 1024 {
            let before = space.filled().len();
            match Pin::new(&mut *source).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if space.filled().len() == before => {
                    self.eof = true;
                    break;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if before == 0 => return Err(Blame::Source(error)),
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let filled = space.filled();
        if filled.is_empty() {
            return Ok(if self.eof { Poll::Ready(0) } else { Poll::Pending });
        }
        let mut sent = 0;
        while sent < filled.len() {
            match Pin::new(&mut *sink).poll_write(cx, &filled[sent..]) {
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Err(Blame::Sink(error)),
                Poll::Pending => break,
            }
        }
        self.flush = true;
        let step = if sent >= filled.len() / 2 { self.step * 2 } else { self.step / 2 };
        self.step = step.clamp(limits::COPY_BYTES_FIRST, limits::COPY_BYTES);
        self.pending.extend_from_slice(&filled[sent..]);
        Ok(Poll::Ready(filled.len() as u64))
    }
}

/// Copies until both directions have ended.
///
/// # Errors
/// The side that failed; the caller resets the other one.
pub async fn copy<A, B>(first: &mut A, second: &mut B, meter: &mut impl Meter) -> Result<(), CopyError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let mut half_closed: Option<Pin<Box<tokio::time::Sleep>>> = None;
    poll_fn(|cx| {
        let mut moved = 0;
        let a = up.poll(cx, first, second, |count| {
            moved += count;
            meter.read(count);
        });
        let a = a.map_err(|blame| match blame {
            Blame::Source(error) => CopyError::First(error),
            Blame::Sink(error) => CopyError::Second(error),
        })?;
        let b = down.poll(cx, second, first, |count| {
            moved += count;
            meter.write(count);
        });
        let b = b.map_err(|blame| match blame {
            Blame::Source(error) => CopyError::Second(error),
            Blame::Sink(error) => CopyError::First(error),
        })?;
        match (a, b) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => poll_half_closed(cx, &mut half_closed, moved, limits::HALF_CLOSED_IDLE),
        }
    })
    .await
}

/// One direction has ended: the other may go on as long as it moves bytes.
fn poll_half_closed(
    cx: &mut Context<'_>,
    timer: &mut Option<Pin<Box<tokio::time::Sleep>>>,
    moved: u64,
    idle: Duration,
) -> Poll<Result<(), CopyError>> {
    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
    if moved > 0 {
        sleep.as_mut().reset(Instant::now() + idle);
    }
    ready!(sleep.as_mut().poll(cx));
    Poll::Ready(Err(CopyError::HalfClosedIdle))
}
