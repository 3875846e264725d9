//! The gRPC service for people's programs. Must never change anything.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use weir_api::v1::{self, mesh_server::Mesh};

use crate::{
    checks, explain,
    index::Index,
    limits,
    objects::{Name, Pod, Unfit},
    plane::Plane,
    policy,
    replicas::Replicas,
    service_port, snapshot,
    tokens::{Caller, Tokens},
};

/// Serves `weir`.
#[derive(Debug)]
pub struct Service {
    plane: Arc<Plane>,
    tokens: Arc<Tokens>,
    replicas: Arc<Replicas>,
    // Places of those who have routes compiled.
    explanations: Arc<Semaphore>,
}

impl Service {
    /// A service over the shared state.
    pub fn new(plane: Arc<Plane>, tokens: Arc<Tokens>, replicas: Arc<Replicas>) -> Service {
        Service { plane, tokens, replicas, explanations: Arc::new(Semaphore::new(limits::EXPLANATIONS)) }
    }
}

impl Service {
    /// Work that may take a processor for a while: few at a time, and not where nodes are served.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Plane) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let turn = Arc::clone(&self.explanations).acquire_owned().await;
        let turn = turn.map_err(|_closed| Status::unavailable("control ends"))?;
        let plane = Arc::clone(&self.plane);
        let answer = tokio::task::spawn_blocking(move || {
            // Also of a caller that has left: the work goes on.
            let _turn = turn;
            work(&plane)
        });
        answer.await.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
    }
}

#[tonic::async_trait]
impl Mesh for Service {
    async fn version(&self, request: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let gathered = self.replicas.gather(None).await?;
        let version = |node: v1::ConnectedNode| v1::NodeVersion { node_name: node.node_name, version: node.version };
        let nodes = gathered.nodes.into_values().map(version).collect();
        let control = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(v1::VersionResponse { control, nodes, replicas: gathered.replicas }))
    }

    async fn observe(&self, request: Request<v1::ObserveRequest>) -> Result<Response<v1::ObserveResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let asked = request.into_inner();
        let window = asked.window_seconds;
        if !(1..=limits::WINDOW_SECONDS).contains(&window) {
            return Err(Status::invalid_argument(format!(
                "window_seconds: {window} is not from 1 to {}",
                limits::WINDOW_SECONDS
            )));
        }
        let gathered = self.replicas.gather(Some(asked)).await?;
        let missing_replicas = gathered.missing_replicas();
        let (reports, missing_nodes) = (gathered.reports, gathered.missing_nodes);
        Ok(Response::new(v1::ObserveResponse { reports, missing_nodes, missing_replicas }))
    }

    async fn workloads(
        &self,
        request: Request<v1::WorkloadsRequest>,
    ) -> Result<Response<v1::WorkloadsResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let namespace = request.into_inner().namespace;
        let gathered = self.replicas.gather(None).await?;
        let statuses = gathered.statuses();
        let index = self.plane.index();
        let wanted = |pod: &&Arc<Pod>| namespace.is_empty() || pod.reference.namespace == namespace;
        let mut pods: Vec<v1::PodStatus> =
            index.pods().filter(wanted).map(|pod| pod_status(&index, pod, &statuses)).collect();
        let place = |pod: &v1::PodStatus| pod.pod.as_ref().map(|pod| (pod.namespace.clone(), pod.name.clone()));
        pods.sort_by_cached_key(place);
        Ok(Response::new(v1::WorkloadsResponse { pods, missing_replicas: gathered.missing_replicas() }))
    }

    async fn endpoints(
        &self,
        request: Request<v1::EndpointsRequest>,
    ) -> Result<Response<v1::EndpointsResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let (name, port) = authority(&request.into_inner().authority)?;
        let index = self.plane.index();
        let service = index.service(&name).ok_or_else(|| {
            Status::not_found(format!("there is no Service {name}; `name.namespace:port` is expected"))
        })?;
        let ports: Vec<u16> = service.ports.iter().map(|port| port.port).collect();
        let Some(service_port) = service.ports.iter().find(|declared| declared.port == port) else {
            return Err(Status::not_found(format!("Service {name} has no TCP port {port}; it has {ports:?}")));
        };
        let mut endpoints = Vec::new();
        for slice in index.slices_of(&name).filter_map(|slice| snapshot::endpoints(&index, slice)) {
            let Some(port) = slice.ports.iter().find(|port| port.name == *service_port.name) else { continue };
            endpoints.extend(slice.endpoints.into_iter().map(|endpoint| v1::ServiceEndpoint {
                namespace: name.namespace.to_string(),
                service: name.name.to_string(),
                address: endpoint.address,
                port: port.port,
                pod: endpoint.pod,
                ready: endpoint.ready,
                identity: endpoint.identity,
            }));
        }
        Ok(Response::new(v1::EndpointsResponse { endpoints }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.in_turn(|plane| {
            let findings = plane.findings();
            // The index is let go of before the decision.
            let gathered = explain::gather(&plane.index(), &findings, request)?;
            gathered.answer()
        });
        answer.await
    }

    async fn policy(&self, request: Request<v1::PolicyRequest>) -> Result<Response<v1::PolicyResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.in_turn(move |plane| {
            let findings = plane.findings();
            policy::policy(&plane.index(), &findings, &request)
        });
        answer.await
    }

    async fn resource(&self, request: Request<v1::ResourceRequest>) -> Result<Response<v1::ResourceResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.in_turn(move |plane| {
            let index = plane.index();
            let (name, service) = service_port::service(&index, &request.namespace, &request.service)?;
            let port = service_port::port(&name, &service, request.port)?.port;
            let (address, target) = service_port::told(&index, &name, &service, port)?;
            let destination = v1::Destination { target: Some(v1::destination::Target::Service(target)) };
            Ok(v1::ResourceResponse { key: address.to_string(), destination: Some(destination) })
        });
        answer.await
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let gathered =
            self.replicas.gather(Some(v1::ObserveRequest { window_seconds: 1, ..Default::default() })).await?;
        Ok(Response::new(v1::CheckResponse { results: checks::all(&self.plane, &gathered) }))
    }
}

