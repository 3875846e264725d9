//! Sends one request over a pooled or a new connection.
//!
//! Must never send a request twice unless not one byte of it had left, the server says that it did nothing with it, or it is a
//! safe one that a kept connection died under (RFC 9110 9.2.2).

mod opening;

use std::{error::Error as _, sync::Arc};

use ::http::{Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use weir_core::{proxy_error::ProxyError, snapshot::Workload};

use self::opening::Opening;
use crate::{
    body::{Body, Held},
    dial::DialError,
    limits,
    pool::{PoolKey, Via},
    proxy::Worker,
    respond,
    telemetry::TcpLabels,
};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection came about; the request is unsent.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection failed with the request on it.
    #[error("the connection to {to} failed with the request on it: {source}")]
    Broken {
        /// Address of the far side.
        to: std::net::SocketAddr,
        /// What hyper said.
        source: hyper::Error,
    },
    /// Pooled connections kept closing under us.
    #[error("connections to {to} keep closing before a request can be sent")]
    KeepsClosing {
        /// Address of the far side.
        to: std::net::SocketAddr,
    },
}

impl SendError {
    /// What the client is told.
    pub fn told(&self) -> ProxyError {
        match self {
            SendError::Dial(_) | SendError::KeepsClosing { .. } => ProxyError::ConnectFailed,
            SendError::Broken { .. } => ProxyError::UpstreamBroken,
        }
    }

    /// The request's own body failed, not the server.
    pub fn is_clients(&self) -> bool {
        matches!(self, SendError::Broken { source, .. } if source.is_user())
    }
}

/// A failure, with the request if it is unsent.
pub struct Unsent {
    /// Why.
    pub error: SendError,
    /// Given back when nothing of it had left.
    pub request: Option<Request<Body>>,
}

/// A request was answered.
pub struct Answered {
    /// By whom is for the caller to see: a far proxy answers for an application that it does not reach.
    pub response: Response<Incoming>,
    /// What holds the connection meanwhile.
    pub held: Held,
    /// The request, where it is at hand and the answer says that no application has seen it.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Answered {
    fn new(key: &PoolKey, mut response: Response<Incoming>, held: Held, copy: Option<Request<Body>>) -> Answered {
        // Whoever is no proxy of the mesh may say what it likes: it has seen the request.
        let is_unsent = respond::take_unsent(&mut response) && matches!(key.via, Via::MutualTls { .. });
        // Nearly all are answered: for those it is not carried on.
        let unsent = copy.filter(|_| is_unsent).map(Box::new);
        Answered { response, held, unsent }
    }
}

/// What a connection's bytes are counted under; called only when one is made.
pub type Labels<'a> = &'a (dyn Fn() -> TcpLabels + Sync);

/// Sends `request` to `key.to` as HTTP/2 or HTTP/1, after the version that it came with.
///
/// # Errors
/// See [`SendError`]; the request comes back with it when it may be tried elsewhere.
pub async fn send(
    worker: &Arc<Worker>,
    workload: &Arc<Workload>,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    labels: Labels<'_>,
) -> Result<Answered, Unsent> {
    if request.version() != Version::HTTP_2 {
        return send_http1(worker, workload, key, request, labels).await;
    }
    if request.uri().authority().is_some() {
        return send_http2(worker, workload, key, request, labels).await;
    }
    // Host instead of `:authority` (HAProxy does): h2 sends it on as it came only under the other version.
    *request.version_mut() = Version::HTTP_11;
    let mut sent = send_http2(worker, workload, key, request, labels).await;
    match &mut sent {
        Err(Unsent { request: Some(again), .. }) => *again.version_mut() = Version::HTTP_2,
        Ok(Answered { unsent: Some(again), .. }) => *again.version_mut() = Version::HTTP_2,
        _other => {}
    }
    sent
}

