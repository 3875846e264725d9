//! One network namespace, with a name by which `nsenter` finds it. Must never outlive its owner.

use std::{
    fs,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace with `lo` up, removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
}

impl Netns {
    /// Makes one; `label` is for people who look at `ip netns`.
    pub fn new(label: &str) -> Netns {
        let name = format!("weir-{}-{}-{label}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        let path = Path::new("/run/netns").join(&name);
        let netns = Netns { name, path };
        netns.ip("link set lo up");
        netns
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `program` to be run inside. Its process id is the program's own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // `ip netns exec` would hide the cgroup and bpf mounts.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` with these words inside.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, words: &str) {
        run(Command::new("ip").arg("-n").arg(&self.name).args(words.split_whitespace()));
    }

    /// Sets `/proc/sys/net/NAME` inside.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.enter(move || fs::write(&path, value)).unwrap_or_else(|error| panic!("net/{name} = {value}: {error}"));
    }

    /// Runs `work` on a thread of its own inside: sockets that it opens live there, wherever they are used.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(&self.path).expect("namespace file");
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("entering a namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing to do about a failure: the name of the namespace says whose it was.
        let _status = Command::new("ip").args(["netns", "del", &self.name]).process_group(0).status();
    }
}

/// Runs a command that must succeed, and returns what it printed.
///
/// # Panics
/// When it cannot be run or fails, with its messages.
pub fn run(command: &mut Command) -> String {
    // Ctrl-C on the terminal must not end it half-way.
    let output = command.process_group(0).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
