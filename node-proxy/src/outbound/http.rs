//! HTTP requests of a local workload: choose, send, try elsewhere where that is safe, count.
//!
//! Must never send a request on whose bytes may have been acted upon a second time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Request, Response, Version, header};
use parking_lot::Mutex;
use weir_core::{
    grpc,
    outbound::Transport,
    protocol::Protocol,
    proxy_error::ProxyError,
    retry::Retry,
    route::Forward,
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
        Client,
        attempt::Attempt,
        choose::{Goal, Path, ServiceName, service_name},
        retry::{Again, Persistence},
        route::{Routing, routed},
    },
    respond,
    telemetry::{Direction, HttpLabels, HttpSeries, TcpLabels, TlsLabel},
    upgrade,
    upstream::{self, SendError, Unsent},
};

pub(super) async fn serve(client: Arc<Client>, destination: Arc<Destination>, io: Io, protocol: Protocol) {
    let worker = &client.worker;
    let generation = worker.shared.store.generation();
    let drain = worker.shared.drain.clone();
    let meter = worker.shared.telemetry.tcp(&client.source_labels(&destination)).open();
    let handler = Arc::new(Outbound {
        client: Arc::clone(&client),
        current: Mutex::new(Current { destination, generation, routes: Vec::new() }),
    });
    match protocol {
        // Boxed: what HTTP/2 needs must not be part of every HTTP/1 connection.
        Protocol::Http2 => Box::pin(server::serve_http2(io, handler, drain, meter)).await,
        _ => server::serve_http1(io, handler, drain, meter).await,
    }
}

/// The HTTP requests of one connection.
pub(super) struct Outbound {
    client: Arc<Client>,
    current: Mutex<Current>,
}

struct Current {
    destination: Arc<Destination>,
    generation: u64,
    routes: Vec<Arc<Route>>,
}

/// An endpoint as this connection reaches it: what would else be looked up per request.
pub(super) struct Route {
    pub(super) path: Path,
    /// Namespace, name: of the service that it was chosen from.
    service: Option<ServiceName>,
    authority: Option<HeaderValue>,
    pub(super) series: Arc<HttpSeries>,
    /// The receiving half, when the endpoint is on this node.
    local: Option<Arc<inbound::Server>>,
}

impl Route {
    /// By address: a name that was built anew since is only looked up once more.
    fn is_of(&self, service: Option<&ServiceTarget>) -> bool {
        match (&self.service, service) {
            (Some((_namespace, name)), Some(service)) => Arc::ptr_eq(name, &service.name),
            (None, None) => true,
            _other => false,
        }
    }
}

impl Handle for Outbound {
    async fn handle(self: Arc<Self>, mut request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| grpc::is_grpc(kind.as_bytes()));
        let upgrade = server::wants_upgrade(&request);
        server::strip_hop_by_hop(request.headers_mut(), upgrade);
        match self.forward(request, started, grpc).await {
            Ok(response) => response,
            Err(error) => {
                self.client.worker.shared.telemetry.http_error(Direction::Outbound, &error);
                respond::with_error(&error, grpc)
            }
        }
    }
}

impl Outbound {
    async fn forward(
        &self,
        mut request: Request<Body>,
        started: Instant,
        grpc: bool,
    ) -> Result<Response<Body>, ProxyError> {
        let destination = self.destination();
        let routing = routed(&self.client, &destination, &request)?;
        let (goal, forward) = match routing {
            Routing::Itself => (Goal { destination, backend: None }, None),
            Routing::To(backend, forward) => {
                forward.filter_request(&mut request);
                (Goal { destination, backend }, Some(forward))
            }
            Routing::Answer(response) => return Ok(response),
        };
        let retry = retry(&goal, forward.as_ref()).filter(|_| Again::is_for(&request));
        let mut deadline = deadline(&goal, forward.as_ref(), &request, started, grpc);
        let mut response = match retry {
            Some(retry) => {
                let how = Persistence { goal: &goal, retry, started, grpc };
                Box::pin(self.persist(how, Again::new(request), deadline.as_deref_mut())).await?
            }
            None => {
                if let Some(deadline) = &mut deadline {
                    deadline.prepare(true);
                    request = request.map(|body| body.told(deadline.progress()));
                }
                self.balance(&goal, request, started, grpc, deadline.as_deref_mut(), &mut None).await?
            }
        };
        if let Some(deadline) = deadline {
            response = response.map(|body| body.limited(deadline));
        }
        if let Some(forward) = forward {
            forward.filter_response(response.headers_mut());
        }
        Ok(response)
    }

