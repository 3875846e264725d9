//! Debian packages. Must never leave a service running that a package starts by itself.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::child::{self, Failure, Outcome};

/// Real clients and servers for the suites, and what building needs.
const PACKAGES: [&str; 25] = [
    "ca-certificates",
    "cmake",
    "curl",
    "g++",
    "gcc",
    "haproxy",
    "iproute2",
    "libnginx-mod-stream",
    "make",
    "ncat",
    // /etc/services: wrk asks for the port of "http".
    "netbase",
    "nftables",
    "nghttp2-client",
    "nghttp2-proxy",
    "nghttp2-server",
    "nginx-light",
    "openssl",
    "prometheus",
    "python3-venv",
    "redis-server",
    "redis-tools",
    "socat",
    "tcpdump",
    "valgrind",
    "wrk",
];
/// What only a cluster's nodes run: other people's containers may run on a package that conflicts with these.
const CLUSTER_PACKAGES: [&str; 5] =
    ["busybox-static", "conntrack", "containerd", "containernetworking-plugins", "runc"];
/// Asked by Debian's packages before they start a service; 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the packages of the suites without a cluster, where missing.
///
/// # Errors
/// Not root, no apt, or apt fails.
pub(super) fn ensure() -> Outcome {
    install(&PACKAGES)
}

/// The same, and what a cluster's nodes run.
///
/// # Errors
/// As [`ensure`].
pub(super) fn ensure_for_cluster() -> Outcome {
    install(&PACKAGES)?;
    install(&CLUSTER_PACKAGES)
}

fn install(packages: &[&'static str]) -> Outcome {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("By hand: apt-get update && apt-get install --no-install-recommends {list}");
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(Failure::new(format!(
            "these programs are missing and this is not Debian or Ubuntu (no apt-get); install what corresponds to: {list}"
        )));
    }
    if !child::is_root() {
        return Err(Failure::new(format!("installing packages needs root: run this as root. {by_hand}")));
    }
    let _quiet = NoServices::hold()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    child::run(apt().arg("update"), "apt: package lists", "Check the network and /etc/apt/sources.list.")?;
    child::run(
        // Nothing of the machine's own is removed to make room: that is its owner's decision.
        apt().args(["install", "-y", "--no-install-recommends", "--no-remove"]).args(&missing),
        &format!("apt: installing {list}"),
        &by_hand,
    )
}

fn installed(package: &str) -> bool {
    child::output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_ok_and(|status| status.ends_with("ok installed"))
}

/// While it lives packages start no service: nginx on port 80 or redis on 6379 is nothing a test wants to meet.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn hold() -> Outcome<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // Nothing can be done about a failure here, and the file is harmless for us.
            let _ = fs::remove_file(POLICY);
        }
    }
}
