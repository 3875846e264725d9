//! The request that is asked about, as a node would see it. Must never take one that no client could send.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use tonic::Status;
use weir_api::v1;
use weir_core::{grpc, request_policy::RequestPolicy, route::Facts};

use crate::limits;

/// What of it can decide.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) authority: String,
    path: PathAndQuery,
    headers: HeaderMap,
}

impl Asked {
    pub(super) fn of(given: &v1::ExplainRequest, port: u16, protocol: v1::Protocol) -> Result<Asked, Status> {
        let wrong = |field: &str, reason: String| Status::invalid_argument(format!("{field}: {reason}"));
        let bytes = given.path.len()
            + given.authority.len()
            + given.headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
        if bytes > limits::EXPLAINED_BYTES {
            let most = limits::EXPLAINED_BYTES;
            return Err(wrong(
                "request",
                format!("path, authority and headers have {bytes} bytes; at most {most} are taken"),
            ));
        }
        let method = if given.method.is_empty() { "GET" } else { &given.method };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_not| wrong("method", format!("{method:?} is no method")))?;
        let path = if given.path.is_empty() { "/" } else { &given.path };
        if !path.starts_with('/') && path != "*" {
            return Err(wrong("path", format!("{path:?} does not begin with a slash")));
        }
        let path = PathAndQuery::try_from(path).map_err(|error| wrong("path", format!("{path:?}: {error}")))?;
        let mut headers = HeaderMap::new();
        for v1::Header { name, value } in &given.headers {
            let key = HeaderName::try_from(name.as_str())
                .map_err(|_not| wrong("headers", format!("{name:?} is no name of a header field")))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_not| wrong("headers", format!("{name}: {value:?} can be no value of a header field")))?;
            headers.append(key, value);
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let given_authority = Some(given.authority.clone()).filter(|authority| !authority.is_empty());
        let authority = given_authority.or(host).unwrap_or_else(|| usual(given, port));
        let asked = Asked { method, authority, path, headers };
        asked.with_host(protocol)
    }

    /// HTTP/1 names the host in a header, of which a rule may speak.
    fn with_host(mut self, protocol: v1::Protocol) -> Result<Asked, Status> {
        if protocol != v1::Protocol::Http2 && !self.is_grpc() {
            let host = HeaderValue::from_str(&self.authority).map_err(|_not| {
                Status::invalid_argument(format!("authority: {:?} can be no name of a host", self.authority))
            })?;
            self.headers.insert(header::HOST, host);
        }
        Ok(self)
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            authority: &self.authority,
            method: &self.method,
            path: self.path.path(),
            query: self.path.query().unwrap_or_default(),
            headers: &self.headers,
        }
    }

    /// With the query.
    pub(super) fn whole_path(&self) -> String {
        self.path.to_string()
    }

    /// Errors come to it as gRPC's.
    pub(super) fn is_grpc(&self) -> bool {
        self.headers.get(header::CONTENT_TYPE).is_some_and(|kind| grpc::is_grpc(kind.as_bytes()))
    }

    /// It says itself how it is sent again, or which limits it has.
    pub(super) fn has_own_policy(&self) -> bool {
        RequestPolicy::take(&mut self.headers.clone()).is_some()
    }
}

/// The Service's name as a client of the namespace writes it.
fn usual(given: &v1::ExplainRequest, port: u16) -> String {
    let namespace =
        if given.client_namespace == given.namespace { String::new() } else { format!(".{}", given.namespace) };
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    format!("{}{namespace}{port}", given.service)
}