async fn send_http1(
    worker: &Arc<Worker>,
    workload: &Arc<Workload>,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    labels: Labels<'_>,
) -> Result<Answered, Unsent> {
    let opening = || Opening::new(worker, workload, key, labels());
    for left in (0..limits::POOL_RETRIES).rev() {
        let kept = if left > 0 { worker.pool.take_http1(key) } else { None };
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            // Cold: boxed, so that requests over pooled connections do not carry the handshake's state.
            None => match Box::pin(opening().http1()).await {
                Ok(connection) => connection,
                Err(error) => return Err(Unsent { error: error.into(), request: Some(request) }),
            },
        };
        let sender = &mut connection.sender;
        if !sender.is_ready() && sender.ready().await.is_err() {
            continue;
        }
        let may_be_left = is_kept && request.method().is_safe();
        // Of what no far proxy answers for, nothing else is ever sent again.
        let may_be_unsent = matches!(key.via, Via::MutualTls { .. });
        let copy = if may_be_left || may_be_unsent { copy_of(&request) } else { None };
        connection.heard.listen();
        match sender.try_send_request(request).await {
            Ok(response) => {
                let held = Held::Http1(Arc::clone(worker), Arc::clone(key), connection);
                return Ok(Answered::new(key, response, held, copy));
            }
            Err(mut failed) => {
                let unsent = failed.take_message();
                let source = failed.into_error();
                match unsent.or_else(|| copy.filter(|_| may_be_left && is_left(&source))) {
                    Some(unsent) => request = unsent,
                    None => return Err(Unsent { error: SendError::Broken { to: key.to, source }, request: None }),
                }
            }
        }
    }
    Err(Unsent { error: SendError::KeepsClosing { to: key.to }, request: Some(request) })
}

/// Whether the server left without a word: it closed a kept connection while the request was on its way.
fn is_left(error: &hyper::Error) -> bool {
    let gone = |cause: &std::io::Error| {
        matches!(cause.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    };
    error.is_incomplete_message() || error.source().and_then(|cause| cause.downcast_ref()).is_some_and(gone)
}

async fn send_http2(
    worker: &Arc<Worker>,
    workload: &Arc<Workload>,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    labels: Labels<'_>,
) -> Result<Answered, Unsent> {
    let opening = || Opening::new(worker, workload, key, labels());
    for left in (0..limits::POOL_RETRIES).rev() {
        let shared = if left > 0 { worker.pool.http2(key) } else { None };
        let connection = match shared {
            Some(connection) => Ok(connection),
            None if left > 0 => Box::pin(opening().shared_http2()).await,
            // Others would use a shared one up again: this request is the first on its own, shared afterwards.
            None => Box::pin(opening().http2()).await,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Err(Unsent { error: error.into(), request: Some(request) }),
        };
        let stream = connection.stream();
        let copy = copy_of(&request);
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                if left == 0 {
                    worker.pool.put_http2(key, connection);
                }
                return Ok(Answered::new(key, response, Held::Http2(stream), copy));
            }
            Err(mut failed) => {
                let unsent = failed.take_message();
                let source = failed.into_error();
                match unsent.or_else(|| copy.filter(|_| is_unprocessed(&source))) {
                    Some(unsent) => request = unsent,
                    None => return Err(Unsent { error: SendError::Broken { to: key.to, source }, request: None }),
                }
                if !is_refused(&source) {
                    connection.leave();
                }
            }
        }
    }
    Err(Unsent { error: SendError::KeepsClosing { to: key.to }, request: Some(request) })
}

/// A request without a body, to be sent again should it be said that nobody did anything with the first one.
fn copy_of(request: &Request<Body>) -> Option<Request<Body>> {
    request.body().is_end_stream().then(|| {
        let mut copy = Request::new(Body::empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// Whether the server said that it did not begin with the request (RFC 9113 8.7): servers go away every so many requests.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let left =
        |cause: &h2::Error| cause.is_remote() && cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR);
    is_refused(error) || h2_cause(error).is_some_and(left)
}

/// Whether the server refused this one stream; its connection serves others.
fn is_refused(error: &hyper::Error) -> bool {
    let refused =
        |cause: &h2::Error| cause.is_remote() && cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    h2_cause(error).is_some_and(refused)
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}
