//! What control and its nodes find. Must never say that all is well about what it could not ask.

use std::fmt::Write as _;

use weir_api::v1::{CheckOutcome, CheckResult, VersionResponse};

use super::finding::{Finding, Verdict, found};
use crate::{client::Client, error::CliError, session::Session, version};

const API: &str = "weir-control-api";
const VERSION: &str = "weir-version";
/// Nodes named in one hint: the first few tell the story of a thousand.
const NAMED: usize = 8;

/// Everything that control can be asked.
pub(super) async fn findings(session: &Session) -> Vec<(String, Finding)> {
    let mut findings = Vec::new();
    let client = match Client::connect(session).await {
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
    let (category, finding) = found(API, description, Some((Verdict::Error, error.line())));
    (category, finding.worth_waiting())
}

pub(super) fn foreign(result: CheckResult) -> (String, Finding) {
    let verdict = match result.outcome() {
        CheckOutcome::Success => Verdict::Success,
        CheckOutcome::Error => Verdict::Error,
        // A newer control's word for something that this program cannot judge.
        CheckOutcome::Warning | CheckOutcome::Unspecified => Verdict::Warning,
    };
    let CheckResult { category, description, outcome: _, hint } = result;
    (category, Finding { description, result: verdict, hint, count: 1, patience: false })
}

pub(super) fn compare(versions: &VersionResponse) -> Vec<(String, Finding)> {
    let warning = |wrong: bool, hint: String| wrong.then_some((Verdict::Warning, hint));
    let control = &versions.control;
    let own = version::CLIENT;
    let replicas: Vec<String> = versions
        .replicas
        .iter()
        .filter(|replica| !replica.version.is_empty() && replica.version != *control)
        .map(|replica| format!("{} ({})", replica.name, replica.version))
        .collect();
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
        found(
            VERSION,
            "replicas of control are of one version",
            warning(
                !replicas.is_empty(),
                format!("the one that answers is {control}, but not: {}; its rollout goes on", replicas.join(", ")),
            ),
        ),
    ]
}
