//! Names, addresses and folders of the cluster. Must never name anything that another program on this machine may use too.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::child::{Failure, Outcome};

/// Where the state lies unless the developer says otherwise: it outlives a reboot of /tmp and is on a real disk.
pub(super) const STATE: &str = "/var/tmp/weir-cluster";
/// Begins the name of each link and cgroup of ours.
pub(super) const PREFIX: &str = "weirk";
/// The bridge that connects the machines, and this host's address on it.
pub(super) const BRIDGE: &str = "weirk-br";
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Length of the machines' network prefix.
pub(super) const MACHINE_BITS: u8 = 24;
pub(super) const PODS: &str = "10.244.0.0/16";
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The first address of the Service network is the API server's.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(super) const API_PORT: u16 = 6443;

/// One machine of the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Machine {
    /// Its host name, and its Node's.
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
    /// The network of its pods; the control plane runs none.
    pub(super) pods: Option<&'static str>,
}

pub(super) const CONTROL_PLANE: Machine = Machine { name: "cp", address: Ipv4Addr::new(10, 99, 0, 10), pods: None };
/// All machines, in the order in which they start.
pub(super) const MACHINES: [Machine; 3] = [
    CONTROL_PLANE,
    Machine { name: "node-a", address: Ipv4Addr::new(10, 99, 0, 11), pods: Some("10.244.1.0/24") },
    Machine { name: "node-b", address: Ipv4Addr::new(10, 99, 0, 12), pods: Some("10.244.2.0/24") },
];

impl Machine {
    /// The machine of this name.
    ///
    /// # Errors
    /// There is none; the text lists those there are.
    pub(super) fn named(name: &str) -> Outcome<Self> {
        MACHINES.into_iter().find(|machine| machine.name == name).ok_or_else(|| {
            let known = MACHINES.map(|machine| machine.name).join(", ");
            Failure::new(format!("no machine is called {name}: there are {known}"))
        })
    }

    /// Machines that run pods.
    pub(super) fn nodes() -> impl Iterator<Item = Self> {
        MACHINES.into_iter().filter(|machine| machine.pods.is_some())
    }

    /// The name of its cgroups, and of its link on the host.
    pub(super) fn outside_name(self) -> String {
        format!("{PREFIX}-{}", self.name)
    }
}

/// The folder of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Place {
    state: PathBuf,
}

/// Everything that `down` may remove from the folder.
const OURS: [&str; 9] = ["pki", "pki.new", "conf", "log", "disk", "images", "bin", "mount", "sysctls.json"];

impl Place {
    /// A folder, which need not exist.
    ///
    /// # Errors
    /// The path is relative: it would mean another folder inside a machine.
    pub(super) fn at(state: PathBuf) -> Outcome<Self> {
        if state.is_relative() {
            return Err(Failure::new(format!("--state must be an absolute path, not {}", state.display())));
        }
        Ok(Self { state })
    }

    /// Makes the folder for this user alone: keys of the cluster's administrator lie in it, and programs that root runs.
    ///
    /// # Errors
    /// It is somebody else's, or open to others.
    pub(super) fn claim(&self) -> Outcome {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.state) {
            Ok(()) => {}
            Err(error) => return Err(Failure::new(format!("{}: {error}", self.state.display()))),
        }
        let found = fs::symlink_metadata(&self.state)?;
        if !found.is_dir() || found.uid() != 0 || found.mode() & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{} must be root's folder, closed to others, because it holds the cluster's keys: chown root and chmod 700 it, \
                 remove it, or give another `--state`",
                self.state.display()
            )));
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.state
    }

    /// Taken by each command that changes the cluster.
    pub(super) fn lock(&self) -> PathBuf {
        self.state.with_extension("lock")
    }

    /// Keys and certificates.
    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    /// The kubeconfig of this user.
    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.join("conf").join(format!("{user}.kubeconfig"))
    }

    /// What a developer's kubectl needs.
    pub(super) fn admin(&self) -> PathBuf {
        self.kubeconfig("admin")
    }

    pub(super) fn logs(&self, machine: Machine) -> PathBuf {
        self.state.join("log").join(machine.name)
    }

    /// What a machine prints before its daemons run, and why it ended.
    pub(super) fn machine_log(&self, machine: Machine) -> PathBuf {
        self.logs(machine).join("machine.log")
    }

    /// What a machine keeps over a power failure.
    pub(super) fn disk(&self, machine: Machine) -> PathBuf {
        self.state.join("disk").join(machine.name)
    }

    /// Images that each node imports before its kubelet starts.
    pub(super) fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Where a machine makes its root. Over it alone a machine mounts, so that no other folder of the host's is hidden from it.
    pub(super) fn mount(&self) -> PathBuf {
        self.state.join("mount")
    }

    /// This program, where no rebuild replaces it.
    pub(super) fn program(&self) -> PathBuf {
        self.state.join("bin/xtask")
    }

    /// What the host's settings were before kubelets changed them.
    pub(super) fn sysctls(&self) -> PathBuf {
        self.state.join("sysctls.json")
    }

    /// Removes the cluster's files, and the folder when nothing else is in it.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) fn remove(&self) -> Outcome {
        for name in OURS {
            let path = self.state.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::new(format!("cannot remove {}: {error}", path.display())));
                }
                _ => {}
            }
        }
        // Stays when it holds something that is not ours.
        let _ = fs::remove_dir(&self.state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{MACHINES, Machine, Place};

    #[test]
    fn names_fit_a_link() {
        for machine in MACHINES {
            assert!(machine.outside_name().len() <= 15, "{}", machine.outside_name());
            assert_eq!(Machine::named(machine.name).expect("known"), machine);
        }
        let refused = Machine::named("node-c").expect_err("unknown").to_string();
        assert!(refused.contains("node-a"), "{refused}");
    }

    #[test]
    fn removal_spares_what_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::at(folder.path().to_owned()).expect("absolute");
        std::fs::create_dir_all(place.pki("x")).expect("made");
        std::fs::write(folder.path().join("notes"), "mine").expect("written");
        place.remove().expect("removed");
        let left: Vec<PathBuf> =
            std::fs::read_dir(folder.path()).expect("there").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(left, [folder.path().join("notes")]);
        assert!(Place::at(PathBuf::from("relative")).is_err());
    }
}
