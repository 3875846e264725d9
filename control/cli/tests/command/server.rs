//! A control plane of fixed answers over TLS, with a token.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};
use weir_api::v1::{
    self, CheckOutcome, CheckRequest, CheckResponse, CheckResult, Direction, EndpointsRequest, EndpointsResponse,
    NodeVersion, ObserveRequest, ObserveResponse, PodRef, PodStatus, Replica, Report, RouteReport, ServiceEndpoint,
    TrafficReport, VersionRequest, VersionResponse, WorkloadReport, WorkloadsRequest, WorkloadsResponse,
    mesh_server::{Mesh, MeshServer},
};

/// The default of `--control-identity`.
pub(crate) const IDENTITY: &str = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local";
const TOKEN: &str = "api-token-1";

/// A running server; ends with the test's runtime.
pub(crate) struct Control {
    pub(crate) url: String,
    pub(crate) anchors: NamedTempFile,
    pub(crate) token: NamedTempFile,
    calls: Arc<AtomicUsize>,
}

impl Control {
    /// Serves with a certificate for `name`, of a new CA.
    pub(crate) async fn start(name: &str) -> Control {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(leaf.pem(), key.serialize_pem()));
        let calls = Arc::new(AtomicUsize::new(0));
        let answers = Answers { leaf: leaf.der().to_vec(), calls: Arc::clone(&calls) };
        let server = Server::builder().tls_config(tls).unwrap().add_service(MeshServer::new(answers));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Control { url, anchors: file(&ca.as_ref().pem()), token: file(&format!("{TOKEN}\n")), calls }
    }

    /// Calls so far, refused ones too.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn file(content: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

struct Answers {
    leaf: Vec<u8>,
    calls: Arc<AtomicUsize>,
}

impl Answers {
    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if given == Some(&format!("Bearer {TOKEN}")) { Ok(()) } else { Err(Status::unauthenticated("no such token")) }
    }
}

fn pod() -> Option<PodRef> {
    Some(PodRef {
        namespace: "shop".into(),
        name: "web-1".into(),
        owner_kind: "deployment".into(),
        owner_name: "web".into(),
        ..PodRef::default()
    })
}

/// All that fails is sent again once, and then ends well.
fn routes(requests: u64, failures: u64) -> [RouteReport; 3] {
    let route = RouteReport {
        workload: pod(),
        service: "shop/web".into(),
        port: 80,
        success_total: requests,
        retries_total: failures,
        duration_counts: vec![0, requests, 0],
        ..RouteReport::default()
    };
    let attempts = RouteReport {
        is_attempts: true,
        backend: "shop/web".into(),
        backend_port: 80,
        failure_total: failures,
        retries_total: 0,
        ..route.clone()
    };
    let others = RouteReport { service: String::new(), ..route.clone() };
    [route, attempts, others]
}

#[tonic::async_trait]
impl Mesh for Answers {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.authorize(&request)?;
        let nodes = vec![NodeVersion { node_name: "n1".into(), version: "9.9.8".into() }];
        Ok(Response::new(VersionResponse { control: "9.9.9".into(), nodes, replicas: Vec::new() }))
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ObserveResponse>, Status> {
        self.authorize(&request)?;
        let asked = request.into_inner();
        let window_seconds = f64::from(asked.window_seconds);
        let requests = window_seconds as u64;
        let failures = requests / 10;
        let traffic = TrafficReport {
            direction: Direction::Inbound.into(),
            workload: pod(),
            tls: "true".into(),
            client_identity: "cart.shop.serviceaccount.identity.linkerd.cluster.local".into(),
            success_total: requests - failures,
            failure_total: failures,
            latency_bounds_ms: vec![10.0, 20.0],
            latency_counts: vec![0, requests, 0],
            ..TrafficReport::default()
        };
        let workload = WorkloadReport {
            pod: pod(),
            captured: true,
            certificate_chain: vec![self.leaf.clone()],
            ..WorkloadReport::default()
        };
        let report = Report {
            window_seconds,
            traffic: vec![traffic],
            workloads: vec![workload],
            routes: asked.routes.iter().flat_map(|_asked| routes(requests, failures)).collect(),
            routes_left_out: u64::from(asked.routes.is_some()),
            route_bounds_ms: vec![10.0, 20.0],
            ..Report::default()
        };
        Ok(Response::new(ObserveResponse {
            reports: vec![report],
            missing_nodes: vec!["late".into()],
            missing_replicas: vec![Replica { name: "c-2".into(), problem: "asleep".into(), ..Replica::default() }],
        }))
    }

