//! What a Service's routes say about one request. Must never let a request past them that they do not name.

use std::{sync::Arc, time::Duration};

use ::http::{HeaderMap, Request, Response};
use weir_core::{
    proxy_error::ProxyError,
    route::{self, Asking, Facts, Forward, ObjectRef, Routed, Services},
    snapshot::{Destination, ServiceTarget},
};

use super::{Client, choose::wall_clock, http::authority};
use crate::{body::Body, respond};

/// What decided about a request, and what becomes of it.
pub(super) struct Decided {
    /// None where no route did.
    pub(super) route: Option<Arc<ObjectRef>>,
    /// Fails where none of the routes is for the request, or its backend is none.
    pub(super) routing: Result<Routing, ProxyError>,
}

/// What becomes of a request.
pub(super) enum Routing {
    /// No routes: it goes to what was dialled.
    Itself,
    /// To the backend; to what was dialled where there is none.
    To(Option<Arc<ServiceTarget>>, Forward),
    /// This is its answer.
    Answer(Box<Response<Body>>),
}

/// Asks the routes that hold for this client.
pub(super) fn routed(client: &Client, destination: &Destination, request: &Request<Body>) -> Decided {
    let itself = Decided { route: None, routing: Ok(Routing::Itself) };
    let Some(service) = destination.service() else { return itself };
    let Some(routes) = &service.routes else { return itself };
    let Some(table) = routes.of_client(&client.workload.pod.namespace) else { return itself };
    let facts = facts(request);
    let services = Known { dialled: service, now: client.worker.shared.now() };
    let decision = route::decide(table, &facts, service.port, fastrand::u64(..), services);
    let routing = followed(service, decision.route.as_deref(), decision.routed);
    Decided { route: decision.route, routing }
}

/// What of a request can decide, at either end of its way.
pub(crate) fn facts(request: &Request<Body>) -> Facts<'_> {
    let authority = authority(request).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    Facts {
        authority,
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        headers: request.headers(),
    }
}

/// What this node knows of the services that a request may go to.
struct Known<'a> {
    dialled: &'a ServiceTarget,
    now: Duration,
}

impl Services for Known<'_> {
    fn is_ready(&self, service: usize) -> bool {
        self.dialled.backends.get(service).is_some_and(|backend| backend.is_available(self.now))
    }

    fn has(&self, service: Option<usize>, endpoint: u64) -> bool {
        let service = match service {
            None => Some(self.dialled),
            Some(backend) => self.dialled.backends.get(backend).map(|backend| &**backend),
        };
        service.is_some_and(|service| service.numbered(endpoint).is_some())
    }

    fn wall_clock(&self) -> Duration {
        wall_clock()
    }
}

fn followed(service: &ServiceTarget, route: Option<&ObjectRef>, routed: Routed) -> Result<Routing, ProxyError> {
    let invalid = route.map_or(ProxyError::BackendInvalid, ObjectRef::broken);
    match routed {
        Routed::NoRoute => Err(ProxyError::NoRoute),
        Routed::Broken(reason) => {
            tracing::debug!(%reason, service = %service.name, "a route has no backend for a request");
            Err(invalid)
        }
        Routed::Redirect(status, location) => Ok(Routing::Answer(Box::new(respond::redirect(status, location)))),
        Routed::Preflight(said) => Ok(Routing::Answer(Box::new(respond::preflight(said)))),
        Routed::Forward(forward) => {
            let backend = match forward.service() {
                Some(index) => Some(service.backends.get(index).ok_or(invalid)?),
                None => None,
            };
            Ok(Routing::To(backend.map(Arc::clone), forward))
        }
    }
}

/// Why there is no response, and what a rule says of whatever is answered instead.
pub(super) struct Failed {
    pub(super) error: ProxyError,
    pub(super) marks: Option<Box<HeaderMap>>,
}

impl From<ProxyError> for Failed {
    fn from(error: ProxyError) -> Failed {
        Failed { error, marks: None }
    }
}

impl Failed {
    /// A script of another origin that may read responses may read errors.
    pub(super) fn marked(error: ProxyError, forward: Option<&Forward>, asking: Option<&Asking>) -> Failed {
        let (Some(forward), Some(_asked)) = (forward, asking) else { return error.into() };
        let mut marks = Box::<HeaderMap>::default();
        forward.mark(asking, &mut marks);
        Failed { error, marks: Some(marks) }
    }
}
