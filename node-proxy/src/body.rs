//! Message bodies on their way through, and what is counted when a response ends.
//!
//! Must never buffer: a frame that comes in goes out, or nowhere, where its request was answered without it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use weir_core::{
    classify::{self, Classification},
    proxy_error::ProxyError,
    snapshot::Endpoint,
    timeouts::Limit,
};

use crate::{
    access_log::AccessEntry,
    deadline::{Deadline, Progress},
    http::Open,
    limits,
    pool::{PoolKey, StreamGuard},
    proxy::Worker,
    respond,
    telemetry::HttpSeries,
};

enum Kind {
    Incoming(Incoming),
    Full(Option<Bytes>),
}

/// A request or response body.
pub struct Body {
    kind: Kind,
    // Two at most: the client's half and, on one node, the server's.
    ends: Vec<ResponseEnd>,
    open: Option<Open>,
    /// Of a request: what nobody wanted is read away ([`discard`]).
    is_discarded: bool,
    watch: Option<Watch>,
}

/// Who is to know how far a body is.
enum Watch {
    /// Of a request: those who wait for its response.
    Request(Arc<Progress>),
    /// Of a response: its own limits.
    Response(Box<Deadline>),
}

impl Watch {
    fn progress(&self) -> &Progress {
        match self {
            Watch::Request(progress) => progress,
            Watch::Response(deadline) => deadline.progress(),
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
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Body {
        Body::new(Kind::Incoming(incoming))
    }
}

impl Body {
    fn new(kind: Kind) -> Body {
        Body { kind, ends: Vec::new(), open: None, is_discarded: false, watch: None }
    }

    /// A request body; its connection is busy for as long as it lives. `is_coming`: its client sends it without being asked to.
    pub fn incoming(incoming: Incoming, open: Open, is_coming: bool) -> Body {
        let (kind, open) = (Kind::Incoming(incoming), Some(open));
        Body { kind, ends: Vec::new(), open, is_discarded: is_coming, watch: None }
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

    /// A request body whose progress is told.
    pub fn told(mut self, progress: &Arc<Progress>) -> Body {
        if self.is_end_stream() {
            progress.sent();
        } else {
            self.watch = Some(Watch::Request(Arc::clone(progress)));
        }
        self
    }

    /// A response body that has to be whole in time.
    pub fn limited(mut self, deadline: Box<Deadline>) -> Body {
        deadline.progress().sent();
        deadline.progress().moved();
        if !self.is_end_stream() {
            self.watch = Some(Watch::Response(deadline));
        }
        self
    }

    /// A gRPC client is told by trailers, whatever came before them; another one by an end that is none.
    fn time_out(&mut self, limit: Limit) -> Result<Frame<Bytes>, BodyError> {
        self.kind = Kind::Full(None);
        self.watch = None;
        let is_grpc = self.ends.iter().any(|end| end.grpc);
        for end in &mut self.ends {
            end.grpc_status = Some(ProxyError::Timeout(limit).grpc_code());
            end.error = Some(limit.as_str());
            end.fail();
        }
        if is_grpc {
            Ok(Frame::trailers(respond::grpc_status(&ProxyError::Timeout(limit))))
        } else {
            Err(BodyError::TimedOut(limit))
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
        if !self.is_discarded {
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
async fn discard(mut incoming: Incoming, _open: Option<Open>) {
    let mut left = limits::DISCARDED_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
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
        if let Some(Watch::Response(deadline)) = &mut this.watch
            && let Poll::Ready(limit) = deadline.poll(cx)
        {
            return Poll::Ready(Some(this.time_out(limit)));
        }
        let incoming = match &mut this.kind {
            Kind::Incoming(incoming) => incoming,
            Kind::Full(bytes) => {
                let frame = bytes.take().map(|bytes| Ok(Frame::data(bytes)));
                this.ends.iter_mut().for_each(|end| end.finish(None));
                return Poll::Ready(frame);
            }
        };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        let over = incoming.is_end_stream();
        if let Some(watch) = &this.watch {
            let progress = watch.progress();
            progress.moved();
            if over || !matches!(frame, Some(Ok(_))) {
                progress.sent();
            }
        }
        this.is_discarded &= matches!(frame, Some(Ok(_)));
        for end in &mut this.ends {
            match &frame {
                Some(Ok(frame)) => {
                    end.sent(frame.data_ref().map_or(0, Bytes::len));
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
        match &self.kind {
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Full(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// What holds the upstream connection until the response has ended.
pub enum Held {
    /// HTTP/1: goes back to the pool of this worker.
    Http1(Arc<Worker>, Arc<PoolKey>, http1::SendRequest<Body>),
    /// HTTP/2: one stream less.
    Http2(StreamGuard),
    /// Nothing, as when the other half of this process answered.
    Nothing,
}

/// Counts one response when it ends, whichever way it ends.
pub struct ResponseEnd {
    /// Where the response is counted.
    pub series: Arc<HttpSeries>,
    /// Status of the response.
    pub status: u16,
    /// Whether trailers decide the classification.
    pub grpc: bool,
    /// gRPC status seen in the headers.
    pub grpc_status: Option<u32>,
    /// Label of the error that this proxy answered with.
    pub error: Option<&'static str>,
    /// From the request's arrival to the response's head.
    pub latency: Duration,
    /// Whose load ends here.
    pub endpoint: Option<(Arc<Endpoint>, Duration)>,
    /// The upstream connection.
    pub held: Held,
    /// One line of the access log, if the workload wants it.
    pub access: Option<Box<AccessEntry>>,
    /// Counted already.
    pub done: bool,
}

impl ResponseEnd {
    fn sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.response_bytes += bytes as u64;
        }
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) {
        if self.done {
            return;
        }
        if let Some(status) = trailers.and_then(weir_core::grpc::status) {
            self.grpc_status = Some(status);
        }
        let classification =
            if self.grpc { classify::of_grpc(self.grpc_status, self.status) } else { classify::of_http(self.status) };
        self.count(classification);
        if let Held::Http1(worker, key, sender) = std::mem::replace(&mut self.held, Held::Nothing) {
            worker.pool.put_http1(&key, sender);
        }
    }

    fn fail(&mut self) {
        if !self.done {
            self.error = self.error.or(Some("i/o"));
            self.count(Classification::Failure);
        }
        self.held = Held::Nothing;
    }

    fn count(&mut self, classification: Classification) {
        self.done = true;
        self.series.response(self.status, classification, self.grpc_status, self.error, self.latency);
        if let Some((endpoint, now)) = self.endpoint.take() {
            endpoint.load.finish(now, self.latency);
        }
        if let Some(access) = self.access.take() {
            access.log();
        }
    }
}

impl Drop for ResponseEnd {
    fn drop(&mut self) {
        // The client went away before the end: no fault of the server, whose connection is closed with it.
        if !self.done {
            let classification = if self.grpc { Classification::Success } else { classify::of_http(self.status) };
            self.error = self.error.or(Some("cancelled"));
            self.count(classification);
        }
    }
}
