//! Asks `weir_core::inbound` for each request and each opaque connection, with the configuration of that moment, and counts the answer.
//!
//! Must never decide with a policy that was replaced before the request came.

use std::sync::Arc;

use ::http::{HeaderValue, Request};
use tokio::sync::watch;
use weir_core::{
    inbound::{self, Ask, Authorization, Denial, InboundPlan, Requested, Ruler, Rules, Ruling, ServerPolicy, Standing},
    proxy_error::ProxyError,
    route::Routed,
    snapshot::Workload,
};
use weir_ebpf_common::PROBE_MARK;

use super::Server;
use crate::{
    body::Body,
    io::Io,
    limits,
    outbound::route,
    telemetry::{Direction, HttpLabels, HttpSeries, TlsLabel},
};

/// What of the configuration decides, and what counts the decisions.
pub(super) struct View {
    /// Of the store, when this was looked up; none yet for what the connection began with.
    generation: Option<u64>,
    workload: Arc<Workload>,
    standing: Standing,
    /// The port's Server, where it has routes.
    routed: Option<Arc<ServerPolicy>>,
    /// Of requests, by who decided about them; looked up with the first one.
    series: Vec<(Arc<Ruling>, Arc<HttpSeries>)>,
}

impl View {
    /// Looked up anew before the first decision. Until then nobody may.
    pub(super) fn stale(workload: Arc<Workload>) -> View {
        let ruler = Ruler::Default(workload.policy.default);
        let ruling = Arc::new(Ruling { ruler, authorization: None, route: None });
        let standing = Standing { ruling, plan: InboundPlan::Deny(ProxyError::Unauthorized(Denial::Nobody)) };
        View { generation: None, workload, standing, routed: None, series: Vec::new() }
    }
}

/// What became of the question whether a request may.
pub(super) struct Decided {
    pub(super) authorized: Result<Authorization, ProxyError>,
    pub(super) series: Arc<HttpSeries>,
    /// What its route does with it, where the Server has routes.
    pub(super) routed: Option<Box<Routed>>,
}

/// Whether the kernel recorded that a process of the node itself opened this connection. Asked only where it may matter.
pub(super) fn is_from_node(io: &Io, workload: &Workload) -> bool {
    !workload.policy.probes.is_empty()
        && socket2::SockRef::from(io.inner().tcp()).mark().is_ok_and(|mark| mark == PROBE_MARK)
}

impl Server {
    /// Decides about one request, and counts it.
    pub(super) fn request(&self, request: &Request<Body>) -> Decided {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let ask = Ask::Request { method: request.method().as_str(), path };
        let (plan, series, routed) = self.with_view(|view| {
            let requested = view.routed.as_ref().and_then(|policy| policy.routes.as_ref()).map(|routes| {
                let (facts, networks) = (route::facts(request), &self.worker.shared.networks);
                routes.request(&view.standing, &facts, self.target.port(), networks, self.asking())
            });
            let (plan, ruling, routed) = match requested {
                Some(Requested { plan, ruling, routed }) => (plan, ruling, routed),
                None => (view.standing.plan, Arc::clone(&view.standing.ruling), None),
            };
            let series = self.series_of(&mut view.series, ruling);
            (self.plan(&view.workload, plan, ask), series, routed)
        });
        series.decided(&plan);
        Decided { authorized: self.verdict(plan, "Request allowed"), series, routed }
    }

