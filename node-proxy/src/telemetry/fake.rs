//! A node without a process behind it, for tests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use weir_api::v1;
use weir_core::{
    identity::Identity,
    inbound::{DefaultPolicy, Ruler, Ruling},
    outbound::NoTlsReason,
    snapshot::{self, PodRef, Snapshot},
};

use super::{Capture, Certificate, Direction, HttpLabels, NodeState, TcpLabels, TlsLabel};

pub(crate) struct FakeState {
    pub(crate) snapshot: Mutex<Arc<Snapshot>>,
    pub(crate) synced: AtomicBool,
    pub(crate) captures: Mutex<Vec<Capture>>,
    pub(crate) certificates: Mutex<Vec<Certificate>>,
}

impl FakeState {
    pub(crate) fn new(resources: Vec<v1::Resource>) -> Arc<FakeState> {
        let applied = snapshot::apply(&Snapshot::default(), Duration::ZERO, resources, Vec::new());
        assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
        Arc::new(FakeState {
            snapshot: Mutex::new(Arc::new(applied.snapshot)),
            synced: AtomicBool::new(true),
            captures: Mutex::default(),
            certificates: Mutex::default(),
        })
    }
}

impl NodeState for FakeState {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock())
    }

    fn synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    fn control_connected(&self) -> bool {
        false
    }

    fn captures(&self) -> Vec<Capture> {
        self.captures.lock().clone()
    }

    fn certificates(&self) -> Vec<Certificate> {
        self.certificates.lock().clone()
    }

    fn sockets_in_stock(&self) -> usize {
        4
    }

    fn checks(&self) -> Vec<v1::CheckResult> {
        Vec::new()
    }

    fn arguments(&self) -> serde_json::Value {
        serde_json::json!({ "node-name": "n1" })
    }
}

pub(crate) fn identity(account: &str) -> Identity {
    format!("{account}.shop.serviceaccount.identity.linkerd.cluster.local").parse().unwrap()
}

pub(crate) fn pod(name: &str) -> Arc<PodRef> {
    Arc::new(PodRef {
        namespace: Arc::from("shop"),
        name: Arc::from(name),
        service_account: Arc::from("default"),
        owner_kind: Arc::from("deployment"),
        owner_name: Arc::from(name.split('-').next().unwrap()),
        node_name: Arc::from("n1"),
        zone: Arc::from("z1"),
        pod_template_hash: Arc::from("5f"),
    })
}

fn v1_pod(name: &str) -> v1::PodRef {
    crate::report::pod_ref(&pod(name))
}

fn resource(kind: v1::ResourceKind, name: &str, body: v1::resource::Body) -> v1::Resource {
    let key = v1::ResourceKey { kind: kind.into(), name: name.to_owned() };
    v1::Resource { key: Some(key), version: 1, body: Some(body) }
}

pub(crate) fn workload(uid: &str, name: &str) -> v1::Resource {
    let workload = v1::Workload {
        uid: uid.to_owned(),
        pod: Some(v1_pod(name)),
        addresses: vec!["10.0.0.1".to_owned()],
        identity: identity("default").as_str().to_owned(),
        capture: None,
        ports: Vec::new(),
        access_log: v1::AccessLog::Json.into(),
        default_policy: v1::DefaultPolicy::Deny.into(),
        probes: Vec::new(),
        servers: Vec::new(),
    };
    resource(v1::ResourceKind::Workload, uid, v1::resource::Body::Workload(workload))
}

/// A service with a ready endpoint and one that is not.
pub(crate) fn service() -> Vec<v1::Resource> {
    let endpoint = |address: &str, ready| v1::Endpoint {
        address: address.to_owned(),
        ready,
        pod: Some(v1_pod("web-1")),
        identity: identity("default").as_str().to_owned(),
        uid: address.to_owned(),
        ..v1::Endpoint::default()
    };
    let endpoints = v1::Endpoints {
        namespace: "shop".to_owned(),
        name: "web-abc".to_owned(),
        service: "web".to_owned(),
        ports: vec![v1::EndpointPort { name: String::new(), port: 8080 }],
        endpoints: vec![endpoint("10.0.0.2", true), endpoint("10.0.0.3", false)],
    };
    let service = v1::ServiceTarget {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        port: 80,
        port_name: String::new(),
        protocol: v1::Protocol::Http1.into(),
        endpoints: vec!["shop/web-abc".to_owned()],
        local_only: false,
        http_routes: Vec::new(),
        timeouts: None,
        retry: None,
        retry_budget: None,
        breaker: None,
        load_bias: None,
        balancer: None,
        allow_l5d_request_headers: false,
    };
    let destination = v1::Destination { target: Some(v1::destination::Target::Service(service)) };
    vec![
        resource(v1::ResourceKind::Endpoints, "shop/web-abc", v1::resource::Body::Endpoints(endpoints)),
        resource(v1::ResourceKind::Destination, "10.96.0.7:80", v1::resource::Body::Destination(destination)),
    ]
}

pub(crate) fn target() -> SocketAddr {
    "10.0.0.2:8080".parse().unwrap()
}

pub(crate) fn http_labels(authority: &str) -> HttpLabels {
    HttpLabels {
        direction: Direction::Outbound,
        workload: pod("client-1"),
        peer: Some(pod("web-1")),
        tls: TlsLabel::True,
        client_id: Some(identity("client")),
        server_id: Some(identity("web")),
        authority: Some(Arc::from(authority)),
        target_addr: target(),
        service: Some((Arc::from("shop"), Arc::from("web"))),
        policy: None,
    }
}

fn by_default() -> Arc<Ruling> {
    Arc::new(Ruling { ruler: Ruler::Default(DefaultPolicy::AllUnauthenticated), authorization: None, route: None })
}

pub(crate) fn tcp_labels() -> TcpLabels {
    TcpLabels {
        direction: Direction::Inbound,
        peer_is_src: true,
        workload: pod("web-1"),
        peer: None,
        tls: TlsLabel::NoIdentity(NoTlsReason::NoTlsFromRemote),
        client_id: None,
        server_id: None,
        target_addr: target(),
        service: None,
        policy: Some(by_default()),
    }
}
