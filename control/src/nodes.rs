//! The gRPC service for nodes: one stream of configuration each, and certificates. Must never tell a node what concerns another's pods.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_api::v1::{self, control_message, node_message, nodes_server::Nodes};
use weir_core::identity::Identity;

use crate::{
    allowance::Allowance,
    audit,
    ca::CaError,
    kubernetes::{CONTROL, NAMESPACE},
    limits,
    notices::{Notice, Reason},
    objects::Pod,
    parse::quoted,
    plane::{Node, Plane},
    session::Session,
    tokens::{Caller, Tokens},
};

/// Serves nodes.
#[derive(Debug)]
pub struct Service {
    plane: Arc<Plane>,
    tokens: Arc<Tokens>,
    allowances: Mutex<HashMap<Arc<str>, Allowance>>,
}

type Messages = Pin<Box<dyn futures_core::Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;
type Outgoing = mpsc::Sender<Result<v1::ControlMessage, Status>>;

impl Service {
    /// A service over the shared state.
    pub fn new(plane: Arc<Plane>, tokens: Arc<Tokens>) -> Service {
        Service { plane, tokens, allowances: Mutex::default() }
    }

    fn allow(&self, node: &Arc<str>) -> Result<(), Status> {
        let now = Instant::now();
        let mut allowances = self.allowances.lock();
        let full = || Allowance::full(limits::CERTIFY_BURST, limits::CERTIFY_PER_SECOND, now);
        if allowances.entry(Arc::clone(node)).or_insert_with(full).take_now(now) {
            return Ok(());
        }
        Err(Status::resource_exhausted("this node asks for too many certificates; it may ask again in a second"))
    }

    fn sign(&self, node: &str, request: &v1::CertifyRequest) -> Result<v1::CertifyResponse, Status> {
        let identity: Identity =
            request.identity.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if !self.may_have(node, &identity) {
            let reason = format!("no pod of node {node} that is in the mesh has identity {identity}");
            return Err(Status::permission_denied(reason));
        }
        let signed = self.plane.authority.certify(&identity, &request.certificate_signing_request);
        let issued = signed.map_err(|error| match &error {
            CaError::Request(_) => Status::invalid_argument(error.to_string()),
            _other => {
                tracing::error!(%error, %identity, "cannot sign");
                Status::internal("control cannot sign; its log says why")
            }
        })?;
        self.plane.metrics.certificate("issued");
        tracing::info!(node, %identity, not_after = issued.not_after, "certificate issued");
        Ok(v1::CertifyResponse { chain: issued.chain, not_after: issued.not_after })
    }

    /// Whether a live, opted-in pod of the node has this identity.
    fn may_have(&self, node: &str, identity: &Identity) -> bool {
        // Whoever has control's own passes for a replica, and replicas believe each other.
        if identity.namespace() == NAMESPACE && identity.service_account() == CONTROL {
            return false;
        }
        let index = self.plane.index();
        index.pods_of_node(node).any(|pod| pod.identity.as_ref() == Some(identity) && index.is_enabled(pod))
    }

    /// Pods of the node that wanted the certificate which was refused.
    fn tell_pods(&self, node: &str, identity: &str, refusal: &Status) {
        let concerned: Vec<Arc<Pod>> = {
            let index = self.plane.index();
            let is_its = |known: &Identity| known.as_str() == identity;
            let named = |pod: &&Arc<Pod>| pod.identity.as_ref().is_some_and(is_its) && index.is_opted_in(pod);
            index.pods_of_node(node).filter(named).take(limits::PODS_PER_REFUSAL).cloned().collect()
        };
        for pod in concerned {
            let note = format!("control did not sign a certificate for {identity}: {}", refusal.message());
            self.plane.notify(Notice::of(&pod, Reason::CertificateDenied, note));
        }
    }
}

#[tonic::async_trait]
impl Nodes for Service {
    type StreamStream = Messages;

