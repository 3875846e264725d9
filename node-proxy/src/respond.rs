//! Responses that the proxy makes itself. Must never tell a client more than what went wrong and where to look.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as Payload;
use parking_lot::Mutex;
use weir_core::{grpc, proxy_error::ProxyError};

use crate::body::Body;

const PROXY_ERROR: &str = "l5d-proxy-error";
/// From one proxy of the mesh to the other.
const UNSENT: HeaderName = HeaderName::from_static("weir-unsent");
/// gRPC's code.
const UNAVAILABLE: u32 = 14;

/// The answer to a request that failed here (Linkerd's statuses and headers), in the client's own protocol.
pub fn with_error(error: &ProxyError, is_grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    if is_grpc {
        *headers = grpc_status(error);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        return response;
    }
    if let Ok(text) = HeaderValue::from_str(&error.to_string()) {
        headers.insert(PROXY_ERROR, text);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    *response.status_mut() = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// A route sends the client elsewhere.
pub fn redirect(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// What a browser asked before its request, answered by a route.
pub fn preflight(said: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = said;
    response
}

/// Whether a proxy made this response because its application gave none: the server's half says so to the client's.
pub fn is_unanswered(response: &Response<impl Payload>) -> bool {
    may_be_unanswered(response)
        && response.headers().contains_key(PROXY_ERROR)
        && (response.status() == StatusCode::BAD_GATEWAY || grpc::status(response.headers()) == Some(UNAVAILABLE))
}

/// A request that no application has seen, beside the answer that says so.
#[derive(Clone)]
pub struct Returned(Arc<Mutex<Option<Box<Request<Body>>>>>);

impl Returned {
    /// Puts `request` beside the answer of a proxy that did not reach the application.
    pub fn put(response: &mut Response<Body>, request: Box<Request<Body>>) {
        response.extensions_mut().insert(Returned(Arc::new(Mutex::new(Some(request)))));
    }

    /// Takes it.
    pub fn take(response: &mut Response<Body>) -> Option<Box<Request<Body>>> {
        // Most have none at all.
        if response.extensions().is_empty() {
            return None;
        }
        response.extensions_mut().remove::<Returned>()?.0.lock().take()
    }
}

/// Says to the client's proxy that no application has seen the request.
pub fn say_unsent(response: &mut Response<Body>) {
    response.headers_mut().insert(UNSENT, HeaderValue::from_static("1"));
}

/// Whether that was said. It is for one hop: an application that passes on what it heard has itself seen a request.
pub fn take_unsent(response: &mut Response<impl Payload>) -> bool {
    may_be_unanswered(response) && response.headers_mut().remove(UNSENT).is_some()
}

/// Costs next to nothing: nearly all responses come by here.
fn may_be_unanswered(response: &Response<impl Payload>) -> bool {
    match response.status() {
        StatusCode::BAD_GATEWAY => true,
        StatusCode::OK => response.body().is_end_stream(),
        _other => false,
    }
}

/// What tells a gRPC client the same: the trailers, or the header of an answer without a message.
pub fn grpc_status(error: &ProxyError) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(3);
    fields.insert("grpc-status", HeaderValue::from(error.grpc_code()));
    if let Ok(text) = HeaderValue::from_str(&error.to_string()) {
        fields.insert("grpc-message", text.clone());
        fields.insert(PROXY_ERROR, text);
    }
    fields
}
