//! `weir identity`: certificates that nodes hold for their pods. Must never show a private key: reports hold none.

#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use weir_api::v1::{Report, WorkloadReport};

use crate::{
    args::IdentityArgs,
    certificate::Certificate,
    client::{Client, note_missing},
    error::CliError,
    limits,
    output::{Align, Format, Table, Tone, json, name, note, or_dash, sentence},
    resource::Subject,
    session::{Outcome, Session},
};

/// One pod; field names are stable.
#[derive(Debug, Serialize)]
struct PodIdentity {
    namespace: String,
    pod: String,
    owner: String,
    node: String,
    identity: String,
    captured: bool,
    /// Why the pod is not captured; empty when it is.
    reason: String,
    /// Leaf first.
    certificates: Vec<Certificate>,
    /// What could not be read of the chain; empty when all was read.
    error: String,
}

/// Shows an overview, or named pods in full.
pub(crate) async fn run(arguments: &IdentityArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let client = Client::connect(session).await?;
    let (least, _) = limits::WINDOW_SECONDS;
    let answer = client.observe(std::time::Duration::from_secs(least)).await?;
    note_missing(&answer, "pods are");
    let wanted: Vec<&str> = arguments.pods.iter().map(|pod| bare(pod)).collect::<Result<_, _>>()?;
    let pods = pods(&answer.reports, arguments.place.namespace(&session.namespace()).as_deref(), &wanted);
    let missing: Vec<&str> = wanted.iter().filter(|name| !pods.iter().any(|pod| pod.pod == **name)).copied().collect();
    if session.format == Format::Json {
        json(out, &pods)?;
    } else if arguments.pods.is_empty() && !pods.is_empty() {
        write!(out, "{}", overview(&pods, now(), session.format == Format::Wide).text(session.color))?;
    } else {
        let texts: Vec<String> = pods.iter().map(|pod| full(pod, now())).collect();
        write!(out, "{}", texts.join("\n"))?;
    }
    if !missing.is_empty() {
        return Err(CliError::Argument(format!(
            "no meshed pod {}: check the name and -n, and that it is opted in (`weir check`)",
            missing.join(", ")
        )));
    }
    if pods.is_empty() {
        note("no meshed pod here: try -A or another -n");
    }
    Ok(Outcome::Good)
}

/// A pod's name without `pod/`.
fn bare(argument: &str) -> Result<&str, CliError> {
    match argument.split_once('/') {
        None => Ok(argument),
        Some(("pod" | "pods" | "po", name)) if !name.is_empty() => Ok(name),
        Some(_) => Err(CliError::Argument(format!("{argument:?} is no pod: give NAME or pod/NAME"))),
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).cast_signed()
}

fn pods(reports: &[Report], namespace: Option<&str>, wanted: &[&str]) -> Vec<PodIdentity> {
    let all = reports.iter().flat_map(|report| report.workloads.iter().map(move |workload| (report, workload)));
    let mut pods: Vec<PodIdentity> = all
        .map(|(report, workload)| pod_identity(&report.node_name, workload))
        .filter(|pod| namespace.is_none_or(|namespace| namespace == pod.namespace))
        .filter(|pod| wanted.is_empty() || wanted.contains(&pod.pod.as_str()))
        .collect();
    pods.sort_by(|a, b| (&a.namespace, &a.pod, &a.node).cmp(&(&b.namespace, &b.pod, &b.node)));
    pods
}

fn pod_identity(node: &str, workload: &WorkloadReport) -> PodIdentity {
    let pod = workload.pod.clone().unwrap_or_default();
    let owner = Subject::owner(&pod).map(|owner| owner.to_string()).unwrap_or_default();
    let mut certificates = Vec::new();
    let mut error = String::new();
    for (index, der) in workload.certificate_chain.iter().take(limits::CHAIN).enumerate() {
        match Certificate::parse(der) {
            Ok(certificate) => certificates.push(certificate),
            Err(reason) => {
                error = format!("certificate {} of the chain: {reason}", index + 1);
                break;
            }
        }
    }
    PodIdentity {
        namespace: pod.namespace,
        // A pod that control no longer names is still told apart by its uid.
        pod: if pod.name.is_empty() { workload.uid.clone() } else { pod.name },
        owner,
        node: node.to_owned(),
        identity: workload.identity.clone(),
        captured: workload.captured,
        reason: workload.reason.clone(),
        certificates,
        error,
    }
}

fn overview(pods: &[PodIdentity], now: i64, wide: bool) -> Table {
    let mut titles = vec!["NAMESPACE", "POD", "IDENTITY", "ISSUER", "EXPIRES"];
    if wide {
        titles.extend(["NOT_AFTER", "OWNER", "NODE", "CAPTURED"]);
    }
    let mut table = Table::new(titles.into_iter().map(|title| (title, Align::Left)).collect::<Vec<_>>());
    for pod in pods {
        let leaf = pod.certificates.first();
        let tone = if leaf.is_some_and(|leaf| leaf.is_current(now)) { Tone::Plain } else { Tone::Bad };
        let expires = leaf.map_or_else(|| "no certificate".to_owned(), |leaf| leaf.remaining(now));
        let plain = |text: &str| (or_dash(text).to_owned(), Tone::Plain);
        let mut cells = vec![plain(&pod.namespace), plain(&pod.pod), plain(&pod.identity)];
        cells.push(plain(leaf.map_or("", |leaf| &leaf.issuer)));
        cells.push((if pod.error.is_empty() { expires } else { pod.error.clone() }, tone));
        if wide {
            let captured = if pod.captured { "yes" } else { or_dash(&pod.reason) };
            cells.extend([plain(leaf.map_or("", |leaf| &leaf.not_after)), plain(&pod.owner), plain(&pod.node)]);
            cells.push(plain(captured));
        }
        table.row(cells);
    }
    table
}

fn full(pod: &PodIdentity, now: i64) -> String {
    let mut text =
        format!("POD {} ({}, node {})\n", name(&pod.pod), name(or_dash(&pod.owner)), name(or_dash(&pod.node)));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<12} {}", sentence(or_dash(value)));
    };
    line("Namespace:", &pod.namespace);
    line("Identity:", &pod.identity);
    if !pod.captured {
        line("Not captured:", &pod.reason);
    }
    for (index, certificate) in pod.certificates.iter().enumerate() {
        line("Certificate:", &format!("{} of {}", index + 1, pod.certificates.len()));
        line("  Subject:", &certificate.subject);
        line("  Issuer:", &certificate.issuer);
        line("  Serial:", &certificate.serial);
        line("  SANs:", &certificate.sans.join(", "));
        line("  Key:", &certificate.key);
        line("  Not before:", &certificate.not_before);
        line("  Not after:", &format!("{} ({})", certificate.not_after, certificate.remaining(now)));
    }
    if !pod.error.is_empty() {
        line("Error:", &pod.error);
    } else if pod.certificates.is_empty() {
        line("Error:", "the node has no certificate for this pod yet: see `weir check`");
    }
    text
}
