//! The table that moves: `weir stat` again and again on a terminal, one line now and then elsewhere. Must never compute a number of its own.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{screen::Screen, stage::Stage};
use crate::mesh::NAMESPACE;
use crate::stop::Stop;

/// Between two drawings on a terminal.
const REDRAW: Duration = Duration::from_secs(2);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);
/// What `weir stat` looks back to.
const WINDOW: &str = "10s";

/// The command: those who serve.
pub(super) const SERVERS: [&str; 6] = ["stat", "deploy", "web", "api", "redis", "mail"];

/// A row of `weir stat -o json`, as far as a short line needs it.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    success: Option<f64>,
    rps: Option<f64>,
    latency_ms_p99: Option<f64>,
    tcp_read_bytes_rate: Option<f64>,
}

/// Shows the traffic for so long; true when asked to stop.
pub(super) fn watch(stage: &Stage, screen: &mut Screen, stop: &Stop, time: Duration) -> bool {
    let start = Instant::now();
    let step = if screen.is_terminal() { REDRAW } else { LINE };
    let stopped = loop {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() || stop.wait(left.min(step)) {
            break stop.asked().is_some();
        }
        if screen.is_terminal() { draw(stage, screen, left) } else { print(stage, screen) }
    };
    screen.keep();
    stopped
}

fn ask(stage: &Stage, more: &[&str]) -> Result<String, String> {
    let words = ["-n", NAMESPACE, "-t", WINDOW];
    let output = stage.mesh.weir(&SERVERS).args(words).args(more).output().map_err(|error| error.to_string())?;
    let Output { status, stdout, stderr } = output;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
}

fn draw(stage: &Stage, screen: &mut Screen, left: Duration) {
    let text = ask(stage, &["--color", screen.color()]).unwrap_or_else(|error| error);
    let clients: u64 = stage.loads.iter().map(|load| load.tally().counts.failed).sum();
    let note =
        format!("last {WINDOW} · failures that clients saw so far: {clients} · {} s left, Ctrl-C ends", left.as_secs());
    screen.redraw(&format!("{text}\n\n{note}"));
}

fn print(stage: &Stage, screen: &mut Screen) {
    let rows = ask(stage, &["-o", "json"]).and_then(|text| {
        let rows: Vec<Row> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(rows.iter().filter_map(short).collect::<Vec<_>>().join("  ·  "))
    });
    screen.line(&rows.unwrap_or_else(|error| error));
}

fn short(row: &Row) -> Option<String> {
    let name = &row.name;
    if let (Some(success), Some(rps)) = (row.success, row.rps) {
        let p99 = row.latency_ms_p99.unwrap_or_default();
        return Some(format!("{name} {:.2}% {rps:.0} rps p99 {p99:.1} ms", success * 100.0));
    }
    let rate = row.tcp_read_bytes_rate.filter(|rate| *rate > 0.0)?;
    Some(format!("{name} {:.1} kB/s", rate / 1000.0))
}
