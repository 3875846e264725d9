//! `weir stat`: success, rate and latencies per resource. Must never show a number for what was not measured.

mod endpoints;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write},
    time::Duration,
};

pub(crate) use self::table::tone;
use weir_api::v1::{Direction, PodStatus, Report, TrafficReport};

use crate::{
    args::StatArgs,
    client::{Client, note_missing},
    error::CliError,
    flows::{flows, known, seconds},
    histogram::Histogram,
    limits,
    output::note,
    resource::{Kind, Resource, Selector, Subject},
    session::{Outcome, Session},
};

/// Whose traffic counts.
enum Scope {
    /// What the resources receive; for services, what clients sent to them.
    All,
    /// What the resources send to these.
    To(Selector),
    /// What the resources receive from these.
    From(Selector),
}

/// What is shown.
enum View {
    Traffic(Query),
    Endpoints(endpoints::Query),
}

impl View {
    fn new(arguments: &StatArgs, session: &Session) -> Result<View, CliError> {
        match endpoints::Query::of(arguments, session)? {
            Some(query) => Ok(View::Endpoints(query)),
            None => Query::new(arguments, session).map(View::Traffic),
        }
    }

    /// The whole answer as text, and whether there is anything in it.
    async fn ask(&self, client: &Client, session: &Session) -> Result<(String, bool), CliError> {
        match self {
            View::Endpoints(query) => endpoints::ask(client, query, session).await,
            View::Traffic(query) => {
                let rows = ask(client, query).await?;
                Ok((table::render(&rows, query, session)?, !rows.is_empty()))
            }
        }
    }

    fn nothing(&self) -> String {
        match self {
            View::Traffic(query) => nothing(query),
            View::Endpoints(query) => query.nothing(),
        }
    }
}

struct Query {
    selector: Selector,
    scope: Scope,
    window: Duration,
    unmeshed: bool,
}

impl Query {
    fn new(arguments: &StatArgs, session: &Session) -> Result<Query, CliError> {
        let resources = Resource::parse_all(&arguments.resources).map_err(CliError::Argument)?;
        let namespace = arguments.place.namespace(&session.namespace());
        let other = |resource: &Option<String>, given: &Option<String>| -> Result<Option<Selector>, CliError> {
            if resource.is_none() && given.is_none() {
                return Ok(None);
            }
            let resource = resource.as_deref().unwrap_or("all");
            let resources = vec![Resource::parse(resource).map_err(CliError::Argument)?];
            Ok(Some(Selector { resources, namespace: given.clone().or_else(|| namespace.clone()) }))
        };
        let scope = match (
            other(&arguments.to, &arguments.to_namespace)?,
            other(&arguments.from, &arguments.from_namespace)?,
        ) {
            (None, None) => Scope::All,
            (Some(to), None) => Scope::To(to),
            (None, Some(from)) => Scope::From(from),
            (Some(_), Some(_)) => {
                return Err(CliError::Argument("--to and --from exclude each other: ask for one at a time".to_owned()));
            }
        };
        let selector = Selector { resources, namespace };
        Ok(Query { selector, scope, window: arguments.time_window, unmeshed: arguments.unmeshed })
    }
}

/// Sums of rows.
#[derive(Default)]
struct Sums {
    success: u64,
    failure: u64,
    rate: f64,
    latency: Histogram,
    open: u64,
    read_rate: f64,
    write_rate: f64,
}

impl Sums {
    fn add(&mut self, row: &TrafficReport, seconds: f64) {
        self.success = self.success.saturating_add(row.success_total);
        self.failure = self.failure.saturating_add(row.failure_total);
        self.rate += row.success_total.saturating_add(row.failure_total) as f64 / seconds;
        self.latency.add(&row.latency_bounds_ms, &row.latency_counts);
        self.open = self.open.saturating_add(row.tcp_open_connections);
        self.read_rate += row.tcp_read_bytes as f64 / seconds;
        self.write_rate += row.tcp_write_bytes as f64 / seconds;
    }

