//! `weir policy`: what is in force for a Service, and from which object each part comes. Must never call a default what an object says.

#[cfg(test)]
mod tests;

use std::io::Write;

use serde::Serialize;
use weir_api::v1::{self, PolicyRequest, backend_policy::Target as To};

use crate::{
    args::asked::PolicyArgs,
    client::Client,
    error::CliError,
    explain::{routes_in_force, settings},
    output::{Align, Format, Table, Tone, json, name, note, sentence},
    session::{Outcome, Session},
    target::Target,
    wording::{self, Object, Port, Setting},
};

/// All of it; field names are stable.
#[derive(Debug, Serialize)]
struct Policy {
    namespace: String,
    service: String,
    /// Of the clients.
    client_namespace: String,
    /// Of requests that no rule decides about.
    settings: Vec<Setting>,
    ports: Vec<PortPolicy>,
    /// What the Service says and is not understood.
    flaws: Vec<Flaw>,
}

#[derive(Debug, Serialize)]
struct PortPolicy {
    port: u32,
    name: String,
    protocol: Setting,
    /// `none`, `producer`, `consumer`.
    routes_in_force: &'static str,
    routes: Vec<Route>,
    routes_left_out: u32,
    rules_left_out: u32,
}

#[derive(Debug, Serialize)]
struct Route {
    route: Object,
    is_in_force: bool,
    reason: String,
    hostnames: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
struct Rule {
    rule: u32,
    matches: Vec<String>,
    filters: Vec<String>,
    /// To the Service itself, else to the backends.
    is_itself: bool,
    backends: Vec<Backend>,
    settings: Vec<Setting>,
    /// Of a ServiceProfile's route, its name; `rule` is `spec.routes[rule]` then.
    #[serde(rename = "rule_name", skip_serializing_if = "String::is_empty")]
    name: String,
    /// What its responses count as, where it says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    response_classes: String,
}

#[derive(Debug, Serialize)]
struct Backend {
    weight: u32,
    /// Null: there is none.
    service: Option<Port>,
    invalid: String,
    filters: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Flaw {
    field: String,
    reason: String,
}

/// Asks control, and shows its answer.
pub(crate) async fn run(arguments: &PolicyArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let Target { namespace, name, port } =
        Target::parse(&arguments.service, &session.namespace()).map_err(CliError::Argument)?;
    let client_namespace = arguments.from.clone().unwrap_or_default();
    let client = Client::connect(session).await?;
    let policy = Policy::of(client.policy(PolicyRequest { namespace, service: name, port, client_namespace }).await?);
    if session.format == Format::Json {
        json(out, &policy)?;
    } else {
        write!(out, "{}", text(&policy, session.color))?;
    }
    for flaw in &policy.flaws {
        note(&format!("Service {}/{}: {}: {}", policy.namespace, policy.service, flaw.field, flaw.reason));
    }
    Ok(Outcome::Good)
}

impl Policy {
    fn of(given: v1::PolicyResponse) -> Policy {
        Policy {
            namespace: given.namespace,
            service: given.service,
            client_namespace: given.client_namespace,
            settings: given.settings.into_iter().map(Setting::of).collect(),
            ports: given.ports.into_iter().map(PortPolicy::of).collect(),
            flaws: given.flaws.into_iter().map(|flaw| Flaw { field: flaw.field, reason: flaw.reason }).collect(),
        }
    }
}

impl PortPolicy {
    fn of(given: v1::PortPolicy) -> PortPolicy {
        let routes_in_force = routes_in_force(given.routes_in_force());
        let route = |route: v1::RoutePolicy| Route {
            route: Object::of(route.route),
            is_in_force: route.is_in_force,
            reason: route.reason,
            hostnames: route.hostnames,
            rules: route.rules.into_iter().map(Rule::of).collect(),
        };
        PortPolicy {
            port: given.port,
            name: given.name,
            protocol: Setting::of(given.protocol.unwrap_or_default()),
            routes_in_force,
            routes: given.routes.into_iter().map(route).collect(),
            routes_left_out: given.routes_left_out,
            rules_left_out: given.rules_left_out,
        }
    }
}

impl Rule {
    fn of(given: v1::RulePolicy) -> Rule {
        let backend = |backend: v1::BackendPolicy| {
            let filters = backend.filters.iter().map(wording::filter).collect();
            let (service, invalid) = match backend.target {
                Some(To::Service(service)) => (Some(Port::of(Some(service))), String::new()),
                Some(To::Invalid(reason)) => (None, reason),
                None => (None, "of a kind that this program does not know".to_owned()),
            };
            Backend { weight: backend.weight, service, invalid, filters }
        };
        Rule {
            rule: given.rule,
            matches: given
                .matches
                .iter()
                .map(wording::condition)
                .chain(given.profile_condition.as_ref().map(wording::profile_condition))
                .collect(),
            filters: given.filters.iter().map(wording::filter).collect(),
            is_itself: given.is_itself,
            backends: given.backends.into_iter().map(backend).collect(),
            settings: given.settings.into_iter().map(Setting::of).collect(),
            name: given.name,
            response_classes: given.classes.as_ref().map(wording::classes).unwrap_or_default(),
        }
    }
}

impl Rule {
    /// Where its object says something.
    fn field(&self, route: &Object, field: &str) -> String {
        match (route.kind.as_str(), field) {
            ("ServiceProfile", "backendRefs") => "spec.dstOverrides".to_owned(),
            ("TrafficSplit", "backendRefs") => "spec.backends".to_owned(),
            // Of what falls under no route nothing is written.
            (_, "matches") if self.name == "[DEFAULT]" => "default".to_owned(),
            ("ServiceProfile", "matches") => format!("spec.routes[{}].condition", self.rule),
            ("ServiceProfile", field) => format!("spec.routes[{}].{field}", self.rule),
            (_, field) => format!("spec.rules[{}].{field}", self.rule),
        }
    }
}

fn text(policy: &Policy, color: bool) -> String {
    let Policy { namespace, service, client_namespace, .. } = policy;
    let mut text = format!("Service {namespace}/{service}, for clients of namespace {client_namespace}\n\n");
    text = sentence_lines(&text);
    text += &settings(&policy.settings, color);
    for port in &policy.ports {
        let title = if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) };
        let protocol = format!("{} ({})", port.protocol.value, port.protocol.from());
        text += &format!("\nport {}, protocol {}\n", name(&title), sentence(&protocol));
        if port.routes.is_empty() {
            text += "no routes: every request goes to the Service itself\n";
        }
        for route in &port.routes {
            text += &of_route(route, &policy.settings, color);
        }
        if port.routes_left_out > 0 || port.rules_left_out > 0 {
            text += &format!("and {} more routes, {} more rules\n", port.routes_left_out, port.rules_left_out);
        }
    }
    text
}

