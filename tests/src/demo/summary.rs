//! What the demo has shown, as tables, and whether it was as promised. Must never round a failure away.

use std::time::Duration;

use serde::Deserialize;

use super::{
    crash::Cost,
    live,
    load::Counts,
    screen::{Cell, Screen, Tone, cell, verdict},
    stage::{MARKED, Stage},
    wire::Wire,
};
use crate::mesh::NAMESPACE;

/// Longest time that `weir` looks back.
const LONGEST: Duration = Duration::from_secs(300);

/// Counts of one client by part of the demo.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Program and destination.
    pub(super) name: String,
    /// Outside the mesh.
    pub(super) before: Counts,
    /// While pods were opted in.
    pub(super) turn: Counts,
    /// In the mesh, without the part in which workers were killed.
    pub(super) meshed: Counts,
    /// While workers were killed.
    pub(super) crash: Counts,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Clients.
    pub(super) clients: Vec<Client>,
    /// The wire before pods were opted in, and after.
    pub(super) wires: Option<(Wire, Wire)>,
    /// What killing workers cost.
    pub(super) cost: Option<Cost>,
    /// Time since pods were opted in.
    pub(super) meshed: Duration,
}

/// An edge as `weir edges -o json` has it, as far as needed here.
#[derive(Debug, Deserialize)]
struct Edge {
    src: String,
    dst: String,
    secured: bool,
    no_tls_reason: String,
}

/// Prints all; returns what was not as promised.
pub(super) fn show(stage: &Stage, screen: &mut Screen, seen: &Seen) -> Vec<String> {
    let mut broken = Vec::new();
    clients(screen, seen, &mut broken);
    mesh(stage, screen, seen, &mut broken);
    if let Some((before, after)) = &seen.wires {
        wires(screen, before, after, stage.has_grpc(), &mut broken);
    }
    if let Some(cost) = &seen.cost {
        crash(screen, cost, seen, &mut broken);
    }
    broken
}

fn clients(screen: &mut Screen, seen: &Seen, broken: &mut Vec<String>) {
    screen.heading("What clients saw");
    let ms = |value: Option<f64>| cell(value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} ms")));
    let failed = |counts: &Counts| verdict(counts.failed.to_string(), counts.failed == 0);
    let rows: Vec<Vec<Cell>> = seen
        .clients
        .iter()
        .map(|Client { name, before, turn, meshed, .. }| {
            let mut row =
                vec![cell(name), cell(before.ok.to_string()), failed(before), ms(before.p50_ms), failed(turn)];
            row.extend([cell(meshed.ok.to_string()), failed(meshed), ms(meshed.p50_ms), ms(meshed.p99_ms)]);
            row
        })
        .collect();
    let titles =
        ["CLIENT", "OUTSIDE OK", "FAILED", "P50", "FAILED AT OPT-IN", "IN THE MESH OK", "FAILED", "P50", "P99"];
    screen.table(&titles, 1, &rows);
    for client in &seen.clients {
        if client.turn.failed > 0 {
            broken.push(format!("{}: {} failures while pods were opted in", client.name, client.turn.failed));
        }
        if client.meshed.failed > 0 {
            broken.push(format!("{}: {} failures in the mesh", client.name, client.meshed.failed));
        }
        if client.meshed.ok == 0 {
            broken.push(format!("{}: no success in the mesh", client.name));
        }
    }
}

