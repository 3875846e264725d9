//! HTTP requests to a local workload: authorize, tell the application who asks, send, count.
//!
//! Must never pass on an identity that a client claims without having proved it.

use std::{sync::Arc, time::Instant};

use ::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use weir_core::{
    grpc,
    inbound::Authorization,
    proxy_error::ProxyError,
    route::{Forward, Routed},
};

use super::{Server, policy::Decided};
use crate::{
    access_log::AccessEntry,
    body::{Body, Held, ResponseEnd},
    http::{self as server, Handle},
    io::Io,
    outbound::ClientsFault,
    respond::{self, Returned},
    telemetry::{Direction, TcpGuard},
    upgrade,
    upstream::{self, Answered, SendError, Unsent},
};

/// Tells the application who the client proved to be (Linkerd's header).
const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

pub(super) async fn serve_http1(receiver: Arc<Server>, io: Io) {
    let (drain, meter) = begin(&receiver);
    server::serve_http1(io, receiver, drain, meter).await;
}

pub(super) async fn serve_http2(receiver: Arc<Server>, io: Io) {
    let (drain, meter) = begin(&receiver);
    server::serve_http2(io, receiver, drain, meter).await;
}

fn begin(receiver: &Arc<Server>) -> (crate::drain::Drain, TcpGuard) {
    let shared = &receiver.worker.shared;
    (shared.drain.clone(), shared.telemetry.tcp(&receiver.tcp_labels(true)).open())
}

impl Handle for Server {
    async fn handle(self: Arc<Self>, mut request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| grpc::is_grpc(kind.as_bytes()));
        let access = AccessEntry::begin(
            &self.workload,
            &self.worker.shared.access_log,
            &request,
            self.client.peer,
            self.client.identity.as_ref(),
        );
        let Decided { authorized, series, routed } = self.request(&request);
        series.request();
        let path = || request.uri().path_and_query().map_or(String::new(), |path| path.as_str().to_owned());
        let probed = (authorized == Ok(Authorization::Probe)).then(path);
        let (mut is_clients, mut unsent) = (false, None);
        let answered = match authorized.and_then(|_authorization| followed(routed)) {
            Ok(Followed::Answer(response)) => Ok((*response, Held::Nothing)),
            Ok(Followed::On(forward)) => {
                self.prepare(&mut request);
                let sent = match forward {
                    None => self.send(request).await,
                    Some(forward) => Box::pin(self.forward(request, forward)).await,
                };
                sent.map_err(|failed| {
                    let error = failed.error;
                    tracing::debug!(%error, pod = %self.workload.pod.name, "application did not answer");
                    (is_clients, unsent) = (error.is_clients(), failed.unsent);
                    error.told()
                })
            }
            Err(denied) => Err(denied),
        };
        if let (Some(path), Ok((response, _))) = (&probed, &answered)
            && response.status().is_redirection()
        {
            self.follow(path, response.headers().get(header::LOCATION));
        }
        let (response, held, error) = match answered {
            Ok((response, held)) => (response, held, None),
            Err(error) => {
                self.worker.shared.telemetry.http_error(Direction::Inbound, &error);
                let mut response = respond::with_error(&error, grpc);
                if let Some(request) = unsent {
                    self.give_back(&mut response, request);
                }
                if is_clients {
                    response.extensions_mut().insert(ClientsFault);
                }
                (response, Held::Nothing, Some(error.label()))
            }
        };
        let end = ResponseEnd {
            series,
            status: response.status().as_u16(),
            grpc,
            grpc_status: if grpc { grpc::status(response.headers()) } else { None },
            classes: None,
            error,
            latency: started.elapsed(),
            endpoint: None,
            held,
            attempt: None,
            request: None,
            accrual: None,
            access: access.map(|entry| entry.answered(response.status().as_u16())),
            done: false,
        };
        response.map(|body| body.on_end(end))
    }
}

/// What a route of the Server does with a request.
enum Followed {
    /// Nothing more than its filters; none where there are no routes.
    On(Option<Box<Forward>>),
    /// This is its answer.
    Answer(Box<Response<Body>>),
}

fn followed(routed: Option<Box<Routed>>) -> Result<Followed, ProxyError> {
    let Some(routed) = routed else { return Ok(Followed::On(None)) };
    match *routed {
        Routed::Forward(forward) => Ok(Followed::On(Some(Box::new(forward)))),
        Routed::Redirect(status, location) => Ok(Followed::Answer(Box::new(respond::redirect(status, location)))),
        Routed::Preflight(said) => Ok(Followed::Answer(Box::new(respond::preflight(said)))),
        Routed::NoRoute => Err(ProxyError::NoRoute),
        Routed::Broken(_reason) => Err(ProxyError::BackendInvalid),
    }
}

/// The application gave no answer.
struct Unanswered {
    error: SendError,
    /// The request, where nothing of it has left. Small, since nearly all are answered.
    unsent: Option<Box<Request<Body>>>,
}

/// As it came, for the client's half on this node.
fn unprepared(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove(CLIENT_ID);
    request
}

impl Server {
    fn prepare(&self, request: &mut Request<Body>) {
        let upgrade = server::wants_upgrade(request);
        server::strip_hop_by_hop(request.headers_mut(), upgrade);
        let headers = request.headers_mut();
        match self.client.identity.as_ref().and_then(|client| HeaderValue::from_str(client.as_str()).ok()) {
            Some(client) => {
                headers.insert(CLIENT_ID, client);
            }
            None => {
                headers.remove(CLIENT_ID);
            }
        }
    }

    /// Lets the client's half ask another endpoint: on this node with the request itself, else by a word that no client sees who has no proxy.
    fn give_back(&self, response: &mut Response<Body>, request: Box<Request<Body>>) {
        if self.client.pod.is_some() {
            Returned::put(response, request);
        } else if self.client.identity.is_some() {
            respond::say_unsent(response);
        }
    }

    /// With what its route does to it and to its response.
    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Body>,
        forward: Box<Forward>,
    ) -> Result<(Response<Body>, Held), Unanswered> {
        let asking = forward.asking(request.headers());
        // Control tells no mirrors to servers.
        forward.filter_request(&mut request, |_mirror, _request| {});
        let (mut response, held) = self.send(request).await?;
        forward.filter_response(asking.as_ref(), response.headers_mut());
        Ok((response, held))
    }

    async fn send(self: &Arc<Self>, mut request: Request<Body>) -> Result<(Response<Body>, Held), Unanswered> {
        let connect = request.method() == Method::CONNECT;
        let client_half = upgrade::take(&mut request);
        let labels = || self.tcp_labels(false);
        let sent = upstream::send(&self.worker, &self.workload, &self.key, request, &labels).await;
        let Answered { mut response, held, .. } = match sent {
            Ok(answered) => answered,
            Err(Unsent { error, mut request }) => {
                if let (Some(half), Some(request)) = (client_half, &mut request) {
                    half.give_back(request);
                }
                return Err(Unanswered { error, unsent: request.map(|request| Box::new(unprepared(request))) });
            }
        };
        if let Some(half) = client_half.filter(|_| upgrade::agreed(connect, response.status())) {
            let server = Arc::clone(self);
            upgrade::join(half, &mut response, async move { server.revoked().await });
            return Ok((response.map(Body::from), Held::Nothing));
        }
        server::strip_hop_by_hop(response.headers_mut(), false);
        Ok((response.map(Body::from), held))
    }
}
