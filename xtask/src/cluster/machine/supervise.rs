//! Starts a machine's daemons and keeps them running, as an init does. Must never end while the machine is wanted: its end is a power failure.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{WaitOptions, wait};

use super::{
    Marker, Running,
    daemons::{Check, Daemon},
};
use crate::child::{self, Failure, Outcome};

/// A daemon that fails at once must not take the processor from those that work.
const PAUSE_BEFORE_RESTART: Duration = Duration::from_millis(500);
/// On a busy machine with two cores the API server has taken 20 s.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the daemons until the machine is killed.
///
/// # Errors
/// A daemon cannot be started at all, or does not get ready; the text names its log.
pub(super) fn run(logs: &Path, mut marker: Marker, daemons: &[Daemon]) -> Outcome<ExitCode> {
    fs::create_dir_all(logs)?;
    for daemon in daemons {
        let pid = start(daemon, logs)?;
        marker.daemons.push(Running { name: daemon.name.to_owned(), pid });
        marker.publish()?;
        if let Some(check) = &daemon.ready {
            ready(daemon, check, logs)?;
        }
    }
    marker.up = true;
    marker.publish()?;
    loop {
        // Also collects every orphan of the machine: that is what a first process is for.
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        let pid = pid.as_raw_nonzero().get();
        let ended = marker.daemons.iter_mut().zip(daemons).find(|(running, _)| running.pid == pid);
        if let Some((running, daemon)) = ended {
            child::say(format_args!("{} (pid {pid}) ended: {status:?}; starting it again", daemon.name));
            thread::sleep(PAUSE_BEFORE_RESTART);
            running.pid = start(daemon, logs)?;
            marker.publish()?;
        }
    }
}

fn log(logs: &Path, name: &str) -> Outcome<File> {
    let path = logs.join(format!("{name}.log"));
    let opened = OpenOptions::new().create(true).append(true).open(&path);
    opened.map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn start(daemon: &Daemon, logs: &Path) -> Outcome<i32> {
    let output = log(logs, daemon.name)?;
    let child = daemon
        .command()
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", daemon.program.display())))?;
    // Waited for by `run`, which waits for any process.
    Ok(i32::try_from(child.id())?)
}

fn ready(daemon: &Daemon, check: &Check, logs: &Path) -> Outcome {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let asked = child::output(Command::new(&check.program).args(&check.arguments));
        let Err(failure) = asked else { break };
        if Instant::now() > deadline {
            let log = logs.join(format!("{}.log", daemon.name));
            return Err(Failure::new(format!(
                "{} is not ready after {} s, see {}: {failure}",
                daemon.name,
                READY_WITHIN.as_secs(),
                log.display()
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
    let Some(folder) = &check.import else { return Ok(()) };
    let mut archives: Vec<_> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    archives.sort();
    for archive in archives.iter().filter(|path| path.extension().is_some_and(|kind| kind == "tar")) {
        child::output(Command::new("ctr").args(["--namespace", "k8s.io", "images", "import"]).arg(archive))?;
    }
    Ok(())
}
