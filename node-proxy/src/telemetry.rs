//! Metrics: typed labels, bounded registries of series, and their text.
//!
//! Whoever serves a connection looks its series up once and keeps the handle; per request there are only relaxed atomic
//! additions. Must never make traffic wait for a scrape, and never hold more series than `limits.rs` says.

mod connections;
mod counters;
mod decisions;
mod durations;
mod errno;
mod exposition;
#[cfg(test)]
pub(crate) mod fake;
mod families;
mod gauges;
mod histogram;
mod labels;
mod mirrors;
mod process;
mod registry;
mod routes;
mod series;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod text;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_core::{detect::Detected, proxy_error::ProxyError, snapshot::PodRef};

pub use self::{
    connections::{ConnectionSeries, OpenConnection},
    exposition::Exposition,
    families::metrics_reference,
    histogram::LATENCY_BOUNDS_MS,
    labels::{Direction, HttpLabels, TcpLabels, TlsLabel},
    mirrors::{MirrorSeries, Mirrored, OpenMirror},
    routes::{Answered, RetryEvent, RouteKind, RouteLabels, RouteSeries, ServiceRef},
    series::{HttpSeries, TcpGuard, TcpSeries},
    state::{Capture, Certificate, NodeState},
    text::Format,
};
use self::{
    counters::Counters,
    registry::{Bounds, Registry},
};
pub(crate) use self::{
    durations::{DURATION_BOUNDS_MS, DURATION_BUCKETS},
    histogram::BUCKETS,
    routes::RouteCounts,
    series::{HttpCounts, Subject, TcpCounts},
};
use crate::limits;

/// All that this process counts.
pub struct Telemetry {
    epoch: Instant,
    http: Registry<HttpLabels, HttpSeries>,
    tcp: Registry<TcpLabels, TcpSeries>,
    routes: Registry<RouteLabels, RouteSeries>,
    backends: Registry<RouteLabels, RouteSeries>,
    mirrors: Registry<RouteLabels, MirrorSeries>,
    connections: Registry<RouteLabels, ConnectionSeries>,
    counters: Counters,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry::new()
    }
}

impl Telemetry {
    /// Nothing counted yet, bounds of `limits.rs`.
    pub fn new() -> Telemetry {
        Telemetry::bounded(Bounds { per_workload: limits::SERIES_PER_WORKLOAD, per_node: limits::SERIES_PER_NODE })
    }

    fn bounded(bounds: Bounds) -> Telemetry {
        Telemetry {
            epoch: Instant::now(),
            http: Registry::new(bounds),
            tcp: Registry::new(bounds),
            routes: Registry::new(bounds),
            backends: Registry::new(bounds),
            mirrors: Registry::new(bounds),
            connections: Registry::new(bounds),
            counters: Counters::default(),
        }
    }

    /// The series of these labels. Look it up once per connection and endpoint, and keep it.
    pub fn http(&self, labels: &HttpLabels) -> Arc<HttpSeries> {
        if labels.authority.as_ref().is_some_and(|authority| authority.len() > limits::LABEL_BYTES) {
            return self.http.get(&HttpLabels { authority: None, ..labels.clone() }, self.epoch.elapsed());
        }
        self.http.get(labels, self.epoch.elapsed())
    }

    /// The series of these labels. Look it up once per connection.
    pub fn tcp(&self, labels: &TcpLabels) -> Arc<TcpSeries> {
        self.tcp.get(labels, self.epoch.elapsed())
    }

    /// The series of these labels, of a route or of one of its backends. Look it up once per connection.
    pub fn route(&self, labels: &RouteLabels) -> Arc<RouteSeries> {
        let registry = if labels.backend.is_some() { &self.backends } else { &self.routes };
        registry.get(labels, self.epoch.elapsed())
    }

    /// The series of these labels, of copies to the backend that they name. Look it up once per connection.
    pub fn mirror(&self, labels: &RouteLabels) -> Arc<MirrorSeries> {
        self.mirrors.get(labels, self.epoch.elapsed())
    }

    /// The series of these labels, of connections that the route decides about. Look it up once per connection.
    pub fn connections(&self, labels: &RouteLabels) -> Arc<ConnectionSeries> {
        self.connections.get(labels, self.epoch.elapsed())
    }

    /// The proxy itself answered a request with an error.
    pub fn http_error(&self, direction: Direction, error: &ProxyError) {
        self.counters.http_error(direction, error.label());
    }

    /// The proxy itself ended a connection.
    pub fn tcp_error(&self, direction: Direction, error: &ProxyError) {
        self.counters.tcp_error(direction, error.label());
    }

    /// A protocol was detected from the first bytes.
    pub fn detect(&self, direction: Direction, detected: Detected) {
        self.counters.detected(direction, detected);
    }

    /// The first bytes took too long, so that the connection is opaque.
    pub fn detect_timeout(&self, direction: Direction) {
        self.counters.detect_timeout(direction);
    }

    /// A connection came with a transport header.
    pub fn transport_header(&self) {
        self.counters.transport_header();
    }

    /// TLS of the application's own was passed through; `server_name` as the client sent it.
    pub fn passed_tls(&self, direction: Direction, server_name: Option<&str>) {
        self.counters.passed_tls(direction, server_name);
    }

    /// A certificate was renewed, or could not be.
    pub fn certificate_refresh(&self, success: bool) {
        self.counters.certificate_refresh(success);
    }

    /// A line of the access log found no room.
    pub fn access_log_dropped(&self) {
        self.counters.access_log_dropped();
    }

    /// A scrape of everything, in pieces of about `limits::SCRAPE_CHUNK`.
    pub fn scrape(&self, state: &dyn NodeState, format: Format) -> Exposition {
        Exposition::new(self, state, format)
    }

    /// Hands over the growth of every series since the last call, and drops idle ones. `now` since any fixed moment
    /// that is not before this process began; `live` tells whether a workload is still on this node.
    pub(crate) fn advance(
        &self,
        now: Duration,
        live: impl Fn(&PodRef) -> bool,
        http: impl FnMut(&HttpSeries, HttpCounts),
        tcp: impl FnMut(&TcpSeries, TcpCounts),
        mut routes: impl FnMut(&RouteSeries, RouteKind, RouteCounts),
    ) {
        self.http.advance(now, &live, http);
        self.tcp.advance(now, &live, tcp);
        self.routes.advance(now, &live, |series, growth| routes(series, RouteKind::Requests, growth));
        self.backends.advance(now, &live, |series, growth| routes(series, RouteKind::Attempts, growth));
        self.mirrors.advance(now, &live, |_, ()| ());
        self.connections.advance(now, &live, |_, ()| ());
    }

    /// Time since this process began to count.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Connection series of this moment, for gauges.
    pub(crate) fn tcp_series(&self) -> Vec<Arc<TcpSeries>> {
        self.tcp.all()
    }
}
