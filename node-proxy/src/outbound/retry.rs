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

    pub(super) fn new(request: Request<Body>) -> Again {
        let (parts, body) = request.into_parts();
        let body = (!body.is_end_stream()).then(|| Replay::new(body));
        Again { head: Request::from_parts(parts, ()), body }
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
        let Persistence { goal, retry, mut arrival, series } = how;
        let count = |event| {
            if let Some(series) = series {
                series.retried(event);
            }
        };
        let budget = goal.service().map(|service| Arc::clone(&service.retry_budget));
        if let Some(budget) = &budget {
            budget.request(self.now());
        }
        if let Some(deadline) = deadline.as_deref_mut().filter(|_| retry.timeout.is_some()) {
            self.watch_over(deadline, &request, budget.clone());
        }
        // Nothing has gone by: the first attempt can always be made.
        let mut attempt = request.attempt(deadline.as_deref()).ok_or(ProxyError::UpstreamBroken)?;
        let mut goal = goal.clone();
        let mut failed: Option<Arc<Route>> = None;
        let mut before = 0;
        loop {
            let is_last = before == retry.limit;
            if let Some(deadline) = &mut deadline {
                deadline.prepare(is_last);
            }
            let mut sent = self.balance(&goal, attempt, arrival, deadline.as_deref_mut(), &mut failed).await;
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
            let may_add = || budget.as_ref().is_none_or(|budget| budget.take(self.now()));
            // Else it would wait, and meet failfast instead of this answer.
            let is_there = || goal.service().is_none_or(|service| service.is_available(self.now()));
            let is_allowed = has_time && request.is_whole() && is_there() && may_add();
            // Made before the pause: what the attempt before it would still read is this one's.
            let next = if is_allowed { request.attempt(deadline.as_deref()) } else { None };
            let Some(next) = next else {
                count(RetryEvent::Overflow);
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
            arrival.started = Instant::now();
            attempt = next;
            count(RetryEvent::Request);
        }
    }

    /// An attempt that nothing may follow has no time of its own.
    fn watch_over(&self, deadline: &mut Deadline, request: &Again, budget: Option<Arc<Budget>>) {
        let (worker, body) = (Arc::clone(&self.client.worker), request.body.clone());
        deadline.set_gate(move || {
            body.as_ref().is_none_or(Replay::is_whole)
                && budget.as_ref().is_none_or(|budget| budget.has_left(worker.shared.now()))
        });
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
