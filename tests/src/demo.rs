//! `cargo xtask demo`: real pods with real traffic, outside the mesh, then in it, then with a crash; and what all of that showed.
//!
//! Must never leave a process, namespace or pin behind, however it ends.

mod crash;
mod kube_proxy;
mod leftovers;
mod live;
mod load;
mod machine;
mod screen;
mod shell;
mod stage;
mod summary;
mod wire;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use self::{
    leftovers::Traces,
    load::Tally,
    screen::{Screen, Tone},
    stage::Stage,
    summary::{Client, Seen},
    wire::{Capture, Wire},
};
use crate::{mesh, stop::Stop};

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long the pods talk inside the mesh.
    pub time: Duration,
    /// Whether a shell is wanted at the end.
    pub shell: bool,
}

/// Time outside the mesh: enough for each client to have sent something.
const OUTSIDE: Duration = Duration::from_secs(4);
/// Between two looks at clients.
const LOOK: Duration = Duration::from_millis(50);
/// A client's round is 4 s; on busy cores some more.
const ROUND: Duration = Duration::from_secs(15);
/// The product's programs.
const BINARIES: [&str; 3] = ["weir-node", "weir-control", "weir"];

/// Ended by a signal; not a failure.
struct Stopped;

/// Runs the demo; fails when something was not as promised.
pub fn run(options: Options) -> ExitCode {
    let mut screen = Screen::new();
    screen.heading("Weir: a service mesh without sidecars, on this machine");
    let machine = match machine::check() {
        Ok(machine) => machine,
        Err(problems) => return refuse(&mut screen, &problems),
    };
    let stop = match Stop::install() {
        Ok(stop) => stop,
        Err(error) => return refuse(&mut screen, &[format!("signals cannot be caught: {error}")]),
    };
    for name in BINARIES {
        mesh::binary(name);
    }
    screen.done("this machine can run it", "root, eBPF, cgroup v2, all programs");
    if !machine.grpc {
        screen.line("gRPC is left out: its Python package is not there (cargo xtask tools installs it)");
    }
    let start = Instant::now();
    let mut stage = Stage::new(machine);
    let pods = stage.pods.len();
    screen.done(&format!("2 nodes, control, {pods} pods with their programs"), &took(start));
    let traces = Traces::of(&stage);
    let outcome = tour(&mut stage, &mut screen, &stop, options);
    let broken = outcome.unwrap_or_else(|Stopped| {
        screen.keep();
        screen.heading(&format!("{} received: ending", stop.asked().unwrap_or("A signal")));
        Vec::new()
    });
    let start = Instant::now();
    drop(stage);
    finish(&mut screen, &traces, start, broken)
}

fn refuse(screen: &mut Screen, problems: &[String]) -> ExitCode {
    for problem in problems {
        screen.toned(&format!("✗ {problem}"), Tone::Bad);
    }
    ExitCode::FAILURE
}

fn took(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}

/// Everything that is shown; returns what was not as promised.
fn tour(stage: &mut Stage, screen: &mut Screen, stop: &Stop, options: Options) -> Result<Vec<String>, Stopped> {
    screen.heading("1. Outside the mesh");
    let before = outside(stage, screen, stop)?;
    let outside = tallies(stage);
    screen.heading("2. Running pods are opted in");
    opt_in(stage, screen, stop)?;
    let (meshed, start) = (tallies(stage), Instant::now());
    screen.heading("3. In the mesh");
    let capture = Capture::start(&stage.mesh, "inside");
    go_on(live::watch(stage, screen, stop, options.time.mul_f64(0.6)))?;
    rounds_end(stage, stop)?;
    let quiet = tallies(stage);
    screen.heading("4. kill -9 of the proxies' workers, one after the other, under load");
    let cost = crash::run(stage, stop).ok_or(Stopped)?;
    rounds_end(stage, stop)?;
    let crashed = tallies(stage);
    for kill in &cost.kills {
        let what = format!("{}: worker {} killed, worker {} in its place", kill.node, kill.old, kill.new);
        screen.done(&what, &format!("{} ms later", kill.took.as_millis()));
    }
    go_on(live::watch(stage, screen, stop, options.time.mul_f64(0.4)))?;
    rounds_end(stage, stop)?;
    let (after, kept) = capture.finish_sealed(&stage.markers());
    let clients = stage.loads.iter().enumerate().map(|(index, load)| {
        let mut sum = quiet[index].since(&meshed[index]);
        let late = load.tally().since(&crashed[index]);
        (sum.ok, sum.failed) = (sum.ok + late.ok, sum.failed + late.failed);
        let before = outside[index].since(&Tally::default());
        let turn = meshed[index].since(&outside[index]);
        Client { name: load.name.clone(), before, turn, meshed: sum, crash: crashed[index].since(&quiet[index]) }
    });
    let clients = clients.collect();
    let seen = Seen { clients, wires: Some((before, after)), cost: Some(cost), meshed: start.elapsed() };
    screen.heading("Summary");
    let mut broken = summary::show(stage, screen, &seen);
    broken.extend(kept.map(|file| format!("the capture with payload in it is kept: {}", file.display())));
    if options.shell {
        shell::run(stage, screen, stop);
    }
    Ok(broken)
}

