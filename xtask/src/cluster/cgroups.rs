//! The cgroups of a machine, in every hierarchy that this host has: v1, v2 or both. Must never kill a process outside the machine's own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::child::{Failure, Outcome};

/// Processes that die keep their cgroup busy for some milliseconds.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(10);
/// Mount options that name no controller.
const FLAGS: [&str; 9] = ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"];

/// One mounted hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    /// What mounts it again: the controllers of a v1 hierarchy, nothing for v2.
    pub(super) controllers: Option<String>,
}

impl Hierarchy {
    fn cgroup(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Is this the one that holds limits, too? On a host with v1 beside it, it holds none.
    pub(super) fn limits(&self) -> bool {
        let listed = fs::read_to_string(self.mount.join("cgroup.controllers")).unwrap_or_default();
        self.controllers.is_none() && !listed.trim().is_empty()
    }
}

/// The hierarchies of this host.
///
/// # Errors
/// None is mounted below /sys/fs/cgroup.
pub(super) fn hierarchies() -> Outcome<Vec<Hierarchy>> {
    let found = parse(&fs::read_to_string("/proc/self/mounts")?);
    if found.is_empty() {
        return Err(Failure::new("no cgroups are mounted below /sys/fs/cgroup: kubelet needs them"));
    }
    Ok(found)
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if !mount.starts_with("/sys/fs/cgroup") || found.iter().any(|other| other.mount == Path::new(mount)) {
            continue;
        }
        let controllers = match kind {
            "cgroup2" => None,
            "cgroup" => {
                let words =
                    options.split(',').filter(|word| !FLAGS.contains(word) && !word.starts_with("release_agent="));
                let named = words.collect::<Vec<_>>().join(",");
                Some(if named.starts_with("name=") { format!("none,{named}") } else { named })
            }
            _ => continue,
        };
        found.push(Hierarchy { mount: mount.into(), controllers });
    }
    found
}

/// Makes a machine's cgroups.
///
/// # Errors
/// The host does not let us, for example inside a container without cgroups of its own.
pub(super) fn prepare(name: &str) -> Outcome {
    for hierarchy in hierarchies()? {
        if hierarchy.limits() {
            let listed = fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))?;
            let all: Vec<String> = listed.split_whitespace().map(|controller| format!("+{controller}")).collect();
            write(&hierarchy.mount.join("cgroup.subtree_control"), &all.join(" "))?;
        }
        let cgroup = hierarchy.cgroup(name);
        fs::create_dir_all(&cgroup).map_err(|error| Failure::new(format!("{}: {error}", cgroup.display())))?;
        // A v1 cpuset takes no process before it has processors and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.controllers.as_deref().is_some_and(|names| names.split(',').any(|name| name == "cpuset")) {
                write(&cgroup.join(file), fs::read_to_string(hierarchy.mount.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Moves this process into a machine's cgroups.
///
/// # Errors
/// They are not there.
pub(super) fn enter(name: &str) -> Outcome {
    for hierarchy in hierarchies()? {
        write(&hierarchy.cgroup(name).join("cgroup.procs"), &process::id().to_string())?;
    }
    Ok(())
}

/// Every process of a machine, as this process counts them; none when it is not there.
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn processes(name: &str) -> Outcome<Vec<i32>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for folder in folders(&hierarchy.cgroup(name)) {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Kills a machine's processes and removes its cgroups.
///
/// # Errors
/// Something in them does not die; the text lists it.
pub(super) fn destroy(name: &str) -> Outcome {
    for hierarchy in hierarchies()?.into_iter().filter(|hierarchy| hierarchy.controllers.is_none()) {
        // The kernel kills all at once, so that nothing forks away; older kernels have no such file.
        let _ = fs::write(hierarchy.cgroup(name).join("cgroup.kill"), "1");
    }
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        let left = processes(name)?;
        for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // It may be gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
        let removed = left.is_empty() && remove(name)?;
        if removed {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("cgroup {name} stays busy; processes in it: {left:?}")));
        }
        std::thread::sleep(RETRY);
    }
}

/// True when nothing is left.
fn remove(name: &str) -> Outcome<bool> {
    let mut gone = true;
    for hierarchy in hierarchies()? {
        for folder in folders(&hierarchy.cgroup(name)).into_iter().rev() {
            gone &= match fs::remove_dir(&folder) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
        }
    }
    Ok(gone)
}

/// A folder and all below it, parents first; nothing when it is not there.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = if top.is_dir() { vec![top.to_owned()] } else { Vec::new() };
    while let Some(folder) = open.pop() {
        let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        found.push(folder);
    }
    found
}

fn write(file: &Path, text: &str) -> Outcome {
    fs::write(file, text).map_err(|error| Failure::new(format!("cannot write {text:?} to {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, folders, parse};

    #[test]
    fn both_kinds_of_hosts_are_understood() {
        let both = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/lib/x,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
            cgroup2 /mnt/other cgroup2 rw 0 0\n";
        let expected = [
            ("/sys/fs/cgroup/cpu,cpuacct", Some("cpu,cpuacct")),
            ("/sys/fs/cgroup/systemd", Some("none,name=systemd")),
            ("/sys/fs/cgroup/unified", None),
        ];
        let expected = expected
            .map(|(mount, controllers)| Hierarchy { mount: mount.into(), controllers: controllers.map(str::to_owned) });
        assert_eq!(parse(both), expected);
        let only = parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n");
        assert_eq!(only, [Hierarchy { mount: "/sys/fs/cgroup".into(), controllers: None }]);
    }

    #[test]
    fn folders_come_parents_first() {
        let top = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(top.path().join("a/b")).expect("made");
        let found = folders(top.path());
        assert_eq!(found, [top.path().to_owned(), top.path().join("a"), top.path().join("a/b")]);
        assert!(folders(&top.path().join("none")).is_empty());
    }
}