    /// Sends it to one endpoint after the other, as long as that is safe. `tried`: where it was before, and where it has been now.
    pub(super) async fn balance(
        &self,
        goal: &Goal,
        mut request: Request<Body>,
        started: Instant,
        grpc: bool,
        mut deadline: Option<&mut Deadline>,
        tried: &mut Option<Arc<Route>>,
    ) -> Result<Response<Body>, ProxyError> {
        for _ in 0..limits::POOL_RETRIES {
            let excluded = tried.as_ref().and_then(|route| route.path.endpoint.as_deref());
            let endpoint = match deadline.as_deref_mut() {
                None => self.client.choose(goal, excluded).await?,
                Some(deadline) => {
                    let chosen = within(deadline, self.client.choose(goal, excluded)).await;
                    chosen.map_err(ProxyError::Timeout)??
                }
            };
            let route = &*tried.insert(self.route(endpoint.as_ref(), &request, goal));
            let attempt = Attempt::begin(&self.client, route);
            let sent = match deadline.as_deref_mut() {
                // Not through `within`: a future of this size is moved for some thousand instructions.
                None => Ok(self.send(route, request, started, grpc).await),
                Some(deadline) => {
                    deadline.begin_attempt(request.headers_mut());
                    Box::pin(within(deadline, self.send(route, request, started, grpc))).await
                }
            };
            match sent {
                Ok(Ok(response)) => {
                    attempt.answered();
                    return Ok(response);
                }
                Ok(Err(Unsent { error, request: unsent })) => {
                    attempt.failed(&error);
                    if let Some(deadline) = &mut deadline {
                        deadline.end_attempt();
                    }
                    match unsent {
                        Some(unsent) => request = unsent,
                        None => return Err(refused(&error)),
                    }
                }
                Err(limit) => {
                    attempt.timed_out(limit);
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
        started: Instant,
        grpc: bool,
    ) -> Result<Response<Body>, Unsent> {
        if let Some(local) = &route.local {
            let response = Box::pin(Arc::clone(local).handle(request)).await;
            return Ok(self.finish(route, response, Held::Nothing, started, grpc));
        }
        let connect = request.method() == ::http::Method::CONNECT;
        let client_half = upgrade::take(&mut request);
        let worker = &self.client.worker;
        let labels = || self.tcp_labels(route);
        let sent = upstream::send(worker, &self.client.workload, &route.path.key, request, &labels).await;
        let (mut response, held) = sent?;
        if let Some(half) = client_half.filter(|_| upgrade::agreed(connect, response.status())) {
            upgrade::join(half, &mut response);
            return Ok(self.finish(route, response.map(Body::from), Held::Nothing, started, grpc));
        }
        server::strip_hop_by_hop(response.headers_mut(), false);
        Ok(self.finish(route, response.map(Body::from), held, started, grpc))
    }

    fn finish(
        &self,
        route: &Route,
        response: Response<Body>,
        held: Held,
        started: Instant,
        grpc: bool,
    ) -> Response<Body> {
        let now = self.client.worker.shared.now();
        let end = ResponseEnd {
            series: Arc::clone(&route.series),
            status: response.status().as_u16(),
            grpc,
            grpc_status: if grpc { grpc::status(response.headers()) } else { None },
            error: None,
            latency: started.elapsed(),
            endpoint: route.path.endpoint.as_ref().map(|endpoint| (Arc::clone(endpoint), now)),
            held,
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
                && route.is_of(goal.service())
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

    fn tcp_labels(&self, route: &Route) -> TcpLabels {
        TcpLabels { service: route.service.clone(), ..self.client.tcp_labels(&route.path, None) }
    }
}

/// The limits of a request, if it has any: its route's, else its Service's, and its client's own (`grpc-timeout`).
fn deadline(
    goal: &Goal,
    forward: Option<&Forward>,
    request: &Request<Body>,
    started: Instant,
    grpc: bool,
) -> Option<Box<Deadline>> {
    let of_service = || goal.destination.service().map(|service| service.timeouts).unwrap_or_default();
    let mut limits = forward.map_or_else(of_service, Forward::timeouts);
    limits.retry = retry(goal, forward).and_then(|retry| retry.timeout);
    let clients = if grpc { grpc::timeout(request.headers()) } else { None };
    let is_limited = !limits.is_none() || clients.is_some();
    is_limited.then(|| Box::new(Deadline::new(limits, clients, request.version() == Version::HTTP_2, started)))
}

/// When it is sent again: as its route says, else its Service.
fn retry<'a>(goal: &'a Goal, forward: Option<&'a Forward>) -> Option<&'a Retry> {
    let of_service = || goal.destination.service().and_then(|service| service.retry.as_deref());
    forward.map_or_else(of_service, Forward::retry)
}

/// What the client is told.
pub(super) fn refused(error: &SendError) -> ProxyError {
    match error {
        SendError::Dial(_) | SendError::KeepsClosing { .. } => ProxyError::ConnectFailed,
        SendError::Broken { .. } => ProxyError::UpstreamBroken,
    }
}

/// Host, or `:authority` of HTTP/2.
pub(super) fn authority(request: &Request<Body>) -> Option<&[u8]> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers().get(header::HOST).map(HeaderValue::as_bytes),
    }
}

impl Client {
    fn http_labels(&self, path: &Path, service: Option<ServiceName>, authority: Option<&[u8]>) -> HttpLabels {
        HttpLabels {
            direction: Direction::Outbound,
            workload: Arc::clone(&self.workload.pod),
            peer: path.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.pod)),
            tls: tls_label(&path.transport),
            client_id: Some(self.workload.identity.clone()),
            server_id: path.endpoint.as_ref().and_then(|endpoint| endpoint.identity.clone()),
            authority: authority.map(|bytes| Arc::from(String::from_utf8_lossy(bytes).as_ref())),
            target_addr: path.address,
            service,
            policy: None,
        }
    }

    pub(super) fn tcp_labels(&self, path: &Path, service: Option<&ServiceTarget>) -> TcpLabels {
        TcpLabels {
            direction: Direction::Outbound,
            peer_is_src: false,
            workload: Arc::clone(&self.workload.pod),
            peer: path.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.pod)),
            tls: tls_label(&path.transport),
            client_id: Some(self.workload.identity.clone()),
            server_id: path.endpoint.as_ref().and_then(|endpoint| endpoint.identity.clone()),
            target_addr: path.address,
            service: service.map(service_name),
            policy: None,
        }
    }

    /// Labels of the connection that the application opened to us.
    pub(super) fn source_labels(&self, destination: &Destination) -> TcpLabels {
        TcpLabels {
            direction: Direction::Outbound,
            peer_is_src: true,
            workload: Arc::clone(&self.workload.pod),
            peer: None,
            tls: TlsLabel::NoIdentity(weir_core::outbound::NoTlsReason::Loopback),
            client_id: None,
            server_id: None,
            target_addr: self.target,
            service: destination.service().map(service_name),
            policy: None,
        }
    }
}

fn tls_label(transport: &Transport) -> TlsLabel {
    match transport {
        // Both ends are known and no packet leaves the node.
        Transport::Mtls { .. } | Transport::Local { .. } => TlsLabel::True,
        Transport::Plain { reason } => TlsLabel::NoIdentity(*reason),
    }
}
