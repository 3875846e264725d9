//! `weir endpoints`: where a service's traffic can go. Must never hide an endpoint that is not ready.

use std::io::Write;

use serde::Serialize;
use weir_api::v1::ServiceEndpoint;

use crate::{
    args::EndpointsArgs,
    client::Client,
    error::CliError,
    output::{Align, Format, Table, Tone, json, note, or_dash},
    session::{Outcome, Session},
};

/// One line; field names are stable. Empty: not known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Line {
    namespace: String,
    service: String,
    ip: String,
    port: u32,
    pod: String,
    identity: String,
    ready: bool,
}

/// Shows the table of all authorities.
pub(crate) async fn run(
    arguments: &EndpointsArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    for authority in &arguments.authorities {
        check(authority)?;
    }
    let client = Client::connect(session).await?;
    let mut lines = Vec::new();
    for authority in &arguments.authorities {
        let endpoints = client.endpoints(authority).await?.endpoints;
        if endpoints.is_empty() {
            note(&format!("{authority} has no endpoints: check that its selector matches pods and that they run"));
        }
        lines.extend(endpoints.into_iter().map(line));
    }
    lines.sort();
    lines.dedup();
    if session.format == Format::Json {
        json(out, &lines)?;
    } else if !lines.is_empty() {
        write!(out, "{}", table(&lines).text(session.color))?;
    }
    Ok(Outcome::Good)
}

/// The form only: whether it exists is control's to say.
fn check(authority: &str) -> Result<(), CliError> {
    let wrong =
        || CliError::Argument(format!("{authority:?} is no authority: write NAME.NAMESPACE:PORT, as web.shop:80"));
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let numbered = port.parse::<u16>().is_ok_and(|port| port > 0);
    let named = host.split('.').count() >= 2 && host.split('.').all(|label| !label.is_empty());
    if numbered && named { Ok(()) } else { Err(wrong()) }
}

fn line(endpoint: ServiceEndpoint) -> Line {
    let ServiceEndpoint { namespace, service, address, port, pod, ready, identity } = endpoint;
    let pod = pod.unwrap_or_default();
    // Linkerd's column is the pod's namespace; an endpoint without a pod has the service's.
    let namespace = if pod.namespace.is_empty() { namespace } else { pod.namespace };
    Line { namespace, service, ip: address, port, pod: pod.name, identity, ready }
}

fn table(lines: &[Line]) -> Table {
    let titles = ["NAMESPACE", "IP", "PORT", "POD", "SERVICE", "IDENTITY", "READY"];
    let mut table = Table::new(titles.map(|title| (title, Align::Left)));
    for line in lines {
        let (ready, tone) = if line.ready { ("yes", Tone::Good) } else { ("no", Tone::Warn) };
        let port = line.port.to_string();
        let cells = [&line.namespace, &line.ip, &port, &line.pod, &line.service, &line.identity];
        table.row(
            cells.map(|cell| (or_dash(cell).to_owned(), Tone::Plain)).into_iter().chain([(ready.to_owned(), tone)]),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use weir_api::v1::PodRef;

    use super::*;

    #[test]
    fn authorities_have_a_namespace_and_a_port() {
        for good in ["web.shop:80", "web.shop.svc.cluster.local:8080"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for wrong in ["web.shop", "web:80", "web.shop:0", "web.shop:70000", ".shop:80", "web..x:80", ":80", ""] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_show_what_is_known() {
        let known = ServiceEndpoint {
            namespace: "shop".into(),
            service: "web".into(),
            address: "10.0.0.1".into(),
            port: 80,
            pod: Some(PodRef { namespace: "shop".into(), name: "web-1".into(), ..PodRef::default() }),
            ready: true,
            identity: "id".into(),
        };
        let foreign = ServiceEndpoint { pod: None, ready: false, identity: String::new(), ..known.clone() };
        let text = table(&[line(known), line(foreign)]).text(false);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAMESPACE", "IP", "PORT", "POD", "SERVICE", "IDENTITY", "READY"]);
        assert_eq!(rows[1], ["shop", "10.0.0.1", "80", "web-1", "web", "id", "yes"]);
        assert_eq!(rows[2], ["shop", "10.0.0.1", "80", "-", "web", "-", "no"]);
    }
}
