//! HTTP requests of a local workload: choose, send, try elsewhere where that is safe, count.
//!
//! Must never send a request on whose bytes may have been acted upon a second time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Request, Response, header};
use parking_lot::Mutex;
use weir_core::{
    classify::Classes,
    grpc,
    outbound::Transport,
    protocol::Protocol,
    proxy_error::ProxyError,
    request_policy::RequestPolicy,
    route::ObjectRef,
    snapshot::{Destination, ServiceTarget},
};

use crate::{
    body::{Body, Held, ResponseEnd},
    deadline::{Deadline, within},
    http::{self as server, Handle},
    inbound,
    io::Io,
    limits,
    outbound::{
        Accrual, Client, ClientsFault,
        attempt::{Asked, Attempt},
        bounds::{Bounds, deadline, retry},
        choose::{Chosen, Goal, Path, ServiceName, service_name},
        retry::{Again, Persistence},
        route::{Decided, Failed, Routing, routed},
    },
    respond::{self, Returned},
    telemetry::{Direction, HttpSeries, MirrorSeries, RouteSeries, TcpLabels},
    upgrade,
    upstream::{self, Answered, Unsent},
};

pub(super) async fn serve(client: Arc<Client>, destination: Arc<Destination>, io: Io, protocol: Protocol) {
    let worker = &client.worker;
    let generation = worker.shared.store.generation();
    let drain = worker.shared.drain.clone();
    let meter = worker.shared.telemetry.tcp(&client.source_labels(&destination)).open();
    let handler = Arc::new(Outbound {
        client: Arc::clone(&client),
        current: Mutex::new(Current {
            destination,
            generation,
            routes: Vec::new(),
            decided: Vec::new(),
            mirrored: Vec::new(),
        }),
    });
    match protocol {
        // Boxed: what HTTP/2 needs must not be part of every HTTP/1 connection.
        Protocol::Http2 => Box::pin(server::serve_http2(io, handler, drain, meter)).await,
        _ => server::serve_http1(io, handler, drain, meter).await,
    }
}

/// The HTTP requests of one connection.
pub(super) struct Outbound {
    pub(super) client: Arc<Client>,
    current: Mutex<Current>,
}

struct Current {
    destination: Arc<Destination>,
    generation: u64,
    routes: Vec<Arc<Route>>,
    /// Series of the routes that decided.
    decided: Vec<(Option<Arc<ObjectRef>>, Arc<RouteSeries>)>,
    mirrored: Vec<KnownMirror>,
}

/// Where the copies for a mirror are counted.
struct KnownMirror {
    route: Option<Arc<ObjectRef>>,
    to: Arc<ServiceTarget>,
    series: Arc<MirrorSeries>,
}

/// When a request or an attempt of it began, and whether it is gRPC.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) started: Instant,
    /// When the present try of it at one endpoint did.
    attempted: Instant,
    pub(super) grpc: bool,
}

/// An endpoint as this connection reaches it: what would else be looked up per request.
pub(super) struct Route {
    pub(super) path: Path,
    /// Namespace, name: of the service that it was chosen from.
    service: Option<ServiceName>,
    authority: Option<HeaderValue>,
    pub(super) series: Arc<HttpSeries>,
    /// The route that decided so.
    decided: Option<Arc<ObjectRef>>,
    /// What its rule says that responses count as: one rule's is one.
    classes: Option<Arc<Classes>>,
    /// Where its attempts are counted; none where no service was dialled.
    pub(super) attempts: Option<Arc<RouteSeries>>,
    /// The receiving half, when the endpoint is on this node.
    local: Option<Arc<inbound::Server>>,
}

impl Route {
    /// By address: a name that was built anew since is only looked up once more.
    fn is_of(&self, goal: &Goal) -> bool {
        let is_service = match (&self.service, goal.service()) {
            (Some((_namespace, name)), Some(service)) => Arc::ptr_eq(name, &service.name),
            (None, None) => true,
            _other => false,
        };
        is_service && self.decided.as_ref().map(Arc::as_ptr) == goal.route.as_ref().map(Arc::as_ptr)
    }
}

