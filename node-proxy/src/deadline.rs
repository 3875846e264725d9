//! The time limits of one request under way: who waits for its response, and both of its bodies, go by the same clock.
//!
//! Must never cost a request that has no limit: it has no [`Deadline`].

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use ::http::HeaderMap;
use tokio::time::{Sleep, sleep_until};
use weir_core::{
    grpc, request_policy,
    timeouts::{Limit, OwnLimits, Stage, Timeouts},
};

/// How far a request is, as both of its bodies say: nanoseconds since its arrival.
#[derive(Debug)]
pub struct Progress {
    arrived: Instant,
    /// 0: not yet.
    sent: AtomicU64,
    moved: AtomicU64,
}

impl Progress {
    fn now(&self) -> Duration {
        self.arrived.elapsed()
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// A frame went by.
    pub fn moved(&self) {
        self.moved.store(self.nanos(), Ordering::Relaxed);
    }

    /// It begins anew, with another attempt.
    fn restart(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.moved();
    }

    /// The last byte of the request went out, or its response begins.
    pub fn sent(&self) {
        let _sent_before = self.sent.compare_exchange(0, self.nanos(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Says whether a request can be sent again.
#[derive(Default)]
struct Gate(Option<Box<dyn Fn() -> bool + Send + Sync>>);

impl Gate {
    fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(|is_open| is_open())
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Gate")
    }
}

/// How a server is told what is left of its client's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `grpc-timeout`
    Grpc,
    /// `weir-timeout`
    Http,
}

impl Told {
    /// What a client says.
    pub fn read(self, headers: &HeaderMap) -> Option<Duration> {
        match self {
            Told::Grpc => grpc::timeout(headers),
            Told::Http => request_policy::deadline(headers),
        }
    }

    fn write(self, headers: &mut HeaderMap, left: Duration) {
        match self {
            Told::Grpc => grpc::set_timeout(headers, left),
            Told::Http => request_policy::set_deadline(headers, left),
        }
    }
}

/// What the client of a request says of its time.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// Which of the limits it has set.
    pub own: OwnLimits,
    /// From the request's arrival on.
    pub deadline: Option<Duration>,
    /// By which header.
    pub told: Told,
}

/// A server that is told a deadline gives up a little before it.
const NEAR: f64 = 0.8;

/// What of a request's limits is its client's own doing, so that no endpoint is to blame when it runs out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// Which.
    pub limits: OwnLimits,
    /// From when on a server that knows the request's deadline may have given up for it; none where that is not the client's.
    pub is_near: Option<Instant>,
}

/// The limits of one request, and when the next one runs out.
#[derive(Debug)]
pub struct Deadline {
    limits: Timeouts,
    /// The client has a deadline of its own, and says it so.
    told: Option<Told>,
    /// What of this is the client's doing: its deadline where that ends the request, not a longer one of its route or Service.
    own: OwnLimits,
    has_trailers: bool,
    progress: Arc<Progress>,
    attempt: Option<Duration>,
    /// Of attempts that another one may follow.
    retry: Option<Duration>,
    /// Whether another one may follow this one.
    gate: Gate,
    /// Never later than the next limit: what moves the limit away is looked at when this ends.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Of a request that arrived then. `has_trailers`: its client can be told of a limit after its response has begun.
    pub fn new(limits: Timeouts, clients: Clients, has_trailers: bool, arrived: Instant) -> Deadline {
        let Clients { mut own, deadline, told } = clients;
        let limits = limits.within(deadline);
        let progress = Arc::new(Progress { arrived, sent: AtomicU64::new(0), moved: AtomicU64::new(0) });
        own.request |= deadline.is_some() && limits.request == deadline;
        let (told, retry, gate) = (deadline.map(|_| told), limits.retry, Gate::default());
        Deadline { limits, told, own, has_trailers, progress, attempt: None, retry, gate, sleep: None }
    }

    /// Limits that are the client's own doing.
    pub fn own(&self) -> Own {
        let end = self.limits.request.filter(|_| self.own.request);
        Own { limits: self.own, is_near: end.and_then(|end| self.progress.arrived.checked_add(end.mul_f64(NEAR))) }
    }

    /// Whether the request has been sent whole, or answered.
    pub fn is_sent(&self) -> bool {
        self.progress.sent.load(Ordering::Relaxed) > 0
    }

    /// What the bodies tell.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether trailers reach the client.
    pub fn has_trailers(&self) -> bool {
        self.has_trailers
    }

    /// An attempt begins. A server that the client tells its deadline is told what is left of it, or of a shorter limit.
    pub fn begin_attempt(&mut self, headers: &mut HeaderMap) {
        let now = self.progress.now();
        self.attempt = Some(now);
        self.sleep = None;
        let ends = self.limits.request.into_iter().chain(self.limits.backend_request.map(|limit| now + limit));
        if let (Some(told), Some(end)) = (self.told, ends.min()) {
            told.write(headers, end.saturating_sub(now));
        }
    }

    /// The request is about to be sent, for the first time or again. `is_last`: it will not be once more.
    pub fn prepare(&mut self, is_last: bool) {
        self.pause();
        self.limits.retry = self.retry.filter(|_| !is_last);
    }

    /// Asked when an attempt has taken too long: is there a way to send it again?
    pub fn set_gate(&mut self, is_open: impl Fn() -> bool + Send + Sync + 'static) {
        self.gate = Gate(Some(Box::new(is_open)));
    }

    /// An attempt is over, and its own limits with it.
    pub fn pause(&mut self) {
        self.attempt = None;
        self.sleep = None;
        self.limits.retry = None;
        self.progress.restart();
    }

