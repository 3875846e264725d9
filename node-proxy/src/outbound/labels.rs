//! What the traffic of a local workload is counted under. Must never leave out who asks.

use std::sync::Arc;

use weir_core::{
    outbound::{NoTlsReason, Transport},
    route::ObjectRef,
    snapshot::{Destination, ServiceTarget},
};

use super::{
    Client,
    choose::{Goal, Path, ServiceName, service_name},
};
use crate::telemetry::{Direction, HttpLabels, RouteLabels, ServiceRef, TcpLabels, TlsLabel};

impl Client {
    /// Of requests that a route of a Service decides about; by the Service itself where none does.
    pub(super) fn request_labels(&self, service: &ServiceTarget, route: Option<&Arc<ObjectRef>>) -> RouteLabels {
        RouteLabels {
            workload: Arc::clone(&self.workload.pod),
            parent: ServiceRef::of(service),
            route: route.cloned(),
            backend: None,
        }
    }

    /// Of attempts at the backend that `goal` names; none where no Service was dialled.
    pub(super) fn attempt_labels(&self, goal: &Goal) -> Option<RouteLabels> {
        let labels = self.request_labels(goal.destination.service()?, goal.route.as_ref());
        Some(RouteLabels { backend: goal.service().map(ServiceRef::of), ..labels })
    }

    pub(super) fn http_labels(
        &self,
        path: &Path,
        service: Option<ServiceName>,
        authority: Option<&[u8]>,
    ) -> HttpLabels {
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
            tls: TlsLabel::NoIdentity(NoTlsReason::Loopback),
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
