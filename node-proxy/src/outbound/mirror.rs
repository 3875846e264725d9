//! Copies of requests, for the mirrors that a route names: each in a task of its own, its answer read away.
//!
//! Must never be felt by the request: it waits for nothing that a copy does, and what copies hold is bounded.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use weir_core::{
    balance::{Choice, Key},
    outbound::Transport,
    request_policy::RequestPolicy,
    route::{Forward, Mirror},
    snapshot::{Endpoint, ServiceTarget},
};

use super::{Client, choose::Goal, http::Outbound};
use crate::{
    body::{Body, Held},
    http::{self as server, Handle as _},
    inbound, limits, respond,
    tee::{Ended, Original, Permit, Tee},
    telemetry::{MirrorSeries, Mirrored},
    upstream::{self, SendError, Unsent},
};

/// A copy that is to be made.
struct Planned {
    head: Request<()>,
    to: Arc<ServiceTarget>,
    series: Arc<MirrorSeries>,
    permit: Arc<Permit>,
}

impl Outbound {
    /// Does to a request what its rule and backend say, and sends the copies that they ask for.
    pub(super) fn filter(&self, goal: &Goal, forward: &Forward, request: &mut Request<Body>) {
        // Does not allocate where there are no mirrors.
        let mut planned = Vec::new();
        forward.filter_request(request, |mirror, request| planned.extend(self.planned(goal, mirror, request)));
        if !planned.is_empty() {
            self.fork(planned, request);
        }
    }

    fn planned(&self, goal: &Goal, mirror: &Mirror, request: &Request<Body>) -> Option<Planned> {
        let service = mirror.takes(|| fastrand::u64(..))?;
        // What leaves HTTP cannot be had twice.
        if server::wants_upgrade(request) {
            return None;
        }
        let parent = goal.destination.service()?;
        let to = parent.backends.get(service)?;
        let series = self.mirror_series(goal, to)?;
        let open = Some(()).filter(|()| !series.is_resting(self.now())).and_then(|()| series.open());
        let (Some(open), Some(place)) = (open, self.client.worker.mirrors.enter()) else {
            series.ended(Mirrored::Dropped);
            return None;
        };
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        if parent.allows_request_policy {
            // What it says of itself is for this proxy alone, of its copy too.
            RequestPolicy::take(head.headers_mut());
        }
        Some(Planned { head, to: Arc::clone(to), series, permit: Arc::new(Permit { place, open }) })
    }

    /// Before the request itself is sent: what a copy lacks at its beginning it never gets.
    fn fork(&self, planned: Vec<Planned>, request: &mut Request<Body>) {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let mut tee = if body.is_end_stream() { Err(body) } else { Ok(Tee::new(body)) };
        for Planned { head, to, series, permit } in planned {
            let (body, original) = match &mut tee {
                Err(_none) => (Body::empty(), None),
                Ok(tee) => {
                    let (copy, original) = tee.copy(&self.client.worker.mirrors, Some(Arc::clone(&permit)));
                    (Body::copy(copy), Some(original))
                }
            };
            let (client, is_answered) = (Arc::clone(&self.client), AtomicBool::new(false));
            let sending = Sending { client, to, series, original, is_answered };
            tokio::spawn(async move {
                let _permit = permit;
                let how = sending.run(head.map(|()| body)).await;
                sending.series.ended(how);
            });
        }
        *request.body_mut() = tee.map_or_else(|body| body, Body::teed);
    }
}

/// A copy under way.
struct Sending {
    client: Arc<Client>,
    to: Arc<ServiceTarget>,
    series: Arc<MirrorSeries>,
    /// None where there is no body.
    original: Option<Original>,
    is_answered: AtomicBool,
}

impl Sending {
    async fn run(&self, request: Request<Body>) -> Mirrored {
        let mut over = pin!(self.over());
        tokio::select! {
            biased;
            // An answer that has no end is one, to a copy that has arrived.
            how = &mut over => if how == Mirrored::Late && self.has_arrived() { Mirrored::Sent } else { how },
            how = self.send(request) => how,
        }
    }

    fn has_arrived(&self) -> bool {
        self.is_answered.load(Relaxed) && self.original.as_ref().is_none_or(Original::is_taken)
    }

    /// When it has to end, answered or not.
    async fn over(&self) -> Mirrored {
        if let Some(original) = &self.original {
            match original.ended().await {
                Ended::Whole => {}
                Ended::Broken => return Mirrored::Cancelled,
                Ended::Behind => return Mirrored::Behind,
            }
        }
        tokio::time::sleep(limits::MIRROR_WITHIN).await;
        Mirrored::Late
    }

