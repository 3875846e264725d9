//! Sends a request again where its rule asks for it, as long as its Service's budget and its own time last.
//!
//! Must never send again what has reached the client, nor hold a response back for longer than `limits::RETRY_PEEK`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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

    /// What is kept of a request, and its first attempt.
    fn begin(request: Request<Body>) -> (Again, Request<Body>) {
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts.clone(), ());
        if body.is_end_stream() {
            return (Again { head, body: None }, Request::from_parts(parts, body));
        }
        let (kept, body) = Replay::begin(body);
        (Again { head, body: Some(kept) }, Request::from_parts(parts, Body::attempt(body)))
    }

    /// The next attempt; none where the body cannot be sent again. From now on the one before sends no more.
    fn attempt(&self, deadline: Option<&Deadline>) -> Option<Request<Body>> {
        let body = match &self.body {
            Some(body) => Body::attempt(body.attempt()?),
            None => Body::empty(),
        };
        let body = match deadline {
            Some(deadline) => body.told(deadline.progress()),
            None => body,
        };
        Some(self.head.clone().map(|()| body))
    }

    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_whole)
    }
}

/// How a request may be sent again.
pub(super) struct Persistence<'a> {
    goal: &'a Goal,
    retry: &'a Retry,
    arrival: Arrival,
    series: Option<&'a RouteSeries>,
    request: Again,
    budget: Option<Arc<Budget>>,
}

impl<'a> Persistence<'a> {
    /// Keeps what the request is sent again by; and its first attempt.
    pub(super) fn begin(
        outbound: &Outbound,
        goal: &'a Goal,
        retry: &'a Retry,
        arrival: Arrival,
        series: Option<&'a RouteSeries>,
        request: Request<Body>,
    ) -> (Persistence<'a>, Request<Body>) {
        let budget = goal.budget().map(Arc::clone);
        if let Some(budget) = &budget {
            budget.request(outbound.now());
        }
        let (request, first) = Again::begin(request);
        (Persistence { goal, retry, arrival, series, request, budget }, first)
    }

    /// Whether nothing may follow the first attempt.
    pub(super) fn is_once(&self) -> bool {
        self.retry.limit == 0
    }

    /// An attempt that nothing may follow has no time of its own.
    pub(super) fn watch_over(&self, outbound: &Outbound, deadline: &mut Deadline) {
        if self.retry.timeout.is_none() {
            return;
        }
        let (worker, body) = (Arc::clone(&outbound.client.worker), self.request.body.clone());
        let budget = self.budget.clone();
        deadline.set_gate(move || {
            body.as_ref().is_none_or(Replay::is_whole)
                && budget.as_ref().is_none_or(|budget| budget.has_left(worker.shared.now()))
        });
    }

    /// Whether this is an end that the rule asks to try to better.
    pub(super) async fn wants_another(&self, sent: &mut Result<Response<Body>, ProxyError>) -> bool {
        wants_another(self.retry, sent, self.arrival.grpc).await
    }

    fn count(&self, event: RetryEvent) {
        if let Some(series) = self.series {
            series.retried(event);
        }
    }
}

impl Outbound {
    /// Sends again what ended so and was at `failed`, until an end is good enough.
    pub(super) async fn persist(
        &self,
        mut how: Persistence<'_>,
        mut sent: Result<Response<Body>, ProxyError>,
        mut failed: Option<Arc<Route>>,
        mut deadline: Option<&mut Deadline>,
    ) -> Result<Response<Body>, ProxyError> {
        let mut goal = how.goal.clone();
        let mut before = 0;
        while before < how.retry.limit {
            let pause = how.retry.pause(before, fastrand::u64(..));
            let Some(attempt) = self.next(&how, &goal, pause, deadline.as_deref()) else {
                how.count(RetryEvent::Overflow);
                return sent;
            };
            if let Ok(response) = sent {
                response.into_body().read_away();
            }
            rest(pause, deadline.as_deref_mut()).await?;
            if let Some(present) = self.client.worker.shared.store.snapshot().destination(&self.client.target) {
                goal = goal.in_present(present);
            }
            before += 1;
            how.arrival.started = Instant::now();
            how.count(RetryEvent::Request);
            if let Some(deadline) = &mut deadline {
                deadline.prepare(before == how.retry.limit);
            }
            sent = self.balance(&goal, attempt, how.arrival, deadline.as_deref_mut(), &mut failed).await;
            if !how.wants_another(&mut sent).await {
                if sent.is_ok() {
                    how.count(RetryEvent::Success);
                }
                return sent;
            }
        }
        how.count(RetryEvent::LimitExceeded);
        sent
    }

    /// The next attempt, where one may be made. Made before the pause: what the attempt before it would still read is this one's.
    fn next(
        &self,
        how: &Persistence<'_>,
        goal: &Goal,
        pause: Duration,
        deadline: Option<&Deadline>,
    ) -> Option<Request<Body>> {
        let has_time = deadline.is_none_or(|deadline| deadline.allows(pause));
        let may_add = || how.budget.as_ref().is_none_or(|budget| budget.take(self.now()));
        // Else it would wait, and meet failfast instead of this answer.
        let is_there = || goal.service().is_none_or(|service| service.is_available(self.now()));
        let is_allowed = has_time && how.request.is_whole() && is_there() && may_add();
        if is_allowed { how.request.attempt(deadline) } else { None }
    }
}

/// Waits, as long as the request's own time lasts.
async fn rest(pause: Duration, deadline: Option<&mut Deadline>) -> Result<(), ProxyError> {
    let sleep = tokio::time::sleep(pause);
    match deadline {
        None => sleep.await,
        Some(deadline) => {
            deadline.pause();
            within(deadline, sleep).await.map_err(ProxyError::Timeout)?;
        }
    }
    Ok(())
}

/// Whether this is an end that the rule asks to try to better.
async fn wants_another(retry: &Retry, sent: &mut Result<Response<Body>, ProxyError>, grpc: bool) -> bool {
    let (status, code) = match sent {
        Err(error) => return retry.is_for_error(*error, grpc),
        Ok(response) if retry.is_for_unanswered() && respond::is_unanswered(response) => return true,
        Ok(response) if grpc => (response.status().as_u16(), code(retry, response).await),
        Ok(response) => (response.status().as_u16(), Ok(None)),
    };
    match code {
        Ok(code) => retry.is_for_response(status, code),
        Err(Broken) => {
            *sent = Err(ProxyError::UpstreamBroken);
            retry.is_for_error(ProxyError::UpstreamBroken, grpc)
        }
    }
}

/// A response that breaks off where its end was looked for.
struct Broken;

/// The gRPC status, of a response that has nothing else to say.
async fn code(retry: &Retry, response: &mut Response<Body>) -> Result<Option<u32>, Broken> {
    if let Some(code) = grpc::status(response.headers()) {
        return Ok(Some(code));
    }
    if !retry.has_codes() || response.body().is_end_stream() {
        return Ok(None);
    }
    match tokio::time::timeout(limits::RETRY_PEEK, response.body_mut().peek()).await {
        Err(_nothing_yet) => Ok(None),
        Ok(Ok(first)) => Ok(first.and_then(Frame::trailers_ref).and_then(grpc::status)),
        Ok(Err(_broken)) => Err(Broken),
    }
}
