//! One data thread: everything of a connection that it accepted stays on it.
//!
//! Must never share a connection or a pool with another worker, nor wait for control or the holder's answers to commands.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use weir_core::snapshot::Workload;

use super::{ProxyError, Shared};
use crate::{
    accept::{self, Captured, Stop},
    limits,
    pool::Pool,
    tee::Room,
    telemetry::Direction,
};

/// What a worker is told.
pub(crate) struct Serve {
    /// Pod uid.
    pub uid: Arc<str>,
    /// The pod as it is now.
    pub workload: Arc<Workload>,
    /// Which listener this is.
    pub direction: Direction,
    /// The listener, duplicated for this worker.
    pub listener: OwnedFd,
    /// Open connections of the pod, over all workers.
    pub connections: Arc<AtomicUsize>,
    /// When to end.
    pub stop: watch::Receiver<Stop>,
}

/// One data thread's state.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Its own connections to servers.
    pub pool: Pool,
    /// What its mirrors hold.
    pub mirrors: Arc<Room>,
}

impl Worker {
    /// The workload as control last described it.
    pub fn workload(&self, uid: &str) -> Option<Arc<Workload>> {
        self.shared.store.snapshot().workload_by_uid(uid).map(Arc::clone)
    }
}

/// The handle to a data thread.
pub(crate) struct Handle {
    commands: mpsc::Sender<Serve>,
}

impl Handle {
    /// Starts one data thread.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub(crate) fn start(index: usize, shared: Arc<Shared>) -> Result<Handle, ProxyError> {
        let (commands, receiver) = mpsc::channel(limits::WORKER_COMMANDS);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(limits::POLLS_PER_LOOK)
            .build()
            .map_err(ProxyError::Runtime)?;
        let worker = Arc::new(Worker { shared, pool: Pool::default(), mirrors: Arc::default() });
        std::thread::Builder::new()
            .name(format!("weir-data-{index}"))
            .spawn(move || runtime.block_on(run(worker, receiver)))
            .map_err(ProxyError::Runtime)?;
        Ok(Handle { commands })
    }

    /// Hands one listener to this worker. False when the worker is gone.
    pub(crate) async fn serve(&self, serve: Serve) -> bool {
        self.commands.send(serve).await.is_ok()
    }
}

async fn run(worker: Arc<Worker>, mut commands: mpsc::Receiver<Serve>) {
    let mut sweep = tokio::time::interval(limits::POOL_SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(serve) => begin(&worker, serve),
                None => break,
            },
            _tick = sweep.tick() => {
                worker.pool.sweep();
                worker.shared.sweep_queues();
            }
        }
    }
    worker.pool.clear();
}

fn begin(worker: &Arc<Worker>, serve: Serve) {
    let listener = std::net::TcpListener::from(serve.listener);
    let listener = match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, uid = %serve.uid, "listener of a captured pod could not be used");
            return;
        }
    };
    let Serve { uid, workload, direction, connections, stop, .. } = serve;
    let captured = Captured { uid, workload, direction, connections, stop };
    tokio::spawn(accept::run(Arc::clone(worker), captured, listener));
}

/// Worker threads for this process: the CPU quota rounded up, unless the operator says otherwise.
pub(crate) fn count(asked: Option<usize>) -> usize {
    // Reads the affinity mask and the cgroup quota (v1 and v2).
    let quota = std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or(quota).clamp(1, limits::WORKERS)
}

/// Waits until all connections are over. False when the time is over before.
pub(crate) async fn drained(connections: &[Arc<AtomicUsize>], within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    let open = || connections.iter().any(|count| count.load(Ordering::Relaxed) > 0);
    while open() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(limits::DRAIN_LOOK).await;
    }
    true
}