fn outside(stage: &mut Stage, screen: &mut Screen, stop: &Stop) -> Result<Wire, Stopped> {
    let capture = Capture::start(&stage.mesh, "outside");
    stage.start_clients();
    let names: Vec<&str> = stage.loads.iter().map(|load| load.name.as_str()).collect();
    screen.line(&format!("{}: in clear, past the mesh", names.join(", ")));
    go_on(stop.wait(OUTSIDE))?;
    rounds_end(stage, stop)?;
    let wire = capture.finish(&stage.markers());
    let found = wire.found.iter().filter(|count| **count > 0).count();
    let detail = format!("{found} of {} payload markers readable in {} packets", wire.found.len(), wire.packets);
    screen.done("listened on the wire", &detail);
    Ok(wire)
}

fn opt_in(stage: &Stage, screen: &mut Screen, stop: &Stop) -> Result<(), Stopped> {
    let file = stage.mesh.path("manifests/namespace.yaml");
    screen.toned(&format!("# {}", file.display()), Tone::Faint);
    let old = stage::namespace(false);
    for line in stage::namespace(true).lines() {
        let new = !old.lines().any(|other| other == line);
        let (mark, tone) = if new { ("+", Tone::Good) } else { (" ", Tone::Plain) };
        screen.toned(&format!("{mark} {line}"), tone);
    }
    let start = Instant::now();
    stage.opt_in();
    let took = took(start);
    screen.done("all pods captured and certified", &format!("{took}; none was restarted"));
    rounds_end(stage, stop)?;
    screen.done("connections opened before have ended by themselves", "they stay as they are; new ones are captured");
    Ok(())
}

fn tallies(stage: &Stage) -> Vec<Tally> {
    stage.loads.iter().map(load::Load::tally).collect()
}

fn go_on(stopped: bool) -> Result<(), Stopped> {
    if stopped { Err(Stopped) } else { Ok(()) }
}

/// Waits until each client has ended the round that it is in now.
fn rounds_end(stage: &Stage, stop: &Stop) -> Result<(), Stopped> {
    let (start, now) = (Instant::now(), tallies(stage));
    let behind = || stage.loads.iter().zip(&now).find(|(load, before)| load.tally().rounds == before.rounds);
    while let Some((load, _)) = behind() {
        assert!(start.elapsed() < ROUND, "{} has not ended a round within {ROUND:?}", load.name);
        go_on(stop.wait(LOOK))?;
    }
    Ok(())
}

fn finish(screen: &mut Screen, traces: &Traces, start: Instant, broken: Vec<String>) -> ExitCode {
    screen.heading("End");
    let left = traces.left();
    if left.is_empty() {
        screen.done("taken down: no process, namespace, pin or file is left", &took(start));
    }
    let promises = broken.iter().map(|text| format!("✗ not as promised: {text}"));
    let remains = left.iter().map(|text| format!("✗ still there: {text}"));
    for text in promises.chain(remains) {
        screen.toned(&text, Tone::Bad);
    }
    if broken.is_empty() && left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
