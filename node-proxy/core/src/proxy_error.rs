//! Errors that the proxy itself answers with: one table for status, gRPC code, header text and metric label.
//!
//! Must never have a catch-all: a new error needs its own line in each column.

use crate::{inbound::Denial, timeouts::Limit};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Downstream,
    /// The server, or what lies between.
    Upstream,
    /// This proxy or its configuration.
    Local,
}

/// What the proxy could not do (Linkerd's cases).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyError {
    /// No endpoint became ready in time.
    #[error("no ready endpoint: the service is in failfast")]
    FailFast,
    /// Too much is waiting or open already.
    #[error("too many requests wait for this service")]
    LoadShed,
    /// No connection to an endpoint came about.
    #[error("connect to an endpoint failed")]
    ConnectFailed,
    /// The connection failed with the request on it.
    #[error("the connection to the endpoint failed")]
    UpstreamBroken,
    /// Control has not said what the destination is.
    #[error("destination unknown and the control plane does not answer")]
    Unresolved,
    /// A time limit ran out.
    #[error("{0}")]
    Timeout(Limit),
    /// Policy forbids it.
    #[error("unauthorized request: {0}")]
    Unauthorized(Denial),
    /// The service has routes, and none is for this request.
    #[error("no route of the service is for this request")]
    NoRoute,
    /// The request's rule can be followed no further.
    #[error("the route's backend is missing or invalid")]
    BackendInvalid,
    /// The same of a GRPCRoute (Gateway API, GRPCRouteRule `backendRefs`: UNAVAILABLE).
    #[error("the GRPCRoute's backend is missing or invalid")]
    CallBackendInvalid,
    /// The server is not who was required.
    #[error("the server's identity is not the required one")]
    IdentityRequired,
    /// It would come back to us.
    #[error("the connection would loop")]
    Loop,
}

impl ProxyError {
    /// All of them, for tables and tests.
    pub const ALL: [ProxyError; 23] = [
        ProxyError::FailFast,
        ProxyError::LoadShed,
        ProxyError::ConnectFailed,
        ProxyError::UpstreamBroken,
        ProxyError::Unresolved,
        ProxyError::Timeout(Limit::Request),
        ProxyError::Timeout(Limit::BackendRequest),
        ProxyError::Timeout(Limit::Response),
        ProxyError::Timeout(Limit::Idle),
        ProxyError::Timeout(Limit::Retry),
        ProxyError::Unauthorized(Denial::Nobody),
        ProxyError::Unauthorized(Denial::Unauthenticated),
        ProxyError::Unauthorized(Denial::OutsideCluster),
        ProxyError::Unauthorized(Denial::Server),
        ProxyError::Unauthorized(Denial::ServerUnauthenticated),
        ProxyError::Unauthorized(Denial::ServerIdentities),
        ProxyError::Unauthorized(Denial::ServerNetworks),
        ProxyError::Unauthorized(Denial::ServerUnknown),
        ProxyError::NoRoute,
        ProxyError::BackendInvalid,
        ProxyError::CallBackendInvalid,
        ProxyError::IdentityRequired,
        ProxyError::Loop,
    ];

    /// Status of the response.
    pub fn http_status(self) -> u16 {
        match self {
            ProxyError::FailFast | ProxyError::Timeout(_) => 504,
            ProxyError::LoadShed | ProxyError::Unresolved => 503,
            ProxyError::ConnectFailed | ProxyError::UpstreamBroken | ProxyError::IdentityRequired => 502,
            ProxyError::Unauthorized(_) => 403,
            ProxyError::NoRoute => 404,
            ProxyError::BackendInvalid | ProxyError::CallBackendInvalid => 500,
            ProxyError::Loop => 508,
        }
    }

    /// gRPC status code of the response.
    pub fn grpc_code(self) -> u32 {
        match self {
            ProxyError::FailFast | ProxyError::Timeout(_) => 4,
            ProxyError::LoadShed
            | ProxyError::Unresolved
            | ProxyError::ConnectFailed
            | ProxyError::UpstreamBroken
            | ProxyError::CallBackendInvalid
            | ProxyError::IdentityRequired => 14,
            ProxyError::Unauthorized(_) => 7,
            ProxyError::NoRoute => 5,
            ProxyError::BackendInvalid => 9,
            ProxyError::Loop => 10,
        }
    }

    /// Value of the label `error`.
    pub fn label(self) -> &'static str {
        match self {
            ProxyError::FailFast => "failfast",
            ProxyError::LoadShed => "loadshed",
            ProxyError::ConnectFailed | ProxyError::UpstreamBroken => "i/o",
            ProxyError::Unresolved => "unresolved",
            ProxyError::Timeout(limit) => limit.as_str(),
            ProxyError::Unauthorized(_) => "unauthorized",
            ProxyError::NoRoute => "no route",
            ProxyError::BackendInvalid | ProxyError::CallBackendInvalid => "invalid backend",
            ProxyError::IdentityRequired => "identity required",
            ProxyError::Loop => "gateway loop",
        }
    }

    /// Whose fault it is.
    pub fn blame(self) -> Blame {
        match self {
            ProxyError::Unauthorized(_) | ProxyError::NoRoute => Blame::Downstream,
            ProxyError::FailFast
            | ProxyError::ConnectFailed
            | ProxyError::UpstreamBroken
            | ProxyError::Timeout(_)
            | ProxyError::IdentityRequired => Blame::Upstream,
            ProxyError::LoadShed
            | ProxyError::Unresolved
            | ProxyError::BackendInvalid
            | ProxyError::CallBackendInvalid
            | ProxyError::Loop => Blame::Local,
        }
    }

    /// Whether the same request may be sent again without asking what it did.
    pub fn retry_is_safe(self) -> bool {
        match self {
            ProxyError::FailFast
            | ProxyError::LoadShed
            | ProxyError::ConnectFailed
            | ProxyError::Unresolved
            | ProxyError::NoRoute
            | ProxyError::BackendInvalid
            | ProxyError::CallBackendInvalid => true,
            ProxyError::UpstreamBroken
            | ProxyError::Timeout(_)
            | ProxyError::Unauthorized(_)
            | ProxyError::IdentityRequired
            | ProxyError::Loop => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_linkerds() {
        for (error, http, grpc) in [
            (ProxyError::FailFast, 504, 4),
            (ProxyError::LoadShed, 503, 14),
            (ProxyError::Timeout(Limit::Idle), 504, 4),
            (ProxyError::ConnectFailed, 502, 14),
            (ProxyError::Unauthorized(Denial::Nobody), 403, 7),
            (ProxyError::NoRoute, 404, 5),
            (ProxyError::BackendInvalid, 500, 9),
            (ProxyError::CallBackendInvalid, 500, 14),
            (ProxyError::Loop, 508, 10),
        ] {
            assert_eq!((error.http_status(), error.grpc_code()), (http, grpc), "{error}");
        }
    }

    #[test]
    fn texts_fit_a_header() {
        for error in ProxyError::ALL {
            assert!(http::HeaderValue::from_str(&error.to_string()).is_ok(), "{error:?}");
        }
    }
}
