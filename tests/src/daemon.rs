//! A program in the background, with its output in a file. Must never end a process that it did not start.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A running program; killed on drop.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    // An earlier process of this name may have written before.
    begin: u64,
}

impl Daemon {
    /// Starts `command`, its output appended to `DIRECTORY/NAME.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Daemon {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("log file");
        let begin = file.metadata().map_or(0, |metadata| metadata.len());
        let errors = file.try_clone().expect("log file");
        // Ctrl-C on the terminal is for us alone: we take down what we started in order.
        command.process_group(0);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Daemon { name: name.to_owned(), child, log, begin }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let begin = usize::try_from(self.begin).unwrap_or(usize::MAX).min(bytes.len());
        String::from_utf8_lossy(&bytes[begin..]).into_owned()
    }

    /// Waits until its output contains `text`.
    ///
    /// # Panics
    /// When it ends before, or takes longer than `within`.
    pub fn wait_for(&mut self, text: &str, within: Duration) {
        let what = format!("{:?} in the log of {}", text, self.name);
        let mut ended = None;
        let found = wait::until(&what, within, || {
            ended = self.child.try_wait().expect("waiting for a child");
            (ended.is_some() || self.log().contains(text)).then(|| self.log().contains(text))
        });
        assert!(found, "{} ended ({ended:?}) before {text:?}:\n{}", self.name, self.log());
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _gone = kill_process(pid, signal);
        }
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// When it does not end within `within`.
    pub fn terminate(mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        wait::until(&format!("{name} ends on SIGTERM"), within, || self.child.try_wait().expect("waiting for a child"))
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // As long as it is not reaped, the group's number is its own: nginx' workers outlive their master otherwise.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group.filter(|_group| self.is_running()) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        self.end();
    }
}
