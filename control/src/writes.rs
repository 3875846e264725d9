//! What is changed through the mesh API, with the caller's own rights. Must never use control's own for it.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Semaphore;
use tonic::{Request, Status, metadata::MetadataMap};
use tracing_subscriber::EnvFilter;
use weir_api::v1;

use crate::{
    applying::{self, Manner},
    kubernetes::writer::{Caller, Hand, Writer},
    limits,
    objects::{Kind, Name, ObjectName},
    parse::{self, Options},
    replicas::Replicas,
};

/// Writes for others.
#[derive(Debug)]
pub struct Writes {
    /// None where objects come from a directory.
    writer: Option<Arc<Writer>>,
    options: Options,
    replicas: Arc<Replicas>,
    places: Semaphore,
}

impl Writes {
    /// `writer`: the API server, where there is one.
    pub fn new(writer: Option<Arc<Writer>>, options: Options, replicas: Arc<Replicas>) -> Writes {
        Writes { writer, options, replicas, places: Semaphore::new(limits::WRITERS) }
    }

    fn hand(&self, metadata: &MetadataMap, user: &str, groups: &[String]) -> Result<Hand, Status> {
        let writer = self.writer.as_ref().ok_or_else(|| {
            Status::failed_precondition("this control reads objects from a directory: write them there")
        })?;
        writer.hand(Caller::of(metadata, user, groups)?)
    }

    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Status> {
        self.places.acquire().await.map_err(|_closed| Status::unavailable("control ends"))
    }

    /// Applies objects, one after the other.
    ///
    /// # Errors
    /// Of the call as a whole: nothing is written then.
    pub async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<v1::ApplyResponse, Status> {
        let asked = request.get_ref();
        let hand = self.hand(request.metadata(), &asked.as_user, &asked.as_groups)?;
        let manner = Manner::of(asked)?;
        let all = parse::written(&asked.manifests).map_err(Status::invalid_argument)?;
        let _place = self.place().await?;
        let mut results = Vec::with_capacity(all.len());
        for written in &all {
            let result = applying::apply(&hand, written, &manner, &self.options).await;
            tracing::info!(object = written.shown, outcome = result.outcome().as_str_name(), dry_run = asked.dry_run, peer = ?request.remote_addr(), "applied through the mesh API");
            results.push(result);
        }
        Ok(v1::ApplyResponse { results })
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<v1::DeleteResponse, Status> {
        let asked = request.get_ref();
        let hand = self.hand(request.metadata(), &asked.as_user, &asked.as_groups)?;
        let object = asked.object.clone().unwrap_or_default();
        let named = Kind::ALL.into_iter().find(|kind| kind.as_str() == object.kind && kind.group() == object.group);
        let kind = named.filter(|kind| kind.is_route()).ok_or_else(|| {
            Status::invalid_argument(
                "object: only routes of any kind, ServiceProfiles and TrafficSplits are deleted here",
            )
        })?;
        if ![&object.namespace, &object.name].into_iter().all(|name| parse::is_subdomain(name)) {
            return Err(Status::invalid_argument("object: its namespace and name are needed"));
        }
        let name = ObjectName { kind, name: Name::new(&object.namespace, &object.name) };
        let _place = self.place().await?;
        let deleted = hand.delete(&name, asked.dry_run).await;
        tracing::info!(object = %name, done = deleted.is_ok(), dry_run = asked.dry_run, peer = ?request.remote_addr(), "deleted through the mesh API");
        deleted.map_err(|refusal| refusal.status(&name.to_string()))?;
        Ok(v1::DeleteResponse {})
    }

    /// Reads the log levels of nodes, or sets them.
    ///
    /// # Errors
    /// A filter that is none, a caller who may not.
    pub async fn log_levels(&self, request: Request<v1::LogLevelsRequest>) -> Result<v1::LogLevelsResponse, Status> {
        let asked = request.get_ref();
        if asked.nodes.len() > limits::LOG_LEVEL_NODES {
            return Err(Status::invalid_argument(format!("nodes: more than {}", limits::LOG_LEVEL_NODES)));
        }
        if let Some(filter) = &asked.set {
            checked(filter)?;
            // Without an API server whoever has the API token is the operator.
            if self.writer.is_some() {
                let hand = self.hand(request.metadata(), &asked.as_user, &asked.as_groups)?;
                hand.may_set_log_levels().await?;
            }
            tracing::info!(filter, nodes = ?asked.nodes, peer = ?request.remote_addr(), "log levels are set through the mesh API");
        }
        let asked = request.into_inner();
        let query = v1::LogLevelQuery { set: asked.set.clone(), nodes: asked.nodes.clone() };
        let share = v1::ShareRequest { window_seconds: 1, log_level: Some(query), ..v1::ShareRequest::default() };
        let gathered = self.replicas.gather(Some(share)).await?;
        let missing_replicas = gathered.missing_replicas();
        let problem = |problem: &str| v1::NodeLogLevel { problem: problem.to_owned(), ..v1::NodeLogLevel::default() };
        let mut nodes: BTreeMap<String, v1::NodeLogLevel> =
            asked.nodes.into_iter().map(|name| (name, problem("not connected to control"))).collect();
        nodes.extend(gathered.missing_nodes.into_iter().map(|name| (name, problem("did not answer in time"))));
        nodes.extend(gathered.reports.into_iter().map(|report| {
            let said = report.log_level.map(|said| v1::NodeLogLevel {
                filter: said.filter,
                problem: said.problem,
                ..v1::NodeLogLevel::default()
            });
            (report.node_name, said.unwrap_or_else(|| problem("its version does not tell")))
        }));
        let named = nodes.into_iter().map(|(node_name, said)| v1::NodeLogLevel { node_name, ..said });
        Ok(v1::LogLevelsResponse { nodes: named.collect(), missing_replicas })
    }
}

/// Whether nodes would take a filter.
fn checked(filter: &str) -> Result<(), Status> {
    if filter.trim().is_empty() || filter.len() > limits::LOG_FILTER_BYTES {
        let most = limits::LOG_FILTER_BYTES;
        return Err(Status::invalid_argument(format!(
            "set: a filter of 1 to {most} bytes, as in `info,weir_node=debug`"
        )));
    }
    let parsed = EnvFilter::builder().parse(filter.trim());
    parsed.map(drop).map_err(|error| Status::invalid_argument(format!("set: not a log filter: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_are_sent_to_nodes() {
        checked("info,weir_node=debug").unwrap();
        for wrong in ["", " ", "weir_node=loud", &"a".repeat(limits::LOG_FILTER_BYTES + 1)] {
            assert_eq!(checked(wrong).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong}");
        }
    }
}
