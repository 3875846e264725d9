//! A node as control sees one: a stream that acknowledges, and certificate requests. Must never decide what is right.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::Engine as _;
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use weir_api::v1::{
    self, control_message, mesh_client::MeshClient, node_message, nodes_client::NodesClient,
    replicas_client::ReplicasClient, resource::Body,
};

use crate::stage::{Control, SOON};

async fn channel(control: &Control, anchors: &str) -> Channel {
    channel_as(control, anchors, None).await
}

async fn channel_as(control: &Control, anchors: &str, own: Option<Identity>) -> Channel {
    try_channel(control, anchors, own).await.expect("control answers with a certificate of the anchors")
}

/// Whether control's own certificate is of these anchors.
pub(crate) async fn proves_itself(control: &Control, anchors: &str) -> bool {
    try_channel(control, anchors, None).await.is_ok()
}

async fn try_channel(
    control: &Control,
    anchors: &str,
    own: Option<Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(anchors))
        .domain_name("weir-control.weir.serviceaccount.identity.linkerd.cluster.local");
    if let Some(own) = own {
        tls = tls.identity(own);
    }
    let endpoint = Channel::from_shared(control.url()).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Asks for a certificate of `account` in namespace `shop`, or of `account.namespace`.
pub(crate) async fn certify(
    control: &Control,
    anchors: &str,
    token: &str,
    account: &str,
) -> Result<v1::CertifyResponse, Status> {
    certify_key(control, anchors, token, account, &rcgen::KeyPair::generate().unwrap()).await
}

/// Asks for a certificate of a key.
async fn certify_key(
    control: &Control,
    anchors: &str,
    token: &str,
    account: &str,
    key: &rcgen::KeyPair,
) -> Result<v1::CertifyResponse, Status> {
    let (account, namespace) = account.split_once('.').unwrap_or((account, "shop"));
    let identity = format!("{account}.{namespace}.serviceaccount.identity.linkerd.cluster.local");
    let params = rcgen::CertificateParams::new(vec![identity.clone()]).unwrap();
    let certificate_signing_request = params.serialize_request(key).unwrap().der().to_vec();
    let mut client = NodesClient::new(channel(control, anchors).await);
    let request = v1::CertifyRequest { identity, certificate_signing_request };
    client.certify(with_token(request, token)).await.map(tonic::Response::into_inner)
}

/// Asks what `weir version` asks.
pub(crate) async fn version(control: &Control, anchors: &str, token: &str) -> Result<v1::VersionResponse, Status> {
    let mut client = MeshClient::new(channel(control, anchors).await);
    client.version(with_token(v1::VersionRequest {}, token)).await.map(tonic::Response::into_inner)
}

/// Asks for what only replicas may ask, with nothing or as a workload whose certificate somebody got hold of.
pub(crate) async fn share(control: &Control, anchors: &str, workload: Option<&str>) -> Result<(), Status> {
    let mut own = None;
    if let Some(token) = workload {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = certify_key(control, anchors, token, "web", &key).await?.chain;
        own = Some(Identity::from_pem(chain.iter().map(|der| pem(der)).collect::<String>(), key.serialize_pem()));
    }
    let mut client = ReplicasClient::new(channel_as(control, anchors, own).await);
    client.share(v1::ShareRequest::default()).await.map(drop)
}

fn pem(der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n")
}

/// The client of people's programs.
pub(crate) struct Mesh<'a> {
    client: MeshClient<Channel>,
    token: &'a str,
}

impl<'a> Mesh<'a> {
    pub(crate) async fn of(control: &Control, anchors: &str, token: &'a str) -> Mesh<'a> {
        Mesh { client: MeshClient::new(channel(control, anchors).await), token }
    }

    pub(crate) async fn version(&mut self) -> v1::VersionResponse {
        self.client.version(with_token(v1::VersionRequest {}, self.token)).await.unwrap().into_inner()
    }

    pub(crate) async fn observe(&mut self) -> v1::ObserveResponse {
        let request = v1::ObserveRequest { window_seconds: 1, ..Default::default() };
        self.client.observe(with_token(request, self.token)).await.unwrap().into_inner()
    }

    pub(crate) async fn workloads(&mut self) -> Vec<v1::PodStatus> {
        let request = v1::WorkloadsRequest { namespace: "shop".to_owned() };
        self.client.workloads(with_token(request, self.token)).await.unwrap().into_inner().pods
    }

    /// What is not well, as `description: hint`.
    pub(crate) async fn wrong(&mut self) -> Vec<String> {
        let answer = self.client.check(with_token(v1::CheckRequest {}, self.token)).await.unwrap().into_inner();
        let wrong = answer.results.into_iter().filter(|result| result.outcome() != v1::CheckOutcome::Success);
        wrong.map(|result| format!("{}: {}", result.description, result.hint)).collect()
    }
}

/// A connected node.
pub(crate) struct Node {
    incoming: Streaming<v1::ControlMessage>,
    outgoing: mpsc::Sender<v1::NodeMessage>,
    /// What it holds, by kind and name.
    pub(crate) held: BTreeMap<String, v1::Resource>,
    /// Upserts and removals that came over this stream.
    pub(crate) told: Vec<String>,
    /// Its answer to queries.
    pub(crate) report: Arc<Mutex<v1::Report>>,
    watched: Option<(String, Watched)>,
}

/// A resource as the node has it, for who looks while the node goes on by itself.
pub(crate) type Watched = Arc<Mutex<Option<v1::Resource>>>;

fn shown(key: &v1::ResourceKey) -> String {
    format!("{} {}", key.kind().as_str_name(), key.name)
}

fn message(message: node_message::Message) -> v1::NodeMessage {
    v1::NodeMessage { message: Some(message) }
}

impl Node {
    /// Opens a stream; `held` is what it knows from before, and what it uses.
    pub(crate) async fn connect(
        control: &Control,
        anchors: &str,
        token: &str,
        name: &str,
        held: BTreeMap<String, v1::Resource>,
        destinations: &[&str],
    ) -> Result<Node, Status> {
        let known = held.values();
        let known = known.map(|resource| v1::ResourceVersion { key: resource.key.clone(), version: resource.version });
        let hello = v1::Hello {
            node_name: name.to_owned(),
            version: "test".to_owned(),
            known: known.collect(),
            destinations: destinations.iter().map(|text| (*text).to_owned()).collect(),
        };
        let (outgoing, messages) = mpsc::channel(64);
        outgoing.send(message(node_message::Message::Hello(hello))).await.unwrap();
        let mut client = NodesClient::new(channel(control, anchors).await);
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let incoming = client.stream(with_token(messages, token)).await?.into_inner();
        let report = Arc::default();
        let mut node = Node { incoming, outgoing, held, told: Vec::new(), report, watched: None };
        node.until("synced", |_held| false).await.map(|()| node)
    }