fn sentence_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", sentence(line))).collect()
}

fn of_route(route: &Route, of_service: &[Setting], color: bool) -> String {
    let (state, tone) = if route.is_in_force { ("in force", Tone::Good) } else { ("not in force", Tone::Warn) };
    let hosts = if route.hostnames.is_empty() { String::new() } else { format!(" for {}", route.hostnames.join(", ")) };
    let reason = if route.reason.is_empty() { String::new() } else { format!(": {}", route.reason) };
    let mut text = format!(
        "\n{}{}: {}{}\n",
        sentence(&route.route.to_string()),
        sentence(&hosts),
        tone.paint(state, color),
        sentence(&reason)
    );
    if route.rules.is_empty() {
        return text;
    }
    let mut table = Table::new(["RULE", "WHAT", "SAYS", "FROM"].map(|title| (title, Align::Left)));
    for rule in &route.rules {
        let mut row = |what: &str, says: String, from: String, tone: Tone| {
            let cells = [
                (if rule.name.is_empty() { rule.rule.to_string() } else { rule.name.clone() }, Tone::Plain),
                (what.to_owned(), Tone::Plain),
                (says, tone),
                (from, Tone::Plain),
            ];
            table.row(cells);
        };
        let field = |field: &str| rule.field(&route.route, field);
        for one in &rule.matches {
            row("match", one.clone(), field("matches"), Tone::Plain);
        }
        for one in &rule.filters {
            row("filter", one.clone(), field("filters"), Tone::Plain);
        }
        if rule.is_itself {
            row("to", "the Service itself".to_owned(), "default".to_owned(), Tone::Plain);
        }
        for backend in &rule.backends {
            let (to, tone) = match &backend.service {
                Some(service) => (format!("{service}, weight {}", backend.weight), Tone::Plain),
                None => (format!("nobody, weight {}: {}", backend.weight, backend.invalid), Tone::Bad),
            };
            row("to", to, field("backendRefs"), tone);
            for one in &backend.filters {
                row("filter", one.clone(), field("backendRefs"), Tone::Plain);
            }
        }
        if !rule.response_classes.is_empty() {
            row("responses", rule.response_classes.clone(), field("responseClasses"), Tone::Plain);
        }
        // The others are the Service's, which stand above.
        for setting in rule.settings.iter().filter(|setting| !of_service.contains(setting)) {
            row(&setting.name, setting.value.clone(), setting.from(), Tone::Plain);
        }
    }
    text += &table.text(color);
    text
}
