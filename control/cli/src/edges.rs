//! `weir edges`: who talks to whom, and whether that is secured. Must never show a plain edge as secured.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, io::Write};

use serde::Serialize;
use weir_api::v1::Report;
use weir_core::identity::Identity;

use crate::{
    args::EdgesArgs,
    client::{Client, note_missing},
    error::CliError,
    flows::{Flow, Side, flows},
    output::{Align, Format, Table, Tone, json, note, or_dash},
    resource::{Kind, Resource, Selector, Subject},
    session::{Outcome, Session},
};

/// What `tls` of a report says when both ends are authenticated.
const SECURED: &str = "true";
/// Name of an end that nothing is known of.
const UNKNOWN: &str = "unknown";

/// One line; field names are stable. Empty: not known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Edge {
    src: String,
    dst: String,
    src_namespace: String,
    dst_namespace: String,
    client_id: String,
    server_id: String,
    secured: bool,
    /// Why not; empty when secured.
    no_tls_reason: String,
}

/// Shows the table.
pub(crate) async fn run(arguments: &EdgesArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let resources = Resource::parse_all(&arguments.resources).map_err(CliError::Argument)?;
    if resources.iter().any(|resource| resource.kind == Kind::Namespace) {
        return Err(CliError::Argument(
            "edges run between owners, pods and services: use -n or -A for namespaces".into(),
        ));
    }
    let selector = Selector { resources, namespace: arguments.place.namespace(&session.namespace()) };
    let client = Client::connect(session).await?;
    let answer = client.observe(arguments.time_window).await?;
    note_missing(&answer, "edges are");
    let edges = edges(&answer.reports, &selector);
    if session.format == Format::Json {
        json(out, &edges)?;
        return Ok(Outcome::Good);
    }
    if edges.is_empty() {
        note("no traffic seen in this window: try -A, another -n, or a longer --time-window");
        return Ok(Outcome::Good);
    }
    write!(out, "{}", table(&edges, session.format == Format::Wide).text(session.color))?;
    Ok(Outcome::Good)
}

fn edges(reports: &[Report], selector: &Selector) -> BTreeSet<Edge> {
    flows(reports, 1.0).iter().filter(|flow| wanted(flow, selector)).map(|flow| edge(flow, selector)).collect()
}

/// Either end is meant; an end known by its identity alone can still be in the namespace.
fn wanted(flow: &Flow<'_>, selector: &Selector) -> bool {
    let by_account = |side: &Side<'_>| {
        let Side::Identity(id) = side else { return false };
        let everything =
            selector.resources.iter().any(|resource| resource.kind == Kind::Owner && resource.name.is_none());
        everything && selector.namespace.as_ref().is_none_or(|namespace| namespace == id.namespace())
    };
    selector.matches(flow.client.pod(), "")
        || selector.matches(flow.server.pod(), &flow.row.service)
        || by_account(&flow.client)
        || by_account(&flow.server)
}

fn edge(flow: &Flow<'_>, selector: &Selector) -> Edge {
    let service = &flow.row.service;
    let unknown = || Subject::new("", "", UNKNOWN);
    let dialled = || {
        let (namespace, name) = service.split_once('/')?;
        Some(Subject::new(namespace, "service", name))
    };
    let of = |side: &Side<'_>, service: &str| {
        let chosen = selector.resources.iter().find_map(|resource| {
            // Names choose edges; they must not rename the other end.
            Resource { kind: resource.kind.clone(), name: None }.subject(side.pod(), service)
        });
        chosen.or_else(|| side.subject())
    };
    let source = of(&flow.client, "").unwrap_or_else(unknown);
    let target = of(&flow.server, service).or_else(dialled).unwrap_or_else(unknown);
    let row = flow.row;
    let secured = row.tls == SECURED;
    Edge {
        src: source.to_string(),
        dst: target.to_string(),
        src_namespace: source.namespace,
        dst_namespace: target.namespace,
        client_id: row.client_identity.clone(),
        server_id: row.server_identity.clone(),
        secured,
        no_tls_reason: match row.tls.as_str() {
            SECURED => String::new(),
            "" => UNKNOWN.to_owned(),
            reason => reason.to_owned(),
        },
    }
}

/// `account.namespace`, as Linkerd shortens identities; others as they are.
fn short(identity: &str) -> String {
    identity.parse().map_or_else(
        |_foreign| or_dash(identity).to_owned(),
        |id: Identity| format!("{}.{}", id.service_account(), id.namespace()),
    )
}

fn table(edges: &BTreeSet<Edge>, wide: bool) -> Table {
    let titles = ["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED"];
    let mut table = Table::new(titles.map(|title| (title, Align::Left)));
    for edge in edges {
        let identity = |id: &str| if wide { or_dash(id).to_owned() } else { short(id) };
        let (secured, tone) =
            if edge.secured { ("√", Tone::Good) } else { (edge.no_tls_reason.as_str(), Tone::Warn) };
        let cells = [
            edge.src.clone(),
            edge.dst.clone(),
            or_dash(&edge.src_namespace).to_owned(),
            or_dash(&edge.dst_namespace).to_owned(),
            identity(&edge.client_id),
            identity(&edge.server_id),
        ];
        table.row(cells.map(|cell| (cell, Tone::Plain)).into_iter().chain([(secured.to_owned(), tone)]));
    }
    table
}