    /// Reads until what it holds is as wanted, or all that it asked for has come.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&BTreeMap<String, v1::Resource>) -> bool,
    ) -> Result<(), Status> {
        let deadline = Instant::now() + SOON;
        while !wanted(&self.held) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(said) = tokio::time::timeout(left, self.incoming.message()).await else {
                panic!("{what}; held: {:#?}", self.held.keys());
            };
            let Some(said) = said? else { panic!("{what}: control closed the stream") };
            if self.take(said).await {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Everything that comes within a time.
    pub(crate) async fn listen(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while let Ok(said) = tokio::time::timeout_at(deadline.into(), self.incoming.message()).await {
            let said = said.expect("the stream lives on").expect("control goes on");
            self.take(said).await;
        }
    }

    /// One resource that somebody else will look at.
    pub(crate) fn watched(&mut self, key: &str) -> Watched {
        let watched = Watched::default();
        *watched.lock().unwrap() = self.held.get(key).cloned();
        self.watched = Some((key.to_owned(), Arc::clone(&watched)));
        watched
    }

    /// Goes on by itself: acknowledges, and answers queries.
    pub(crate) fn attend(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            while let Ok(Some(said)) = self.incoming.message().await {
                self.take(said).await;
            }
        })
    }

    /// Whether all that was asked for has come.
    async fn take(&mut self, said: v1::ControlMessage) -> bool {
        if let Some(control_message::Message::Query(query)) = &said.message {
            let mut report = v1::Report { query_id: query.id, ..self.report.lock().unwrap().clone() };
            if query.endpoints.is_none() {
                report.endpoints.clear();
            }
            // The stream may have ended meanwhile.
            let _gone = self.outgoing.send(message(node_message::Message::Report(report))).await;
        }
        let Some(control_message::Message::Update(update)) = said.message else { return false };
        let upserts = update.upserts.iter().filter_map(|resource| resource.key.as_ref());
        self.told.extend(upserts.chain(&update.removals).map(shown));
        for key in &update.removals {
            self.held.remove(&shown(key));
        }
        for resource in update.upserts {
            self.held.insert(shown(resource.key.as_ref().unwrap()), resource);
        }
        if let Some((key, watched)) = &self.watched {
            *watched.lock().unwrap() = self.held.get(key).cloned();
        }
        let acknowledge = v1::Acknowledge { nonce: update.nonce, rejected: Vec::new() };
        self.say(node_message::Message::Acknowledge(acknowledge)).await;
        update.synced
    }

    async fn say(&self, said: node_message::Message) {
        self.outgoing.send(message(said)).await.unwrap();
    }

    /// Says that a pod is captured, with a certificate or still without.
    pub(crate) async fn captured(&self, uid: &str, certificate_not_after: i64) {
        let status =
            v1::WorkloadStatus { uid: uid.to_owned(), captured: true, reason: String::new(), certificate_not_after };
        self.say(node_message::Message::WorkloadStatus(status)).await;
    }

    /// Says that this pod is the one that its breakers have taken out of this port of `shop/web`, or that there is none.
    pub(crate) async fn out(&self, uid: &str, port: Option<u32>) {
        let one = |port| v1::OutEndpoint { service: "shop/web".to_owned(), port, uid: uid.to_owned() };
        let endpoints = port.map(one).into_iter().collect();
        self.say(node_message::Message::OutEndpoints(v1::OutEndpoints { endpoints })).await;
    }

    /// Names of what it holds of a kind.
    pub(crate) fn names(&self, kind: v1::ResourceKind) -> Vec<&str> {
        let prefix = kind.as_str_name();
        self.held.keys().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix(' ')).collect()
    }
}

/// Identity of the only endpoint that a node knows; empty when it is dialled in plain.
pub(crate) fn endpoint_identity(held: &BTreeMap<String, v1::Resource>) -> Option<&str> {
    held.values().find_map(|resource| match &resource.body {
        Some(Body::Endpoints(endpoints)) => endpoints.endpoints.first().map(|first| first.identity.as_str()),
        _ => None,
    })
}