    /// As it is known to policy.
    fn asking(&self) -> inbound::Client<'_> {
        inbound::Client {
            identity: self.client.identity.as_ref(),
            is_tls: self.client.tls == TlsLabel::True,
            address: self.client.peer.ip(),
        }
    }

    fn series_of(&self, known: &mut Vec<(Arc<Ruling>, Arc<HttpSeries>)>, ruling: Arc<Ruling>) -> Arc<HttpSeries> {
        // Pointers first: without routes it is always the same.
        let is_same = |of: &Arc<Ruling>| Arc::ptr_eq(of, &ruling) || *of == ruling;
        if let Some((_ruling, series)) = known.iter().find(|(of, _series)| is_same(of)) {
            return Arc::clone(series);
        }
        let series = self.series(&ruling);
        if known.len() >= limits::CONNECTION_SERIES {
            known.remove(0);
        }
        known.push((ruling, Arc::clone(&series)));
        series
    }

    fn series(&self, ruling: &Arc<Ruling>) -> Arc<HttpSeries> {
        let client = &self.client;
        self.worker.shared.telemetry.http(&HttpLabels {
            direction: Direction::Inbound,
            workload: Arc::clone(&self.workload.pod),
            peer: client.pod.clone(),
            tls: client.tls.clone(),
            client_id: client.identity.clone(),
            server_id: Some(self.workload.identity.clone()),
            authority: None,
            target_addr: self.target,
            service: None,
            policy: Some(Arc::clone(ruling)),
        })
    }

    /// Decides about the connection, whose bytes nobody will read, and counts it.
    pub(super) fn connection(&self) -> Result<(), ProxyError> {
        let plan = self.of_connection();
        self.worker.shared.telemetry.tcp(&self.tcp_labels(true)).decided(&plan);
        self.verdict(plan, "Connection allowed").map(drop)
    }

    /// The application sent a probe of `path` on to elsewhere: the node may follow.
    pub(super) fn follow(&self, path: &str, location: Option<&HeaderValue>) {
        let location = location.and_then(|location| location.to_str().ok());
        if let Some(next) = location.and_then(|location| inbound::redirected(self.target, path, location)) {
            self.worker.shared.redirects.learn(&self.workload.uid, next);
        }
    }

    /// Whether its bytes may go on without being read.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.of_connection(), InboundPlan::Deny(_))
    }

    /// Changes when [`Server::revoked`] has something to look at.
    pub(super) fn policy_changes(&self) -> watch::Receiver<u64> {
        self.worker.shared.store.policy_changes()
    }

    /// Returns when a policy that came later no longer allows the connection, and counts that.
    pub(crate) async fn revoked(&self) {
        let mut changes = self.policy_changes();
        loop {
            if !self.is_open() {
                let labels = self.tcp_labels(true);
                let server = labels.policy.as_deref().map(|ruling| ruling.ruler.to_string()).unwrap_or_default();
                tracing::info!(peer = %self.client.peer, target = %self.target, pod = %self.workload.pod.name, server, "connection ended: its client is no longer allowed");
                self.worker.shared.telemetry.tcp(&labels).terminated();
                return;
            }
            if changes.changed().await.is_err() {
                // Nothing changes any more: the worker ends.
                return std::future::pending().await;
            }
        }
    }

    /// Whose word is in force.
    pub(super) fn ruling(&self) -> Arc<Ruling> {
        self.with_view(|view| Arc::clone(&view.standing.ruling))
    }

    fn of_connection(&self) -> InboundPlan {
        self.with_view(|view| self.plan(&view.workload, view.standing.plan, Ask::Connection))
    }

    fn plan(&self, workload: &Workload, granted: InboundPlan, ask: Ask<'_>) -> InboundPlan {
        // Nothing is looked up or allocated but for the node itself.
        let followed = self.client.from_node.then(|| self.worker.shared.redirects.of(&self.workload.uid));
        granted.or_probe(workload, self.target.port(), followed.as_deref(), ask)
    }

    fn verdict(&self, plan: InboundPlan, what: &'static str) -> Result<Authorization, ProxyError> {
        match plan {
            InboundPlan::Allow(authorization) => Ok(authorization),
            InboundPlan::Audit => {
                let client = self.client.identity.as_ref().map_or("", |identity| identity.as_str());
                tracing::info!(peer = %self.client.peer, client, target = %self.target, pod = %self.workload.pod.name, "{what}");
                Ok(Authorization::Policy)
            }
            InboundPlan::Deny(error) => {
                tracing::debug!(peer = %self.client.peer, target = %self.target, pod = %self.workload.pod.name, %error, "denied");
                Err(error)
            }
        }
    }

    /// With the policy of this moment: one atomic load and an uncontended lock unless something changed.
    fn with_view<T>(&self, use_it: impl FnOnce(&mut View) -> T) -> T {
        let store = &self.worker.shared.store;
        // Read before the snapshot: one that is newer is looked up once more, never taken for an older one.
        let generation = store.generation();
        let mut view = self.view.lock();
        if view.generation != Some(generation) {
            let snapshot = store.snapshot();
            let current = snapshot.workload_by_uid(&self.workload.uid);
            // A workload that left is served to the end with what was last said of it.
            if let Some(current) = current.or_else(|| view.generation.is_none().then_some(&self.workload)) {
                let rules = snapshot.rules(current, self.target.port());
                view.routed = match rules {
                    Rules::Server(policy) => policy.routes.is_some().then(|| Arc::clone(policy)),
                    Rules::Default(_) | Rules::Unknown(_) => None,
                };
                let standing = inbound::standing(current, rules, &self.worker.shared.networks, self.asking());
                if view.standing.ruling != standing.ruling {
                    view.series.clear();
                }
                view.standing = standing;
                view.workload = Arc::clone(current);
            }
            view.generation = Some(generation);
        }
        use_it(&mut view)
    }
}
