//! `weir version`. Must never fail to say its own version because control does not answer.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;
use weir_api::v1::VersionResponse;

use crate::{
    args::VersionArgs,
    client::Client,
    error::CliError,
    output::{Format, json, name, or_dash},
    session::{Outcome, Session},
};

/// Version of this program.
pub(crate) const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Field names are stable. `null`: control did not answer.
#[derive(Serialize)]
struct Versions {
    client: &'static str,
    control: Option<String>,
    replicas: Vec<Replica>,
    nodes: Vec<Node>,
}

/// `problem`: why it did not answer.
#[derive(Serialize)]
struct Replica {
    name: String,
    version: String,
    problem: String,
}

#[derive(Serialize)]
struct Node {
    node: String,
    version: String,
}

/// Shows versions; an error when control was to be asked and did not answer.
pub(crate) async fn run(arguments: &VersionArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let answer = if arguments.client { Ok(None) } else { ask(session).await.map(Some) };
    let versions = versions(answer.as_ref().ok().and_then(Option::as_ref));
    if session.format == Format::Json {
        json(out, &versions)?;
    } else {
        let wide = session.format == Format::Wide;
        write!(out, "{}", text(&versions, arguments.short, arguments.client, wide))?;
    }
    out.flush()?;
    answer.map(|_shown| Outcome::Good)
}

async fn ask(session: &Session) -> Result<VersionResponse, CliError> {
    Client::connect(session).await?.version().await
}

fn versions(answer: Option<&VersionResponse>) -> Versions {
    let nodes = answer.map(|answer| answer.nodes.as_slice()).unwrap_or_default();
    let mut nodes: Vec<Node> =
        nodes.iter().map(|node| Node { node: node.node_name.clone(), version: node.version.clone() }).collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let replicas = answer.map(|answer| answer.replicas.as_slice()).unwrap_or_default();
    let replica = |replica: &weir_api::v1::Replica| Replica {
        name: replica.name.clone(),
        version: replica.version.clone(),
        problem: replica.problem.clone(),
    };
    let replicas = replicas.iter().map(replica).collect();
    Versions { client: CLIENT, control: answer.map(|answer| answer.control.clone()), replicas, nodes }
}

fn text(versions: &Versions, short: bool, client_only: bool, wide: bool) -> String {
    let control = versions.control.as_deref().map_or("unavailable", or_dash);
    let mut lines = Vec::new();
    let mut line = |label: &str, value: &str| {
        let value = name(value);
        lines.push(if short { format!("{value}\n") } else { format!("{label} {value}\n") });
    };
    line("Client version:", versions.client);
    if !client_only {
        line("Control version:", control);
    }
    if wide && !short {
        for replica in &versions.replicas {
            let said = if replica.problem.is_empty() { &replica.version } else { &replica.problem };
            line(&format!("Replica {}:", name(&replica.name)), said);
        }
    }
    // A thousand nodes have one or two versions: counted, unless each is asked for.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &versions.nodes {
        *counts.entry(or_dash(&node.version)).or_default() += 1;
    }
    if wide && !short {
        versions.nodes.iter().for_each(|node| line(&format!("Node {}:", name(&node.node)), or_dash(&node.version)));
    } else {
        for (version, count) in counts {
            let plural = if count == 1 { "node" } else { "nodes" };
            if short { line("", version) } else { line("Node version:", &format!("{version} ({count} {plural})")) }
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use weir_api::v1::NodeVersion;

    use super::*;

    fn answer() -> VersionResponse {
        let node = |name: &str, version: &str| NodeVersion { node_name: name.into(), version: version.into() };
        VersionResponse {
            control: "1.2.3".into(),
            nodes: vec![node("b", "1"), node("a", "1"), node("c", "2")],
            replicas: Vec::new(),
        }
    }

    #[test]
    fn nodes_are_counted_by_version() {
        let text = text(&versions(Some(&answer())), false, false, false);
        let expected = format!(
            "Client version: {CLIENT}\nControl version: 1.2.3\nNode version: 1 (2 nodes)\nNode version: 2 (1 node)\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn forms() {
        let all = versions(Some(&answer()));
        assert_eq!(text(&all, true, false, false), format!("{CLIENT}\n1.2.3\n1\n2\n"));
        assert!(text(&all, false, false, true).contains("Node a: 1\nNode b: 1\nNode c: 2\n"));
        assert_eq!(text(&versions(None), true, true, false), format!("{CLIENT}\n"));
        assert!(text(&versions(None), false, false, false).contains("Control version: unavailable"));
    }
}
