//! The table of all metric families: the scrape and `docs/metrics.md` are both made from it.
//!
//! Must never differ from what is exported; a family that is not here cannot be written.

use super::{durations::ROUTE_BOUNDS, histogram::LATENCY_BOUNDS_MS};
use crate::limits;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What users may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stability {
    /// Linkerd's name and labels: changes only when Linkerd's does.
    Linkerd,
    /// A convention of Prometheus' client libraries.
    Convention,
    /// Weir's own; may change between minor versions.
    Weir,
}

/// One metric family.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    labels: &'static str,
    stability: Stability,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal, $stability:ident, [$labels:expr], $help:literal;)*) => {
        $(pub(super) static $id: Family = Family {
            name: $name, kind: Kind::$kind, help: $help, labels: $labels, stability: Stability::$stability,
        };)*
        /// In the order of the scrape.
        pub(super) static ALL: &[&Family] = &[$(&$id),*];
    };
}

const HTTP: &str = "HTTP";
const TCP: &str = "TCP";

families! {
    REQUESTS = Counter "request_total", Linkerd, [HTTP], "HTTP requests begun.";
    RESPONSES = Counter "response_total", Linkerd, ["HTTP, `status_code`, `classification`, `grpc_status`, `error`"], "HTTP responses ended, by status and classification.";
    LATENCY = Histogram "response_latency_ms", Linkerd, [HTTP], "Time from the arrival of a request to the head of its response, in milliseconds.";
    TCP_OPEN = Counter "tcp_open_total", Linkerd, [TCP], "Connections opened.";
    TCP_OPEN_NOW = Gauge "tcp_open_connections", Linkerd, [TCP], "Connections open now.";
    TCP_READ = Counter "tcp_read_bytes_total", Linkerd, [TCP], "Bytes read from peers.";
    TCP_WRITE = Counter "tcp_write_bytes_total", Linkerd, [TCP], "Bytes written to peers.";
    TCP_CLOSE = Counter "tcp_close_total", Linkerd, ["TCP, `errno`"], "Connections closed, by errno; empty for an orderly end.";
    HTTP_ALLOWED = Counter "inbound_http_authz_allow_total", Linkerd, ["HTTP, `authz_group`, `authz_kind`, `authz_name`"], "Requests to local workloads that policy allowed, by what allowed them.";
    HTTP_DENIED = Counter "inbound_http_authz_deny_total", Linkerd, [HTTP], "Requests to local workloads that policy denied.";
    HTTP_UNROUTED = Counter "inbound_http_route_not_found_total", Linkerd, [HTTP], "Requests to local workloads that none of their Server's routes is for.";
    TCP_ALLOWED = Counter "inbound_tcp_authz_allow_total", Linkerd, ["TCP, `authz_group`, `authz_kind`, `authz_name`"], "Opaque connections to local workloads that policy allowed, by what allowed them.";
    TCP_DENIED = Counter "inbound_tcp_authz_deny_total", Linkerd, [TCP], "Opaque connections to local workloads that policy denied.";
    TCP_TERMINATED = Counter "inbound_tcp_authz_terminate_total", Linkerd, [TCP], "Connections to local workloads that were ended because a policy that came later no longer allows them.";
    ROUTE_STATUSES = Counter "outbound_http_route_request_statuses_total", Linkerd, ["route, `http_status`, `error`"], "Requests that ended, all attempts together.";
    ROUTE_DURATION = Histogram "outbound_http_route_request_duration_seconds", Linkerd, ["route"], "Time from a request's arrival to the end of its response, all attempts together.";
    ROUTE_RETRIES = Counter "outbound_http_route_retry_requests_total", Linkerd, ["route"], "Attempts after the first.";
    ROUTE_RETRY_SUCCESSES = Counter "outbound_http_route_retry_successes_total", Linkerd, ["route"], "Requests that were sent again and then ended well.";
    ROUTE_RETRY_LIMIT = Counter "outbound_http_route_retry_limit_exceeded_total", Linkerd, ["route"], "Requests that failed with no attempt left.";
    ROUTE_RETRY_OVERFLOW = Counter "outbound_http_route_retry_overflow_total", Linkerd, ["route"], "Requests that failed and were not sent again for the budget of the Service, the time of the request or the size of its body.";
    BACKEND_REQUESTS = Counter "outbound_http_route_backend_requests_total", Linkerd, ["route, backend"], "Attempts begun.";
    BACKEND_STATUSES = Counter "outbound_http_route_backend_response_statuses_total", Linkerd, ["route, backend, `http_status`, `error`"], "Attempts that ended.";
    BACKEND_DURATION = Histogram "outbound_http_route_backend_response_duration_seconds", Linkerd, ["route, backend"], "Time from the begin of an attempt to the end of its response.";
    CALL_ROUTE_STATUSES = Counter "outbound_grpc_route_request_statuses_total", Linkerd, ["route, `grpc_status`, `error`"], "Calls of GRPCRoutes that ended, all attempts together.";
    CALL_ROUTE_DURATION = Histogram "outbound_grpc_route_request_duration_seconds", Linkerd, ["route"], "Time from a call's arrival to the end of its response, all attempts together.";
    CALL_ROUTE_RETRIES = Counter "outbound_grpc_route_retry_requests_total", Linkerd, ["route"], "Attempts of calls after the first.";
    CALL_ROUTE_RETRY_SUCCESSES = Counter "outbound_grpc_route_retry_successes_total", Linkerd, ["route"], "Calls of GRPCRoutes that were sent again and then ended well.";
    CALL_ROUTE_RETRY_LIMIT = Counter "outbound_grpc_route_retry_limit_exceeded_total", Linkerd, ["route"], "Calls of GRPCRoutes that failed with no attempt left.";
    CALL_ROUTE_RETRY_OVERFLOW = Counter "outbound_grpc_route_retry_overflow_total", Linkerd, ["route"], "Calls of GRPCRoutes that failed and were not sent again for the budget of the Service, the time of the call or the size of its body.";
    CALL_BACKEND_REQUESTS = Counter "outbound_grpc_route_backend_requests_total", Linkerd, ["route, backend"], "Attempts of calls begun.";
    CALL_BACKEND_STATUSES = Counter "outbound_grpc_route_backend_response_statuses_total", Linkerd, ["route, backend, `grpc_status`, `error`"], "Attempts of calls that ended.";
    CALL_BACKEND_DURATION = Histogram "outbound_grpc_route_backend_response_duration_seconds", Linkerd, ["route, backend"], "Time from the begin of an attempt to the end of its response.";
    PROFILE_REQUESTS = Counter "route_request_total", Linkerd, ["`direction`, `dst`, route"], "Requests of a ServiceProfile's routes, each with all its attempts.";
    PROFILE_RESPONSES = Counter "route_response_total", Linkerd, ["`direction`, `dst`, route, `status_code`, `classification`, `error`"], "Those of them that ended, by status and classification. One that its client gave up before there was an answer is none.";
    PROFILE_LATENCY = Histogram "route_response_latency_ms", Linkerd, ["`direction`, `dst`, route"], "Time from such a request's arrival to the end of its response, all attempts together, in milliseconds.";
    PROFILE_RETRYABLE = Counter "route_retryable_total", Linkerd, ["`direction`, `dst`, route, `skipped`"], "Responses after which such a request was sent again, or was not (`no_budget`: for the budget, the time of the request or the size of its body).";
    PROFILE_ATTEMPTS = Counter "route_actual_request_total", Linkerd, ["`direction`, `dst`, route, backend"], "Attempts of such requests.";
    PROFILE_ATTEMPT_RESPONSES = Counter "route_actual_response_total", Linkerd, ["`direction`, `dst`, route, backend, `status_code`, `classification`, `error`"], "Those of them that ended, by status and classification.";
    PROFILE_ATTEMPT_LATENCY = Histogram "route_actual_response_latency_ms", Linkerd, ["`direction`, `dst`, route, backend"], "Time from the begin of such an attempt to the end of its response, in milliseconds.";
    MIRRORED = Counter "weir_mirrored_requests_total", Weir, ["route, backend, `result`"], "Copies of requests for a mirror (the backend), by what became of them: `sent` (there was an answer), `failed`, `late` (no answer in time), `behind` (the mirror did not take the body fast enough), `cancelled` (the request itself broke off), `dropped` (not made: too many under way).";
    TLS_ROUTE_OPEN = Counter "outbound_tls_route_open_total", Linkerd, ["route"], "Connections that a TLSRoute took.";
    TLS_ROUTE_CLOSE = Counter "outbound_tls_route_close_total", Linkerd, ["route, `error`"], "Those of them that ended: empty, `invalid_backend` or `unexpected`.";
    TCP_ROUTE_OPEN = Counter "outbound_tcp_route_open_total", Linkerd, ["route"], "Connections that a TCPRoute took.";
    TCP_ROUTE_CLOSE = Counter "outbound_tcp_route_close_total", Linkerd, ["route, `error`"], "Those of them that ended: empty, `invalid_backend` or `unexpected`.";
    INBOUND_HTTP_ERRORS = Counter "inbound_http_errors_total", Linkerd, ["`error`"], "Requests to local workloads that the proxy itself answered with an error.";
    OUTBOUND_HTTP_ERRORS = Counter "outbound_http_errors_total", Linkerd, ["`error`"], "Requests of local workloads that the proxy itself answered with an error.";
    INBOUND_TCP_ERRORS = Counter "inbound_tcp_errors_total", Linkerd, ["`error`"], "Connections to local workloads that the proxy itself ended.";
    OUTBOUND_TCP_ERRORS = Counter "outbound_tcp_errors_total", Linkerd, ["`error`"], "Connections of local workloads that the proxy itself ended.";
    INBOUND_DETECT = Counter "inbound_tcp_detect_http_results_total", Linkerd, ["`result`"], "Results of protocol detection on connections to local workloads.";
    OUTBOUND_DETECT = Counter "outbound_tcp_detect_http_results_total", Linkerd, ["`result`"], "Results of protocol detection on connections of local workloads.";
    TRANSPORT_HEADERS = Counter "inbound_tcp_transport_header_connections_total", Linkerd, [""], "Connections that came with a transport header.";
    CERT_REFRESHES = Counter "identity_cert_refreshes_total", Linkerd, ["`result`"], "Certificates renewed, and failures to.";
    ACCESS_LOG_DROPPED = Counter "weir_access_log_dropped_total", Weir, [""], "Access log lines dropped because the writer was behind.";
    TLS_PASSED = Counter "weir_tls_passed_total", Weir, ["`direction`, `sni`"], "Connections with TLS of the application's own, passed through, by server name.";
    CERT_EXPIRATION = Gauge "identity_cert_expiration_timestamp_seconds", Linkerd, ["`identity`"], "When the certificate of an identity expires, Unix time.";
    BALANCER_ENDPOINTS = Gauge "outbound_http_balancer_endpoints", Linkerd, ["`parent_*`, `backend_*`, `endpoint_state`"], "Endpoints of services that this node has in use: `ready`, `pending` and, where there is a breaker, `ejected`.";
    BALANCER_EJECTIONS = Counter "outbound_http_balancer_ejections_total", Weir, ["`parent_*`, `backend_*`"], "How often a breaker took an endpoint out, trials that failed included; of services that have one.";
    CAPTURED = Gauge "weir_captured_workloads", Weir, ["`state`"], "Workloads of this node, captured or refused.";
    STOCK = Gauge "weir_sockets_in_stock", Weir, [""], "Sockets in pod namespaces made ahead of need.";
    CONTROL = Gauge "weir_control_connected", Weir, [""], "1 while the stream to control is up.";
    SERIES = Gauge "weir_series", Weir, ["`kind`"], "Series held, overflow series included.";
    SERIES_OVERFLOW = Counter "weir_series_overflow_total", Weir, ["`kind`"], "Lookups answered with an overflow series because a bound was reached.";
    CPU = Counter "process_cpu_seconds_total", Convention, [""], "User and system time of this process.";
    OPEN_FDS = Gauge "process_open_fds", Convention, [""], "Open descriptors.";
    MAX_FDS = Gauge "process_max_fds", Convention, [""], "Bound of open descriptors.";
    RESIDENT = Gauge "process_resident_memory_bytes", Convention, [""], "Resident memory.";
    VIRTUAL = Gauge "process_virtual_memory_bytes", Convention, [""], "Virtual memory.";
    THREADS = Gauge "process_threads", Convention, [""], "Threads.";
    START = Gauge "process_start_time_seconds", Convention, [""], "When this process began, Unix time.";
    BUILD = Gauge "proxy_build_info", Linkerd, ["`version`, `vendor`"], "Always 1; what runs is in the labels.";
}