    fn requests(&self) -> u64 {
        self.success.saturating_add(self.failure)
    }
}

/// One line: pods of the resource, and its traffic.
#[derive(Default)]
struct Row {
    meshed: u64,
    pods: u64,
    traffic: Option<Sums>,
}

/// Shows the table, once or again and again.
pub(crate) async fn run(arguments: &StatArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let view = View::new(arguments, session)?;
    let client = Client::connect(session).await?;
    if !arguments.watch {
        let (text, is_some) = view.ask(&client, session).await?;
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !is_some {
            note(&view.nothing());
        }
        return Ok(Outcome::Good);
    }
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    loop {
        // An answer that fails to come must not end a watch: control may be restarting.
        match view.ask(&client, session).await {
            Ok((text, _is_some)) => write!(out, "{clear}{text}")?,
            Err(error) => note(&error.line()),
        }
        out.flush()?;
        tokio::time::sleep(limits::REDRAW).await;
    }
}

async fn ask(client: &Client, query: &Query) -> Result<BTreeMap<Subject, Row>, CliError> {
    let answer = client.observe(query.window).await?;
    note_missing(&answer, "traffic is");
    let all = query.selector.resources.iter().any(|resource| resource.kind == Kind::Namespace);
    let namespace = query.selector.namespace.as_deref().filter(|_| !all).unwrap_or_default();
    let pods = client.workloads(namespace).await?.pods;
    Ok(rows(&answer.reports, &pods, query))
}

fn nothing(query: &Query) -> String {
    let place =
        query.selector.namespace.as_ref().map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
    format!("no meshed resource with such a name in {place}: try -A, another -n, or --unmeshed")
}

fn rows(reports: &[Report], pods: &[PodStatus], query: &Query) -> BTreeMap<Subject, Row> {
    let mut rows: BTreeMap<Subject, Row> = BTreeMap::new();
    for status in pods {
        for subject in query.selector.subjects(known(&status.pod), "") {
            let row = rows.entry(subject).or_default();
            row.pods += 1;
            row.meshed += u64::from(status.enabled && status.captured);
        }
    }
    let asked = query.window.as_secs_f64();
    let mut add = |subjects: Vec<Subject>, row: &TrafficReport, seconds: f64| {
        for subject in subjects {
            rows.entry(subject).or_default().traffic.get_or_insert_default().add(row, seconds);
        }
    };
    if let Scope::From(from) = &query.scope {
        for flow in flows(reports, asked).iter().filter(|flow| from.matches(flow.client.pod(), "")) {
            let subjects = query.selector.subjects(flow.server.pod(), &flow.row.service).collect();
            add(subjects, flow.row, flow.seconds);
        }
    } else {
        for (report, row) in reports.iter().flat_map(|report| report.traffic.iter().map(move |row| (report, row))) {
            add(subjects(row, query), row, seconds(report, asked));
        }
    }
    let scoped = !matches!(query.scope, Scope::All);
    rows.retain(|_, row| row.traffic.is_some() || (!scoped && (row.meshed > 0 || query.unmeshed)));
    rows
}

/// What a row counts for, by its own direction.
fn subjects(row: &TrafficReport, query: &Query) -> Vec<Subject> {
    let all = query.selector.subjects(known(&row.workload), &row.service);
    match &query.scope {
        Scope::To(to) => {
            let counts = row.direction() == Direction::Outbound && to.matches(known(&row.peer), &row.service);
            if counts { all.collect() } else { Vec::new() }
        }
        // Clients measure services, workloads measure themselves.
        Scope::All | Scope::From(_) => {
            let measured = |subject: &Subject| match row.direction() {
                Direction::Inbound => subject.kind != "service",
                Direction::Outbound => subject.kind == "service",
                Direction::Unspecified => false,
            };
            all.filter(measured).collect()
        }
    }
}
