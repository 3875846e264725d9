//! The answer for people: what happens first, then why. Must never print foreign text that is not escaped.

use std::fmt::Write as _;

use super::answer::{Answer, Way};
use crate::{
    output::{Align, Table, Tone, name, sentence},
    wording::Setting,
};

/// Paragraphs and tables.
pub(crate) fn of(answer: &Answer, color: bool) -> String {
    let Answer { from, request, service, protocol, .. } = answer;
    let who = match from.kind.as_str() {
        "" => format!("namespace {}", from.namespace),
        kind => format!("{kind} {}/{}", from.namespace, from.name),
    };
    let mut text = format!(
        "{} {}{}\nfrom {} to {} ({}: {})\n\n",
        name(&request.method),
        name(&request.authority),
        sentence(&request.path),
        name(&who),
        name(&service.to_string()),
        name(&protocol.value),
        name(&protocol.from())
    );
    for way in &answer.outcome {
        text += &outcome(way, color);
    }
    text += &format!("{}\n", sentence(&by(answer)));
    if !answer.candidates.is_empty() {
        text += &format!("\n{}", candidates(answer, color));
    }
    if answer.candidates_left_out > 0 {
        text += &format!("and {} more, which lost\n", answer.candidates_left_out);
    }
    if !answer.not_asked.is_empty() {
        let mut table = Table::new([("NOT ASKED", Align::Left), ("WHY", Align::Left)]);
        for aside in &answer.not_asked {
            table.row([(aside.route.to_string(), Tone::Plain), (aside.reason.clone(), Tone::Plain)]);
        }
        text += &format!("\n{}", table.text(color));
    }
    if !answer.settings.is_empty() {
        text += &format!("\n{}", settings(&answer.settings, color));
    }
    text
}

fn by(answer: &Answer) -> String {
    match (&answer.rule, answer.routes_in_force) {
        (Some(rule), _) if !rule.name.is_empty() => format!("by {} {}: {}", rule.route, rule.name, rule.condition),
        (Some(rule), _) => {
            format!("by {} rules[{}].matches[{}]: {}", rule.route, rule.rule, rule.matched, rule.condition)
        }
        (None, "none") if answer.outcome.iter().any(|way| way.is_opaque) => {
            "no request is seen on an opaque port: no route holds there".to_owned()
        }
        (None, "none") => "no route holds for this port and client".to_owned(),
        (None, _) => "none of the rules below is for this request".to_owned(),
    }
}

fn outcome(way: &Way, color: bool) -> String {
    let percent = format!("{}%", way.percent);
    let (what, tone) = match (way.result, &way.service) {
        ("forward", Some(service)) => {
            let tone = if way.ready_endpoints == 0 { Tone::Warn } else { Tone::Good };
            let what = if way.is_opaque { "passed on to" } else { "goes to" };
            (format!("{what} {service}, {} of {} endpoints ready", way.ready_endpoints, way.endpoints), tone)
        }
        ("redirect", _) => (format!("is answered {} with Location: {}", way.status, way.location), Tone::Good),
        ("preflight", _) => (format!("is a browser's preflight request, answered {}", way.status), Tone::Good),
        ("failure", _) => {
            let grpc = way.grpc_code.map(|code| format!("grpc-status {code}"));
            let status = grpc.unwrap_or_else(|| way.status.to_string());
            (format!("is answered {status}: {}", way.reason), Tone::Bad)
        }
        _newer => ("has an outcome that this program does not know".to_owned(), Tone::Warn),
    };
    let mut text = format!("{percent:>6} {}\n", tone.paint(&sentence(&what), color));
    for line in way.headers.iter().map(|header| format!("with {header}")).chain(way.filters.iter().cloned()) {
        let _infallible = writeln!(text, "       {}", sentence(&line));
    }
    text
}

fn candidates(answer: &Answer, color: bool) -> String {
    let titles = ["VERDICT", "ROUTE", "RULE", "MATCH", "CONDITION", "WHY"];
    let mut table = Table::new(titles.map(|title| (title, Align::Left)));
    for candidate in &answer.candidates {
        let tone = match candidate.verdict {
            "won" => Tone::Good,
            "behind" => Tone::Warn,
            _lost => Tone::Plain,
        };
        let hosts = if candidate.hostnames.is_empty() {
            String::new()
        } else {
            format!(" for {}", candidate.hostnames.join(","))
        };
        let rule = &candidate.rule;
        let cells = [
            format!("{}{hosts}", rule.route),
            if rule.name.is_empty() { rule.rule.to_string() } else { rule.name.clone() },
            rule.matched.to_string(),
            rule.condition.clone(),
            candidate.why.clone(),
        ];
        let plain = cells.map(|cell| (cell, Tone::Plain));
        table.row(std::iter::once((candidate.verdict.to_owned(), tone)).chain(plain));
    }
    table.text(color)
}

/// Values with who says so.
pub(crate) fn settings(all: &[Setting], color: bool) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"].map(|title| (title, Align::Left)));
    for setting in all {
        let cells = [setting.name.clone(), setting.value.clone(), setting.from()];
        table.row(cells.map(|cell| (cell, Tone::Plain)));
    }
    table.text(color)
}
