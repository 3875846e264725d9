//! A node as control sees one: a stream that acknowledges, and certificate requests. Must never decide what is right.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use weir_api::v1::{
    self, control_message, mesh_client::MeshClient, node_message, nodes_client::NodesClient, resource::Body,
};

use crate::stage::{Control, SOON};

async fn channel(control: &Control, anchors: &str) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(anchors))
        .domain_name("weir-control.weir.serviceaccount.identity.linkerd.cluster.local");
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{}", control.port)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.expect("control answers with a certificate of the anchors")
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Asks for a certificate.
pub(crate) async fn certify(
    control: &Control,
    anchors: &str,
    token: &str,
    account: &str,
) -> Result<v1::CertifyResponse, Status> {
    let identity = format!("{account}.shop.serviceaccount.identity.linkerd.cluster.local");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![identity.clone()]).unwrap();
    let certificate_signing_request = params.serialize_request(&key).unwrap().der().to_vec();
    let mut client = NodesClient::new(channel(control, anchors).await);
    let request = v1::CertifyRequest { identity, certificate_signing_request };
    client.certify(with_token(request, token)).await.map(tonic::Response::into_inner)
}

/// Asks what `weir version` asks.
pub(crate) async fn version(control: &Control, anchors: &str, token: &str) -> Result<v1::VersionResponse, Status> {
    let mut client = MeshClient::new(channel(control, anchors).await);
    client.version(with_token(v1::VersionRequest {}, token)).await.map(tonic::Response::into_inner)
}

/// A connected node.
pub(crate) struct Node {
    incoming: Streaming<v1::ControlMessage>,
    outgoing: mpsc::Sender<v1::NodeMessage>,
    /// What it holds, by kind and name.
    pub(crate) held: BTreeMap<String, v1::Resource>,
    /// Upserts and removals that came over this stream.
    pub(crate) told: Vec<String>,
}

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
        let mut node = Node { incoming, outgoing, held, told: Vec::new() };
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

    /// Whether all that was asked for has come.
    async fn take(&mut self, said: v1::ControlMessage) -> bool {
        let Some(control_message::Message::Update(update)) = said.message else { return false };
        let upserts = update.upserts.iter().filter_map(|resource| resource.key.as_ref());
        self.told.extend(upserts.chain(&update.removals).map(shown));
        for key in &update.removals {
            self.held.remove(&shown(key));
        }
        for resource in update.upserts {
            self.held.insert(shown(resource.key.as_ref().unwrap()), resource);
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
