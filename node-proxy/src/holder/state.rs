//! What a holder leaves for its successor and for `weir-node cleanup`: one small file for each pod, on a file system that a reboot
//! empties. Must never hold a secret beyond the pod's marks.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weir_ebpf_common::PROBE_MARK;

use super::{inside, namespace::Namespace, sysctl::Turned};
use crate::handover::PodSpec;

/// Marks of one pod: random, never zero, never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Of captured sockets.
    pub(super) capture: u32,
    /// Of the proxy's own.
    pub(super) own: u32,
}

impl Marks {
    pub(super) fn random() -> Marks {
        let mark = |taken: u32| loop {
            let mark = fastrand::u32(1..);
            if mark != taken && mark != PROBE_MARK {
                break mark;
            }
        };
        let capture = mark(0);
        let own = mark(capture);
        Marks { capture, own }
    }
}

/// One pod as written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodState {
    /// What was asked for.
    pub(super) spec: PodSpec,
    /// File of its namespace.
    pub(super) netns: PathBuf,
    /// Inode of its namespace.
    pub(super) inode: u64,
    /// Cookie of its namespace.
    pub(super) cookie: u64,
    /// Slot in the maps.
    pub(super) slot: u32,
    /// Marks in use.
    pub(super) marks: Marks,
    /// Addresses in use.
    pub(super) addresses: Vec<IpAddr>,
    /// Ports that its two listeners are bound to.
    pub(super) ports: [u16; 2],
    /// Switches to turn back.
    pub(super) turned: Vec<Turned>,
    /// It is on its way out.
    pub(super) leaving: bool,
}

impl PodState {
    /// Pod uid.
    pub(crate) fn uid(&self) -> &str {
        &self.spec.uid
    }

    /// Removes what is ours from the pod's namespace, unless that is gone.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match Namespace::open(&self.netns) {
            Ok(namespace) if namespace.inode() == self.inode => {
                namespace.inside(|| inside::clear(&self.turned))?.map(drop)
            }
            _gone => Ok(()),
        }
    }
}

/// File that says that another holder waits.
const SUCCESSOR: &str = "successor";

/// The directory.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    // Held for as long as this process lives: one holder for each node.
    _lock: fs::File,
}

impl StateDirectory {
    /// Where the state of the node with this network namespace lives by default.
    pub(crate) fn default_path(node: u64) -> PathBuf {
        PathBuf::from(format!("/run/weir/{node}"))
    }

    /// Opens the directory and waits until no other holder has it, or fails at once when `wait` is false.
    pub(crate) fn open(path: &Path, wait: bool) -> io::Result<StateDirectory> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if let Err(error) = rustix::fs::flock(&lock, how) {
            if !wait {
                return Err(error.into());
            }
            tracing::warn!(path = %path.display(), "another holder of this node is running; waiting for it to end");
            fs::write(path.join(SUCCESSOR), "")?;
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        }
        // Ours, or that of one that did not wait to the end.
        remove(&path.join(SUCCESSOR))?;
        Ok(StateDirectory { path: path.to_owned(), _lock: lock })
    }

    /// Whether another holder waits for the one that has the directory at `path`.
    pub(super) fn has_successor(path: &Path) -> bool {
        path.join(SUCCESSOR).exists()
    }

    /// Every pod written down. A file that cannot be read is named, removed and forgotten: its pod is found by its pins.
    pub(crate) fn load(&self) -> io::Result<Vec<PodState>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let parsed = fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
            match parsed {
                Ok(state) => found.push(state),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropping an unreadable state file");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(found)
    }

    /// Writes a pod down, whole or not at all.
    pub(super) fn save(&self, key: &str, state: &PodState) -> io::Result<()> {
        let temporary = self.path.join(format!("{key}.new"));
        fs::write(&temporary, serde_json::to_vec(state)?)?;
        fs::rename(temporary, self.file(key))
    }

    /// Forgets a pod.
    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        remove(&self.file(key))
    }

    /// Removes the directory and all in it.
    pub(crate) fn destroy(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    fn file(&self, key: &str) -> PathBuf {
        self.path.join(format!("{key}.json"))
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _gone => Ok(()),
    }
}

/// A uid as a file name, for bpffs too, which refuses dots. Different uids have different names.
pub(super) fn key(uid: &str) -> String {
    use std::fmt::Write as _;
    let mut key = String::with_capacity(uid.len());
    for byte in uid.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            key.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _infallible = write!(key, "_{byte:02x}");
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_file_names_and_injective() {
        assert_eq!(key("0b1c-22"), "0b1c-22");
        assert_eq!(key("a.b/c_d"), "a_2eb_2fc_5fd");
        assert_ne!(key("a_2e"), key("a."));
    }

    #[test]
    fn marks_are_never_zero_nor_equal() {
        for _ in 0..1000 {
            let marks = Marks::random();
            assert!(marks.capture != 0 && marks.own != 0 && marks.capture != marks.own);
        }
    }

    #[test]
    fn who_waits_for_the_directory_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let first = StateDirectory::open(&path, true).unwrap();
        assert!(!StateDirectory::has_successor(&path));
        let waiting = path.clone();
        let second = std::thread::spawn(move || StateDirectory::open(&waiting, true).unwrap());
        while !StateDirectory::has_successor(&path) {
            std::thread::yield_now();
        }
        drop(first);
        let _second = second.join().unwrap();
        assert!(!StateDirectory::has_successor(&path), "it waits no more");
    }

    // Seen to fail with `deny_unknown_fields` on the specification: the pod is forgotten and its capture taken for nobody's.
    #[test]
    fn a_field_of_a_newer_holder_is_no_reason_to_forget_a_pod() {
        let spec = serde_json::json!({"uid": "u", "addresses": [], "of_tomorrow": 1});
        assert_eq!(serde_json::from_value::<PodSpec>(spec).unwrap().uid, "u");
    }

    #[test]
    fn what_is_written_is_read_and_garbage_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let state = StateDirectory::open(&path, false).unwrap();
        let pod = PodState {
            spec: PodSpec { uid: "u".to_owned(), ..PodSpec::default() },
            netns: "/run/netns/x".into(),
            inode: 1,
            cookie: 2,
            slot: 3,
            marks: Marks { capture: 4, own: 5 },
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ports: [6, 7],
            turned: Vec::new(),
            leaving: true,
        };
        state.save("u", &pod).unwrap();
        fs::write(path.join("bad.json"), "{").unwrap();
        assert_eq!(state.load().unwrap(), [pod]);
        assert!(!path.join("bad.json").exists());
        assert!(StateDirectory::open(&path, false).is_err(), "a second holder must not get in");
        assert!(!StateDirectory::has_successor(&path), "it did not wait");
        state.remove("u").unwrap();
        state.remove("u").unwrap();
        assert!(state.load().unwrap().is_empty());
        state.destroy().unwrap();
        assert!(!path.exists());
    }
}
