//! `weir log-level`: what the proxies of nodes write to their logs, shown and changed while they run. Must never send a token to anybody but control.

use std::io::Write;

use serde::Serialize;
use weir_api::v1;

use crate::{
    args::LogLevelArgs,
    client::{self, Client},
    error::CliError,
    output::{Align, Format, Table, Tone, json, name, note, or_dash, sentence},
    session::{Outcome, Reach, Session},
};

/// One node; field names are stable.
#[derive(Debug, Serialize)]
struct Node {
    node: String,
    /// The filter that is in force; empty when it is not known.
    filter: String,
    /// Why it is not known, or not the one that was asked for; empty when it is.
    problem: String,
}

/// Shows levels, after it has set them where that is wanted.
pub(crate) async fn run(chosen: &LogLevelArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let (as_user, as_groups) = match &session.reach {
        Reach::Direct(_) => (String::new(), Vec::new()),
        Reach::Kubernetes(access) => {
            if chosen.set.is_some() && chosen.kubernetes_token_file.is_none() {
                return Err(CliError::Argument(
                    "--set needs --kubernetes-token-file: the right to update loglevels.weir.mesh is its account's (`kubectl create token NAME > FILE`)".to_owned(),
                ));
            }
            (access.user.clone().unwrap_or_default(), access.groups.clone())
        }
    };
    let own = chosen.kubernetes_token_file.as_deref().map(client::token).transpose()?;
    // Whom one acts as is of the token's rights.
    let (as_user, as_groups) = if own.is_some() { (as_user, as_groups) } else { (String::new(), Vec::new()) };
    let request = v1::LogLevelsRequest { nodes: chosen.nodes.clone(), set: chosen.set.clone(), as_user, as_groups };
    let answer = Client::connect(session).await?.log_levels(request, own).await?;
    for v1::Replica { name, problem, .. } in &answer.missing_replicas {
        note(&format!("replica {name} of control did not answer ({problem}): its nodes were not asked"));
    }
    let nodes: Vec<Node> = answer
        .nodes
        .into_iter()
        .map(|v1::NodeLogLevel { node_name, filter, problem }| Node { node: node_name, filter, problem })
        .collect();
    let is_good = answer.missing_replicas.is_empty() && nodes.iter().all(|node| node.problem.is_empty());
    if session.format == Format::Json {
        json(out, &nodes)?;
    } else {
        write!(out, "{}", table(&nodes).text(session.color))?;
    }
    Ok(if is_good { Outcome::Good } else { Outcome::Bad })
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(["NODE", "LOG LEVEL", "PROBLEM"].map(|title| (title, Align::Left)));
    for node in nodes {
        let tone = if node.problem.is_empty() { Tone::Plain } else { Tone::Bad };
        let [shown, filter] = [&node.node, &node.filter].map(|text| (or_dash(&name(text)).to_owned(), Tone::Plain));
        table.row([shown, filter, (or_dash(&sentence(&node.problem)).to_owned(), tone)]);
    }
    table
}
