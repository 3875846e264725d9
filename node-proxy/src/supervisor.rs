//! PID 1 of the proxy's container: keeps one worker process running, restarts it at once when it dies.
//!
//! Must never open a socket, read a key or parse anything but its own arguments.

use std::{
    io,
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::{args::ProxyArgs, limits};

/// Why the supervisor itself failed.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The runtime or a signal handler could not be set up.
    #[error("set-up failed: {0}")]
    Setup(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT, which the worker gets passed on to drain.
///
/// # Errors
/// See [`SupervisorError`].
pub fn run(_args: &ProxyArgs) -> Result<(), SupervisorError> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SupervisorError::Setup)?;
    runtime.block_on(supervise())
}

async fn supervise() -> Result<(), SupervisorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(SupervisorError::Setup)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SupervisorError::Setup)?;
    let mut pause = limits::RESTART_PAUSE_MIN;
    loop {
        let began = Instant::now();
        let ended = match spawn() {
            Ok(mut worker) => tokio::select! {
                status = worker.wait() => status,
                _ = terminate.recv() => return leave(worker).await,
                _ = interrupt.recv() => return leave(worker).await,
            },
            Err(error) => Err(error),
        };
        pause = next_pause(pause, began.elapsed());
        match ended {
            Ok(status) => tracing::error!(%status, restart_in = ?pause, "worker ended"),
            // Connections wait in the kernel's queues meanwhile; ending here would leave them there for ever.
            Err(error) => {
                tracing::error!(%error, restart_in = ?pause, "a worker cannot be started; processes or memory may be short")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// None after a worker that lived; doubling while workers die young.
fn next_pause(last: Duration, lived: Duration) -> Duration {
    if lived >= limits::RESTART_LIVED {
        limits::RESTART_PAUSE_MIN
    } else {
        (last * 2).clamp(limits::RESTART_PAUSE_MIN, limits::RESTART_PAUSE_MAX)
    }
}

/// Read by the allocator before `main`. It gives free pages back some time later, when it is asked for memory again: a worker whose
/// connections have all gone idle asks no more. At once costs nothing measurable, and 8,000 idle connections 3.4 KiB each instead of 7 to 18.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

fn spawn() -> io::Result<Child> {
    // A binary that was replaced on disk has no path any more; this link still leads to it.
    let binary = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into());
    let mut command = Command::new(binary);
    if std::env::var_os(PURGE_DELAY).is_none() {
        command.env(PURGE_DELAY, "0");
    }
    command.args(std::env::args_os().skip(1)).arg("--worker").kill_on_drop(true).spawn()
}

async fn leave(mut worker: Child) -> Result<(), SupervisorError> {
    let pid = worker.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // A worker that is gone already needs no signal.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let within = limits::DRAIN + limits::DRAIN_GRACE;
    match tokio::time::timeout(within, worker.wait()).await {
        Ok(Ok(status)) => report(status),
        Ok(Err(error)) => tracing::warn!(%error, "worker's end not seen"),
        Err(_elapsed) => tracing::warn!(?within, "worker did not drain in time and is killed"),
    }
    Ok(())
}

fn report(status: ExitStatus) {
    if !status.success() {
        tracing::warn!(%status, "worker ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_lived_is_restarted_at_once_and_young_deaths_back_off() {
        let mut pause = limits::RESTART_PAUSE_MIN;
        for _ in 0..20 {
            pause = next_pause(pause, Duration::ZERO);
        }
        assert_eq!(pause, limits::RESTART_PAUSE_MAX);
        assert_eq!(next_pause(pause, limits::RESTART_LIVED), limits::RESTART_PAUSE_MIN);
    }
}
