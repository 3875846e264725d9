//! A node's proxy under callgrind, and its counter. Must never count before it is told to: a start costs a million exchanges' worth.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use weir_tests::{
    mesh::{Mesh, PATIENCE},
    netns::run,
    wait,
};

/// Longest that a command to callgrind takes.
const VGDB_SECONDS: &str = "20";

pub(crate) struct Callgrind {
    pid: u32,
    /// Of vgdb's pipes.
    prefix: String,
    out: PathBuf,
    dumps: AtomicU32,
}

impl Callgrind {
    /// Replaces both nodes' proxies.
    pub(crate) fn both(mesh: &mut Mesh) -> [Callgrind; 2] {
        [0, 1].map(|node| Callgrind::start(mesh, node))
    }

    fn start(mesh: &mut Mesh, node: usize) -> Callgrind {
        // The proxy's user may write nowhere else.
        let folder = mesh.path(&Mesh::node_name(node)).join("proxy");
        let path = |name: &str| folder.join(name).display().to_string();
        let (out, prefix) = (path("callgrind.out"), format!("--vgdb-prefix={}", path("vgdb")));
        let file = format!("--callgrind-out-file={out}");
        let words = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", &file, &prefix];
        mesh.start_proxy_under(node, &words);
        let what = format!("{} ready", Mesh::node_name(node));
        wait::until(&what, PATIENCE, || (mesh.admin(node, "/ready").trim() == "ready").then_some(()));
        Callgrind { pid: mesh.proxy(node).pid(), prefix, out: out.into(), dumps: AtomicU32::new(0) }
    }

    fn tell(&self, words: &[&str]) {
        // As the proxy's user: valgrind asks whether vgdb lives by a signal, and may not send root one.
        let metadata = fs::metadata(self.out.with_file_name("")).unwrap();
        let user = [format!("--reuid={}", metadata.uid()), format!("--regid={}", metadata.gid())];
        let mut command = Command::new("timeout");
        // vgdb waits for ever when it is not answered, and ends by no milder signal.
        command.args(["--signal=KILL", VGDB_SECONDS, "setpriv"]).args(user).args(["--clear-groups", "vgdb"]);
        run(command.arg(&self.prefix).arg(format!("--pid={}", self.pid)).args(words));
    }

    /// Begins to count.
    pub(crate) fn begin(&self) {
        self.tell(&["instrumentation", "on"]);
    }

    /// Forgets what it counted.
    pub(crate) fn zero(&self) {
        self.tell(&["zero"]);
    }

    /// Instructions of all threads since `zero`.
    pub(crate) fn count(&self) -> u64 {
        self.tell(&["dump"]);
        let number = self.dumps.fetch_add(1, Ordering::Relaxed) + 1;
        let mut name = self.out.clone().into_os_string();
        name.push(format!(".{number}"));
        total(Path::new(&name))
    }
}

/// The line `totals: COUNT` (Callgrind format specification, section 3.2).
fn total(dump: &Path) -> u64 {
    let text = fs::read_to_string(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
    line.unwrap_or_else(|| panic!("{} without totals", dump.display())).trim().parse().unwrap()
}
