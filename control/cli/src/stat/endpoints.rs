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
    /// Namespace and name: one that has the address after another is not that one, and nodes may know both for a while.
    pod: (String, String),
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

    /// A node may tell of two pods of one name and address, as when one takes the other's place: that which is out counts.
    fn add(&mut self, node: &'a str, report: &'a EndpointReport) {
        let known = self.by_node.entry(node).or_insert(report);
        if is_out(report) {
            *known = report;
        }
    }

    /// Nodes that have taken it out.
    fn out(&self) -> usize {
        self.by_node.values().filter(|report| is_out(report)).count()
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
            pod: known(&report.pod).map(|pod| (pod.namespace.clone(), pod.name.clone())).unwrap_or_default(),
        };
        rows.entry(key).or_default().add(&node.node_name, report);
    }
    rows
}

fn is_out(report: &EndpointReport) -> bool {
    matches!(report.state(), EndpointState::Out | EndpointState::Trial)
}

/// The whole answer as text, and whether there is anything in it.
pub(super) async fn ask(client: &Client, query: &Query, session: &Session) -> Result<(String, bool), CliError> {
    let answer = client.observe_endpoints(query.question()).await?;
    note_missing(&answer, "endpoints are");
    left_out(&answer).iter().for_each(|text| note(text));
    let rows = rows(&answer.reports);
    Ok((table::render(&rows, query, session)?, !rows.is_empty()))
}

/// What reports do not hold. They have those that are out first: with one that is not, all others are in.
fn left_out(answer: &ObserveResponse) -> Option<String> {
    let full: Vec<&Report> = answer.reports.iter().filter(|report| report.endpoints_left_out > 0).collect();
    let first = full.first()?;
    let count = full.iter().fold(0_u64, |sum, report| sum.saturating_add(report.endpoints_left_out));
    let are_in = full.iter().all(|report| report.endpoints.iter().any(|one| !is_out(one)));
    let what = if are_in { "that are in are not shown" } else { "are not shown, and some of them may be out" };
    Some(format!(
        "{} nodes (as {}) have more endpoints in use than a report holds; {count} {what}: ask for a namespace, or svc/NAME",
        full.len(),
        first.node_name
    ))
}
