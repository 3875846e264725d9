//! `weir check`: everything that is wrong, with what to do about it. Must never say that all is well about what it could not ask.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, io::Write, time::Instant};

use serde::Serialize;
use weir_api::v1::{CheckOutcome, CheckResult, VersionResponse};

use crate::{
    args::CheckArgs,
    client::Client,
    error::CliError,
    limits,
    output::{Format, Tone, json, name, sentence},
    session::{Outcome, Session},
    version,
};

const API: &str = "weir-control-api";
const VERSION: &str = "weir-version";
/// Nodes named in one hint: the first few tell the story of a thousand.
const NAMED: usize = 8;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Success,
    Warning,
    Error,
}

/// Field names are Linkerd's where Linkerd has one.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    description: String,
    result: Verdict,
    /// What is wrong and what to do; empty on success. May have several lines.
    hint: String,
    /// How many said exactly this: nodes that are alike make one line.
    count: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Category {
    #[serde(rename = "categoryName")]
    name: String,
    checks: Vec<Finding>,
}

impl Category {
    fn add(&mut self, finding: Finding) {
        let same = |held: &&mut Finding| {
            (&held.description, held.result, &held.hint) == (&finding.description, finding.result, &finding.hint)
        };
        match self.checks.iter_mut().find(same) {
            Some(held) => held.count += finding.count,
            None => self.checks.push(finding),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Summary {
    success: bool,
    categories: Vec<Category>,
}

impl Summary {
    fn new(findings: Vec<(String, Finding)>) -> Summary {
        let success = findings.iter().all(|(_, finding)| finding.result != Verdict::Error);
        let mut categories: Vec<Category> = Vec::new();
        for (name, finding) in findings {
            match categories.iter_mut().find(|category| category.name == name) {
                Some(category) => category.add(finding),
                None => categories.push(Category { name, checks: vec![finding] }),
            }
        }
        Summary { success, categories }
    }
}

/// Checks, again while there are errors and time to wait for their end.
pub(crate) async fn run(arguments: &CheckArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let begin = Instant::now();
    let summary = loop {
        let summary = Summary::new(findings(session).await);
        if summary.success || begin.elapsed() >= arguments.wait {
            break summary;
        }
        tokio::time::sleep(limits::CHECK_AGAIN).await;
    };
    if session.format == Format::Json {
        json(out, &summary)?;
    } else {
        write!(out, "{}", text(&summary, session.color))?;
    }
    out.flush()?;
    Ok(if summary.success { Outcome::Good } else { Outcome::Bad })
}

async fn findings(session: &Session) -> Vec<(String, Finding)> {
    let mut findings = Vec::new();
    let client = match Client::connect(&session.settings).await {
        Ok(client) => client,
        Err(error) => {
            findings.push(failed("control can be reached and proves its identity", &error));
            return findings;
        }
    };
    findings.push(found(API, "control can be reached and proves its identity", None));
    match client.version().await {
        Ok(versions) => {
            findings.push(found(API, "control accepts the token", None));
            findings.extend(compare(&versions));
        }
        Err(error) => {
            findings.push(failed("control accepts the token", &error));
            return findings;
        }
    }
    match client.check().await {
        Ok(answer) => findings.extend(answer.results.into_iter().map(foreign)),
        Err(error) => findings.push(failed("control tells its findings", &error)),
    }
    findings
}

fn failed(description: &str, error: &CliError) -> (String, Finding) {
    found(API, description, Some((Verdict::Error, error.line())))
}

/// `None`: success.
fn found(category: &str, description: &str, problem: Option<(Verdict, String)>) -> (String, Finding) {
    let (result, hint) = problem.unwrap_or((Verdict::Success, String::new()));
    (category.to_owned(), Finding { description: description.to_owned(), result, hint, count: 1 })
}

fn foreign(result: CheckResult) -> (String, Finding) {
    let verdict = match result.outcome() {
        CheckOutcome::Success => Verdict::Success,
        CheckOutcome::Error => Verdict::Error,
        // A newer control's word for something that this program cannot judge.
        CheckOutcome::Warning | CheckOutcome::Unspecified => Verdict::Warning,
    };
    let CheckResult { category, description, outcome: _, hint } = result;
    (category, Finding { description, result: verdict, hint, count: 1 })
}

fn compare(versions: &VersionResponse) -> Vec<(String, Finding)> {
    let warning = |wrong: bool, hint: String| wrong.then_some((Verdict::Warning, hint));
    let control = &versions.control;
    let own = version::CLIENT;
    let others: Vec<String> = versions
        .nodes
        .iter()
        .filter(|node| node.version != *control)
        .map(|node| format!("{} ({})", node.node_name, node.version))
        .collect();
    let more = others.len().saturating_sub(NAMED);
    let mut list = others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(list, " and {more} more");
    }
    vec![
        found(
            VERSION,
            "this program is of control's version",
            warning(
                control != own,
                format!("this program is {own}, control is {control}: use the one of control's version"),
            ),
        ),
        found(
            VERSION,
            "nodes are of control's version",
            warning(
                !others.is_empty(),
                format!("control is {control}, but not: {list}; finish the upgrade of the nodes"),
            ),
        ),
    ]
}

fn text(summary: &Summary, color: bool) -> String {
    let mut text = String::new();
    for category in &summary.categories {
        let title = name(&category.name);
        let _ = writeln!(text, "{title}\n{}", "-".repeat(title.chars().count()));
        for check in &category.checks {
            let mark = match check.result {
                Verdict::Success => Tone::Good.paint("√", color),
                Verdict::Warning => Tone::Warn.paint("‼", color),
                Verdict::Error => Tone::Bad.paint("×", color),
            };
            let times = if check.count > 1 { format!(" ({} times)", check.count) } else { String::new() };
            let _ = writeln!(text, "{mark} {}{times}", sentence(&check.description));
            if check.result != Verdict::Success {
                for line in check.hint.lines() {
                    let _ = writeln!(text, "    {}", sentence(line));
                }
            }
        }
        text.push('\n');
    }
    let mark = if summary.success { Tone::Good.paint("√", color) } else { Tone::Bad.paint("×", color) };
    let _ = writeln!(text, "Status check results are {mark}");
    text
}
