//! A connection that TLSRoutes or TCPRoutes of its Service decide about. Must never let one past them that they do not name.

use std::sync::Arc;

use weir_core::{
    proxy_error::ProxyError,
    route::{Greeting, ObjectRef, RoutedConnection},
    snapshot::{Destination, ServiceTarget},
};

use super::{Client, choose::Goal, tcp};
use crate::{
    io::Io,
    sniff::{self, Hello},
    telemetry::{Direction, OpenConnection, RouteLabels, ServiceRef},
};

/// What decided, and where the connection goes.
struct Decided {
    route: Arc<ObjectRef>,
    /// None: to what was dialled.
    backend: Result<Option<Arc<ServiceTarget>>, ProxyError>,
}

/// Whether routes decide about connections of this client as a whole.
pub(super) fn decided(client: &Client, destination: &Destination) -> bool {
    let routes = destination.service().and_then(|service| service.routes.as_ref());
    routes.is_some_and(|routes| routes.of_connections(&client.workload.pod.namespace).is_some())
}

/// Serves it to its end.
pub(super) async fn serve(client: Arc<Client>, destination: Arc<Destination>, mut io: Io) {
    // Boxed: what it takes to decide must not be kept for as long as the connection.
    match Box::pin(begin(&client, &destination, &mut io)).await {
        Ok((goal, open)) => {
            let ended = tcp::serve_goal(client, goal, io).await;
            open.ended(ended);
        }
        Err(error) => client.abandon(&io, &error),
    }
}

async fn begin(
    client: &Client,
    destination: &Arc<Destination>,
    io: &mut Io,
) -> Result<(Box<Goal>, OpenConnection), ProxyError> {
    let service = destination.service().ok_or(ProxyError::NoRoute)?;
    let Decided { route, backend } = client.route(service, io).await?;
    let labels = RouteLabels {
        workload: Arc::clone(&client.workload.pod),
        parent: ServiceRef::of(service),
        route: Some(Arc::clone(&route)),
        backend: None,
    };
    let open = client.worker.shared.telemetry.connections(&labels).open();
    match backend {
        Ok(backend) => {
            let own = backend.as_deref().unwrap_or(service);
            let key = own.balancer.key_of_connection(client.peer.ip());
            let destination = Arc::clone(destination);
            Ok((Box::new(Goal { destination, backend, route: Some(route), classes: None, key, session: None }), open))
        }
        Err(error) => {
            open.ended(Err(error));
            Err(error)
        }
    }
}

impl Client {
    async fn route(&self, service: &ServiceTarget, io: &mut Io) -> Result<Decided, ProxyError> {
        let routes = service.routes.as_ref().and_then(|routes| routes.of_connections(&self.workload.pod.namespace));
        let routes = routes.ok_or(ProxyError::NoRoute)?;
        let hello = if routes.asks_name() { self.hello(io).await } else { Hello::Other };
        let greeting = match &hello {
            Hello::Tls(name) => Greeting::Tls(name.as_deref()),
            Hello::Other => Greeting::Other,
        };
        let now = self.worker.shared.now();
        let is_ready = |backend: usize| service.backends.get(backend).is_some_and(|backend| backend.is_available(now));
        let decision = routes.decide(greeting, fastrand::u64(..), is_ready);
        let route = decision.route.ok_or(ProxyError::NoRoute)?;
        let backend = match decision.routed {
            RoutedConnection::NoRoute => return Err(ProxyError::NoRoute),
            RoutedConnection::Broken(reason) => {
                tracing::debug!(%reason, service = %service.name, "a route has no backend for a connection");
                Err(ProxyError::BackendInvalid)
            }
            RoutedConnection::Forward(None) => Ok(None),
            RoutedConnection::Forward(Some(index)) => {
                service.backends.get(index).map(|backend| Some(Arc::clone(backend))).ok_or(ProxyError::BackendInvalid)
            }
        };
        Ok(Decided { route, backend })
    }

    async fn hello(&self, io: &mut Io) -> Hello {
        // Who breaks off before it said anything has no route either.
        let hello = sniff::hello(io).await.unwrap_or(Hello::Other);
        if let Hello::Tls(name) = &hello {
            self.worker.shared.telemetry.passed_tls(Direction::Outbound, name.as_deref());
        }
        hello
    }
}
