//! The lines of `weir stat endpoints`, for people and for programs. Must never show a number for what is not known.

use serde::Serialize;
use weir_api::v1::{EndpointReport, EndpointState};

use super::{Key, Query, Row, Rows};
use crate::{
    duration,
    error::CliError,
    output::{Align, Format, Table, Tone, json, or_dash},
    session::Session,
    units,
};

/// One endpoint for programs; names are stable. Empty: not known.
#[derive(Serialize)]
struct JsonRow<'a> {
    namespace: &'a str,
    service: &'a str,
    port: u32,
    address: &'a str,
    pod_namespace: &'a str,
    pod: &'a str,
    /// Of the pod.
    node: &'a str,
    ready: bool,
    /// Whether its Service has a circuit breaker.
    breaker: bool,
    /// Of `nodes`, those that have taken it out.
    nodes_out: usize,
    /// That have it in use.
    nodes: usize,
    /// By all of them, trials that failed included.
    ejections: u64,
    seen_by: Vec<JsonSeen<'a>>,
}

/// The same as one node sees it.
#[derive(Serialize)]
struct JsonSeen<'a> {
    node: &'a str,
    /// `in`, `out` or `trial`; `null`: there is no circuit breaker.
    state: Option<&'static str>,
    /// In this state, an out that is tried included; `null`: always.
    for_ms: Option<u64>,
    /// Until a trial may be made; `null`: it is in.
    until_ms: Option<u64>,
    ejections: u64,
    latency_ms: Option<f64>,
    open_requests: u64,
}

fn state(report: &EndpointReport) -> Option<&'static str> {
    match report.state() {
        EndpointState::Unspecified => None,
        EndpointState::In => Some("in"),
        EndpointState::Out => Some("out"),
        EndpointState::Trial => Some("trial"),
    }
}

impl<'a> JsonRow<'a> {
    fn new(key: &'a Key, row: &Row<'a>) -> JsonRow<'a> {
        let (pod_namespace, pod, node) = row.namespace_name_node();
        let seen = |(node, report): (&&'a str, &&'a EndpointReport)| JsonSeen {
            node,
            state: state(report),
            for_ms: report.lasted_ms,
            until_ms: report.next_trial_ms,
            ejections: report.ejections,
            latency_ms: units::three_decimals(Some(report.latency_ms)),
            open_requests: report.pending,
        };
        JsonRow {
            namespace: &key.namespace,
            service: &key.service,
            port: key.port,
            address: &key.address,
            pod_namespace,
            pod,
            node,
            ready: row.any().is_some_and(|report| report.ready),
            breaker: row.is_judged(),
            nodes_out: row.out(),
            nodes: row.by_node.len(),
            ejections: row.ejections(),
            seen_by: row.by_node.iter().map(seen).collect(),
        }
    }
}

/// The whole answer as text; empty when there is nothing to show in a table.
pub(super) fn render(rows: &Rows<'_>, query: &Query, session: &Session) -> Result<String, CliError> {
    let lines: Vec<JsonRow<'_>> = rows.iter().map(|(key, row)| JsonRow::new(key, row)).collect();
    if session.format == Format::Json {
        let mut text = Vec::new();
        json(&mut text, &lines)?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    if lines.is_empty() {
        return Ok(String::new());
    }
    let wide = session.format == Format::Wide;
    let is_everywhere = query.namespace.is_none();
    let mut columns: Vec<(&'static str, Align)> = Vec::new();
    columns.extend(is_everywhere.then_some(("NAMESPACE", Align::Left)));
    columns.push(("SERVICE", Align::Left));
    columns.push(("PORT", Align::Right));
    columns.extend(["ADDRESS", "POD", "NODE", "READY"].map(|title| (title, Align::Left)));
    if wide {
        columns.extend(["SEEN_BY", "STATE"].map(|title| (title, Align::Left)));
        columns.extend(["FOR", "UNTIL", "EJECTIONS", "LATENCY", "OPEN"].map(|title| (title, Align::Right)));
    } else {
        columns.extend(["OUT", "EJECTIONS"].map(|title| (title, Align::Right)));
    }
    let mut table = Table::new(columns);
    for line in &lines {
        let mut common = Vec::new();
        common.extend(is_everywhere.then(|| plain(line.namespace)));
        common.extend([plain(line.service), plain(&line.port.to_string())]);
        common.extend([line.address, line.pod, line.node].map(plain));
        let (ready, tone) = if line.ready { ("yes", Tone::Good) } else { ("no", Tone::Warn) };
        common.push((ready.to_owned(), tone));
        if wide {
            line.seen_by.iter().for_each(|seen| table.row(common.iter().cloned().chain(seen_cells(seen))));
        } else {
            table.row(common.into_iter().chain(out_cells(line)));
        }
    }
    Ok(table.text(session.color))
}

fn plain(text: &str) -> (String, Tone) {
    (or_dash(text).to_owned(), Tone::Plain)
}

fn out_cells(line: &JsonRow<'_>) -> [(String, Tone); 2] {
    if !line.breaker {
        return [plain(units::NONE), plain(units::NONE)];
    }
    let tone = match line.nodes_out {
        0 => Tone::Plain,
        some if some < line.nodes => Tone::Warn,
        _all => Tone::Bad,
    };
    [(format!("{}/{}", line.nodes_out, line.nodes), tone), plain(&line.ejections.to_string())]
}

fn seen_cells(seen: &JsonSeen<'_>) -> [(String, Tone); 7] {
    let tone = match seen.state {
        Some("out") => Tone::Bad,
        Some("trial") => Tone::Warn,
        _ => Tone::Plain,
    };
    let time =
        |millis: Option<u64>| plain(&millis.map_or_else(|| units::NONE.to_owned(), |one| duration::rough(one / 1_000)));
    let ejections = seen.state.map_or_else(|| units::NONE.to_owned(), |_state| seen.ejections.to_string());
    [
        plain(seen.node),
        (seen.state.unwrap_or(units::NONE).to_owned(), tone),
        time(seen.for_ms),
        time(seen.until_ms),
        plain(&ejections),
        plain(&units::latency(seen.latency_ms)),
        plain(&seen.open_requests.to_string()),
    ]
}