    async fn stream(&self, request: Request<Streaming<v1::NodeMessage>>) -> Result<Response<Messages>, Status> {
        let caller = Caller::of(&request);
        let name = self.tokens.node(&caller).await?;
        if !self.plane.is_loaded() {
            return Err(Status::unavailable("control has not read all objects yet"));
        }
        let mut incoming = request.into_inner();
        let hello = tokio::time::timeout(limits::HELLO_WITHIN, first(&mut incoming))
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no hello came"))??;
        if *hello.node_name != *name {
            let claimed = quoted(&hello.node_name);
            let refusal = Status::permission_denied(format!("this token is node {name}'s, not {claimed}'s"));
            audit::refused(audit::Act::Node, &refusal, &hello.node_name, caller.peer);
            return Err(refusal);
        }
        let (asked, questions) = mpsc::channel(limits::QUERIES_PER_NODE);
        let node = self.plane.join(name, hello.version.clone(), asked)?;
        let session = {
            let index = self.plane.index();
            Session::new(Arc::clone(&node.name), self.plane.trust_domain.clone(), &hello, &index)
        };
        node.set_trust_version(session.trust_version());
        let (outgoing, messages) = mpsc::channel(limits::SESSION_QUEUE);
        let talk = Talk { plane: Arc::clone(&self.plane), node, session, outgoing };
        tokio::spawn(talk.run(incoming, questions));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn certify(&self, request: Request<v1::CertifyRequest>) -> Result<Response<v1::CertifyResponse>, Status> {
        let caller = Caller::of(&request);
        let node = self.tokens.node(&caller).await?;
        self.allow(&node)?;
        if !self.plane.is_loaded() {
            return Err(Status::unavailable("control has not read all objects yet"));
        }
        let request = request.into_inner();
        match self.sign(&node, &request) {
            Ok(response) => Ok(Response::new(response)),
            Err(refusal) => {
                self.plane.metrics.certificate("refused");
                let claimed = format!("node {node}: {}", request.identity);
                audit::refused(audit::Act::Certify, &refusal, &claimed, caller.peer);
                self.tell_pods(&node, &request.identity, &refusal);
                Err(refusal)
            }
        }
    }
}

async fn first(incoming: &mut Streaming<v1::NodeMessage>) -> Result<v1::Hello, Status> {
    match incoming.message().await?.and_then(|message| message.message) {
        Some(node_message::Message::Hello(hello)) => Ok(hello),
        _other => Err(Status::invalid_argument("the first message must be hello")),
    }
}

/// One node's stream in progress.
struct Talk {
    plane: Arc<Plane>,
    node: Arc<Node>,
    session: Session,
    outgoing: Outgoing,
}

impl Talk {
    async fn run(mut self, mut incoming: Streaming<v1::NodeMessage>, mut questions: mpsc::Receiver<v1::Query>) {
        tracing::info!(node = %self.node.name, version = self.node.version, "node connected");
        let ended = self.follow(&mut incoming, &mut questions).await;
        self.plane.leave(&self.node);
        match ended {
            Ok(()) => tracing::info!(node = %self.node.name, "node disconnected"),
            Err(status) => {
                tracing::warn!(node = %self.node.name, reason = status.message(), "node cut off or lost");
                // It may be gone already.
                let _gone = self.outgoing.try_send(Err(status));
            }
        }
    }