    async fn workloads(&self, request: Request<WorkloadsRequest>) -> Result<Response<WorkloadsResponse>, Status> {
        self.authorize(&request)?;
        let pods = vec![PodStatus { pod: pod(), enabled: true, captured: true, ..PodStatus::default() }];
        Ok(Response::new(WorkloadsResponse { pods, missing_replicas: Vec::new() }))
    }

    async fn endpoints(&self, request: Request<EndpointsRequest>) -> Result<Response<EndpointsResponse>, Status> {
        self.authorize(&request)?;
        if request.into_inner().authority != "web.shop:80" {
            return Err(Status::not_found("no service absent in namespace shop"));
        }
        let endpoint =
            ServiceEndpoint { address: "10.0.0.1".into(), port: 80, pod: pod(), ..ServiceEndpoint::default() };
        Ok(Response::new(EndpointsResponse { endpoints: vec![endpoint] }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        self.authorize(&request)?;
        let v1::ExplainRequest { namespace, service: name, port, path, .. } = request.into_inner();
        let failure = v1::Failure { http_status: 404, grpc_code: None, reason: "no route".into() };
        let way = v1::Way { percent: 100.0, what: Some(v1::way::What::Failure(failure)), ..v1::Way::default() };
        let service = Some(v1::ServicePortRef { namespace, name, port, port_name: String::new() });
        let notes = vec!["nobody is in the mesh".into()];
        Ok(Response::new(v1::ExplainResponse { service, path, ways: vec![way], notes, ..Default::default() }))
    }

    async fn policy(&self, request: Request<v1::PolicyRequest>) -> Result<Response<v1::PolicyResponse>, Status> {
        self.authorize(&request)?;
        let v1::PolicyRequest { namespace, service, client_namespace, .. } = request.into_inner();
        let setting = v1::Setting { name: "retry.limit".into(), value: "3".into(), source: None };
        let settings = vec![setting];
        Ok(Response::new(v1::PolicyResponse { namespace, service, client_namespace, settings, ..Default::default() }))
    }

    async fn resource(&self, request: Request<v1::ResourceRequest>) -> Result<Response<v1::ResourceResponse>, Status> {
        self.authorize(&request)?;
        let v1::ResourceRequest { namespace, service: name, port } = request.into_inner();
        let target = v1::ServiceTarget { namespace, name, port, ..v1::ServiceTarget::default() };
        let destination = Some(v1::Destination { target: Some(v1::destination::Target::Service(target)) });
        Ok(Response::new(v1::ResourceResponse { key: "10.0.0.1:80".into(), destination }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        self.authorize(&request)?;
        let result = CheckResult {
            category: "weir-node".into(),
            description: "all pods are captured".into(),
            outcome: CheckOutcome::Error.into(),
            hint: "web-2 is not: restart it".into(),
        };
        Ok(Response::new(CheckResponse { results: vec![result] }))
    }

    async fn log_levels(
        &self,
        request: Request<v1::LogLevelsRequest>,
    ) -> Result<Response<v1::LogLevelsResponse>, Status> {
        self.authorize(&request)?;
        let own = request.metadata().get("kubernetes-authorization").is_some();
        let v1::LogLevelsRequest { nodes, set, .. } = request.into_inner();
        if set.is_some() && !own {
            return Err(Status::permission_denied("log levels: may not update loglevels.weir.mesh"));
        }
        let level = |node_name: String| match node_name.as_str() {
            "gone" => v1::NodeLogLevel { node_name, problem: "not connected".into(), ..v1::NodeLogLevel::default() },
            _there => v1::NodeLogLevel {
                node_name,
                filter: set.clone().unwrap_or_else(|| "info".into()),
                ..Default::default()
            },
        };
        Ok(Response::new(v1::LogLevelsResponse { nodes: nodes.into_iter().map(level).collect(), ..Default::default() }))
    }

    // What follows is asked by other programs.

    async fn list(&self, _request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    type WatchStream = tonic::codegen::BoxStream<v1::WatchEvent>;

    async fn watch(&self, _request: Request<v1::ListRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }

    async fn apply(&self, _request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        Err(Status::unimplemented("apply"))
    }

    async fn delete(&self, _request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(Status::unimplemented("delete"))
    }
}
