//! `weir routes`: success, rate and latencies of a Service's requests by the route that decided. Must never show attempts as requests.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io::Write, time::Duration};

use serde::Serialize;
use weir_api::v1::{Report, RouteReport, RoutesQuery};

use crate::{
    args::seen::RoutesArgs,
    by_route::{Figures, RouteName, ServicePort, figures, note_left_out},
    client::{Client, note_missing},
    error::CliError,
    flows::known,
    output::{Align, Format, Table, Tone, json, note},
    resource::{Kind, Resource, Selector},
    session::{Outcome, Session},
    stat::tone,
    units,
};

struct Query {
    /// `None`: whoever they are.
    clients: Option<Selector>,
    services: Selector,
    window: Duration,
}

impl Query {
    fn new(arguments: &RoutesArgs, session: &Session) -> Result<Query, CliError> {
        let namespace = arguments.place.namespace(&session.namespace());
        let is_service = |resource: &Resource| resource.kind == Kind::Service;
        let parse = |text: &str| Resource::parse(text).map_err(CliError::Argument);
        let window = arguments.time_window;
        let Some(to) = &arguments.to else {
            let resources = match &*arguments.resources {
                [] => vec![parse("svc")?],
                given => Resource::parse_all(given).map_err(CliError::Argument)?,
            };
            if !resources.iter().all(is_service) {
                return Err(CliError::Argument(
                    "routes are measured where requests are sent: write svc/NAME, or add --to svc/NAME".to_owned(),
                ));
            }
            return Ok(Query { clients: None, services: Selector { resources, namespace }, window });
        };
        let resources = Resource::parse_all(&arguments.resources).map_err(CliError::Argument)?;
        let to = parse(to)?;
        if !is_service(&to) || resources.iter().any(is_service) {
            return Err(CliError::Argument(
                "routes lead from pods to a Service: as in deploy/cart --to svc/web".to_owned(),
            ));
        }
        let services =
            Selector { resources: vec![to], namespace: arguments.to_namespace.clone().or_else(|| namespace.clone()) };
        Ok(Query { clients: Some(Selector { resources, namespace }), services, window })
    }

    fn question(&self) -> RoutesQuery {
        RoutesQuery {
            // Namespaces themselves may be asked for by name, wherever one is.
            client_namespace: match &self.clients {
                Some(clients) if !clients.resources.iter().any(|resource| resource.kind == Kind::Namespace) => {
                    clients.namespace.clone().unwrap_or_default()
                }
                _any => String::new(),
            },
            service_namespace: self.services.namespace.clone().unwrap_or_default(),
        }
    }

    fn is_asked(&self, row: &RouteReport) -> bool {
        self.services.matches(None, &row.service)
            && self.clients.as_ref().is_none_or(|clients| clients.matches(known(&row.workload), ""))
    }
}

type Rows = BTreeMap<(ServicePort, RouteName), Figures>;

fn rows(reports: &[Report], query: &Query) -> Rows {
    figures(reports, query.window.as_secs_f64(), |row, service, route| {
        if query.is_asked(row) { vec![(service.clone(), route.clone())] } else { Vec::new() }
    })
}

/// Shows the table.
pub(crate) async fn run(arguments: &RoutesArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let query = Query::new(arguments, session)?;
    let client = Client::connect(session).await?;
    let answer = client.observe_routes(query.window, query.question()).await?;
    note_missing(&answer, "requests are");
    note_left_out(&answer);
    let rows = rows(&answer.reports, &query);
    if session.format == Format::Json {
        json(out, &rows.iter().map(|(key, figures)| JsonRow::new(key, figures)).collect::<Vec<_>>())?;
        return Ok(Outcome::Good);
    }
    if rows.is_empty() {
        note("no requests to such a Service in this window: try -A, another -n, or a longer --time-window");
        return Ok(Outcome::Good);
    }
    write!(out, "{}", table(&rows, &query, session.format == Format::Wide).text(session.color))?;
    Ok(Outcome::Good)
}

/// One line for programs; names are stable. `null`: nothing was measured. Effective: of requests; actual: of all attempts.
#[derive(Serialize)]
struct JsonRow<'a> {
    namespace: &'a str,
    service: &'a str,
    port: u32,
    route: &'a str,
    route_namespace: &'a str,
    route_kind: &'a str,
    effective_success: Option<f64>,
    effective_rps: Option<f64>,
    actual_success: Option<f64>,
    actual_rps: Option<f64>,
    latency_ms_p50: Option<f64>,
    latency_ms_p95: Option<f64>,
    latency_ms_p99: Option<f64>,
    requests: u64,
    failures: u64,
    attempts: u64,
    retries: u64,
    timeouts: u64,
}

impl<'a> JsonRow<'a> {
    fn new((service, route): &'a (ServicePort, RouteName), figures: &Figures) -> JsonRow<'a> {
        let Figures { requests, attempts, .. } = figures;
        let quantile = |share| units::three_decimals(requests.quantile(share));
        JsonRow {
            namespace: &service.namespace,
            service: &service.name,
            port: service.port,
            route: &route.name,
            route_namespace: &route.namespace,
            route_kind: &route.kind,
            effective_success: requests.success_rate(),
            effective_rps: units::three_decimals(requests.per_second()),
            actual_success: attempts.success_rate(),
            actual_rps: units::three_decimals(attempts.per_second()),
            latency_ms_p50: quantile(0.50),
            latency_ms_p95: quantile(0.95),
            latency_ms_p99: quantile(0.99),
            requests: requests.ended(),
            failures: requests.failure,
            attempts: attempts.ended(),
            retries: requests.retries,
            timeouts: requests.timeouts,
        }
    }
}

fn table(rows: &Rows, query: &Query, wide: bool) -> Table {
    let names = ["NAMESPACE", "ROUTE", "SERVICE"].map(|title| (title, Align::Left));
    let is_everywhere = query.services.namespace.is_none();
    let counts: &[&str] = if wide {
        &["EFFECTIVE_SUCCESS", "EFFECTIVE_RPS", "ACTUAL_SUCCESS", "ACTUAL_RPS"]
    } else {
        &["SUCCESS", "RPS"]
    };
    let latencies = ["LATENCY_P50", "LATENCY_P95", "LATENCY_P99"];
    let numbers = counts.iter().chain(&latencies).map(|title| (*title, Align::Right));
    let skipped = usize::from(!is_everywhere);
    let mut table = Table::new(names.into_iter().skip(skipped).chain(numbers).collect::<Vec<_>>());
    for ((service, route), Figures { requests, attempts, .. }) in rows {
        let plain = |text: String| (text, Tone::Plain);
        let own = &service.namespace;
        let names = [own.clone(), route.seen_from(own), service.seen_from(own)].map(plain);
        let mut cells: Vec<_> = names.into_iter().skip(skipped).collect();
        let shown = [requests, attempts].into_iter().take(if wide { 2 } else { 1 });
        cells.extend(shown.flat_map(|counts| {
            let success = counts.success_rate();
            [(units::percent(success), tone(success)), plain(units::rate(counts.per_second()))]
        }));
        cells.extend([0.50, 0.95, 0.99].map(|share| plain(units::latency(requests.quantile(share)))));
        table.row(cells);
    }
    table
}