    async fn follow(
        &mut self,
        incoming: &mut Streaming<v1::NodeMessage>,
        questions: &mut mpsc::Receiver<v1::Query>,
    ) -> Result<(), Status> {
        loop {
            self.send_due().await?;
            let wake = self.wake();
            tokio::select! {
                message = incoming.message() => match message? {
                    Some(message) => self.hear(message)?,
                    None => return Ok(()),
                },
                question = questions.recv() => {
                    let Some(query) = question else { return Ok(()) };
                    self.say(control_message::Message::Query(query)).await?;
                }
                () = self.node.news.notified() => {
                    if !self.plane.is_current(&self.node) {
                        return Err(Status::aborted("a later connection of this node took over"));
                    }
                    let changed = std::mem::take(&mut *self.node.changed.lock());
                    self.session.touch(&changed, &self.plane.index());
                    // What it said before an opt-out was forgotten, whatever other replicas know.
                    let statuses = self.node.statuses.lock();
                    for (_node, uid) in changed.workloads.iter().filter(|(_, uid)| !statuses.contains_key(&**uid)) {
                        self.session.ask_anew(uid);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => self.check_overdue()?,
            }
        }
    }

    fn wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(60);
        [self.session.overdue(), self.session.due()].into_iter().flatten().min().unwrap_or(far).min(far)
    }

    fn check_overdue(&self) -> Result<(), Status> {
        if self.session.overdue().is_some_and(|at| at <= Instant::now()) {
            return Err(Status::deadline_exceeded("an update was not acknowledged in time"));
        }
        if self.plane.is_current(&self.node) {
            return Ok(());
        }
        Err(Status::aborted("a later connection of this node took over"))
    }

    async fn send_due(&mut self) -> Result<(), Status> {
        loop {
            let trust = self.plane.trust_bundle();
            let update = self.session.next(&self.plane.index(), &trust, Instant::now());
            let Some(update) = update else { return Ok(()) };
            self.plane.metrics.update(update.upserts.len(), update.removals.len());
            self.say(control_message::Message::Update(update)).await?;
        }
    }

    async fn say(&self, message: control_message::Message) -> Result<(), Status> {
        let message = v1::ControlMessage { message: Some(message) };
        match tokio::time::timeout(limits::ACKNOWLEDGE_WITHIN, self.outgoing.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(Status::cancelled("the node closed the stream")),
            Err(_elapsed) => Err(Status::deadline_exceeded("the node does not read")),
        }
    }

    fn hear(&mut self, message: v1::NodeMessage) -> Result<(), Status> {
        match message.message {
            Some(node_message::Message::Subscribe(subscribe)) => {
                self.session.subscribe(&subscribe.destinations, &self.plane.index());
            }
            Some(node_message::Message::Unsubscribe(unsubscribe)) => {
                self.session.unsubscribe(&unsubscribe.destinations)
            }
            Some(node_message::Message::Acknowledge(acknowledge)) => {
                self.session.acknowledge(&acknowledge)?;
                self.node.set_trust_version(self.session.trust_version());
                self.rejected(acknowledge.rejected);
            }
            Some(node_message::Message::WorkloadStatus(status)) => self.plane.status(&self.node, status),
            Some(node_message::Message::OutEndpoints(mut out)) => {
                out.endpoints.retain(|one| {
                    one.service.len() <= limits::OUT_NAME_BYTES && one.uid.len() <= limits::OUT_NAME_BYTES
                });
                out.endpoints.truncate(limits::OUT_PER_NODE);
                *self.node.out.lock() = Some(out.endpoints);
                self.plane.items_changed();
            }
            Some(node_message::Message::Report(report)) => self.plane.answer(&self.node, report),
            Some(node_message::Message::Hello(_)) => {
                return Err(Status::invalid_argument("only one hello is expected"));
            }
            // A newer node says something that this control does not know.
            None => {}
        }
        Ok(())
    }

    fn rejected(&self, rejected: Vec<v1::Rejection>) {
        if rejected.is_empty() {
            return;
        }
        self.plane.metrics.rejected(rejected.len());
        let mut kept = self.node.rejected.lock();
        for rejection in rejected {
            tracing::error!(node = %self.node.name, ?rejection, "a node did not take a resource");
            kept.retain(|other| other.key != rejection.key);
            kept.push(rejection);
        }
        let excess = kept.len().saturating_sub(limits::REJECTIONS_PER_NODE);
        kept.drain(..excess);
        drop(kept);
        self.plane.items_changed();
    }
}
