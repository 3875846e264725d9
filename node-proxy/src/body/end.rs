//! What is counted and let go when a response ends, whichever way it ends. Must never count one twice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::HeaderMap;
use weir_core::{
    classify::{self, Classes, Classification},
    snapshot::Endpoint,
};

use crate::{
    access_log::AccessEntry,
    outbound::Accrual,
    pool::{Http1, PoolKey, StreamGuard},
    proxy::Worker,
    telemetry::{Answered, HttpSeries, RouteSeries},
};

/// What holds the upstream connection until the response has ended.
pub enum Held {
    /// HTTP/1: goes back to the pool of this worker.
    Http1(Arc<Worker>, Arc<PoolKey>, Http1),
    /// HTTP/2: one stream less.
    Http2(StreamGuard),
    /// Nothing, as when the other half of this process answered.
    Nothing,
}

/// Counts one response when it ends, whichever way it ends.
pub struct ResponseEnd {
    /// Where the response is counted.
    pub series: Arc<HttpSeries>,
    /// Status of the response.
    pub status: u16,
    /// Whether trailers decide the classification.
    pub grpc: bool,
    /// gRPC status seen in the headers.
    pub grpc_status: Option<u32>,
    /// What its rule says that responses count as.
    pub classes: Option<Arc<Classes>>,
    /// Label of the error that this proxy answered with.
    pub error: Option<&'static str>,
    /// From the request's arrival to the response's head.
    pub latency: Duration,
    /// Whose load ends here.
    pub endpoint: Option<(Arc<Endpoint>, Duration)>,
    /// The upstream connection.
    pub held: Held,
    /// Where the attempt is counted for its route's backend, and when it began.
    pub attempt: Option<(Arc<RouteSeries>, Instant)>,
    /// Where the request is counted for its route, and when it arrived.
    pub request: Option<(Arc<RouteSeries>, Instant)>,
    /// What breaks or biases its endpoint, if its Service wants that.
    pub accrual: Option<Box<Accrual>>,
    /// One line of the access log, if the workload wants it.
    pub access: Option<Box<AccessEntry>>,
    /// Counted already.
    pub done: bool,
}

impl ResponseEnd {
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(access) = &mut self.access {
            access.response_bytes += bytes as u64;
        }
    }

    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) {
        if self.done {
            return;
        }
        if let Some(status) = trailers.and_then(weir_core::grpc::status) {
            self.grpc_status = Some(status);
        }
        self.count(self.classification());
        if let Some(mut accrual) = self.accrual.take() {
            accrual.classified(self.status, self.grpc_status.filter(|_| self.grpc), None);
        }
        if let Held::Http1(worker, key, connection) = std::mem::replace(&mut self.held, Held::Nothing) {
            worker.pool.put_http1(&key, connection);
        }
    }

    /// By what is known of it so far.
    pub(super) fn classification(&self) -> Classification {
        classify::of_response(self.classes.as_deref(), self.status, self.grpc, self.grpc_status)
    }

    pub(super) fn fail(&mut self) {
        if !self.done {
            self.error = self.error.or(Some("i/o"));
            self.count(Classification::Failure);
            if let Some(mut accrual) = self.accrual.take() {
                accrual.broken();
            }
        }
        self.held = Held::Nothing;
    }

    fn count(&mut self, classification: Classification) {
        self.done = true;
        self.series.response(self.status, classification, self.grpc_status, self.error, self.latency);
        if let Some((endpoint, now)) = self.endpoint.take() {
            endpoint.load.finish(now, self.latency);
        }
        if self.attempt.is_some() || self.request.is_some() {
            let now = Instant::now();
            for (series, began) in [&self.attempt, &self.request].into_iter().flatten() {
                let answered = Answered { http: self.status, grpc: self.grpc_status };
                series.ended(Some(answered), self.error, Some(classification), now.duration_since(*began));
            }
        }
        if let Some(access) = self.access.take() {
            access.log();
        }
    }
}

impl Drop for ResponseEnd {
    fn drop(&mut self) {
        // The client went away before the end: no fault of the server, whose connection is closed with it.
        if !self.done {
            let known = || classify::of_response(self.classes.as_deref(), self.status, false, None);
            let classification = if self.grpc { Classification::Success } else { known() };
            self.error = self.error.or(Some("cancelled"));
            self.count(classification);
        }
    }
}
