//! Sends a request again where its rule asks for it, as long as its Service's budget and its own time last.
//!
//! Must never send again what has reached the client, and never wait for a response in order to know whether to.

use std::{sync::Arc, time::Instant};

use ::http::{Request, Response};
use http_body::{Body as _, Frame};
use weir_core::{
    grpc,
    proxy_error::ProxyError,
    retry::{Budget, Retry},
};

use super::{
    choose::Goal,
    http::{Arrival, Outbound, Route},
};
use crate::{
    body::Body,
    deadline::{Deadline, within},
    http as server, limits,
    replay::Replay,
    respond,
    telemetry::{RetryEvent, RouteSeries},
};

/// A request that can be sent more than once.
pub(super) struct Again {
    head: Request<()>,
    /// None where there is none.
    body: Option<Replay>,
}

impl Again {
    /// Whether one can be: not an upgrade, nor a body that is too large to be kept.
    pub(super) fn is_for(request: &Request<Body>) -> bool {
        !server::wants_upgrade(request) && Replay::is_for(request.body())
    }

    pub(super) fn new(request: Request<Body>) -> Again {
        let (parts, body) = request.into_parts();
        let body = (!body.is_end_stream()).then(|| Replay::new(body));
        Again { head: Request::from_parts(parts, ()), body }
    }

    fn attempt(&self, deadline: Option<&Deadline>) -> Request<Body> {
        let body = self.body.as_ref().map_or_else(Body::empty, |body| Body::attempt(body.attempt()));
        let body = match deadline {
            Some(deadline) => body.told(deadline.progress()),
            None => body,
        };
        self.head.clone().map(|()| body)
    }

    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_whole)
    }
}

/// How a request was sent, and how it may be sent again.
pub(super) struct Persistence<'a> {
    pub(super) goal: &'a Goal,
    pub(super) retry: &'a Retry,
    pub(super) arrival: Arrival,
    pub(super) series: Option<&'a RouteSeries>,
}

impl Outbound {
    /// Sends it, and again.
    pub(super) async fn persist(
        &self,
        how: Persistence<'_>,
        request: Again,
        mut deadline: Option<&mut Deadline>,
    ) -> Result<Response<Body>, ProxyError> {
        let Persistence { goal, retry, arrival, series } = how;
        let count = |event| {
            if let Some(series) = series {
                series.retried(event);
            }
        };
        let budget = goal.service().map(|service| Arc::clone(&service.retry_budget));
        if let Some(budget) = &budget {
            budget.request(self.now());
        }
        let mut failed: Option<Arc<Route>> = None;
        let (mut before, mut attempted) = (0, arrival);
        loop {
            let is_last = before == retry.limit;
            if let Some(deadline) = &mut deadline {
                deadline.prepare(is_last);
            }
            let attempt = request.attempt(deadline.as_deref());
            let mut sent = self.balance(goal, attempt, attempted, deadline.as_deref_mut(), &mut failed).await;
            if !wants_another(retry, &mut sent, arrival.grpc).await {
                if before > 0 && sent.is_ok() {
                    count(RetryEvent::Success);
                }
                return sent;
            }
            if is_last {
                count(RetryEvent::LimitExceeded);
                return sent;
            }
            let pause = retry.pause(before, fastrand::u64(..));
            let has_time = deadline.as_ref().is_none_or(|deadline| deadline.allows(pause));
            if !has_time || !request.is_whole() || !self.may_add(budget.as_deref()) {
                count(RetryEvent::Overflow);
                return sent;
            }
            if let Ok(response) = sent {
                response.into_body().read_away();
            }
            match deadline.as_deref_mut() {
                None => tokio::time::sleep(pause).await,
                Some(deadline) => {
                    deadline.pause();
                    within(deadline, tokio::time::sleep(pause)).await.map_err(ProxyError::Timeout)?;
                }
            }
            before += 1;
            attempted.started = Instant::now();
            count(RetryEvent::Request);
        }
    }

    fn may_add(&self, budget: Option<&Budget>) -> bool {
        budget.is_none_or(|budget| budget.take(self.now()))
    }
}

/// Whether this is an end that the rule asks to try to better.
async fn wants_another(retry: &Retry, sent: &mut Result<Response<Body>, ProxyError>, grpc: bool) -> bool {
    match sent {
        Err(error) => retry.is_for_error(*error, grpc),
        Ok(response) => {
            let code = if grpc { code(retry, response).await } else { None };
            retry.is_for_response(response.status().as_u16(), code)
                || (retry.is_for_unanswered() && respond::is_unanswered(response))
        }
    }
}

/// The gRPC status, of a response that has nothing else to say.
async fn code(retry: &Retry, response: &mut Response<Body>) -> Option<u32> {
    if let Some(code) = grpc::status(response.headers()) {
        return Some(code);
    }
    if !retry.has_codes() || response.body().is_end_stream() {
        return None;
    }
    let first = tokio::time::timeout(limits::RETRY_PEEK, response.body_mut().peek()).await;
    first.ok()?.ok()?.and_then(Frame::trailers_ref).and_then(grpc::status)
}