    /// To one endpoint after the other, as long as nothing of it has left. It waits for none.
    async fn send(&self, mut request: Request<Body>) -> Mirrored {
        let mut tried: Option<Arc<Endpoint>> = None;
        let key = self.to.balancer.key(&request, self.client.peer.ip());
        for _ in 0..limits::POOL_RETRIES {
            let Some(endpoint) = self.pick(key, tried.as_deref()) else { return Mirrored::Failed };
            let pending = Pending::begin(self, &endpoint);
            match self.send_to(&endpoint, request, pending).await {
                Ok(how) => return how,
                Err(Unsent { error, request: unsent }) => {
                    tracing::debug!(%error, pod = %self.client.workload.pod.name, mirror = %self.to.name, "copy not answered");
                    if let SendError::Dial(_) = error {
                        // Else each request would have it dialled again, out of what requests need for their own connections.
                        self.series.rest(self.client.worker.shared.now() + limits::MIRROR_REST);
                        return Mirrored::Failed;
                    }
                    let Some(unsent) = unsent else { return Mirrored::Failed };
                    request = unsent;
                }
            }
            tried = Some(endpoint);
        }
        Mirrored::Failed
    }

    async fn send_to(
        &self,
        endpoint: &Arc<Endpoint>,
        request: Request<Body>,
        pending: Pending<'_>,
    ) -> Result<Mirrored, Unsent> {
        let Client { worker, workload, .. } = &*self.client;
        let path = self.client.path(Some(endpoint));
        if let Transport::Local { server } = &path.transport {
            let server = Arc::new(inbound::Server::bridged(&self.client, server, path.address).for_copies());
            let response = server.handle(request).await;
            let how = pending.answered(&response);
            read_away(response.into_body()).await;
            return Ok(how);
        }
        let labels = || self.client.tcp_labels(&path, Some(&self.to));
        let key = path.key.of_copies();
        let upstream::Answered { response, held, .. } =
            match upstream::send(worker, workload, &key, request, &labels).await {
                Ok(answered) => answered,
                Err(unsent) => {
                    pending.failed();
                    return Err(unsent);
                }
            };
        let response = response.map(Body::from);
        let how = pending.answered(&response);
        if read_away(response.into_body()).await
            && let Held::Http1(worker, key, mut connection) = held
            // An answer may have come before its request was sent whole: nobody is to wait for that.
            && connection.sender.ready().await.is_ok()
        {
            worker.pool.put_http1(&key, connection);
        }
        Ok(how)
    }

    /// Breakers hear nothing of copies, and let none through to what is out.
    fn pick(&self, key: Option<Key>, exclude: Option<&Endpoint>) -> Option<Arc<Endpoint>> {
        let (ready, now) = (self.to.ready_endpoints(), self.client.worker.shared.now());
        let choice = Choice { ready, now, key, exclude };
        let endpoint = ready.get(self.to.balancer.pick_in(&choice, || fastrand::u64(..))?)?;
        endpoint.health.as_ref().is_none_or(|health| health.is_in()).then(|| Arc::clone(endpoint))
    }
}

/// Reads an answer to its end, or to a bound: whether it had one.
async fn read_away(mut body: Body) -> bool {
    let mut left = limits::DISCARDED_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

/// A copy in the load of its endpoint, until its answer begins or it is given up.
struct Pending<'a> {
    sending: &'a Sending,
    endpoint: Arc<Endpoint>,
    began: Duration,
    has_failed: bool,
}

impl<'a> Pending<'a> {
    fn begin(sending: &'a Sending, endpoint: &Arc<Endpoint>) -> Pending<'a> {
        let began = sending.client.worker.shared.now();
        endpoint.load.start(began);
        Pending { sending, endpoint: Arc::clone(endpoint), began, has_failed: false }
    }

    /// A proxy's word for an application that gave none is no answer.
    fn answered(self, response: &Response<Body>) -> Mirrored {
        if respond::is_unanswered(response) {
            return Mirrored::Failed;
        }
        self.sending.is_answered.store(true, Relaxed);
        Mirrored::Sent
    }

    fn failed(mut self) {
        self.has_failed = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let now = self.sending.client.worker.shared.now();
        let took = match self.sending.original.as_ref().and_then(Original::state) {
            // That says nothing about the endpoint.
            Some(Ended::Broken | Ended::Behind) => Duration::ZERO,
            _other if self.has_failed => limits::FAILURE_COST,
            _other => now.saturating_sub(self.began),
        };
        self.endpoint.load.finish(now, took);
    }
}
