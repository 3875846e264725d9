//! Fields of Gateway API's routes, and no others. Must never give a default that Gateway API does not.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Metadata;

/// Of any route, what tells whose it is: nothing else is looked at of other people's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct RouteParents {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: ParentsSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct ParentsSpec {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
}

/// `gateway.networking.k8s.io/v1/HTTPRoute`. A field of a rule that is not here refuses the route: without it the rule would be another one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct HttpRoute {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: HttpRouteSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct HttpRouteSpec {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
    pub(in crate::parse) hostnames: Option<Vec<String>>,
    pub(in crate::parse) rules: Option<Vec<HttpRouteRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct ParentRef {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) section_name: Option<String>,
    pub(in crate::parse) port: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct HttpRouteRule {
    /// For people, for policies that name a rule, and what its sessions are known by.
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) matches: Option<Vec<HttpRouteMatch>>,
    pub(in crate::parse) filters: Option<Vec<HttpRouteFilter>>,
    pub(in crate::parse) backend_refs: Option<Vec<BackendRef>>,
    pub(in crate::parse) timeouts: Option<HttpRouteTimeouts>,
    pub(in crate::parse) retry: Option<HttpRouteRetry>,
    pub(in crate::parse) session_persistence: Option<SessionPersistence>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct HttpRouteTimeouts {
    pub(in crate::parse) request: Option<String>,
    pub(in crate::parse) backend_request: Option<String>,
}

/// GEP-1619, experimental channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct SessionPersistence {
    pub(in crate::parse) session_name: Option<String>,
    pub(in crate::parse) absolute_timeout: Option<String>,
    pub(in crate::parse) idle_timeout: Option<String>,
    #[serde(rename = "type")]
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) cookie_config: Option<CookieConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct CookieConfig {
    pub(in crate::parse) lifetime_type: Option<String>,
}

/// `gateway.networking.k8s.io/v1/GRPCRoute`. As above.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct GrpcRoute {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: GrpcRouteSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct GrpcRouteSpec {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
    pub(in crate::parse) hostnames: Option<Vec<String>>,
    pub(in crate::parse) rules: Option<Vec<GrpcRouteRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct GrpcRouteRule {
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) matches: Option<Vec<GrpcRouteMatch>>,
    pub(in crate::parse) filters: Option<Vec<HttpRouteFilter>>,
    pub(in crate::parse) backend_refs: Option<Vec<BackendRef>>,
    pub(in crate::parse) session_persistence: Option<SessionPersistence>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct GrpcRouteMatch {
    pub(in crate::parse) method: Option<GrpcMethodMatch>,
    pub(in crate::parse) headers: Option<Vec<ValueMatch>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct GrpcMethodMatch {
    #[serde(rename = "type")]
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) service: Option<String>,
    pub(in crate::parse) method: Option<String>,
}

/// `gateway.networking.k8s.io/v1/TLSRoute` and `TCPRoute`. As above.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ConnectionRoute {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: ConnectionRouteSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct ConnectionRouteSpec {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
    pub(in crate::parse) hostnames: Option<Vec<String>>,
    pub(in crate::parse) rules: Option<Vec<ConnectionRouteRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ConnectionRouteRule {
    /// For people.
    pub(in crate::parse) name: Option<IgnoredAny>,
    pub(in crate::parse) backend_refs: Option<Vec<BackendRef>>,
}

/// GEP-1731, experimental channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct HttpRouteRetry {
    pub(in crate::parse) codes: Option<Vec<i32>>,
    pub(in crate::parse) attempts: Option<i32>,
    pub(in crate::parse) backoff: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct HttpRouteMatch {
    pub(in crate::parse) path: Option<PathMatch>,
    pub(in crate::parse) headers: Option<Vec<ValueMatch>>,
    pub(in crate::parse) query_params: Option<Vec<ValueMatch>>,
    pub(in crate::parse) method: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct PathMatch {
    #[serde(rename = "type")]
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) value: Option<String>,
}

/// Of a header or of a query parameter.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct ValueMatch {
    #[serde(rename = "type")]
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::parse) struct HttpRouteFilter {
    #[serde(rename = "type")]
    pub(in crate::parse) kind: String,
    pub(in crate::parse) request_header_modifier: Option<HeaderModifier>,
    pub(in crate::parse) response_header_modifier: Option<HeaderModifier>,
    pub(in crate::parse) request_redirect: Option<RequestRedirect>,
    pub(in crate::parse) url_rewrite: Option<UrlRewrite>,
    pub(in crate::parse) request_mirror: Option<RequestMirror>,
    pub(in crate::parse) cors: Option<Cors>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct Cors {
    pub(in crate::parse) allow_origins: Option<Vec<String>>,
    pub(in crate::parse) allow_credentials: Option<bool>,
    pub(in crate::parse) allow_methods: Option<Vec<String>>,
    pub(in crate::parse) allow_headers: Option<Vec<String>>,
    pub(in crate::parse) expose_headers: Option<Vec<String>>,
    pub(in crate::parse) max_age: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct RequestMirror {
    pub(in crate::parse) backend_ref: Option<MirrorRef>,
    pub(in crate::parse) percent: Option<i32>,
    pub(in crate::parse) fraction: Option<Fraction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct MirrorRef {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) port: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct Fraction {
    pub(in crate::parse) numerator: Option<i32>,
    pub(in crate::parse) denominator: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct HeaderModifier {
    pub(in crate::parse) set: Option<Vec<Header>>,
    pub(in crate::parse) add: Option<Vec<Header>>,
    pub(in crate::parse) remove: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct Header {
    pub(in crate::parse) name: String,
    pub(in crate::parse) value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct RequestRedirect {
    pub(in crate::parse) scheme: Option<String>,
    pub(in crate::parse) hostname: Option<String>,
    pub(in crate::parse) path: Option<PathModifier>,
    pub(in crate::parse) port: Option<i32>,
    pub(in crate::parse) status_code: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct UrlRewrite {
    pub(in crate::parse) hostname: Option<String>,
    pub(in crate::parse) path: Option<PathModifier>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct PathModifier {
    #[serde(rename = "type")]
    pub(in crate::parse) kind: String,
    pub(in crate::parse) replace_full_path: Option<String>,
    pub(in crate::parse) replace_prefix_match: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct BackendRef {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) port: Option<i32>,
    pub(in crate::parse) weight: Option<i32>,
    pub(in crate::parse) filters: Option<Vec<HttpRouteFilter>>,
}
