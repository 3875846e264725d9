//! Replicas of control: each knows its own nodes, and whoever is asked gathers what all of them know.
//!
//! Must never ask on for somebody who asked for a share, and never leave out in silence what a replica did not say.

mod ask;
mod gathered;
mod peers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};
use weir_api::v1::{self, replicas_server};
use weir_core::identity::Identity;

pub use self::gathered::Gathered;
use self::peers::Peer;
use crate::{
    audit,
    kubernetes::CONTROL,
    limits,
    plane::{Node, Plane},
};

/// This replica, and how it finds and asks the others.
#[derive(Debug)]
pub struct Replicas {
    plane: Arc<Plane>,
    identity: Identity,
    /// Name of this replica's pod; `None`: there are no others.
    me: Option<String>,
    observations: Semaphore,
    gatherings: Semaphore,
}

impl Replicas {
    /// The only one.
    pub fn alone(plane: Arc<Plane>, identity: Identity) -> Replicas {
        Replicas {
            plane,
            identity,
            me: None,
            observations: Semaphore::new(limits::OBSERVATIONS),
            gatherings: Semaphore::new(limits::GATHERINGS),
        }
    }

    /// The one whose pod is `me`, of those behind Service `weir-control`.
    pub fn of_service(plane: Arc<Plane>, identity: Identity, me: String) -> Replicas {
        Replicas { me: Some(me), ..Replicas::alone(plane, identity) }
    }

    /// What all replicas know; reports of nodes only where they are asked for.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: too many reports at a time.
    pub async fn gather(&self, asked: Option<v1::ShareRequest>) -> Result<Gathered, Status> {
        let _place = self.place(asked.is_some())?;
        let Ok(_turn) = self.gatherings.acquire().await else {
            return Err(Status::unavailable("control is about to end"));
        };
        let (others, unasked) = self.others();
        let question = &asked.clone().unwrap_or_default();
        // All at once: there are a handful, and each answer has its own bound in time.
        let shares = stream::iter(others.into_iter().map(|peer| async move {
            let share = ask::share(&self.plane, &self.identity, &peer, question.clone()).await;
            (peer, share)
        }));
        let shares = shares.buffer_unordered(limits::REPLICAS).collect::<Vec<_>>();
        let (own, mut shares) = tokio::join!(self.own(asked), shares);
        shares.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let mut gathered = Gathered::of(self.me.as_deref().unwrap_or(CONTROL), own);
        for (peer, share) in shares {
            gathered.add(&peer, share);
        }
        for peer in unasked {
            gathered.add(&peer, Err(format!("only {} others are asked", limits::REPLICAS)));
        }
        Ok(gathered)
    }

    /// Whether another replica is ready to serve this one's nodes.
    pub fn has_successor(&self) -> bool {
        let Some(me) = &self.me else { return false };
        peers::others(&self.plane.index(), me).iter().any(|peer| peer.is_ready)
    }

    fn others(&self) -> (Vec<Peer>, Vec<Peer>) {
        let Some(me) = &self.me else { return (Vec::new(), Vec::new()) };
        let mut others = peers::others(&self.plane.index(), me);
        let unasked = others.split_off(others.len().min(limits::REPLICAS));
        (others, unasked)
    }

    /// Reports of all nodes are large: only some may be in memory at a time.
    fn place(&self, is_observation: bool) -> Result<Option<SemaphorePermit<'_>>, Status> {
        if !is_observation {
            return Ok(None);
        }
        let place = self.observations.try_acquire();
        place
            .map(Some)
            .map_err(|_full| Status::resource_exhausted("too many observations at a time; ask again in a second"))
    }

    /// What this replica alone knows.
    async fn own(&self, asked: Option<v1::ShareRequest>) -> v1::ShareResponse {
        let (reports, missing_nodes) = match asked {
            Some(asked) => self.plane.observe(asked).await,
            None => (Vec::new(), Vec::new()),
        };
        let nodes = self.plane.nodes();
        let connected = nodes.iter().map(|node| connected(node));
        v1::ShareResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: connected.collect(),
            reports,
            missing_nodes,
            authority_problem: self.plane.authority_problem().unwrap_or_default(),
            trust_version: self.plane.trust_version(),
        }
    }
}

/// Each lock is let go before the next one is taken: in one expression they would all be held to its end.
fn connected(node: &Node) -> v1::ConnectedNode {
    let out = node.out.lock().clone();
    let statuses = node.statuses.lock().values().cloned().collect();
    let rejected = node.rejected.lock().clone();
    v1::ConnectedNode {
        node_name: node.name.to_string(),
        version: node.version.clone(),
        age_ms: u64::try_from(node.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        statuses,
        rejected,
        trust_version: node.trust_version(),
        has_said_out: out.is_some(),
        out: out.unwrap_or_default(),
    }
}

/// Answers other replicas.
#[derive(Debug)]
pub struct Service(pub Arc<Replicas>);

#[tonic::async_trait]
impl replicas_server::Replicas for Service {
    async fn share(&self, request: Request<v1::ShareRequest>) -> Result<Response<v1::ShareResponse>, Status> {
        let Service(replicas) = self;
        if let Err(refusal) = peers::authenticate(request.peer_certs().as_deref(), &replicas.identity) {
            audit::refused(audit::Act::Replica, &refusal, "", request.remote_addr());
            return Err(refusal);
        }
        if !replicas.plane.is_loaded() {
            return Err(Status::unavailable("it has not read all objects yet"));
        }
        let mut asked = request.into_inner();
        asked.window_seconds = asked.window_seconds.min(limits::WINDOW_SECONDS);
        let asked = (asked.window_seconds > 0).then_some(asked);
        let _place = replicas.place(asked.is_some())?;
        Ok(Response::new(replicas.own(asked).await))
    }
}
