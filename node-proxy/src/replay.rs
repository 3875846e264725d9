//! A request's body that can be sent again: what has gone by is kept, up to a bound.
//!
//! Must never keep more than the bound, hold a frame back, or let two attempts share what the client sends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::{
    body::{Body, BodyError},
    limits,
};

/// The body of all attempts of one request.
#[derive(Clone)]
pub struct Replay(Arc<Mutex<Source>>);

/// What the client sends, and what it has sent.
struct Source {
    rest: Body,
    /// None: too much, or not to be had whole any more.
    kept: Option<BytesMut>,
    /// What came after it.
    trailers: Option<HeaderMap>,
    /// Nothing more comes.
    is_over: bool,
    /// The attempt that reads on; those before are over.
    attempt: u32,
    /// Who waits for it to go on.
    waiting: Option<Waker>,
}

/// The body of one attempt.
pub struct Attempt {
    source: Arc<Mutex<Source>>,
    number: u32,
    /// Data that went by before it is still to be sent.
    is_behind: bool,
    /// So are trailers.
    owes_trailers: bool,
}

impl Replay {
    /// Whether a body is not known to be too large.
    pub fn is_for(body: &Body) -> bool {
        body.size_hint().lower() <= limits::REPLAY_BYTES as u64
    }

    /// What is kept, of which nothing has gone by yet, and the first attempt's.
    pub fn begin(body: Body) -> (Replay, Attempt) {
        let source = Source {
            rest: body,
            kept: Some(BytesMut::new()),
            trailers: None,
            is_over: false,
            attempt: 1,
            waiting: None,
        };
        let source = Arc::new(Mutex::new(source));
        let first = Attempt { source: Arc::clone(&source), number: 1, is_behind: false, owes_trailers: false };
        (Replay(source), first)
    }

    /// Whether another attempt would send the same again.
    pub fn is_whole(&self) -> bool {
        self.0.lock().kept.is_some()
    }

    /// The next attempt's. The one before it gets no more from now on, so that what was kept stays whole; none where it is not any more.
    pub fn attempt(&self) -> Option<Attempt> {
        let mut source = self.0.lock();
        source.kept.as_ref()?;
        source.attempt += 1;
        let superseded = source.waiting.take();
        let is_behind = source.kept.as_ref().is_some_and(|kept| !kept.is_empty());
        let owes_trailers = source.trailers.is_some();
        let number = source.attempt;
        drop(source);
        // Its connection waits for what will not come: it is to hear so.
        superseded.inspect(Waker::wake_by_ref);
        Some(Attempt { source: Arc::clone(&self.0), number, is_behind, owes_trailers })
    }
}

impl Source {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.is_over = true;
        }
        let Some(data) = frame.data_ref() else { return };
        match &mut self.kept {
            Some(kept) if kept.len() + data.len() <= limits::REPLAY_BYTES => kept.extend_from_slice(data),
            _too_much => self.kept = None,
        }
    }
}

impl Attempt {
    /// Whether no other attempt has begun since.
    pub fn is_current(&self) -> bool {
        self.source.lock().attempt == self.number
    }

    /// As `http_body::Body` has it.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.lock();
        if source.attempt != self.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if std::mem::take(&mut self.is_behind) {
            // The same bytes in other frames: nobody may rely on where they end.
            let again = source.kept.as_ref().map(|kept| Frame::data(Bytes::copy_from_slice(kept)));
            return Poll::Ready(Some(again.ok_or(BodyError::Superseded)));
        }
        if source.is_over {
            let trailers = if std::mem::take(&mut self.owes_trailers) { source.trailers.clone() } else { None };
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Poll::Ready(polled) = Pin::new(&mut source.rest).poll_frame(cx) else {
            source.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match &polled {
            Some(Ok(frame)) => source.keep(frame),
            Some(Err(_)) => source.kept = None,
            None => source.is_over = true,
        }
        Poll::Ready(polled)
    }

    /// As `http_body::Body` has it.
    pub fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        !self.is_behind && !self.owes_trailers && (source.is_over || source.rest.is_end_stream())
    }

    /// As `http_body::Body` has it.
    pub fn size_hint(&self) -> SizeHint {
        let source = self.source.lock();
        let mut hint = source.rest.size_hint();
        if self.is_behind {
            let kept = source.kept.as_ref().map_or(0, BytesMut::len) as u64;
            hint = match hint.exact() {
                Some(rest) => SizeHint::with_exact(kept + rest),
                None => SizeHint::default(),
            };
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn all(attempt: &mut Attempt) -> Result<Vec<u8>, BodyError> {
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|cx| attempt.poll_frame(cx)).await {
            bytes.extend_from_slice(frame?.data_ref().unwrap());
        }
        Ok(bytes)
    }

    fn replay(bytes: usize) -> (Replay, Attempt) {
        Replay::begin(Body::full(vec![7; bytes].into()))
    }

    #[tokio::test]
    async fn each_attempt_sends_all_of_it() {
        let (replay, mut attempt) = replay(3000);
        for _ in 0..3 {
            assert_eq!((attempt.size_hint().exact(), attempt.is_end_stream()), (Some(3000), false));
            assert_eq!(all(&mut attempt).await.unwrap(), vec![7; 3000]);
            assert!(attempt.is_end_stream() && replay.is_whole());
            attempt = replay.attempt().unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_sent_once() {
        for (bytes, is_kept) in [(limits::REPLAY_BYTES, true), (limits::REPLAY_BYTES + 1, false)] {
            assert_eq!(Replay::is_for(&Body::full(vec![7; bytes].into())), is_kept);
            let (replay, mut first) = replay(bytes);
            assert_eq!(all(&mut first).await.unwrap().len(), bytes);
            assert_eq!(
                (replay.is_whole(), replay.attempt().is_some()),
                (is_kept, is_kept),
                "a part is never taken for the whole"
            );
        }
    }

    #[tokio::test]
    async fn an_attempt_that_another_one_followed_gets_no_more() {
        let (replay, mut first) = replay(10);
        let mut second = replay.attempt().unwrap();
        assert!(!first.is_current() && second.is_current());
        assert!(matches!(all(&mut first).await, Err(BodyError::Superseded)));
        assert_eq!(all(&mut second).await.unwrap(), [7; 10], "the first one has read nothing");
    }
}
