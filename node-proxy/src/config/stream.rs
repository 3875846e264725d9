//! The stream with control: resumed by version, acknowledged resource by resource.
//!
//! Must never give up: control being away is a state, not an error.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_api::v1::{self, control_message, node_message};

use super::{
    ConfigArgs, ReportFn, Store,
    channel::{ConnectError, Control},
    store::Wanted,
};
use crate::limits;

/// One node's stream.
pub(super) struct Stream {
    pub(super) args: ConfigArgs,
    pub(super) control: Arc<Control>,
    pub(super) store: Store,
    pub(super) requests: mpsc::Receiver<Wanted>,
    pub(super) report: ReportFn,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("control refused: {0}")]
    Status(#[from] tonic::Status),
    #[error("control closed the stream")]
    Closed,
}

impl Stream {
    pub(super) async fn run(mut self) {
        let mut pause = limits::CONTROL_PAUSE_MIN;
        loop {
            let began = std::time::Instant::now();
            let Err(error) = self.follow().await;
            self.store.set_connected(false);
            if began.elapsed() > limits::CONTROL_PAUSE_MAX {
                pause = limits::CONTROL_PAUSE_MIN;
            }
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            tracing::warn!(%error, again_in = ?jittered, "no stream from control; serving with what is known");
            self.wait(jittered).await;
            pause = (pause * 2).min(limits::CONTROL_PAUSE_MAX);
        }
    }

    /// Waits, and drops what a new stream will say anyway.
    async fn wait(&mut self, pause: Duration) {
        let deadline = tokio::time::Instant::now() + pause;
        while let Ok(Some(_said_again_by_hello)) = tokio::time::timeout_at(deadline, self.requests.recv()).await {}
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, StreamError> {
        let mut client = self.control.connect(&self.store.snapshot().trust_anchors()).await?;
        let (send, outgoing) = mpsc::channel(limits::CONTROL_QUEUE);
        let say = |message| v1::NodeMessage { message: Some(message) };
        // The queue is empty and its bound is above what is sent here: these cannot fail.
        let _first = send.try_send(say(node_message::Message::Hello(self.hello())));
        let mut incoming = client.stream(ReceiverStream::new(outgoing)).await?.into_inner();
        self.store.set_connected(true);
        tracing::info!("stream from control is up");
        for status in self.store.statuses() {
            self.say(&send, node_message::Message::WorkloadStatus(status)).await?;
        }
        // Also that there are none: until then control does not take them for being back.
        self.say(&send, node_message::Message::OutEndpoints(self.store.out())).await?;
        let mut idle = tokio::time::interval(limits::DESTINATION_SWEEP);
        loop {
            let message = tokio::select! {
                message = incoming.message() => message?.ok_or(StreamError::Closed)?,
                wanted = self.requests.recv() => {
                    let Some(wanted) = wanted else { return Err(StreamError::Closed) };
                    self.say(&send, asked(wanted)).await?;
                    continue;
                }
                _tick = idle.tick() => {
                    self.drop_idle(&send).await?;
                    continue;
                }
            };
            if let Some(answer) = message.message.and_then(|message| self.answer(message)) {
                self.say(&send, answer).await?;
            }
        }
    }

    async fn say(
        &self,
        send: &mpsc::Sender<v1::NodeMessage>,
        message: node_message::Message,
    ) -> Result<(), StreamError> {
        send.send(v1::NodeMessage { message: Some(message) }).await.map_err(|_closed| StreamError::Closed)
    }

    fn hello(&self) -> v1::Hello {
        let known = self.store.snapshot().versions();
        v1::Hello {
            node_name: self.args.node_name.clone(),
            version: self.args.version.clone(),
            known: known.into_iter().map(|(key, version)| v1::ResourceVersion { key: Some(key), version }).collect(),
            destinations: texts(&self.store.in_use()),
        }
    }

    fn answer(&self, message: control_message::Message) -> Option<node_message::Message> {
        match message {
            control_message::Message::Update(update) => {
                let rejected = if update.upserts.is_empty() && update.removals.is_empty() {
                    Vec::new()
                } else {
                    self.store.apply(update.upserts, update.removals)
                };
                for rejection in &rejected {
                    tracing::warn!(?rejection, "a resource from control was not taken");
                }
                if update.synced {
                    self.store.set_synced();
                }
                let acknowledge = v1::Acknowledge { nonce: update.nonce, rejected };
                Some(node_message::Message::Acknowledge(acknowledge))
            }
            control_message::Message::Query(query) => {
                let report = (self.report)(&query);
                Some(node_message::Message::Report(v1::Report { query_id: query.id, ..report }))
            }
        }
    }

    async fn drop_idle(&self, send: &mpsc::Sender<v1::NodeMessage>) -> Result<(), StreamError> {
        let dropped = self.store.drop_idle();
        if dropped.is_empty() {
            return Ok(());
        }
        let key = |address: &SocketAddr| v1::ResourceKey {
            kind: v1::ResourceKind::Destination.into(),
            name: address.to_string(),
        };
        self.store.apply(Vec::new(), dropped.iter().map(key).collect());
        self.say(send, asked(Wanted::Unsubscribe(dropped))).await
    }
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn asked(wanted: Wanted) -> node_message::Message {
    match wanted {
        Wanted::Subscribe(address) => {
            node_message::Message::Subscribe(v1::Subscribe { destinations: texts(&[address]) })
        }
        Wanted::Unsubscribe(addresses) => {
            node_message::Message::Unsubscribe(v1::Unsubscribe { destinations: texts(&addresses) })
        }
        Wanted::Status(status) => node_message::Message::WorkloadStatus(status),
        Wanted::Out(out) => node_message::Message::OutEndpoints(out),
    }
}
