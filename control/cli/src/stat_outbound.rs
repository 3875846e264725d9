//! `weir stat-outbound`: what resources send, by Service, route and backend, as they see it. Must never leave a backend without its route's line.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;
use weir_api::v1::{Report, RoutesQuery};

use crate::{
    args::seen::StatOutboundArgs,
    by_route::{Counts, Figures, RouteName, ServicePort, figures, note_left_out},
    client::{Client, note_missing},
    error::CliError,
    flows::known,
    output::{Align, Format, Table, Tone, json, note},
    resource::{Kind, Resource, Selector, Subject},
    session::{Outcome, Session},
    stat::tone,
    units,
};

type Rows = BTreeMap<(Subject, ServicePort, RouteName), Figures>;

fn selector(arguments: &StatOutboundArgs, session: &Session) -> Result<Selector, CliError> {
    let resources = Resource::parse_all(&arguments.resources).map_err(CliError::Argument)?;
    if resources.iter().any(|resource| resource.kind == Kind::Service) {
        return Err(CliError::Argument("a Service sends nothing: `weir routes` shows what is sent to it".to_owned()));
    }
    Ok(Selector { resources, namespace: arguments.place.namespace(&session.namespace()) })
}

fn question(selector: &Selector) -> RoutesQuery {
    let is_anywhere = selector.resources.iter().any(|resource| resource.kind == Kind::Namespace);
    let namespace = selector.namespace.as_ref().filter(|_| !is_anywhere);
    RoutesQuery { client_namespace: namespace.cloned().unwrap_or_default(), service_namespace: String::new() }
}

fn rows(reports: &[Report], asked: f64, selector: &Selector) -> Rows {
    figures(reports, asked, |row, service, route| {
        let subjects = selector.subjects(known(&row.workload), "");
        subjects.map(|subject| (subject, service.clone(), route.clone())).collect()
    })
}

/// Shows the table.
pub(crate) async fn run(
    arguments: &StatOutboundArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let selector = selector(arguments, session)?;
    let client = Client::connect(session).await?;
    let answer = client.observe_routes(arguments.time_window, question(&selector)).await?;
    note_missing(&answer, "requests are");
    note_left_out(&answer);
    let rows = rows(&answer.reports, arguments.time_window.as_secs_f64(), &selector);
    if session.format == Format::Json {
        json(out, &json_rows(&rows))?;
        return Ok(Outcome::Good);
    }
    if rows.is_empty() {
        note("no requests to a Service in this window: try -A, another -n, or a longer --time-window");
        return Ok(Outcome::Good);
    }
    write!(out, "{}", table(&rows, &selector).text(session.color))?;
    Ok(Outcome::Good)
}

/// One line for programs; names are stable. `null`: nothing was measured. A line without a backend is about requests, one with a backend
/// about attempts at it.
#[derive(Serialize)]
struct JsonRow<'a> {
    namespace: &'a str,
    kind: &'a str,
    name: &'a str,
    service_namespace: &'a str,
    service: &'a str,
    port: u32,
    route: &'a str,
    route_namespace: &'a str,
    route_kind: &'a str,
    backend_namespace: Option<&'a str>,
    backend: Option<&'a str>,
    backend_port: Option<u32>,
    success: Option<f64>,
    rps: Option<f64>,
    latency_ms_p50: Option<f64>,
    latency_ms_p95: Option<f64>,
    latency_ms_p99: Option<f64>,
    timeout_rate: Option<f64>,
    /// Of requests alone.
    retry_rate: Option<f64>,
    requests: u64,
    failures: u64,
}

fn json_rows(rows: &Rows) -> Vec<JsonRow<'_>> {
    let all = rows.iter().flat_map(|((subject, service, route), figures)| {
        std::iter::once((None, &figures.requests))
            .chain(figures.backends.iter().map(|(backend, counts)| (Some(backend), counts)))
            .map(move |(backend, counts)| json_row(subject, service, route, backend, counts))
    });
    all.collect()
}

fn json_row<'a>(
    subject: &'a Subject,
    service: &'a ServicePort,
    route: &'a RouteName,
    backend: Option<&'a ServicePort>,
    counts: &Counts,
) -> JsonRow<'a> {
    let quantile = |share| units::three_decimals(counts.quantile(share));
    JsonRow {
        namespace: &subject.namespace,
        kind: &subject.kind,
        name: &subject.name,
        service_namespace: &service.namespace,
        service: &service.name,
        port: service.port,
        route: &route.name,
        route_namespace: &route.namespace,
        route_kind: &route.kind,
        backend_namespace: backend.map(|backend| &*backend.namespace),
        backend: backend.map(|backend| &*backend.name),
        backend_port: backend.map(|backend| backend.port),
        success: counts.success_rate(),
        rps: units::three_decimals(counts.per_second()),
        latency_ms_p50: quantile(0.50),
        latency_ms_p95: quantile(0.95),
        latency_ms_p99: quantile(0.99),
        timeout_rate: counts.timeout_rate(),
        retry_rate: if backend.is_none() { counts.retry_rate() } else { None },
        requests: counts.ended(),
        failures: counts.failure,
    }
}

fn table(rows: &Rows, selector: &Selector) -> Table {
    let names = ["NAMESPACE", "NAME", "SERVICE", "ROUTE", "TYPE", "BACKEND"].map(|title| (title, Align::Left));
    let numbers = ["SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TIMEOUTS", "RETRIES"]
        .map(|title| (title, Align::Right));
    let is_everywhere =
        selector.namespace.is_none() && selector.resources.iter().any(|one| one.kind != Kind::Namespace);
    let skipped = usize::from(!is_everywhere);
    let mut table = Table::new(names.into_iter().skip(skipped).chain(numbers).collect::<Vec<_>>());
    let mut add = |names: [String; 6], counts: &Counts, retries: String| {
        let plain = |text: String| (text, Tone::Plain);
        let names = names.into_iter().skip(skipped).map(plain);
        let success = counts.success_rate();
        let latencies = [0.50, 0.95, 0.99].map(|share| plain(units::latency(counts.quantile(share))));
        let first = [(units::percent(success), tone(success)), plain(units::rate(counts.per_second()))];
        let last = [plain(units::percent(counts.timeout_rate())), plain(retries)];
        table.row(names.chain(first).chain(latencies).chain(last));
    };
    for ((subject, service, route), Figures { requests, backends, .. }) in rows {
        let name = if selector.mixed() { subject.to_string() } else { subject.name.clone() };
        let from = service.seen_from(&subject.namespace);
        let shown = route.seen_from(&service.namespace);
        let line = "─".repeat(shown.chars().count().saturating_sub(1));
        let names = [subject.namespace.clone(), name, from, shown, route.kind.clone(), String::new()];
        add(names, requests, units::percent(requests.retry_rate()));
        for (index, (backend, counts)) in backends.iter().enumerate() {
            // Linkerd's tree: a line from the route to each of its backends.
            let corner = if index + 1 == backends.len() { "└" } else { "├" };
            let [branch, arrow] = [format!("{corner}{line}"), "────────►".to_owned()];
            let backend = backend.seen_from(&service.namespace);
            add([String::new(), String::new(), String::new(), branch, arrow, backend], counts, String::new());
        }
    }
    table
}