impl Handle for Outbound {
    async fn handle(self: Arc<Self>, mut request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| grpc::is_grpc(kind.as_bytes()));
        let upgrade = server::wants_upgrade(&request);
        server::strip_hop_by_hop(request.headers_mut(), upgrade);
        let destination = self.destination();
        let Decided { route, routing } = routed(&self.client, &destination, &request);
        let series = self.route_series(&destination, route.as_ref(), &routing);
        let goal = Goal { destination, backend: None, route, classes: None, key: None, session: None };
        let arrival = Arrival { started, attempted: started, grpc };
        let asked = Asked::begin(series, started);
        match self.forward(goal, routing, request, arrival, asked.series.as_deref()).await {
            Ok(mut response) => {
                asked.answered(&mut response);
                response
            }
            Err(Failed { error, marks }) => {
                asked.failed(error.label());
                self.client.worker.shared.telemetry.http_error(Direction::Outbound, &error);
                let mut response = respond::with_error(&error, grpc);
                if let Some(marks) = marks {
                    response.headers_mut().extend(*marks);
                }
                response
            }
        }
    }
}

impl Outbound {
    async fn forward(
        &self,
        mut goal: Goal,
        routing: Result<Routing, ProxyError>,
        mut request: Request<Body>,
        arrival: Arrival,
        series: Option<&RouteSeries>,
    ) -> Result<Response<Body>, Failed> {
        let mut asking = None;
        let forward = match routing? {
            Routing::Itself => None,
            Routing::To(backend, forward) => {
                asking = forward.asking(request.headers());
                self.filter(&goal, &forward, &mut request);
                goal.backend = backend;
                goal.classes = forward.classes().map(Arc::clone);
                goal.session = forward.keeps_sessions().then(|| Arc::new(forward.clone()));
                Some(forward)
            }
            Routing::Answer(response) => return Ok(*response),
        };
        // As it is sent: with what its rule does to it.
        let hashed = goal.service().and_then(|service| service.balancer.key(&request, self.client.peer.ip()));
        goal.key = hashed;
        let policy = match goal.destination.service() {
            Some(service) if service.allows_request_policy => RequestPolicy::take(request.headers_mut()).map(Box::new),
            _ => None,
        };
        let given = retry(&goal, forward.as_ref());
        let asked = policy.as_ref().map(|policy| policy.retry(given).map(Box::new));
        let retry = asked.as_ref().map_or(given, Option::as_deref);
        let mut deadline = deadline(
            Bounds { goal: &goal, forward: forward.as_ref(), policy: policy.as_deref(), retry },
            &request,
            arrival,
        );
        let retry = retry.filter(|_| Again::is_for(&request));
        let persistence = match retry {
            None => None,
            Some(retry) => {
                let (persistence, first) = Persistence::begin(self, &goal, retry, arrival, series, request);
                request = first;
                Some(persistence)
            }
        };
        if let Some(deadline) = &mut deadline {
            if let Some(persistence) = &persistence {
                persistence.watch_over(self, deadline);
            }
            deadline.prepare(persistence.as_ref().is_none_or(Persistence::is_once));
            request = request.map(|body| body.told(deadline.progress()));
        }
        let mut tried = None;
        let mut sent = self.balance(&goal, request, arrival, deadline.as_deref_mut(), &mut tried).await;
        if let Some(persistence) = persistence
            && persistence.wants_another(&mut sent).await
        {
            sent = Box::pin(self.persist(persistence, sent, tried, deadline.as_deref_mut())).await;
        }
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Err(Failed::marked(error, forward.as_ref(), asking.as_ref())),
        };
        if let Some(deadline) = deadline {
            response = response.map(|body| body.limited(deadline));
        }
        if let Some(forward) = forward {
            forward.filter_response(asking.as_ref(), response.headers_mut());
        }
        Ok(response)
    }

    /// Sends it to one endpoint after the other, as long as that is safe. `tried`: where it was before, and where it has been now.
    pub(super) async fn balance(
        &self,
        goal: &Goal,
        mut request: Request<Body>,
        arrival: Arrival,
        mut deadline: Option<&mut Deadline>,
        tried: &mut Option<Arc<Route>>,
    ) -> Result<Response<Body>, ProxyError> {
        for left in (0..limits::POOL_RETRIES).rev() {
            let excluded = tried.as_ref().and_then(|route| route.path.endpoint.as_deref());
            let Chosen { endpoint, admission } = match deadline.as_deref_mut() {
                None => self.client.choose(goal, excluded).await?,
                Some(deadline) => {
                    let chosen = within(deadline, self.client.choose(goal, excluded)).await;
                    chosen.map_err(ProxyError::Timeout)??
                }
            };
            let own = deadline.as_ref().map(|deadline| deadline.own()).unwrap_or_default();
            let worker = &self.client.worker;
            let accrual = Accrual::begin(worker, goal, endpoint.as_ref(), admission, own);
            let route = &*tried.insert(self.route(endpoint.as_ref(), &request, goal));
            let attempt = Attempt::begin(&self.client, route, accrual);
            let arrival = Arrival { attempted: attempt.began(), ..arrival };
            let sent = match deadline.as_deref_mut() {
                // Not through `within`: a future of this size is moved for some thousand instructions.
                None => Ok(self.send(route, request, arrival).await),
                Some(deadline) => {
                    deadline.begin_attempt(request.headers_mut());
                    Box::pin(within(deadline, self.send(route, request, arrival))).await
                }
            };
            match sent {
                Ok(Ok(mut response)) => {
                    let unsent = Returned::take(&mut response)
                        .filter(|_| left > 0 && goal.has_other(route.path.endpoint.as_deref()));
                    attempt.answered(&mut response, arrival.grpc);
                    let Some(unsent) = unsent else {
                        goal.mark_session(route.path.endpoint.as_deref(), &mut response);
                        return Ok(response);
                    };
                    response.into_body().read_away();
                    request = *unsent;
                    if let Some(deadline) = &mut deadline {
                        // What was sent of it, nobody has had.
                        request = request.map(|body| body.told(deadline.progress()));
                        deadline.restart_attempt();
                    }
                }
                Ok(Err(Unsent { error, request: unsent })) => {
                    attempt.failed(&error);
                    if let Some(deadline) = &mut deadline {
                        deadline.end_attempt();
                    }
                    match unsent {
                        Some(unsent) => request = unsent,
                        None => return Err(error.told()),
                    }
                }
                Err(limit) => {
                    attempt.timed_out(limit, deadline.is_some_and(|deadline| deadline.is_sent()));
                    return Err(ProxyError::Timeout(limit));
                }
            }
        }
        Err(ProxyError::ConnectFailed)
    }

    async fn send(
        &self,
        route: &Arc<Route>,
        mut request: Request<Body>,
        arrival: Arrival,
    ) -> Result<Response<Body>, Unsent> {
        if let Some(local) = &route.local {
            let response = Box::pin(Arc::clone(local).handle(request)).await;
            return Ok(self.finish(route, response, Held::Nothing, arrival));
        }
        let connect = request.method() == ::http::Method::CONNECT;
        let client_half = upgrade::take(&mut request);
        let worker = &self.client.worker;
        let labels = || self.tcp_labels(route);
        let sent = upstream::send(worker, &self.client.workload, &route.path.key, request, &labels).await;
        let Answered { mut response, held, mut unsent } = match sent {
            Ok(answered) => answered,
            Err(Unsent { error, mut request }) => {
                if let (Some(half), Some(request)) = (client_half, &mut request) {
                    half.give_back(request);
                }
                return Err(Unsent { error, request });
            }
        };
        match client_half {
            Some(half) if upgrade::agreed(connect, response.status()) => {
                // The server's half ends what is no longer allowed.
                upgrade::join(half, &mut response, std::future::pending());
                return Ok(self.finish(route, response.map(Body::from), Held::Nothing, arrival));
            }
            Some(half) => {
                if let Some(request) = &mut unsent {
                    half.give_back(request);
                }
            }
            None => {}
        }
        server::strip_hop_by_hop(response.headers_mut(), false);
        let mut response = self.finish(route, response.map(Body::from), held, arrival);
        if let Some(request) = unsent {
            Returned::put(&mut response, request);
        }
        Ok(response)
    }

    fn finish(&self, route: &Route, response: Response<Body>, held: Held, arrival: Arrival) -> Response<Body> {
        let now = self.client.worker.shared.now();
        let Arrival { started, attempted, grpc } = arrival;
        let mut endpoint = route.path.endpoint.as_ref().map(|endpoint| (Arc::clone(endpoint), now));
        if respond::is_unanswered(&response)
            && response.extensions().get::<ClientsFault>().is_none()
            && let Some((endpoint, _began)) = endpoint.take()
        {
            // Else who fails at once would be the fastest of all.
            endpoint.load.finish(now, limits::FAILURE_COST);
        }
        let end = ResponseEnd {
            series: Arc::clone(&route.series),
            status: response.status().as_u16(),
            grpc,
            grpc_status: if grpc { grpc::status(response.headers()) } else { None },
            classes: route.classes.clone(),
            error: None,
            latency: started.elapsed(),
            endpoint,
            held,
            attempt: route.attempts.as_ref().map(|attempts| (Arc::clone(attempts), attempted)),
            request: None,
            accrual: None,
            access: None,
            done: false,
        };
        response.map(|body| body.on_end(end))
    }

    pub(super) fn now(&self) -> Duration {
        self.client.worker.shared.now()
    }

    /// The destination as it is now; open requests keep the one that they began with.
    fn destination(&self) -> Arc<Destination> {
        let store = &self.client.worker.shared.store;
        let generation = store.generation();
        let mut current = self.current.lock();
        if current.generation != generation {
            current.generation = generation;
            store.touch(self.client.target);
            if let Some(fresh) = store.snapshot().destination(&self.client.target)
                && !Arc::ptr_eq(fresh, &current.destination)
            {
                current.destination = Arc::clone(fresh);
                current.routes.clear();
                current.decided.clear();
                current.mirrored.clear();
            }
        }
        Arc::clone(&current.destination)
    }

    fn route(
        &self,
        endpoint: Option<&Arc<weir_core::snapshot::Endpoint>>,
        request: &Request<Body>,
        goal: &Goal,
    ) -> Arc<Route> {
        let authority = authority(request);
        let mut current = self.current.lock();
        let known = current.routes.iter().find(|route| {
            route.path.endpoint.as_ref().map(Arc::as_ptr) == endpoint.map(Arc::as_ptr)
                && route.authority.as_ref().map(HeaderValue::as_bytes) == authority
                // Two services may have the same endpoint.
                && route.is_of(goal)
        });
        if let Some(route) = known {
            return Arc::clone(route);
        }
        let path = self.client.path(endpoint);
        let service = goal.service().map(service_name);
        let labels = self.client.http_labels(&path, service.clone(), authority);
        let local = match &path.transport {
            Transport::Local { server } => Some(Arc::new(inbound::Server::bridged(&self.client, server, path.address))),
            _ => None,
        };
        let route = Arc::new(Route {
            series: self.client.worker.shared.telemetry.http(&labels),
            authority: authority.and_then(|bytes| HeaderValue::from_bytes(bytes).ok()),
            attempts: self.client.attempt_labels(goal).map(|labels| self.client.worker.shared.telemetry.route(&labels)),
            decided: goal.route.clone(),
            classes: goal.classes.clone(),
            path,
            service,
            local,
        });
        if current.routes.len() >= limits::CONNECTION_SERIES {
            current.routes.remove(0);
        }
        current.routes.push(Arc::clone(&route));
        route
    }

    /// Where a request is counted for the route that decided, if a Service was dialled and it has one for the request or none at all.
    fn route_series(
        &self,
        destination: &Destination,
        route: Option<&Arc<ObjectRef>>,
        routing: &Result<Routing, ProxyError>,
    ) -> Option<Arc<RouteSeries>> {
        if route.is_none() && routing.is_err() {
            return None;
        }
        let service = destination.service()?;
        let mut current = self.current.lock();
        let is_it = |known: &Option<Arc<ObjectRef>>| known.as_ref().map(Arc::as_ptr) == route.map(Arc::as_ptr);
        if let Some((_route, series)) = current.decided.iter().find(|(known, _series)| is_it(known)) {
            return Some(Arc::clone(series));
        }
        let labels = self.client.request_labels(service, route);
        let series = self.client.worker.shared.telemetry.route(&labels);
        if current.decided.len() >= limits::CONNECTION_SERIES {
            current.decided.remove(0);
        }
        current.decided.push((route.cloned(), Arc::clone(&series)));
        Some(series)
    }

    /// Where the copies for a mirror of the route that decided are counted.
    pub(super) fn mirror_series(&self, goal: &Goal, to: &Arc<ServiceTarget>) -> Option<Arc<MirrorSeries>> {
        let mut current = self.current.lock();
        let known = current.mirrored.iter().find(|known| {
            known.route.as_ref().map(Arc::as_ptr) == goal.route.as_ref().map(Arc::as_ptr) && Arc::ptr_eq(&known.to, to)
        });
        if let Some(known) = known {
            return Some(Arc::clone(&known.series));
        }
        let labels = self.client.attempt_labels(&Goal { backend: Some(Arc::clone(to)), ..goal.clone() })?;
        let series = self.client.worker.shared.telemetry.mirror(&labels);
        if current.mirrored.len() >= limits::CONNECTION_SERIES {
            current.mirrored.remove(0);
        }
        let known = KnownMirror { route: goal.route.clone(), to: Arc::clone(to), series: Arc::clone(&series) };
        current.mirrored.push(known);
        Some(series)
    }

    fn tcp_labels(&self, route: &Route) -> TcpLabels {
        TcpLabels { service: route.service.clone(), ..self.client.tcp_labels(&route.path, None) }
    }
}

/// Host, or `:authority` of HTTP/2.
pub(super) fn authority(request: &Request<Body>) -> Option<&[u8]> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers().get(header::HOST).map(HeaderValue::as_bytes),
    }
}
