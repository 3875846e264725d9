//! One try of a request at one endpoint, as its balancer and series see it. Must never leave an endpoint with load that is over.

use std::time::Duration;

use weir_core::{classify::Classification, timeouts::Limit};

use super::{
    Client,
    http::{Route, refused},
};
use crate::{limits, upstream::SendError};

/// Counted as open until it is over. Dropped, when its client is seen to wait no longer, it counts with the time that it took until then.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    route: &'a Route,
    began: Duration,
    is_over: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn begin(client: &'a Client, route: &'a Route) -> Attempt<'a> {
        let began = client.worker.shared.now();
        if let Some(endpoint) = &route.path.endpoint {
            endpoint.load.start(began);
        }
        route.series.request();
        Attempt { client, route, began, is_over: false }
    }

    /// What is left to count is the response's.
    pub(super) fn answered(mut self) {
        self.is_over = true;
    }

    /// There is no response.
    pub(super) fn failed(mut self, error: &SendError) {
        tracing::debug!(%error, pod = %self.client.workload.pod.name, "request not answered");
        self.end(limits::FAILURE_COST);
        self.count(502, refused(error).label(), Duration::ZERO);
    }

    /// There was none in time.
    pub(super) fn timed_out(mut self, limit: Limit) {
        let took = self.took();
        self.end(took);
        self.count(504, limit.as_str(), took);
    }

    fn count(&self, status: u16, error: &'static str, latency: Duration) {
        self.route.series.response(status, Classification::Failure, None, Some(error), latency);
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
        }
    }
}
