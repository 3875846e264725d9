//! One attempt as failure accrual sees it: what its end says about the endpoint, for the breaker and the load bias of its Service.
//!
//! Must never blame an endpoint for what its client did: one client's short deadline or broken upload is felt by it alone.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ::http::{HeaderMap, Response, header};
use weir_core::{
    breaker::{Admission, Breaker, Change, Outcome},
    classify::{self, Classes, Classification},
    grpc,
    load::LoadBias,
    snapshot::Endpoint,
    timeouts::Limit,
};

use super::choose::Goal;
use crate::{body::Body, deadline::Own, proxy::Worker};

const TOO_MANY_REQUESTS: u16 = 429;
const GATEWAY_TIMEOUT: u16 = 504;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;

/// An attempt whose end is not known yet. Dropped, it says nothing about the endpoint.
pub struct Accrual {
    worker: Arc<Worker>,
    endpoint: Arc<Endpoint>,
    breaker: Option<Arc<Breaker>>,
    bias: Option<LoadBias>,
    admission: Admission,
    classes: Option<Arc<Classes>>,
    /// What of its limits is the client's doing.
    own: Own,
    is_over: bool,
}

impl Accrual {
    /// None where the Service asks for nothing of it.
    pub(super) fn begin(
        worker: &Arc<Worker>,
        goal: &Goal,
        endpoint: Option<&Arc<Endpoint>>,
        admission: Admission,
        own: Own,
    ) -> Option<Box<Accrual>> {
        let (service, endpoint) = (goal.service()?, endpoint?);
        let (breaker, bias) = (service.breaker.clone(), service.load_bias);
        if breaker.is_none() && bias.is_none() {
            return None;
        }
        let (worker, endpoint) = (Arc::clone(worker), Arc::clone(endpoint));
        let classes = goal.classes.clone().filter(|_| goal.is_of_judged());
        Some(Box::new(Accrual { worker, endpoint, breaker, bias, admission, classes, own, is_over: false }))
    }

    /// A response began. What its head cannot say, its end will.
    pub(super) fn answered(mut self: Box<Self>, response: &mut Response<Body>, is_grpc: bool) {
        if response.extensions().get::<ClientsFault>().is_some() {
            return;
        }
        let status = response.status().as_u16();
        let code = if is_grpc { grpc::status(response.headers()) } else { None };
        let classes = self.classes.as_deref();
        if code.is_some() || classify::of_response(classes, status, false, None) == Classification::Failure {
            let after =
                self.bias.is_some() || self.breaker.as_ref().is_some_and(|one| one.settings().honor_retry_after);
            let after = if after { retry_after(response.headers()) } else { None };
            return self.classified(status, code, after);
        }
        if status == TOO_MANY_REQUESTS {
            return self.ended(Outcome::Limited(retry_after(response.headers())));
        }
        if !is_grpc {
            self.streams();
        }
        response.body_mut().accrue(status, self);
    }

    /// A response ended in order.
    pub fn classified(&mut self, status: u16, code: Option<u32>, retry_after: Option<Duration>) {
        let is_clients = match code {
            Some(DEADLINE_EXCEEDED) => self.is_late_for_client(),
            // Most often a policy's word about this one client.
            Some(PERMISSION_DENIED) => true,
            None => status == GATEWAY_TIMEOUT && self.is_late_for_client(),
            _ => false,
        };
        if is_clients {
            return;
        }
        let is_limited = status == TOO_MANY_REQUESTS || code == Some(RESOURCE_EXHAUSTED);
        let classification = classify::of_response(self.classes.as_deref(), status, code.is_some(), code);
        self.ended(match classification {
            Classification::Failure => Outcome::Failure(retry_after),
            Classification::Success if is_limited => Outcome::Limited(retry_after),
            Classification::Success => Outcome::Success,
        });
    }

    /// Whether the server may have given up because of the client's own deadline: not where it says so at once.
    fn is_late_for_client(&self) -> bool {
        self.own.is_near.is_some_and(|near| near <= Instant::now())
    }

    /// There was no response, or none to its end.
    pub fn broken(&mut self) {
        self.ended(Outcome::Failure(None));
    }

    /// There was none in time. `is_sent`: the whole request had gone out, and only the server was waited for.
    pub(super) fn timed_out(&mut self, limit: Limit, is_sent: bool) {
        if is_sent && !self.own.limits.has(limit) {
            self.broken();
        }
    }

    /// No connection came about. The balancer goes by that; whether it is the endpoint's fault, or a policy's for this client, is not known: a
    /// trial that ends so is none, and the next one is made after the least time out.
    pub(super) fn unreached(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        if let (Some(breaker), Some(health)) = (&self.breaker, &self.endpoint.health) {
            let shared = &self.worker.shared;
            if health.abandoned(shared.now() + breaker.settings().min_penalty, self.admission) {
                // Who waits has to look anew when that is.
                shared.queues.available();
            }
        }
    }

    /// A stream of answers has begun. That is enough for a trial: else who answers with one that lasts for hours, or until its client leaves,
    /// would be out for as long.
    pub fn streams(&mut self) {
        if !self.is_over && matches!(self.admission, Admission::Trial(_)) {
            self.ended(Outcome::Success);
        }
    }

    fn ended(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let shared = &self.worker.shared;
        let now = shared.now();
        if let (Some(bias), Outcome::Limited(after) | Outcome::Failure(after)) = (self.bias, outcome) {
            self.endpoint.load.observe(now, bias.cost(after));
        }
        let (Some(breaker), Some(health)) = (&self.breaker, &self.endpoint.health) else { return };
        let address = self.endpoint.address;
        match breaker.ended(health, now, self.admission, outcome, fastrand::u64(..)) {
            Some(Change::Ejected(penalty)) => {
                tracing::info!(%address, pod = %self.endpoint.pod.name, ?penalty, "endpoint keeps failing: taken out");
            }
            Some(Change::Reinstated) => {
                tracing::info!(%address, pod = %self.endpoint.pod.name, "endpoint is well again: back in");
                shared.queues.available();
            }
            None => {}
        }
    }
}

impl Drop for Accrual {
    fn drop(&mut self) {
        if let Some(health) = self.endpoint.health.as_ref().filter(|_| !self.is_over)
            && health.abandoned(self.worker.shared.now(), self.admission)
        {
            self.worker.shared.queues.available();
        }
    }
}

/// Marks a response of this node's receiving half to a request whose own body failed.
#[derive(Clone, Copy, Debug)]
pub struct ClientsFault;

/// Seconds, or a date (RFC 9110 10.2.3); none of what is neither, or past.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(read(&soon).is_some_and(|after| (58..=60).contains(&after.as_secs())), "{soon}");
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        for wrong in ["-1", "1.5", "soon", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
