//! Who talks to whom, out of both sides' rows. Must never count one flow twice, nor drop one that only one side saw.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use weir_api::v1::{Direction, PodRef, Report, TrafficReport};
use weir_core::identity::Identity;

use crate::{limits, resource::Subject};

/// One row, with the sides named by role.
#[derive(Clone, Debug)]
pub(crate) struct Flow<'a> {
    pub(crate) client: Side<'a>,
    pub(crate) server: Side<'a>,
    pub(crate) row: &'a TrafficReport,
    /// Seconds that the counts cover.
    pub(crate) seconds: f64,
}

/// One end of a flow, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Side<'a> {
    /// A pod.
    Pod(&'a PodRef),
    /// Only the identity that it proved.
    Identity(Identity),
    /// Nothing: a client without an identity, or a server that was never reached.
    Unknown,
}

impl<'a> Side<'a> {
    /// The pod, if it is known.
    pub(crate) fn pod(&self) -> Option<&'a PodRef> {
        match self {
            Side::Pod(pod) => Some(pod),
            Side::Identity(_) | Side::Unknown => None,
        }
    }

    /// Owner, pod or service account; `None` when nothing is known.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match self {
            Side::Pod(pod) => Subject::owner(pod),
            Side::Identity(id) => Some(Subject::new(id.namespace(), "serviceaccount", id.service_account())),
            Side::Unknown => None,
        }
    }
}

/// Whether a reference names anything.
pub(crate) fn known(pod: &Option<PodRef>) -> Option<&PodRef> {
    pod.as_ref().filter(|pod| !pod.name.is_empty() || !pod.owner_name.is_empty())
}

/// Seconds that a report covers; what was asked for when the node says nothing sensible.
pub(crate) fn seconds(report: &Report, asked: f64) -> f64 {
    let said = report.window_seconds;
    let seconds = if said.is_finite() && said > 0.0 { said } else { asked };
    seconds.max(limits::COVERED_SECONDS)
}

/// A client as outbound rows name it, and the server's pod.
#[derive(PartialEq, Eq, Hash)]
enum Seen<'a> {
    Pods((&'a str, &'a str), (&'a str, &'a str)),
    Identity(&'a str, (&'a str, &'a str)),
}

fn pod_key(pod: &PodRef) -> (&str, &str) {
    (&pod.namespace, if pod.name.is_empty() { &pod.owner_name } else { &pod.name })
}

/// All flows: every outbound row, and the inbound rows that no outbound row covers.
pub(crate) fn flows(reports: &[Report], asked: f64) -> Vec<Flow<'_>> {
    let rows = || reports.iter().flat_map(move |report| report.traffic.iter().map(move |row| (report, row)));
    let names = names(reports);
    let mut seen = HashSet::new();
    let mut flows = Vec::new();
    for (report, row) in rows().filter(|(_, row)| row.direction() == Direction::Outbound) {
        let (client, server) = (known(&row.workload), known(&row.peer));
        if let Some(server) = server {
            if let Some(client) = client {
                seen.insert(Seen::Pods(pod_key(client), pod_key(server)));
            }
            if !row.client_identity.is_empty() {
                seen.insert(Seen::Identity(&row.client_identity, pod_key(server)));
            }
        }
        let client = client.map_or(Side::Unknown, Side::Pod);
        let server = server.map_or_else(|| by_identity(&names, &row.server_identity), Side::Pod);
        flows.push(Flow { client, server, row, seconds: seconds(report, asked) });
    }
    for (report, row) in rows().filter(|(_, row)| row.direction() == Direction::Inbound) {
        let (client, server) = (known(&row.peer), known(&row.workload));
        let covered = server.is_some_and(|server| match client {
            Some(client) => seen.contains(&Seen::Pods(pod_key(client), pod_key(server))),
            None => {
                let identity = &row.client_identity;
                !identity.is_empty() && seen.contains(&Seen::Identity(identity, pod_key(server)))
            }
        });
        if !covered {
            let client = client.map_or_else(|| by_identity(&names, &row.client_identity), Side::Pod);
            let server = server.map_or(Side::Unknown, Side::Pod);
            flows.push(Flow { client, server, row, seconds: seconds(report, asked) });
        }
    }
    flows
}

/// Identities that only one owner has; `None` where several share a service account.
fn names(reports: &[Report]) -> HashMap<&str, Option<&PodRef>> {
    let mut names: HashMap<&str, Option<&PodRef>> = HashMap::new();
    for workload in reports.iter().flat_map(|report| &report.workloads) {
        let Some(pod) = known(&workload.pod).filter(|_| !workload.identity.is_empty()) else { continue };
        let held = names.entry(&workload.identity).or_insert(Some(pod));
        if held.is_some_and(|held| Subject::owner(held) != Subject::owner(pod)) {
            *held = None;
        }
    }
    names
}

fn by_identity<'a>(names: &HashMap<&str, Option<&'a PodRef>>, identity: &str) -> Side<'a> {
    match names.get(identity) {
        Some(Some(pod)) => Side::Pod(pod),
        _ => identity.parse().map_or(Side::Unknown, Side::Identity),
    }
}