fn pod_status(index: &Index, pod: &Pod, statuses: &HashMap<&str, &v1::WorkloadStatus>) -> v1::PodStatus {
    let enabled = index.is_enabled(pod);
    let status = statuses.get(&*pod.uid).filter(|_| enabled);
    let reason = match (status, enabled) {
        (Some(status), _) => status.reason.clone(),
        (None, true) => format!("node {} has not said anything about it", pod.reference.node_name),
        (None, false) => pod
            .unfit
            .map_or("not opted in: neither the pod nor its namespace has label weir.mesh/enabled=true", Unfit::reason)
            .to_owned(),
    };
    v1::PodStatus {
        uid: pod.uid.to_string(),
        pod: Some(pod.reference.clone()),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        enabled,
        captured: status.is_some_and(|status| status.captured),
        reason,
        identity: pod.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        certificate_not_after: status.map_or(0, |status| status.certificate_not_after),
    }
}

/// `name.namespace[.svc[.domain]]:port`
fn authority(text: &str) -> Result<(Name, u16), Status> {
    let wrong = || Status::invalid_argument(format!("authority: {text:?} is not `name.namespace:port`"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_number| wrong())?;
    let mut labels = host.split('.');
    let (Some(name), Some(namespace), rest) = (labels.next(), labels.next(), labels.next()) else {
        return Err(wrong());
    };
    if name.is_empty() || namespace.is_empty() || rest.is_some_and(|rest| rest != "svc") {
        return Err(wrong());
    }
    Ok((Name::new(namespace, name), port))
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn authorities_name_a_service_and_a_port() {
        for text in ["web.demo:80", "web.demo.svc:80", "web.demo.svc.cluster.local:80"] {
            let (name, port) = authority(text).unwrap();
            assert_eq!((name.to_string().as_str(), port), ("demo/web", 80), "{text}");
        }
        for text in ["", "web", "web:80", ".demo:80", "web.demo", "web.demo:eighty", "web.demo.pod:80", "a:b:c"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }
}
