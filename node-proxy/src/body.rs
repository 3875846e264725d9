//! Message bodies on their way through, and what is counted when a response ends.
//!
//! Must never buffer: a frame that comes in goes out, or nowhere, where its request was answered without it.

mod end;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use weir_core::{classify, proxy_error::ProxyError, timeouts::Limit};

pub use self::end::{Held, ResponseEnd};
use crate::{
    deadline::{Deadline, Progress},
    http::Open,
    limits,
    outbound::Accrual,
    replay::Attempt,
    respond, tee,
    telemetry::{Answered, RouteSeries},
};

enum Kind {
    Incoming(Incoming),
    Full(Option<Bytes>),
    /// Of a request that may be sent again.
    Attempt(Attempt),
    /// Of a request that mirrors get too. Rare, and not small.
    Teed(Box<tee::Tee>),
    /// Of what a mirror gets.
    Copy(tee::Copy),
}

/// A request or response body.
pub struct Body {
    kind: Kind,
    // Two at most: the client's half and, on one node, the server's.
    ends: Vec<ResponseEnd>,
    open: Option<Open>,
    rest: Rest,
    watch: Option<Watch>,
    /// Of a response: what was looked at before it was known whether it goes on to the client.
    seen: Option<Box<Frame<Bytes>>>,
}

/// What happens to what nobody read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing is left, or it is a response's: its connection is closed or its stream reset.
    Left,
    /// Of a request whose client waits to be asked for it (`Expect: 100-continue`).
    Expected,
    /// Of a request: it is read away ([`discard`]).
    Coming,
}

/// Who is to know how far a body is.
enum Watch {
    /// Of a request: those who wait for its response.
    Request(Arc<Progress>),
    /// Of a response: its own limits.
    Response(Box<Deadline>),
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl Watch {
    /// Notes what has come, and says which limit has run out, if any.
    fn look<E>(&mut self, polled: &Polled<E>, over: bool, cx: &mut Context<'_>) -> Option<Limit> {
        let goes_on = !over && matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_))));
        match self {
            Watch::Request(progress) => {
                if polled.is_ready() {
                    progress.moved();
                }
                if !goes_on {
                    progress.sent();
                }
                None
            }
            Watch::Response(deadline) => {
                if polled.is_ready() {
                    deadline.progress().moved();
                }
                match deadline.poll(cx) {
                    Poll::Ready(limit) if goes_on => Some(limit),
                    _ => None,
                }
            }
        }
    }
}

/// Why a body does not go on.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it comes over broke, or said so.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// A limit of its request ran out.
    #[error("{0}")]
    TimedOut(Limit),
    /// Another attempt of its request has begun.
    #[error("the request is being sent again")]
    Superseded,
    /// Of a mirror: the request broke off, or the mirror did not keep up with it.
    #[error("the request is copied no further")]
    NotCopied,
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Body {
        Body::new(Kind::Incoming(incoming))
    }
}

impl Body {
    fn new(kind: Kind) -> Body {
        Body { kind, ends: Vec::new(), open: None, rest: Rest::Left, watch: None, seen: None }
    }

    /// A request body; its connection is busy for as long as it lives. `is_coming`: its client sends it without being asked to.
    pub fn incoming(incoming: Incoming, open: Open, is_coming: bool) -> Body {
        let (kind, open) = (Kind::Incoming(incoming), Some(open));
        let rest = if is_coming { Rest::Coming } else { Rest::Expected };
        Body { kind, ends: Vec::new(), open, rest, watch: None, seen: None }
    }

    /// The connection that this body is sent over is busy for as long as it lives.
    pub fn hold(mut self, open: Open) -> Body {
        self.open = Some(open);
        self
    }

