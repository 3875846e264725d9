//! Chooses the endpoint for one request or connection, and how to reach it.
//!
//! Must never wait without a bound, and never pick an endpoint that is not ready.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::Response;

use tokio::time::{Instant, sleep_until};
use weir_core::{
    balance::{self, Choice},
    breaker::Admission,
    classify::Classes,
    outbound::{self, NoTlsReason, Plan},
    proxy_error::ProxyError,
    retry::Budget,
    route::{Forward, ObjectRef},
    snapshot::{Destination, Endpoint, ServiceTarget},
};

use crate::{
    body::Body,
    outbound::Client,
    pool::{PoolKey, Via},
    queues, respond,
};

/// One way to one endpoint.
#[derive(Clone)]
pub(super) struct Path {
    /// The endpoint; none for an address that control does not know.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// Where the bytes go.
    pub(super) address: SocketAddr,
    /// How they get there.
    pub(super) transport: outbound::Transport,
    /// The pool that holds connections for this path.
    pub(super) key: Arc<PoolKey>,
}

/// Where a request or connection is to go.
#[derive(Clone)]
pub(super) struct Goal {
    /// What was dialled.
    pub(super) destination: Arc<Destination>,
    /// The service that a route chose instead.
    pub(super) backend: Option<Arc<ServiceTarget>>,
    /// The route that decided so, if any did.
    pub(super) route: Option<Arc<ObjectRef>>,
    /// What its rule says that responses count as.
    pub(super) classes: Option<Arc<Classes>>,
    /// What the request is hashed by, where its service asks for that.
    pub(super) key: Option<balance::Key>,
    /// Of a request whose rule keeps sessions: how it goes on, with the session that it brought.
    pub(super) session: Option<Arc<Forward>>,
}

impl Goal {
    /// Whether what was decided is the word of those whose endpoints are judged: breakers and loads are everybody's on this node, and clients
    /// of another namespace may say for themselves alone what is a failure and what is late.
    pub(super) fn is_of_judged(&self) -> bool {
        let (Some(route), Some(service)) = (&self.route, self.service()) else { return true };
        route.namespace == service.namespace
    }

    /// Whose budget its retries are taken from, if it is a service's. Clients that brought their own route have one of their own.
    pub(super) fn budget(&self) -> Option<&Arc<Budget>> {
        let of_clients = self.route.as_ref().zip(self.destination.service());
        if let Some(budget) = of_clients.and_then(|(route, dialled)| dialled.budget_of_clients(&route.namespace)) {
            return Some(budget);
        }
        let of_profile = self.route.as_ref().is_some_and(|route| route.is_of_profile());
        let service = if of_profile { self.destination.service() } else { self.service() };
        service.map(|service| &service.retry_budget)
    }

    /// What is balanced over, if it is a service.
    pub(super) fn service(&self) -> Option<&ServiceTarget> {
        self.backend.as_deref().or_else(|| self.destination.service())
    }

    /// Whether a request that an endpoint did not get may at once be another one's.
    pub(super) fn has_other(&self, tried: Option<&Endpoint>) -> bool {
        let (Some(service), Some(tried)) = (self.service(), tried) else { return false };
        let is_in = |one: &Endpoint| one.health.as_ref().is_none_or(|health| health.is_in());
        service.ready_endpoints().iter().any(|one| !std::ptr::eq(&**one, tried) && is_in(one))
    }

    fn queue(&self, dialled: SocketAddr) -> queues::Goal {
        let named =
            |service: &Arc<ServiceTarget>| (Arc::clone(&service.namespace), Arc::clone(&service.name), service.port);
        queues::Goal { dialled, backend: self.backend.as_ref().map(named) }
    }

    /// The same in what is known by now. A backend that no route names any more is gone, with its endpoints.
    pub(super) fn in_present(&self, present: &Arc<Destination>) -> Goal {
        let backend = self.backend.as_ref().map(|backend| {
            let named = present.service().map(|service| &*service.backends).unwrap_or_default();
            Arc::clone(named.iter().find(|one| one.is_named_like(backend)).unwrap_or(backend))
        });
        Goal {
            destination: Arc::clone(present),
            backend,
            route: self.route.clone(),
            classes: self.classes.clone(),
            key: self.key,
            session: self.session.clone(),
        }
    }

    /// Says on the response of an endpoint how to come back to it, where the rule keeps sessions.
    pub(super) fn mark_session(&self, endpoint: Option<&Endpoint>, response: &mut Response<Body>) {
        // Who could not answer is nobody to come back to.
        if let (Some(forward), Some(endpoint)) = (&self.session, endpoint)
            && !respond::is_unanswered(response)
        {
            forward.mark_session(endpoint.number(), wall_clock(), response.headers_mut());
        }
    }
}

/// Time since the Unix epoch; none before it.
pub(super) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An endpoint, and how a breaker lets the request through to it.
pub(super) struct Chosen {
    /// None where the dialled address itself is meant.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) admission: Admission,
}

impl Chosen {
    fn of(endpoint: Option<Arc<Endpoint>>) -> Chosen {
        Chosen { endpoint, admission: Admission::In }
    }
}

impl Client {
    /// The endpoint for the next connection of anything but HTTP, which breakers do not judge: one that is in, where there is any.
    pub(super) async fn choose_opaque(
        &self,
        goal: &Goal,
        exclude: Option<&Endpoint>,
    ) -> Result<Option<Arc<Endpoint>>, ProxyError> {
        if let Plan::Balance = outbound::plan(&self.workload, self.target, &goal.destination)
            && let Some(service) = goal.service()
        {
            let choice = self.choice(goal, service, exclude);
            if let Some(index) = service.balancer.pick_in(&choice, || fastrand::u64(..)) {
                return Ok(service.endpoints.get(index).map(Arc::clone));
            }
        }
        // None is ready, so none is out.
        self.choose(goal, exclude).await.map(|chosen| chosen.endpoint)
    }