    /// An attempt is over of which nobody has seen anything: its request is sent again, as if for the first time.
    pub fn restart_attempt(&mut self) {
        self.end_attempt();
        self.sleep = None;
        self.progress.restart();
    }

    /// Its response has begun, and goes on to the client.
    pub fn begin_response(&mut self) {
        self.limits.retry = None;
        // It holds the request's body.
        self.gate = Gate::default();
        self.progress.sent();
        self.progress.moved();
    }

    /// Whether so much time is left.
    pub fn allows(&self, pause: Duration) -> bool {
        self.limits.request.is_none_or(|end| self.progress.now() + pause < end)
    }

    /// It failed, and no other has begun yet.
    pub fn end_attempt(&mut self) {
        self.attempt = None;
    }

    /// Ready when a limit has run out.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Limit> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            let now = self.progress.now();
            let Some((at, limit)) = self.limits.next(&self.stage(), now) else { return Poll::Pending };
            if at <= now && limit == Limit::Retry && !self.gate.is_open() {
                // What cannot be sent again may as well take its time.
                self.limits.retry = None;
                continue;
            }
            if at <= now {
                return Poll::Ready(limit);
            }
            let Some(at) = self.progress.arrived.checked_add(at) else { return Poll::Pending };
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(at.into()),
                None => self.sleep = Some(Box::pin(sleep_until(at.into()))),
            }
        }
    }

    fn stage(&self) -> Stage {
        let sent = self.progress.sent.load(Ordering::Relaxed);
        Stage {
            attempt: self.attempt,
            sent: (sent > 0).then(|| Duration::from_nanos(sent)),
            // Between attempts nothing is there that could be idle.
            moved: match self.attempt {
                Some(_) => Duration::from_nanos(self.progress.moved.load(Ordering::Relaxed)),
                None => self.progress.now(),
            },
        }
    }
}

/// What `work` comes to, or the limit that ran out before; then it is dropped, which cancels it.
///
/// # Errors
/// The limit.
pub async fn within<T>(deadline: &mut Deadline, work: impl Future<Output = T>) -> Result<T, Limit> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => deadline.poll(cx).map(Err),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    const MS: Duration = Duration::from_millis(1);

    fn clients(deadline: Option<Duration>, told: Told) -> Clients {
        Clients { own: OwnLimits::default(), deadline, told }
    }

    fn deadline(limits: Timeouts) -> Deadline {
        Deadline::new(limits, clients(None, Told::Grpc), true, Instant::now())
    }

    #[tokio::test]
    async fn what_is_done_in_time_is_no_limits_business() {
        let mut given = deadline(Timeouts { request: Some(MS * 60_000), ..Timeouts::default() });
        assert_eq!(within(&mut given, async { 1 }).await, Ok(1));
    }

    #[tokio::test]
    async fn a_limit_ends_the_wait_by_its_name() {
        for (limits, expected) in [
            (Timeouts { request: Some(MS), idle: Some(MS * 60_000), ..Timeouts::default() }, Limit::Request),
            (Timeouts { backend_request: Some(MS), ..Timeouts::default() }, Limit::BackendRequest),
            (Timeouts { response: Some(MS), ..Timeouts::default() }, Limit::Response),
            (Timeouts { idle: Some(MS), ..Timeouts::default() }, Limit::Idle),
        ] {
            let mut given = deadline(limits);
            given.begin_attempt(&mut HeaderMap::new());
            given.progress().sent();
            assert_eq!(within(&mut given, std::future::pending::<()>()).await, Err(expected));
        }
    }

    #[tokio::test]
    async fn what_moves_is_not_idle_and_what_is_not_sent_has_no_late_response() {
        let mut given = deadline(Timeouts { idle: Some(MS * 500), response: Some(MS * 500), ..Timeouts::default() });
        given.begin_attempt(&mut HeaderMap::new());
        let progress = Arc::clone(given.progress());
        let work = async {
            // Twice the limits in all, never as long without a frame.
            for _ in 0..100 {
                tokio::time::sleep(MS * 10).await;
                progress.moved();
            }
            progress.sent();
        };
        assert_eq!(within(&mut given, work).await, Ok(()));
    }

    /// Else the wait for an endpoint would be part of its response's time.
    #[test]
    fn a_request_without_a_body_is_sent_when_it_is_taken_apart() {
        let given = deadline(Timeouts { response: Some(MS), ..Timeouts::default() });
        let body = Body::empty().told(given.progress());
        assert_eq!(given.stage().sent, None);
        drop(body);
        assert!(given.stage().sent.is_some());
    }

    #[test]
    fn a_server_is_told_the_shorter_deadline_of_each_attempt() {
        let limits = Timeouts { request: Some(MS * 60_000), backend_request: Some(MS * 10_000), ..Timeouts::default() };
        let whole = Timeouts { backend_request: None, ..limits };
        for (limits, own, expected, told) in [
            (limits, Some(5_000), Some(5_000), Told::Grpc),
            (limits, Some(30_000), Some(10_000), Told::Http),
            (whole, Some(90_000), Some(60_000), Told::Grpc),
            (whole, Some(90_000), Some(60_000), Told::Http),
            (limits, None, None, Told::Grpc),
            (limits, None, None, Told::Http),
        ] {
            let mut headers = HeaderMap::new();
            let own = clients(own.map(|millis| MS * millis), told);
            let mut given = Deadline::new(limits, own, true, Instant::now());
            given.begin_attempt(&mut headers);
            match (told.read(&headers), expected.map(|millis| MS * millis)) {
                (Some(told), Some(expected)) => assert!(told <= expected && told > expected - MS * 2_000, "{told:?}"),
                (told, expected) => assert_eq!(told, expected, "{own:?}"),
            }
        }
    }
}
