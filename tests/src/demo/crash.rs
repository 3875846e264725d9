//! kill -9 of both proxies' workers while new connections keep coming. Must never end anything but a worker of this mesh.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    load::{self, Counts},
    stage::Stage,
};
use crate::{
    daemon::Daemon,
    fabric::NODES,
    mesh::{Mesh, PATIENCE},
    stop::Stop,
    wait,
};

/// Between the start of the connections, each kill, and their end.
const STEP: Duration = Duration::from_secs(2);
/// Length of the whole: a step before the first kill, and one after each.
const SECONDS: u64 = 6;
/// wrk ends by itself this long after its time, at most.
const LATE: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// One kill.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    /// The node.
    pub(super) node: String,
    /// Process id that was killed.
    pub(super) old: u32,
    /// Process id of the one that the supervisor started.
    pub(super) new: u32,
    /// Time until it was there.
    pub(super) took: Duration,
}

/// What it cost those who opened new connections meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    /// The kills.
    pub(super) kills: Vec<Kill>,
    /// What the client with a new connection per request counted.
    pub(super) counts: Counts,
    /// Seconds that it ran.
    pub(super) seconds: u64,
}

/// Runs it; `None` when asked to stop.
///
/// # Panics
/// When the client prints no result.
pub(super) fn run(stage: &Stage, stop: &Stop) -> Option<Cost> {
    let mut client = Daemon::start("wrk-connections", stage.connections(SECONDS), &stage.mesh.path("logs"));
    let mut kills = Vec::new();
    for node in 0..NODES {
        if stop.wait(STEP) {
            return None;
        }
        kills.push(kill(stage, node)?);
    }
    let deadline = Instant::now() + STEP + LATE;
    while client.is_running() {
        assert!(Instant::now() < deadline, "wrk has not ended: {}", client.log());
        if stop.wait(LOOK) {
            return None;
        }
    }
    let log = client.log();
    let counts = load::read_json(&log).unwrap_or_else(|| panic!("no result of wrk in its log:\n{log}"));
    Some(Cost { kills, counts, seconds: SECONDS })
}

fn kill(stage: &Stage, node: usize) -> Option<Kill> {
    let old = stage.mesh.worker(node)?;
    let pid = i32::try_from(old).ok().and_then(Pid::from_raw)?;
    let start = Instant::now();
    // It may have ended by itself; the next line sees to it that there is another one.
    let _gone = kill_process(pid, Signal::KILL);
    let what = format!("a new worker on {}", Mesh::node_name(node));
    let new = wait::until(&what, PATIENCE, || stage.mesh.worker(node).filter(|pid| *pid != old));
    Some(Kill { node: Mesh::node_name(node), old, new, took: start.elapsed() })
}