    /// The endpoint for the next request. Waits for one within the failfast bound.
    pub(super) async fn choose(&self, goal: &Goal, exclude: Option<&Endpoint>) -> Result<Chosen, ProxyError> {
        match outbound::plan(&self.workload, self.target, &goal.destination) {
            Plan::Forward => Ok(Chosen::of(None)),
            Plan::Endpoint(endpoint) => Ok(Chosen::of(Some(endpoint))),
            Plan::Refuse(error) => Err(error),
            Plan::Balance => {
                if let Some(chosen) = self.pick(goal, exclude) {
                    return Ok(chosen);
                }
                Box::pin(self.wait_for_endpoint(goal)).await
            }
        }
    }

    fn choice<'a>(&self, goal: &Goal, service: &'a ServiceTarget, exclude: Option<&'a Endpoint>) -> Choice<'a> {
        Choice { ready: service.ready_endpoints(), now: self.worker.shared.now(), key: goal.key, exclude }
    }

    fn pick(&self, goal: &Goal, exclude: Option<&Endpoint>) -> Option<Chosen> {
        let service = goal.service()?;
        let (balancer, choice) = (&service.balancer, self.choice(goal, service, exclude));
        if goal.session.is_some()
            && let Some(chosen) = of_session(goal, service, &choice)
        {
            return Some(chosen);
        }
        let (index, admission) = match &service.breaker {
            None => (balancer.pick(&choice, || fastrand::u64(..))?, Admission::In),
            Some(breaker) => balancer.pick_admitted(&choice, breaker, || fastrand::u64(..))?,
        };
        let endpoint = service.endpoints.get(index).map(Arc::clone);
        Some(Chosen { admission, ..Chosen::of(endpoint) })
    }

    async fn wait_for_endpoint(&self, goal: &Goal) -> Result<Chosen, ProxyError> {
        let shared = &self.worker.shared;
        let queue = goal.queue(self.target);
        let Some(_place) = shared.queues.join(&queue) else { return Err(ProxyError::LoadShed) };
        let deadline = match shared.queues.deadline(&queue, shared.now()) {
            Some(deadline) => Instant::from_std(shared.epoch + deadline),
            None => return Err(ProxyError::FailFast),
        };
        let (mut changes, mut available) = (shared.store.subscribe(), shared.queues.availability());
        let mut goal = goal.clone();
        loop {
            if let Some(chosen) = self.pick(&goal, None) {
                shared.queues.open(&queue);
                return Ok(chosen);
            }
            // One that a breaker took out may be tried then, by whoever comes first.
            let trial =
                goal.service().and_then(ServiceTarget::next_trial).map(|at| Instant::from_std(shared.epoch + at));
            let until = trial.filter(|trial| *trial < deadline);
            let is_over = tokio::select! {
                changed = changes.changed() => changed.is_err(),
                _any = available.changed() => false,
                () = sleep_until(until.unwrap_or(deadline)) => until.is_none(),
            };
            if is_over {
                shared.queues.shut(&queue);
                return Err(ProxyError::FailFast);
            }
            if let Some(present) = shared.store.snapshot().destination(&self.target) {
                goal = goal.in_present(present);
            }
        }
    }

    /// How to reach `endpoint`, or the dialled address itself when there is none.
    pub(super) fn path(&self, endpoint: Option<&Arc<Endpoint>>) -> Path {
        let from = Arc::clone(&self.workload.uid);
        let Some(endpoint) = endpoint else {
            let via = Via::Plain { uid: Arc::from("") };
            return Path {
                endpoint: None,
                address: self.target,
                transport: outbound::Transport::Plain { reason: NoTlsReason::NotProvidedByServiceDiscovery },
                key: Arc::new(PoolKey { from, to: self.target, via, is_copy: false }),
            };
        };
        let snapshot = self.worker.shared.store.snapshot();
        let transport = outbound::transport(&self.workload, endpoint, &snapshot);
        let via = match &transport {
            outbound::Transport::Mtls { server } => Via::MutualTls {
                client: self.workload.identity.clone(),
                server: server.clone(),
                uid: Arc::clone(&endpoint.uid),
            },
            outbound::Transport::Plain { .. } | outbound::Transport::Local { .. } => {
                Via::Plain { uid: Arc::clone(&endpoint.uid) }
            }
        };
        Path {
            endpoint: Some(Arc::clone(endpoint)),
            address: endpoint.address,
            transport,
            key: Arc::new(PoolKey { from, to: endpoint.address, via, is_copy: false }),
        }
    }
}

/// The endpoint of the session that a request brought, unless it failed just now or a breaker does not let the request through to it.
fn of_session(goal: &Goal, service: &ServiceTarget, choice: &Choice<'_>) -> Option<Chosen> {
    let number = goal.session.as_ref()?.session()?.endpoint;
    let endpoint = service.numbered(number)?;
    if choice.exclude.is_some_and(|excluded| std::ptr::eq(excluded, &raw const **endpoint)) {
        return None;
    }
    let admission = match &service.breaker {
        None => Admission::In,
        Some(breaker) => match endpoint.admit(breaker, choice.now) {
            Some(admission) => admission,
            None if breaker.panics(choice.ready, choice.now) => Admission::In,
            None => return None,
        },
    };
    Some(Chosen { admission, ..Chosen::of(Some(Arc::clone(endpoint))) })
}

/// Namespace and name.
pub(super) type ServiceName = (Arc<str>, Arc<str>);

/// Name of the service, for labels.
pub(super) fn service_name(service: &ServiceTarget) -> ServiceName {
    (Arc::clone(&service.namespace), Arc::clone(&service.name))
}