    /// No bytes.
    pub fn empty() -> Body {
        Body::new(Kind::Full(None))
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Body {
        Body::new(Kind::Full(Some(bytes)))
    }

    /// A request body whose progress is told. One without bytes is sent when it is dropped: whoever sends the request takes it apart.
    pub fn told(mut self, progress: &Arc<Progress>) -> Body {
        self.watch = Some(Watch::Request(Arc::clone(progress)));
        self
    }

    /// One attempt's.
    pub fn attempt(attempt: Attempt) -> Body {
        Body::new(Kind::Attempt(attempt))
    }

    /// One that mirrors get too.
    pub fn teed(tee: tee::Tee) -> Body {
        Body::new(Kind::Teed(Box::new(tee)))
    }

    /// What a mirror gets.
    pub fn copy(copy: tee::Copy) -> Body {
        Body::new(Kind::Copy(copy))
    }

    /// Looks at what comes first, without taking it.
    ///
    /// # Errors
    /// It broke off.
    pub async fn peek(&mut self) -> Result<Option<&Frame<Bytes>>, BodyError> {
        if self.seen.is_none() {
            let frame = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            self.seen = frame.transpose()?.map(Box::new);
        }
        Ok(self.seen.as_deref())
    }

    /// Reads away a response that nobody gets, so that its connection can be used again.
    pub fn read_away(self) {
        if self.is_end_stream() {
            return;
        }
        tokio::spawn(read_out(self, limits::REPLAY_BYTES));
    }

    /// A response body that has to be whole in time.
    pub fn limited(mut self, mut deadline: Box<Deadline>) -> Body {
        deadline.begin_response();
        if !self.is_end_stream() {
            self.watch = Some(Watch::Response(deadline));
        }
        self
    }

    /// A gRPC client is told by trailers, whatever came before them; another one by an end that is none.
    fn time_out(&mut self, limit: Limit) -> Result<Frame<Bytes>, BodyError> {
        self.kind = Kind::Full(None);
        let has_trailers = matches!(self.watch.take(), Some(Watch::Response(deadline)) if deadline.has_trailers());
        // The last is the client's own; for the server's half on this node the response is cancelled.
        let own = self.ends.pop();
        self.ends.clear();
        let Some(mut own) = own else { return Err(BodyError::TimedOut(limit)) };
        own.error = Some(limit.as_str());
        // It answered; who did not take the rest in time is not known.
        own.accrual = None;
        if !own.grpc {
            own.fail();
            return Err(BodyError::TimedOut(limit));
        }
        let error = ProxyError::Timeout(limit);
        own.grpc_status = Some(error.grpc_code());
        own.fail();
        if has_trailers { Ok(Frame::trailers(respond::grpc_status(&error))) } else { Err(BodyError::TimedOut(limit)) }
    }

    /// The client's own end of this response is one of a route's request, which arrived then.
    pub fn of_route(&mut self, status: u16, series: Arc<RouteSeries>, arrived: Instant) {
        match self.ends.last_mut().filter(|end| !end.done) {
            Some(end) => end.request = Some((series, arrived)),
            None => {
                let grpc = self.ends.last().and_then(|end| end.grpc_status);
                let class = self.ends.last().map_or_else(|| classify::of_http(status), ResponseEnd::classification);
                series.ended(Some(Answered { http: status, grpc }), None, Some(class), arrived.elapsed());
            }
        }
    }

    /// The end of this response says what there is to say about its endpoint.
    pub fn accrue(&mut self, status: u16, mut accrual: Box<Accrual>) {
        match self.ends.last_mut().filter(|end| !end.done) {
            Some(end) => end.accrual = Some(accrual),
            None => accrual.classified(status, None, None),
        }
    }

    /// What happens when this response body ends, breaks off or is dropped.
    pub fn on_end(mut self, mut end: ResponseEnd) -> Body {
        if self.is_end_stream() {
            end.finish(None);
        }
        self.ends.push(end);
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(Watch::Request(progress)) = &self.watch
            // One that another has followed would speak for that one.
            && !matches!(&self.kind, Kind::Attempt(attempt) if !attempt.is_current())
        {
            progress.sent();
        }
        if self.rest != Rest::Coming {
            return;
        }
        let Kind::Incoming(incoming) = &self.kind else { return };
        // Nothing runs tasks any more when the process leaves.
        if !incoming.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Kind::Incoming(incoming) = std::mem::replace(&mut self.kind, Kind::Full(None))
        {
            runtime.spawn(discard(incoming, self.open.take()));
        }
    }
}

/// Reads what is left of a request that was answered without it: a reset, or a closed connection, can make the client lose the answer
/// (RFC 9112 9.6; over HTTP/2 curl before 8.0 takes even `NO_ERROR` for a failure).
async fn discard(incoming: Incoming, _open: Option<Open>) {
    read_out(incoming, limits::DISCARDED_BYTES).await;
}

/// Reads a body to its end, or to a bound of bytes and time; nothing of it is kept.
async fn read_out<B: HttpBody<Data = Bytes> + Unpin>(mut body: B, most: usize) {
    let mut left = most;
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _late = tokio::time::timeout(limits::DISCARD, reading).await;
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(seen) = this.seen.take() {
            return Poll::Ready(Some(Ok(*seen)));
        }
        let incoming = match &mut this.kind {
            Kind::Incoming(incoming) => incoming,
            Kind::Attempt(attempt) => {
                let polled = attempt.poll_frame(cx);
                let over = attempt.is_end_stream();
                // One that another has followed would speak for that one.
                let is_over = matches!(polled, Poll::Ready(Some(Err(BodyError::Superseded))));
                if let Some(watch) = this.watch.as_mut().filter(|_| !is_over) {
                    watch.look(&polled, over, cx);
                }
                return polled;
            }
            Kind::Teed(tee) => {
                let polled = tee.poll_frame(cx);
                let over = tee.is_end_stream();
                if let Some(watch) = this.watch.as_mut() {
                    watch.look(&polled, over, cx);
                }
                return polled;
            }
            Kind::Copy(copy) => return copy.poll_frame(cx),
            Kind::Full(bytes) => {
                let frame = bytes.take().map(|bytes| Ok(Frame::data(bytes)));
                this.ends.iter_mut().for_each(|end| end.finish(None));
                return Poll::Ready(frame);
            }
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let over = incoming.is_end_stream();
        // After it: who takes frames late is not idle while they are there.
        if let Some(limit) = this.watch.as_mut().and_then(|watch| watch.look(&polled, over, cx)) {
            return Poll::Ready(Some(this.time_out(limit)));
        }
        let frame = ready!(polled);
        this.rest = match (this.rest, &frame) {
            (Rest::Left, _) | (_, Some(Err(_)) | None) => Rest::Left,
            // It was asked for.
            (_, Some(Ok(_))) => Rest::Coming,
        };
        for end in &mut this.ends {
            match &frame {
                Some(Ok(frame)) => {
                    end.sent(frame.data_ref().map_or(0, Bytes::len));
                    if let Some(accrual) = end.accrual.as_mut().filter(|_| frame.is_data()) {
                        accrual.streams();
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        end.finish(Some(trailers));
                    } else if over {
                        end.finish(None);
                    }
                }
                Some(Err(_)) => end.fail(),
                None => end.finish(None),
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_none()
            && match &self.kind {
                Kind::Incoming(incoming) => incoming.is_end_stream(),
                Kind::Full(bytes) => bytes.is_none(),
                Kind::Attempt(attempt) => attempt.is_end_stream(),
                Kind::Teed(tee) => tee.is_end_stream(),
                Kind::Copy(copy) => copy.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.kind {
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Attempt(attempt) => attempt.size_hint(),
            Kind::Teed(tee) => tee.size_hint(),
            Kind::Copy(copy) => copy.size_hint(),
        };
        match self.seen.as_ref().and_then(|seen| seen.data_ref()) {
            None => hint,
            Some(seen) => match hint.exact() {
                Some(rest) => SizeHint::with_exact(rest + seen.len() as u64),
                None => SizeHint::default(),
            },
        }
    }
}
