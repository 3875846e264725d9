//! Sends one request over a pooled or a new connection.
//!
//! Must never send a request twice unless not one byte of it had left, the server says that it did nothing with it, or it is a
//! safe one that a kept connection died under (RFC 9110 9.2.2).

use std::{error::Error as _, sync::Arc};

use ::http::{Request, Response, Version};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use weir_core::{snapshot::Workload, transport_header::SessionProtocol};

use crate::{
    body::{Body, Held},
    dial::{self, DialError},
    fair::Fair,
    io::{Io, Prefixed, Transport},
    limits,
    metered::{Meter, Metered},
    pool::{Http2, PoolKey, Via},
    proxy::Worker,
    telemetry::TcpGuard,
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

/// A failure, with the request if it is unsent.
pub struct Unsent {
    /// Why.
    pub error: SendError,
    /// Given back when nothing of it had left.
    pub request: Option<Request<Body>>,
}

/// Opens the count of a connection's bytes; called only when one is made.
pub type OpenMeter<'a> = &'a (dyn Fn() -> TcpGuard + Sync);

/// Sends `request` to `key.to` as HTTP/2 or HTTP/1, after the version that it came with.
///
/// # Errors
/// See [`SendError`]; the request comes back with it when it may be tried elsewhere.
pub async fn send(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    meter: OpenMeter<'_>,
) -> Result<(Response<Incoming>, Held), Unsent> {
    if request.version() != Version::HTTP_2 {
        return send_http1(worker, workload, key, request, meter).await;
    }
    if request.uri().authority().is_some() {
        return send_http2(worker, workload, key, request, meter).await;
    }
    // Host instead of `:authority` (HAProxy does): h2 sends it on as it came only under the other version.
    *request.version_mut() = Version::HTTP_11;
    let mut sent = send_http2(worker, workload, key, request, meter).await;
    if let Err(Unsent { request: Some(unsent), .. }) = &mut sent {
        *unsent.version_mut() = Version::HTTP_2;
    }
    sent
}

async fn send_http1(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    meter: OpenMeter<'_>,
) -> Result<(Response<Incoming>, Held), Unsent> {
    for left in (0..limits::POOL_RETRIES).rev() {
        let kept = if left > 0 { worker.pool.take_http1(key) } else { None };
        let is_kept = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            // Cold: boxed, so that requests over pooled connections do not carry the handshake's state.
            None => match Box::pin(open_http1(worker, workload, key, meter)).await {
                Ok(sender) => sender,
                Err(error) => return Err(Unsent { error: error.into(), request: Some(request) }),
            },
        };
        if !sender.is_ready() && sender.ready().await.is_err() {
            continue;
        }
        let copy = if is_kept && request.method().is_safe() { copy_of(&request) } else { None };
        match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, Held::Http1(Arc::clone(worker), Arc::clone(key), sender))),
            Err(mut failed) => {
                let unsent = failed.take_message();
                let source = failed.into_error();
                match unsent.or_else(|| copy.filter(|_| is_left(&source))) {
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
    workload: &Workload,
    key: &Arc<PoolKey>,
    mut request: Request<Body>,
    meter: OpenMeter<'_>,
) -> Result<(Response<Incoming>, Held), Unsent> {
    for left in (0..limits::POOL_RETRIES).rev() {
        let shared = if left > 0 { worker.pool.http2(key) } else { None };
        let connection = match shared {
            Some(connection) => Ok(connection),
            None if left > 0 => Box::pin(shared_http2(worker, workload, key, meter)).await,
            // Others would use a shared one up again: this request is the first on its own, shared afterwards.
            None => Box::pin(open_http2(worker, workload, key, meter)).await,
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
                return Ok((response, Held::Http2(stream)));
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

/// A request without a body, to be sent again should the server say that it did nothing with the first one.
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

async fn open_http1(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &Arc<PoolKey>,
    meter: OpenMeter<'_>,
) -> Result<http1::SendRequest<Body>, DialError> {
    let io = Metered { io: connect(worker, workload, key, SessionProtocol::Http1).await?, meter: Meter::new(meter()) };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HTTP1_HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| DialError::Connect { to: key.to, source: std::io::Error::other(error) })?;
    tokio::spawn(Fair::new(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "HTTP/1 connection to a server ended");
        }
    }));
    Ok(sender)
}

/// A connection that others use as well: a burst of requests dials one.
async fn shared_http2(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &Arc<PoolKey>,
    meter: OpenMeter<'_>,
) -> Result<Http2, DialError> {
    let lock = worker.pool.dialling(key);
    let _dialling = lock.lock().await;
    // Somebody else may have dialled while we waited.
    if let Some(connection) = worker.pool.http2(key) {
        return Ok(connection);
    }
    let connection = open_http2(worker, workload, key, meter).await?;
    worker.pool.put_http2(key, connection.clone());
    Ok(connection)
}

async fn open_http2(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &Arc<PoolKey>,
    meter: OpenMeter<'_>,
) -> Result<Http2, DialError> {
    let io = Metered { io: connect(worker, workload, key, SessionProtocol::Http2).await?, meter: Meter::new(meter()) };
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(limits::HTTP2_HEAD_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER)
        .max_concurrent_reset_streams(limits::HTTP2_OWN_RESETS)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(limits::HTTP2_PING)
        .keep_alive_timeout(limits::HTTP2_PING_TIMEOUT)
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| DialError::Connect { to: key.to, source: std::io::Error::other(error) })?;
    tokio::spawn(Fair::new(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to a server ended");
        }
    }));
    Ok(Http2::new(sender))
}

async fn connect(
    worker: &Arc<Worker>,
    workload: &Workload,
    key: &PoolKey,
    session: SessionProtocol,
) -> Result<Io, DialError> {
    let tcp = match &key.via {
        Via::App { client } => dial::app(&worker.shared, workload, *client, key.to).await?,
        Via::Plain { .. } => dial::plain(&worker.shared, workload, key.to).await?,
        Via::MutualTls { server, .. } => {
            return dial::mutual_tls(&worker.shared, workload, key.to, server, Some(session)).await;
        }
    };
    Ok(Prefixed::new(Transport::Tcp(tcp)))
}