/// `docs/metrics.md`, whole.
pub fn metrics_reference() -> String {
    let mut page = String::from(HEAD);
    page.push_str("| family | type | labels | stability | what |\n|---|---|---|---|---|\n");
    for family in ALL {
        let stability = match family.stability {
            Stability::Linkerd => "Linkerd's",
            Stability::Convention => "convention",
            Stability::Weir => "own",
        };
        let Family { name, help, labels, kind, .. } = family;
        page.push_str(&format!("| `{name}` | {} | {labels} | {stability} | {help} |\n", kind.name()));
    }
    page.push_str(LABELS);
    let bounds: Vec<String> = LATENCY_BOUNDS_MS.iter().map(u32::to_string).collect();
    let seconds: Vec<String> = ROUTE_BOUNDS.iter().map(f64::to_string).collect();
    page.push_str(&format!(
        "\n## Buckets\n\n`response_latency_ms`: {} and +Inf. Those in seconds: {} and +Inf.\n",
        bounds.join(", "),
        seconds.join(", ")
    ));
    page.push_str(&bounds_section());
    page
}

fn bounds_section() -> String {
    format!(
        "\n## Bounds\n\nConstants of `node-proxy/src/limits.rs`.\n\n| what | bound | over it |\n|---|---|---|\n\
         | series of one workload, per kind (HTTP, TCP, routes, their backends, their mirrors, their connections) | {} | one series per direction with the workload's labels and `overflow=\"true\"`; calls of GRPCRoutes among the requests of HTTPRoutes, connections of TLSRoutes among those of TCPRoutes |\n\
         | series of the node, per kind | {} | one series per direction with `overflow=\"true\"` |\n\
         | kinds of response of one series | {} | `status_code=\"overflow\"`, classification kept |\n\
         | close reasons of one series | {} | `errno=\"overflow\"` |\n\
         | server names of passed-through TLS | {} | `sni=\"overflow\"` |\n\
         | authority, bytes | {} | the label is left out |\n\n\
         Lookups that met a bound are counted in `weir_series_overflow_total`. A series without change for {} s, that no connection \
         holds, is dropped; one of a workload that left the node after {} s.\n",
        limits::SERIES_PER_WORKLOAD,
        limits::SERIES_PER_NODE,
        limits::RESPONSE_KINDS,
        limits::CLOSE_KINDS,
        limits::SNI_NAMES,
        limits::LABEL_BYTES,
        limits::SERIES_IDLE.as_secs(),
        limits::SERIES_LEFT.as_secs(),
    )
}

