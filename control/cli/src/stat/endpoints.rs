//! `weir stat endpoints`: what nodes know of the endpoints that they send requests to. Must never show one that is out as if it were in.

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use weir_api::v1::{EndpointReport, EndpointState, EndpointsQuery, ObserveResponse, Report};

use crate::{
    args::StatArgs,
    client::{Client, note_missing},
    error::CliError,
    flows::known,
    output::note,
    session::Session,
};

const WORDS: [&str; 3] = ["endpoints", "endpoint", "ep"];

/// Endpoints of which Services.
pub(super) struct Query {
    /// None: all.
    namespace: Option<String>,
    /// Empty: all.
    services: Vec<String>,
}

impl Query {
    /// None where the arguments ask for something else.
    pub(super) fn of(arguments: &StatArgs, session: &Session) -> Result<Option<Query>, CliError> {
        let Some((first, rest)) = arguments.resources.split_first() else { return Ok(None) };
        let (word, name) = first.split_once('/').map_or((&**first, None), |(word, name)| (word, Some(name)));
        if !WORDS.contains(&&*word.to_ascii_lowercase()) {
            return Ok(None);
        }
        let names = name.into_iter().map(Ok).chain(rest.iter().map(|one| service(one)));
        let services: Vec<String> = names.map(|name| name.map(str::to_owned)).collect::<Result<_, _>>()?;
        if services.iter().any(String::is_empty) {
            return Err(CliError::Argument(format!("{:?}: a name is missing after the slash", arguments.resources)));
        }
        let of_traffic = [
            ("--to", arguments.to.is_some() || arguments.to_namespace.is_some()),
            ("--from", arguments.from.is_some() || arguments.from_namespace.is_some()),
            ("--unmeshed", arguments.unmeshed),
        ];
        if let Some((option, _)) = of_traffic.iter().find(|(_, is_given)| *is_given) {
            return Err(CliError::Argument(format!("{option} is about traffic: endpoints are shown as they are now")));
        }
        Ok(Some(Query { namespace: arguments.place.namespace(&session.namespace()), services }))
    }

    fn question(&self) -> EndpointsQuery {
        EndpointsQuery { namespace: self.namespace.clone().unwrap_or_default(), services: self.services.clone() }
    }

    /// Why there is nothing to show.
    pub(super) fn nothing(&self) -> String {
        let place = self.namespace.as_ref().map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
        let names = if self.services.is_empty() { "a Service" } else { "such a Service" };
        format!(
            "no node has {names} in {place} in use: nodes know the endpoints of what their pods have dialled; try -A"
        )
    }
}

/// `svc/NAME`, or the name alone.
fn service(text: &str) -> Result<&str, CliError> {
    match text.split_once('/') {
        None => Ok(text),
        Some(("svc" | "service" | "services", name)) => Ok(name),
        Some(_) => Err(CliError::Argument(format!("{text:?} is no Service: write svc/NAME"))),
    }
}

/// An endpoint of a Service's port, in the order of lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    service: String,
    port: u32,
    address: String,
}

/// What all nodes say of one endpoint, by their names.
#[derive(Default)]
struct Row<'a> {
    by_node: BTreeMap<&'a str, &'a EndpointReport>,
}

impl<'a> Row<'a> {
    /// What is the same for all nodes, or soon will be.
    fn any(&self) -> Option<&'a EndpointReport> {
        self.by_node.values().next().copied()
    }

    fn namespace_name_node(&self) -> (&'a str, &'a str, &'a str) {
        self.any()
            .and_then(|report| known(&report.pod))
            .map_or(("", "", ""), |pod| (&pod.namespace, &pod.name, &pod.node_name))
    }

    /// Whether a breaker could take it out.
    fn is_judged(&self) -> bool {
        self.by_node.values().any(|report| report.state() != EndpointState::Unspecified)
    }

    /// Nodes that have taken it out.
    fn out(&self) -> usize {
        let is_out = |report: &&&EndpointReport| matches!(report.state(), EndpointState::Out | EndpointState::Trial);
        self.by_node.values().filter(is_out).count()
    }

    /// Times that nodes have taken it out.
    fn ejections(&self) -> u64 {
        self.by_node.values().fold(0, |sum, report| sum.saturating_add(report.ejections))
    }
}

type Rows<'a> = BTreeMap<Key, Row<'a>>;

fn rows(reports: &[Report]) -> Rows<'_> {
    let mut rows = Rows::new();
    for (node, report) in reports.iter().flat_map(|report| report.endpoints.iter().map(move |one| (report, one))) {
        let Some((namespace, service)) = report.service.split_once('/') else { continue };
        let key = Key {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: report.port,
            address: report.address.clone(),
        };
        rows.entry(key).or_default().by_node.insert(&node.node_name, report);
    }
    rows
}

/// The whole answer as text, and whether there is anything in it.
pub(super) async fn ask(client: &Client, query: &Query, session: &Session) -> Result<(String, bool), CliError> {
    let answer = client.observe_endpoints(query.question()).await?;
    note_missing(&answer, "endpoints are");
    note_left_out(&answer);
    let rows = rows(&answer.reports);
    Ok((table::render(&rows, query, session)?, !rows.is_empty()))
}

fn note_left_out(answer: &ObserveResponse) {
    let full: Vec<&Report> = answer.reports.iter().filter(|report| report.endpoints_left_out > 0).collect();
    let count = full.iter().fold(0_u64, |sum, report| sum.saturating_add(report.endpoints_left_out));
    if let Some(first) = full.first() {
        note(&format!(
            "{} nodes (as {}) have more endpoints in use than a report holds; {count} that are in are not shown: ask for a namespace, or svc/NAME",
            full.len(),
            first.node_name
        ));
    }
}
