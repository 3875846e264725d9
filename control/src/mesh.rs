//! The gRPC service for people's programs. Must never change anything with control's own rights.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_api::v1::{self, mesh_server::Mesh};

use crate::{
    checks, explain,
    items::{self, Asked, Page},
    limits,
    objects::{Name, Pod},
    plane::Plane,
    policy,
    replicas::{Gathered, Replicas},
    service_port,
    tokens::{Caller, Tokens},
    turns::Turns,
    watching::Watch,
    writes::Writes,
};

/// Serves `weir`.
#[derive(Debug)]
pub struct Service {
    plane: Arc<Plane>,
    tokens: Arc<Tokens>,
    replicas: Arc<Replicas>,
    writes: Writes,
    turns: Turns,
    watches: Arc<Semaphore>,
}

impl Service {
    /// A service over the shared state.
    pub fn new(plane: Arc<Plane>, tokens: Arc<Tokens>, replicas: Arc<Replicas>, writes: Writes) -> Service {
        let (turns, watches) = (Turns::new(Arc::clone(&plane)), Arc::new(Semaphore::new(limits::WATCHES)));
        Service { plane, tokens, replicas, writes, turns, watches }
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
        let v1::ObserveRequest { endpoints, routes, .. } = asked;
        let asked = v1::ShareRequest { window_seconds: window, endpoints, routes, log_level: None };
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
            index.pods().filter(wanted).map(|pod| items::workload(&index, pod, &statuses)).collect();
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
        let endpoints = items::of_port(&index, &name, &service_port.name);
        Ok(Response::new(v1::EndpointsResponse { endpoints }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.turns.take(|plane| {
            let findings = plane.findings();
            // The index is let go of before the decision.
            let gathered = explain::gather(&plane.index(), &findings, request)?;
            gathered.answer()
        });
        answer.await.map(Response::new)
    }

    async fn policy(&self, request: Request<v1::PolicyRequest>) -> Result<Response<v1::PolicyResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.turns.take(move |plane| {
            let findings = plane.findings();
            policy::policy(&plane.index(), &findings, &request)
        });
        answer.await.map(Response::new)
    }

    async fn resource(&self, request: Request<v1::ResourceRequest>) -> Result<Response<v1::ResourceResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let answer = self.turns.take(move |plane| {
            let index = plane.index();
            let (name, service) = service_port::service(&index, &request.namespace, &request.service)?;
            let port = service_port::port(&name, &service, request.port)?.port;
            let (address, target) = service_port::told(&index, &name, &service, port)?;
            let destination = v1::Destination { target: Some(v1::destination::Target::Service(target)) };
            Ok(v1::ResourceResponse { key: address.to_string(), destination: Some(destination) })
        });
        answer.await.map(Response::new)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let request = request.into_inner();
        let (asked, page) = (Asked::of(&request)?, Page::of(&request));
        let gathered = if asked.is_of_nodes() { self.replicas.gather(None).await? } else { Gathered::default() };
        let missing_replicas = gathered.missing_replicas();
        let listed = self.turns.take(move |plane| Ok(items::page(plane, &gathered, &asked, &page)));
        let (items, has_more) = listed.await?;
        let next = items.last().filter(|_| has_more).map(|last| last.key.clone()).unwrap_or_default();
        Ok(Response::new(v1::ListResponse { items, next, missing_replicas }))
    }

    type WatchStream = ReceiverStream<Result<v1::WatchEvent, Status>>;

    async fn watch(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request);
        self.tokens.api(&caller).await?;
        let asked = Asked::of(request.get_ref())?;
        let full = |_full| Status::resource_exhausted(format!("{} watches are open already", limits::WATCHES));
        let place = Arc::clone(&self.watches).try_acquire_owned().map_err(full)?;
        let (events, stream) = mpsc::channel(limits::WATCH_QUEUE);
        let watch = Watch {
            plane: Arc::clone(&self.plane),
            tokens: Arc::clone(&self.tokens),
            replicas: Arc::clone(&self.replicas),
            turns: self.turns.clone(),
            caller,
            asked,
        };
        tokio::spawn(async move {
            watch.run(events).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        self.writes.apply(request).await.map(Response::new)
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        self.writes.delete(request).await.map(Response::new)
    }

    async fn log_levels(
        &self,
        request: Request<v1::LogLevelsRequest>,
    ) -> Result<Response<v1::LogLevelsResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        self.writes.log_levels(request).await.map(Response::new)
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        self.tokens.api(&Caller::of(&request)).await?;
        let gathered = self.replicas.gather(Some(v1::ShareRequest { window_seconds: 1, ..Default::default() })).await?;
        Ok(Response::new(v1::CheckResponse { results: checks::all(&self.plane, &gathered) }))
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