const HEAD: &str = "# Metrics of the node proxy

Made from the table in `node-proxy/src/telemetry/families.rs` by `WEIR_UPDATE_DOCS=1 cargo test -p weir-node metrics_reference`; a test keeps it true.

`GET /metrics` on the admin address (default `0.0.0.0:4191`) answers Prometheus text, OpenMetrics 1.0 when `Accept` asks for it, and
gzip when `Accept-Encoding` does. The proxy serves many pods: each series carries its workload's own labels, so scrape it with `honor_labels: true`.

*Stability*: Linkerd's names and labels follow Linkerd (2.17 and later); conventions follow Prometheus' client libraries; Weir's own may change
between minor versions. `promtool check metrics` has one remark, about the unit in `response_latency_ms`: the name is Linkerd's.

## Families

";

const LABELS: &str = "
## Labels

| group | labels |
|---|---|
| HTTP | `direction` (`inbound`, `outbound`), `authority` (outbound), target, TLS, identities, policy, workload, peer |
| TCP | `direction`, `peer` (`src`: accepted by the proxy, `dst`: opened by it), target, TLS, identities, policy, workload, peer |
| route | `parent_group`, `parent_kind`, `parent_namespace`, `parent_name`, `parent_port`, `parent_section_name` (the Service that was dialled), `route_group`, `route_kind`, `route_namespace`, `route_name` (the HTTPRoute, GRPCRoute, ServiceProfile or TrafficSplit; `default` and `http` without), of the latter two `rt_route` (the profile's own route; `[DEFAULT]` for what falls under none), workload |
| backend | `backend_group`, `backend_kind`, `backend_namespace`, `backend_name`, `backend_port`, `backend_section_name` |
| target | `target_addr`, `target_ip`, `target_port` |
| TLS | `tls` (`true`, `disabled`, `no_identity`, `opaque`), `no_tls_reason`, `sni` |
| identities | `client_id`, `server_id` |
| policy (inbound) | `srv_group`, `srv_kind`, `srv_name`, `srv_port`; HTTP: `route_group`, `route_kind`, `route_name` (the Server's route that the request falls under; `default` without) |
| workload | `namespace`, `pod`, `serviceaccount`, `zone`, `pod_template_hash`, and one of `deployment`, `statefulset`, `daemonset`, `cronjob`, `k8s_job`, `replicaset`, `replicationcontroller`; of other owners `workload_kind`, `workload_name` |
| peer | the same with `dst_` (outbound; `dst_job` for jobs) or `src_` (inbound, pods of this node only), and `dst_service`, with `dst_service_namespace` when no pod is known |

Labels without a value are left out. `response_latency_ms` has no `status_code`: one histogram per series.
";
