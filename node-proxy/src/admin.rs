//! The admin server: metrics, health, effective configuration, log level. HTTP/1 on the admin runtime.
//!
//! Must never change anything for a peer that is not on loopback, and never show a key.

mod body;
mod config;
mod log_level;
mod ready;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use self::body::Body;
pub use self::log_level::{LogLevel, LogLevelError};
use crate::{
    limits,
    telemetry::{Format, NodeState, Telemetry},
};

/// What the admin server shows and changes.
pub struct AdminState {
    /// Source of `/metrics`.
    pub telemetry: Arc<Telemetry>,
    /// Source of `/ready` and `/config`.
    pub state: Arc<dyn NodeState>,
    /// Behind `/proxy-log-level`.
    pub log_level: LogLevel,
}

/// Serves for ever; drop the future to stop.
pub async fn serve(listener: TcpListener, state: AdminState) {
    let state = Arc::new(state);
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
    loop {
        // Who finds no place waits in the accept queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => drop(tokio::spawn(connection(Arc::clone(&state), tcp, peer, place))),
            Err(error) => {
                tracing::warn!(%error, "admin server cannot accept; descriptors or memory may be short");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(state: Arc<AdminState>, tcp: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond(&state, peer, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD_TIMEOUT)
        .max_buf_size(limits::ADMIN_HEAD_BYTES)
        .max_headers(limits::ADMIN_HEADERS)
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(limits::ADMIN_CONNECTION, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, %peer, "admin connection broke off"),
        Err(_elapsed) => tracing::debug!(%peer, "admin connection closed for its age"),
    }
}

async fn respond(state: &AdminState, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let get = request.method() == Method::GET;
    match path {
        "/proxy-log-level" if get || request.method() == Method::PUT => log_level(state, peer, request).await,
        "/metrics" if get => metrics(state, request.headers()),
        "/ready" if get => match ready::reason_against(&*state.state) {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/live" if get => text(StatusCode::OK, "live\n"),
        "/config" if get => json(&config::effective(&*state.state, &state.log_level)),
        "/metrics" | "/ready" | "/live" | "/config" => refused("GET"),
        "/proxy-log-level" => refused("GET, PUT"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /ready, /live, /config and /proxy-log-level\n"),
    }
}

fn metrics(state: &AdminState, headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    let gzip = body::accepts_gzip(headers);
    let mut response = Response::new(Body::scrape(state.telemetry.scrape(&*state.state, format), gzip));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

async fn log_level(state: &AdminState, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    if !peer.ip().to_canonical().is_loopback() {
        return text(StatusCode::FORBIDDEN, "only from loopback: use `kubectl exec` or `kubectl port-forward`\n");
    }
    if request.method() == Method::GET {
        return text(StatusCode::OK, format!("{}\n", state.log_level.current()));
    }
    let limited = Limited::new(request.into_body(), limits::ADMIN_BODY_BYTES);
    let filter = match timeout(limits::ADMIN_HEAD_TIMEOUT, limited.collect()).await {
        Ok(Ok(filter)) => filter.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "a log filter is at most 4 KiB\n");
        }
        Ok(Err(_)) | Err(_) => return text(StatusCode::BAD_REQUEST, "the body did not arrive\n"),
    };
    let Ok(filter) = std::str::from_utf8(&filter) else {
        return text(StatusCode::BAD_REQUEST, "a log filter is text such as `info,weir_node=debug`\n");
    };
    match state.log_level.set(filter.trim()) {
        Ok(()) => {
            let mut response = text(StatusCode::NO_CONTENT, "");
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn refused(allow: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allow}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

fn json(value: &serde_json::Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n").into())
}

fn typed(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
