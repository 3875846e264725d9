//! One request as the series of its route see it, and one try of it at one endpoint, as its balancer and series do. Must never leave an
//! endpoint with load that is over, nor a request uncounted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::Response;

use weir_core::{classify::Classification, timeouts::Limit};

use super::{Accrual, Client, http::Route};
use crate::{body::Body, limits, telemetry::RouteSeries, upstream::SendError};

/// A request that its route counts when it is over: as cancelled when it is dropped before.
pub(super) struct Asked {
    pub(super) series: Option<Arc<RouteSeries>>,
    arrived: Instant,
}

impl Asked {
    pub(super) fn begin(series: Option<Arc<RouteSeries>>, arrived: Instant) -> Asked {
        if let Some(series) = &series {
            series.request();
        }
        Asked { series, arrived }
    }

    /// What is left to count is the response's.
    pub(super) fn answered(mut self, response: &mut Response<Body>) {
        if let Some(series) = self.series.take() {
            let status = response.status().as_u16();
            response.body_mut().of_route(status, series, self.arrived);
        }
    }

    /// There is no response but the proxy's own.
    pub(super) fn failed(mut self, error: &'static str) {
        self.end(error, Some(Classification::Failure));
    }

    fn end(&mut self, error: &'static str, class: Option<Classification>) {
        if let Some(series) = self.series.take() {
            series.ended(None, Some(error), class, self.arrived.elapsed());
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.end("cancelled", None);
    }
}

/// Counted as open until it is over. Dropped, when its client is seen to wait no longer, it counts with the time that it took until then.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    route: &'a Route,
    began: Duration,
    accrual: Option<Box<Accrual>>,
    is_over: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn begin(client: &'a Client, route: &'a Route, accrual: Option<Box<Accrual>>) -> Attempt<'a> {
        let began = client.worker.shared.now();
        if let Some(endpoint) = &route.path.endpoint {
            endpoint.load.start(began);
        }
        route.series.request();
        if let Some(attempts) = &route.attempts {
            attempts.request();
        }
        Attempt { client, route, began, accrual, is_over: false }
    }

    /// When it did.
    pub(super) fn began(&self) -> Instant {
        self.client.worker.shared.epoch + self.began
    }

    /// What is left to count is the response's.
    pub(super) fn answered(mut self, response: &mut Response<Body>, is_grpc: bool) {
        self.is_over = true;
        if let Some(accrual) = self.accrual.take() {
            accrual.answered(response, is_grpc);
        }
    }

    /// There is no response.
    pub(super) fn failed(mut self, error: &SendError) {
        tracing::debug!(%error, pod = %self.client.workload.pod.name, "request not answered");
        // A client that breaks its own request off says nothing about the endpoint.
        let cost = if error.is_clients() { self.took() } else { limits::FAILURE_COST };
        self.end(cost);
        if let Some(mut accrual) = self.accrual.take() {
            match error {
                SendError::Dial(_) => accrual.unreached(),
                // Dropped, it says nothing.
                error if error.is_clients() => {}
                SendError::Broken { .. } | SendError::KeepsClosing { .. } => accrual.broken(),
            }
        }
        self.count(502, error.told().label(), Duration::ZERO);
    }

    /// There was none in time. `is_sent`: the whole request had gone out.
    pub(super) fn timed_out(mut self, limit: Limit, is_sent: bool) {
        let took = self.took();
        self.end(took);
        if let Some(mut accrual) = self.accrual.take() {
            accrual.timed_out(limit, is_sent);
        }
        self.count(504, limit.as_str(), took);
    }

    fn count(&self, status: u16, error: &'static str, latency: Duration) {
        self.route.series.response(status, Classification::Failure, None, Some(error), latency);
        if let Some(attempts) = &self.route.attempts {
            attempts.ended(None, Some(error), Some(Classification::Failure), self.took());
        }
    }

    fn took(&self) -> Duration {
        self.client.worker.shared.now().saturating_sub(self.began)
    }

    fn end(&mut self, took: Duration) {
        self.is_over = true;
        if let Some(endpoint) = &self.route.path.endpoint {
            endpoint.load.finish(self.client.worker.shared.now(), took);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let took = self.took();
            self.end(took);
            if let Some(attempts) = &self.route.attempts {
                attempts.ended(None, Some("cancelled"), None, took);
            }
        }
    }
}
