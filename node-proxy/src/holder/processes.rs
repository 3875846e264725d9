//! Network namespaces of pods, found by the cgroups of their processes: how pods that run already are met. Must never trust a name
//! that a pod could have chosen: kubelet names cgroups, pods do not.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::limits;

/// Bytes of a uid as kubelet writes it: 32 digits and four dashes.
const UID_BYTES: usize = 36;

/// Finds the namespace of a pod by its uid.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    named: PathBuf,
    found: HashMap<String, u32>,
    /// When processes may be listed again.
    next: Instant,
}

impl Processes {
    /// `proc`: the node's procfs; `named`: the directory in which the CNI names namespaces.
    pub(super) fn new(proc: PathBuf, named: PathBuf) -> Processes {
        Processes { proc, named, found: HashMap::new(), next: Instant::now() }
    }

    /// The file of the pod's namespace: its name if it has one, else that of its oldest process.
    pub(super) fn network(&mut self, uid: &str) -> Option<PathBuf> {
        if let Some(path) = self.found.get(uid).and_then(|pid| self.path_of(*pid, uid)) {
            return Some(path);
        }
        let began = Instant::now();
        if began < self.next {
            return None;
        }
        match oldest_by_pod(&self.proc) {
            Ok(found) => self.found = found,
            Err(error) => {
                tracing::warn!(proc = %self.proc.display(), %error, "processes cannot be listed: is hostPID set?");
            }
        }
        let ended = Instant::now();
        self.next = ended + pause(ended - began);
        self.found.get(uid).and_then(|pid| self.path_of(*pid, uid))
    }

    /// A file of the node's as we see it: container runtimes say `/var/run/netns`, we have the directory itself.
    pub(super) fn here(&self, netns: &Path) -> PathBuf {
        match netns.file_name().map(|name| self.named.join(name)) {
            Some(named) if named.exists() => named,
            _ => netns.to_owned(),
        }
    }

    fn path_of(&self, pid: u32, uid: &str) -> Option<PathBuf> {
        let process = self.proc.join(pid.to_string());
        // The number may be another process's by now.
        if pod_of(&fs::read_to_string(process.join("cgroup")).ok()?).as_deref() != Some(uid) {
            return None;
        }
        let file = process.join("ns/net");
        let inode = fs::metadata(&file).ok()?.ino();
        Some(self.named(inode).unwrap_or(file))
    }

    fn named(&self, inode: u64) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.named).ok()?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode))
    }
}

/// The holder's one thread spends a tenth of its time on lists at most, however long they are.
fn pause(took: Duration) -> Duration {
    (took * 9).max(limits::PROCESSES_RESCAN)
}

fn oldest_by_pod(proc: &Path) -> io::Result<HashMap<String, u32>> {
    let mut found: HashMap<String, u32> = HashMap::new();
    for entry in fs::read_dir(proc)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Processes come and go while we look.
        let Ok(cgroup) = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")) else { continue };
        if let Some(uid) = pod_of(&cgroup) {
            let oldest = found.entry(uid).or_insert(pid);
            *oldest = pid.min(*oldest);
        }
    }
    Ok(found)
}

/// The uid in the path of a pod's cgroup: `…/pod<uid>/…` (cgroupfs), `…-pod<uid with _ for ->.slice/…` (systemd).
fn pod_of(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        if !path.contains("kubepods") && !is_beside_us(path) {
            return None;
        }
        path.split('/').find_map(|part| {
            let at = part.find("pod").into_iter().chain(part.rfind("-pod").map(|at| at + 1));
            at.filter_map(|at| part.get(at + 3..at + 3 + UID_BYTES)).find_map(uid)
        })
    })
}

/// cgroupfs, seen out of a cgroup namespace of our own: `/../../pod<uid>/…`, or below the name of a class of service.
fn is_beside_us(path: &str) -> bool {
    let Some(path) = path.strip_prefix("/../") else { return false };
    let mut parts = path.split('/').skip_while(|part| *part == "..");
    let pod = parts.find(|part| !matches!(*part, "burstable" | "besteffort"));
    pod.and_then(|part| part.strip_prefix("pod")).is_some_and(|rest| uid(rest).is_some() && rest.len() == UID_BYTES)
}

fn uid(text: &str) -> Option<String> {
    let fits = text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-' || byte == b'_',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then(|| text.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f9b5c1e-8d4f-4c55-9f1a-6a1f0e1d2c3b";

    #[test]
    fn the_cgroup_names_the_pod() {
        let cases = [
            format!("0::/kubepods/burstable/pod{UID}/0123abc"),
            format!("12:pids:/kubepods/pod{UID}/x\n0::/"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-1.scope",
                UID.replace('-', "_")
            ),
            format!("0::/../../kubepods/besteffort/pod{UID}"),
            format!("0::/../../pod{UID}/0123abc"),
            format!("0::/../../../besteffort/pod{UID}/0123abc"),
        ];
        for cgroup in cases {
            assert_eq!(pod_of(&cgroup).as_deref(), Some(UID), "{cgroup}");
        }
        for cgroup in ["0::/user.slice", "0::/kubepods/burstable", "0::/kubepods/podshort/x", ""] {
            assert_eq!(pod_of(cgroup), None, "{cgroup}");
        }
        // Not below kubelet's tree: anybody may have made it.
        for path in ["", "/home", "/../x", "/../../../user.slice", "/../../burstable/x"] {
            assert_eq!(pod_of(&format!("0::{path}/pod{UID}")), None, "{path}");
        }
    }

    // Seen to fail with the old limit, which ran from before the list: 20 ms whatever it took.
    #[test]
    fn a_long_list_is_not_read_all_the_time() {
        assert_eq!(pause(Duration::ZERO), limits::PROCESSES_RESCAN);
        assert!(pause(Duration::from_millis(50)) >= Duration::from_millis(450));
    }

    #[test]
    fn the_oldest_process_stands_for_the_pod_and_names_win() {
        let proc = tempfile::tempdir().unwrap();
        let names = tempfile::tempdir().unwrap();
        for pid in ["77", "12"] {
            let process = proc.path().join(pid);
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::write(process.join("cgroup"), format!("0::/kubepods/pod{UID}/c")).unwrap();
            fs::write(process.join("ns/net"), "").unwrap();
        }
        let mut processes = Processes::new(proc.path().to_owned(), names.path().to_owned());
        assert_eq!(processes.network(UID), Some(proc.path().join("12/ns/net")));
        fs::hard_link(proc.path().join("12/ns/net"), names.path().join("cni-1")).unwrap();
        assert_eq!(processes.network(UID), Some(names.path().join("cni-1")));
        assert_eq!(processes.network("0f9b5c1e-8d4f-4c55-9f1a-6a1f0e1d2c3c"), None);
    }
}
