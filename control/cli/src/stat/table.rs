//! The lines of `weir stat`, for people and for programs. Must never show a number for what was not measured.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Query, Row, Sums};
use crate::{
    error::CliError,
    output::{Align, Format, Table, Tone, json},
    resource::{Kind, Subject},
    session::Session,
    units,
};

/// One line for programs; names are stable. `null`: nothing was measured.
#[derive(Serialize)]
struct JsonRow {
    namespace: String,
    kind: String,
    name: String,
    /// `meshed/all` pods.
    meshed: String,
    success: Option<f64>,
    rps: Option<f64>,
    latency_ms_p50: Option<f64>,
    latency_ms_p95: Option<f64>,
    latency_ms_p99: Option<f64>,
    requests: Option<u64>,
    failures: Option<u64>,
    tcp_open_connections: Option<u64>,
    tcp_read_bytes_rate: Option<f64>,
    tcp_write_bytes_rate: Option<f64>,
}

impl JsonRow {
    fn new(subject: &Subject, row: &Row) -> JsonRow {
        let traffic = row.traffic.as_ref();
        let http = traffic.filter(|sums| sums.requests() > 0);
        let quantile = |share| http.and_then(|sums| sums.latency.quantile(share));
        JsonRow {
            namespace: subject.namespace.clone(),
            kind: subject.kind.clone(),
            name: subject.name.clone(),
            meshed: if row.pods == 0 { units::NONE.to_owned() } else { format!("{}/{}", row.meshed, row.pods) },
            success: http.map(|sums| sums.success as f64 / sums.requests() as f64),
            rps: units::three_decimals(http.map(|sums| sums.rate)),
            latency_ms_p50: units::three_decimals(quantile(0.50)),
            latency_ms_p95: units::three_decimals(quantile(0.95)),
            latency_ms_p99: units::three_decimals(quantile(0.99)),
            requests: traffic.map(Sums::requests),
            failures: traffic.map(|sums| sums.failure),
            tcp_open_connections: traffic.map(|sums| sums.open),
            tcp_read_bytes_rate: units::three_decimals(traffic.map(|sums| sums.read_rate)),
            tcp_write_bytes_rate: units::three_decimals(traffic.map(|sums| sums.write_rate)),
        }
    }
}

/// The whole answer as text; empty when there is nothing to show in a table.
pub(super) fn render(rows: &BTreeMap<Subject, Row>, query: &Query, session: &Session) -> Result<String, CliError> {
    let lines: Vec<(&Subject, JsonRow)> =
        rows.iter().map(|(subject, row)| (subject, JsonRow::new(subject, row))).collect();
    if session.format == Format::Json {
        let mut text = Vec::new();
        json(&mut text, &lines.iter().map(|(_, row)| row).collect::<Vec<_>>())?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let wide = session.format == Format::Wide;
    let namespaced = query.selector.namespace.is_none()
        && query.selector.resources.iter().any(|resource| resource.kind != Kind::Namespace);
    let mut columns = vec![("NAME", Align::Left)];
    if namespaced {
        columns.insert(0, ("NAMESPACE", Align::Left));
    }
    let numbers = [
        "MESHED",
        "SUCCESS",
        "RPS",
        "LATENCY_P50",
        "LATENCY_P95",
        "LATENCY_P99",
        "TCP_CONN",
        "READ_BYTES/SEC",
        "WRITE_BYTES/SEC",
    ];
    let more = ["REQUESTS", "FAILURES"].into_iter().filter(|_| wide);
    columns.extend(numbers.into_iter().chain(more).map(|title| (title, Align::Right)));
    let mut table = Table::new(columns);
    for (subject, row) in &lines {
        let name = if query.selector.mixed() { subject.to_string() } else { subject.name.clone() };
        let mut cells = vec![(name, Tone::Plain)];
        if namespaced {
            cells.insert(0, (subject.namespace.clone(), Tone::Plain));
        }
        cells.extend(numbers_of(row, wide));
        table.row(cells);
    }
    Ok(if lines.is_empty() { String::new() } else { table.text(session.color) })
}

/// Of a share that ended well.
pub(crate) fn tone(success: Option<f64>) -> Tone {
    match success {
        Some(share) if share < 0.99 => Tone::Bad,
        Some(share) if share < 1.0 => Tone::Warn,
        _ => Tone::Plain,
    }
}

fn numbers_of(row: &JsonRow, wide: bool) -> Vec<(String, Tone)> {
    let count = |value: Option<u64>| value.map_or_else(|| units::NONE.to_owned(), |value| value.to_string());
    let plain = |text: String| (text, Tone::Plain);
    let mut cells = vec![
        plain(row.meshed.clone()),
        (units::percent(row.success), tone(row.success)),
        plain(units::rate(row.rps)),
        plain(units::latency(row.latency_ms_p50)),
        plain(units::latency(row.latency_ms_p95)),
        plain(units::latency(row.latency_ms_p99)),
        plain(count(row.tcp_open_connections)),
        plain(units::bytes_per_second(row.tcp_read_bytes_rate)),
        plain(units::bytes_per_second(row.tcp_write_bytes_rate)),
    ];
    if wide {
        cells.extend([plain(count(row.requests)), plain(count(row.failures))]);
    }
    cells
}
