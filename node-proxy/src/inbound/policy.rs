//! Asks `weir_core::inbound` for each request and each opaque connection, with the configuration of that moment, and counts the answer.
//!
//! Must never decide with a policy that was replaced before the request came.

use std::{net::SocketAddr, sync::Arc};

use ::http::HeaderValue;
use weir_core::{
    inbound::{self, Ask, Authorization, DefaultPolicy, InboundPlan},
    proxy_error::ProxyError,
    snapshot::Workload,
};
use weir_ebpf_common::PROBE_MARK;

use super::{Client, Server};
use crate::{
    io::Io,
    proxy::Worker,
    telemetry::{Direction, HttpLabels, HttpSeries},
};

/// What of the configuration decides, and what counts the decisions.
pub(super) struct View {
    /// Of the store, when this was looked up; none yet for what the connection began with.
    generation: Option<u64>,
    workload: Arc<Workload>,
    series: Arc<HttpSeries>,
}

impl View {
    /// Looked up anew before the first decision.
    pub(super) fn stale(workload: Arc<Workload>, series: Arc<HttpSeries>) -> View {
        View { generation: None, workload, series }
    }
}

/// Whether the kernel recorded that a process of the node itself opened this connection. Asked only where it may matter.
pub(super) fn is_from_node(io: &Io, workload: &Workload) -> bool {
    !workload.policy.probes.is_empty()
        && socket2::SockRef::from(io.inner().tcp()).mark().is_ok_and(|mark| mark == PROBE_MARK)
}

pub(super) fn series(worker: &Worker, workload: &Workload, target: SocketAddr, client: &Client) -> Arc<HttpSeries> {
    worker.shared.telemetry.http(&HttpLabels {
        direction: Direction::Inbound,
        workload: Arc::clone(&workload.pod),
        peer: client.pod.clone(),
        tls: client.tls.clone(),
        client_id: client.identity.clone(),
        server_id: Some(workload.identity.clone()),
        authority: None,
        target_addr: target,
        service: None,
        policy: Some(workload.policy.default),
    })
}

impl Server {
    /// Decides about one request, and counts it.
    pub(super) fn request(&self, method: &str, path: &str) -> (Result<Authorization, ProxyError>, Arc<HttpSeries>) {
        let (plan, series) =
            self.with_view(|view| (self.plan(view, Ask::Request { method, path }), Arc::clone(&view.series)));
        series.decided(&plan);
        (self.verdict(plan, "Request allowed"), series)
    }

    /// Decides about the connection, whose bytes nobody will read, and counts it.
    pub(super) fn connection(&self) -> Result<(), ProxyError> {
        let plan = self.with_view(|view| self.plan(view, Ask::Connection));
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
        !matches!(self.with_view(|view| self.plan(view, Ask::Connection)), InboundPlan::Deny(_))
    }

    /// The default policy in force.
    pub(super) fn default_policy(&self) -> DefaultPolicy {
        self.with_view(|view| view.workload.policy.default)
    }

    fn plan(&self, view: &View, ask: Ask<'_>) -> InboundPlan {
        // Nothing is looked up or allocated but for the node itself.
        let followed = self.client.from_node.then(|| self.worker.shared.redirects.of(&self.workload.uid));
        let client = inbound::Client {
            identity: self.client.identity.as_ref(),
            address: self.client.peer.ip(),
            node: followed.as_deref(),
        };
        inbound::plan(&view.workload, &self.worker.shared.networks, self.target.port(), client, ask)
    }

    fn verdict(&self, plan: InboundPlan, what: &'static str) -> Result<Authorization, ProxyError> {
        match plan {
            InboundPlan::Allow(authorization) => Ok(authorization),
            InboundPlan::Audit => {
                let client = self.client.identity.as_ref().map_or("", |identity| identity.as_str());
                tracing::info!(peer = %self.client.peer, client, target = %self.target, pod = %self.workload.pod.name, "{what}");
                Ok(Authorization::Default)
            }
            InboundPlan::Deny(error) => {
                tracing::debug!(peer = %self.client.peer, target = %self.target, pod = %self.workload.pod.name, %error, "denied");
                Err(error)
            }
        }
    }

    /// With the policy of this moment: one atomic load and an uncontended lock unless something changed.
    fn with_view<T>(&self, use_it: impl FnOnce(&View) -> T) -> T {
        let generation = self.worker.shared.store.generation();
        let mut view = self.view.lock();
        if view.generation != Some(generation) {
            // A workload that left is served to the end with what was last said of it.
            if let Some(current) = self.worker.workload(&self.workload.uid) {
                if current.policy.default != view.workload.policy.default {
                    view.series = series(&self.worker, &current, self.target, &self.client);
                }
                view.workload = current;
            }
            view.generation = Some(generation);
        }
        use_it(&view)
    }
}
