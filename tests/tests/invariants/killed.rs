//! Invariant 5. Mutation tried: a holder that keeps no descriptor of the listeners that it hands out.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{load::Load, mesh::PATIENCE, wait};

use crate::stage::Stage;

/// New connections per second while the worker is killed.
const RATE: u32 = 2_000;
/// Threads that make them: the bound of what can be in flight.
const THREADS: u32 = 32;
/// Connections before, between and after the two kills.
const STRETCH: u64 = 3_000;

/// kill -9 of both nodes' workers under load: nothing is refused, nothing waits in vain, only what was in flight fails.
#[test]
fn kill_9_of_a_worker_under_load_refuses_nothing() {
    let stage = Stage::start();
    let address = stage.service.parse().unwrap();
    let load = Load::start(&stage.client.place.netns, address, RATE, THREADS);
    let reach = |count: u64| {
        wait::until(&format!("{count} connections"), PATIENCE * 2, || (load.counts.total() >= count).then_some(()));
    };
    reach(STRETCH);
    let mut killed = 0;
    for node in [0, 1] {
        let before = stage.mesh.worker(node).expect("a worker");
        kill_process(Pid::from_raw(i32::try_from(before).unwrap()).unwrap(), Signal::KILL).unwrap();
        killed += 1;
        let after = load.counts.answered.load(Relaxed) + STRETCH;
        wait::until("answers after the kill", PATIENCE * 2, || {
            (load.counts.answered.load(Relaxed) >= after).then_some(())
        });
        assert_ne!(stage.mesh.worker(node), Some(before), "the supervisor started another");
    }
    let counts = load.finish();
    assert_eq!(counts.refused.load(Relaxed), 0, "{counts:?}");
    assert_eq!(counts.timed_out.load(Relaxed), 0, "{counts:?}");
    // A request that crosses is in flight on both nodes; each thread has one at a time.
    let in_flight = u64::from(THREADS) * killed;
    let failed = counts.broken.load(Relaxed) + counts.other.load(Relaxed);
    assert!(failed <= in_flight, "{failed} failed, at most {in_flight} were in flight: {counts:?}");
}

/// SIGTERM instead: what is in flight completes.
#[test]
fn sigterm_completes_what_is_in_flight() {
    let mut stage = Stage::start();
    let address = stage.service.parse().unwrap();
    let load = Load::start(&stage.client.place.netns, address, RATE / 4, THREADS);
    wait::until("answers", PATIENCE, || (load.counts.answered.load(Relaxed) > 500).then_some(()));
    let proxy = stage.mesh.take_proxy(1);
    assert!(proxy.terminate(Duration::from_secs(40)).success());
    stage.mesh.start_proxy(1);
    let after = load.counts.answered.load(Relaxed) + 500;
    wait::until("answers after the restart", PATIENCE, || (load.counts.answered.load(Relaxed) >= after).then_some(()));
    let counts = load.finish();
    assert_eq!(
        counts.refused.load(Relaxed) + counts.timed_out.load(Relaxed) + counts.broken.load(Relaxed),
        0,
        "{counts:?}"
    );
}
