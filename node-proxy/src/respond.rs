//! Responses that the proxy makes itself. Must never tell a client more than what went wrong and where to look.

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use weir_core::{grpc, proxy_error::ProxyError};

use crate::body::Body;

const PROXY_ERROR: &str = "l5d-proxy-error";

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

/// Whether a proxy made this response because its application gave none: the server's half says so to the client's.
pub fn is_unanswered(response: &Response<Body>) -> bool {
    response.headers().contains_key(PROXY_ERROR)
        && (response.status() == StatusCode::BAD_GATEWAY || grpc::status(response.headers()) == Some(14))
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
