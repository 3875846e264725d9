//! Responses that the proxy makes itself. Must never tell a client more than what went wrong and where to look.

use ::http::{HeaderValue, Response, StatusCode, header};
use weir_core::proxy_error::ProxyError;

use crate::body::Body;

/// The answer to a request that failed here (Linkerd's statuses and headers), in the client's own protocol.
pub fn with_error(error: &ProxyError, grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    if let Ok(text) = HeaderValue::from_str(&error.to_string()) {
        headers.insert("l5d-proxy-error", text.clone());
        if grpc {
            headers.insert("grpc-message", text);
        }
    }
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(error.grpc_code()));
        return response;
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    *response.status_mut() = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
