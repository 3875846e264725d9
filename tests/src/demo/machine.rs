//! Whether this machine can run the demo. Must never install or change anything: it says what to do.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Programs and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 12] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("nft", "nftables"),
    ("tcpdump", "tcpdump"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("python3", "python3-venv"),
    ("sh", "dash"),
];

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Python interpreter for the small programs.
    pub(super) python: PathBuf,
    /// Whether it has gRPC.
    pub(super) grpc: bool,
}

/// Looks at everything.
///
/// # Errors
/// All that is missing, each with what to do about it.
pub(super) fn check() -> Result<Machine, Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        let text = "network namespaces and eBPF need root: sudo -E env \"PATH=$PATH\" cargo xtask demo";
        return Err(vec![text.to_owned()]);
    }
    let mut problems = kernel();
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).collect();
    if !missing.is_empty() {
        let list = |index: fn(&(&'static str, &'static str)) -> &'static str| -> String {
            missing.iter().map(|entry| index(entry)).collect::<Vec<_>>().join(" ")
        };
        let (programs, packages) = (list(|entry| entry.0), list(|entry| entry.1));
        problems.push(format!(
            "programs not found: {programs}. `cargo xtask tools` installs them; by hand: apt-get install --no-install-recommends {packages}"
        ));
    }
    if problems.is_empty() { Ok(python()) } else { Err(problems) }
}

fn kernel() -> Vec<String> {
    let mut problems = Vec::new();
    for feature in weir_ebpf_loader::probe().into_iter().filter(|feature| feature.required && !feature.present) {
        problems.push(format!(
            "the kernel lacks {}: {}. Linux 5.15 or later is needed, and a container must be privileged",
            feature.name, feature.detail
        ));
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        problems.push(
            "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified (make the folder first)".to_owned(),
        );
    }
    problems
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Where servers and network tools lie, which a plain user's PATH may lack.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The environment that `cargo xtask tools` makes, else the system's.
fn python() -> Machine {
    let given = env::var_os("WEIR_PYTHON").map(PathBuf::from);
    let cached = env::var_os("HOME").map(|home| Path::new(&home).join(".cache/weir/python/bin/python3"));
    let system = PathBuf::from("python3");
    let python = given.into_iter().chain(cached).find(|path| path.is_file()).unwrap_or(system);
    let mut command = Command::new(&python);
    command.args(["-c", "import grpc"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let grpc = command.status().is_ok_and(|status| status.success());
    Machine { python, grpc }
}