fn mesh(stage: &Stage, screen: &mut Screen, seen: &Seen, broken: &mut Vec<String>) {
    let window = format!("{}s", seen.meshed.min(LONGEST).as_secs().max(1));
    for (title, words) in [
        ("Workloads, as their nodes measured them", live::SERVERS.as_slice()),
        ("Services, as their clients' nodes measured them", ["stat", "svc"].as_slice()),
        ("Who talks to whom", ["edges"].as_slice()),
    ] {
        let more = ["-n", NAMESPACE, "-t", &window, "--color", screen.color()];
        let command = format!("weir {} -n {NAMESPACE} -t {window}", words.join(" "));
        screen.heading(title);
        screen.toned(&format!("$ {command}"), Tone::Faint);
        match stage.mesh.weir(words).args(more).output() {
            Ok(output) if output.status.success() => screen.block(&String::from_utf8_lossy(&output.stdout)),
            Ok(output) => broken.push(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => broken.push(format!("{command}: {error}")),
        }
    }
    let edges = stage.mesh.weir_json(&["edges", "-n", NAMESPACE, "-t", &window]);
    let edges: Vec<Edge> = serde_json::from_value(edges).unwrap_or_default();
    for Edge { src, dst, no_tls_reason, .. } in edges.iter().filter(|edge| !edge.secured) {
        broken.push(format!("{src} → {dst} is not secured: {no_tls_reason}"));
    }
    for client in &seen.clients {
        let (from, to) = client.ends();
        if !edges.iter().any(|edge| edge.secured && edge.src.ends_with(from) && edge.dst.ends_with(to)) {
            broken.push(format!("`weir edges` has no secured edge from {from} to {to}"));
        }
    }
}

impl Client {
    /// Deployments at both ends.
    fn ends(&self) -> (&'static str, &'static str) {
        match self.name.split_whitespace().next().unwrap_or_default() {
            "curl" => ("curl", "web"),
            "wrk" => ("wrk", "web"),
            "h2load" => ("h2load", "api"),
            "gRPC" => ("grpc-client", "api"),
            "mail" => ("mail-client", "mail"),
            _ => ("redis-client", "redis"),
        }
    }
}

fn wires(screen: &mut Screen, before: &Wire, after: &Wire, grpc: bool, broken: &mut Vec<String>) {
    screen.heading("On the wire between the nodes (tcpdump on node 1)");
    let shown = |wire: &Wire| format!("{} packets, {:.1} kB", wire.packets, wire.bytes as f64 / 1000.0);
    let mut rows = vec![vec![cell("captured"), cell(shown(before)), cell(shown(after))]];
    for (protocol, (first, second)) in MARKED.iter().zip(before.found.iter().zip(&after.found)) {
        if *protocol == "gRPC" && !grpc {
            continue;
        }
        let found = |count: &u64, wanted: bool| {
            let text = if *count == 0 { "not found".to_owned() } else { format!("in {count} packets") };
            verdict(text, (*count > 0) == wanted)
        };
        rows.push(vec![cell(format!("marker in {protocol}")), found(first, true), found(second, false)]);
        if *second > 0 {
            broken.push(format!("{protocol}: payload was readable on the wire in {second} packets"));
        }
        if *first == 0 {
            broken
                .push(format!("{protocol}: the marker was not on the wire before either, so the search shows nothing"));
        }
    }
    screen.table(&["", "OUTSIDE THE MESH", "IN THE MESH"], 1, &rows);
}

fn crash(screen: &mut Screen, cost: &Cost, seen: &Seen, broken: &mut Vec<String>) {
    let Cost { kills: _, counts, seconds } = cost;
    let rate = (counts.ok + counts.failed) / (*seconds).max(1);
    screen.heading(&format!(
        "kill -9 of each node's proxy worker, under {rate} new connections a second and all clients"
    ));
    let number = |count: u64| verdict(count.to_string(), count == 0);
    let others = seen.clients.iter().fold(Counts::default(), |sum, Client { crash, .. }| Counts {
        ok: sum.ok + crash.ok,
        failed: sum.failed + crash.failed,
        refused: sum.refused + crash.refused,
        timeout: sum.timeout + crash.timeout,
        ..sum
    });
    let rows = [("a connection per request", counts), ("all clients of above", &others)].map(|(name, counts)| {
        let in_flight = counts.failed - counts.refused - counts.timeout;
        let plain = |count: u64| cell(count.to_string());
        vec![cell(name), plain(counts.ok), number(counts.refused), number(counts.timeout), plain(in_flight)]
    });
    screen.table(&["CLIENT", "OK", "REFUSED", "TIMED OUT", "FAILED IN FLIGHT"], 1, &rows);
    if counts.refused > 0 || counts.timeout > 0 {
        broken.push(format!("kill -9: {} connections refused and {} timed out", counts.refused, counts.timeout));
    }
}
