//! Memory of the proxies: at rest, under load, per idle connection. Must never run in a mesh that carried other load before.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    generate::{self, Http},
    hops::{self, HTTP1},
    report::MemoryRow,
    say,
    serve::ECHO,
    stage::{self, ProxyMemory},
};
use crate::{
    mesh::{Mesh, Pod, PodOptions},
    wait,
};

/// As options call it.
pub(super) const NAME: &str = "idle";
/// Idle keep-alive connections.
const HTTP_CONNECTIONS: usize = 8_000;
/// Idle opaque connections, while the others stay open.
const OPAQUE_CONNECTIONS: usize = 4_000;
/// Threads that open them.
const OPENERS: usize = 32;
/// After this a proxy has put idle connections aside.
const SETTLE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of logs that a failure shows.
const WARNINGS: usize = 20;
/// The project's bars: MB at rest, MB under load, KiB for each idle connection.
const BARS: (f64, f64, f64) = (15.0, 25.0, 10.0);

/// Rows for the proxies at rest and after all load.
pub(super) fn load_rows(before: &[ProxyMemory], after: &[ProxyMemory]) -> Vec<MemoryRow> {
    let row = |what: &str, values: Vec<f64>, bar| MemoryRow::new(what, "MB", values, bar);
    vec![
        row(
            "worker at rest, before any load: VmRSS",
            before.iter().map(|of| megabytes(of.worker.resident)).collect(),
            Some(BARS.0),
        ),
        row("supervisor at rest: VmRSS", before.iter().map(|of| megabytes(of.supervisor.resident)).collect(), None),
        row(
            "worker after the loads above: VmHWM",
            after.iter().map(|of| megabytes(of.worker.peak)).collect(),
            Some(BARS.1),
        ),
        row(
            "worker after the loads above: VmRSS",
            after.iter().map(|of| megabytes(of.worker.resident)).collect(),
            None,
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "sizes of processes")]
fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// Opens idle connections through a mesh of their own and sees what they weigh.
///
/// # Panics
/// When the mesh does not start.
pub(super) fn run() -> Vec<MemoryRow> {
    say("starting a mesh for idle connections");
    let mut mesh = Mesh::start();
    let client = mesh.pod(&PodOptions::new("client", 0));
    let far = mesh.pod(&PodOptions::new("far", 1));
    [&client.place.netns, &far.place.netns, mesh.fabric.node(0), mesh.fabric.node(1)].into_iter().for_each(stage::tune);
    let _origin = hops::origin(&far, &mesh.path("bench-far"), &mesh.path("logs"));
    let service = stage::service(&mut mesh, "far", &far);
    mesh.wait_ready(&[&client, &far]);
    let http = SocketAddr::new(service, HTTP1);
    let echo = SocketAddr::new(service, ECHO);
    wait::until("a request through the mesh", PATIENCE, || {
        client.place.netns.enter(|| Http::connect(http)?.get()).ok()
    });
    let connect = || {
        let mut connection = Http::connect(http)?;
        connection.get().map(|()| connection)
    };
    let kind = Kind { name: "HTTP keep-alive", connections: HTTP_CONNECTIONS };
    let (first, kept) = kind.measure(&mesh, &client, connect, Http::get);
    let kind = Kind { name: "opaque", connections: OPAQUE_CONNECTIONS };
    let (second, _kept) = kind.measure(&mesh, &client, || generate::echo_connection(echo), generate::echo);
    drop(kept);
    vec![first, second]
}

/// One kind of idle connection.
struct Kind {
    name: &'static str,
    connections: usize,
}

impl Kind {
    /// Opens them, looks at the proxies, uses each again.
    fn measure<C: Send>(
        &self,
        mesh: &Mesh,
        client: &Pod,
        open: impl Fn() -> io::Result<C> + Sync,
        again: impl Fn(&mut C) -> io::Result<()>,
    ) -> (MemoryRow, Vec<C>) {
        say(&format!("idle: opening {} {} connections", self.connections, self.name));
        let before = stage::proxies(mesh);
        let (mut kept, mut errors) = client.place.netns.enter(|| open_all(self.connections, &open));
        wait::until_instant(Instant::now() + SETTLE);
        let after = stage::proxies(mesh);
        let opening = errors.len();
        errors.extend(kept.iter_mut().filter_map(|connection| again(connection).err()));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand connections")]
        let each = |(before, after): (&ProxyMemory, &ProxyMemory)| {
            after.worker.resident.saturating_sub(before.worker.resident) as f64 / self.connections as f64
        };
        let values = before.iter().zip(&after).map(each).collect();
        let what = format!(
            "each of {} idle {} connections: growth of VmRSS; {} errors",
            self.connections,
            self.name,
            errors.len()
        );
        let mut row = MemoryRow::new(&what, "KiB", values, Some(BARS.2));
        row.failed = !errors.is_empty();
        say(&format!("idle: {}", row.line()));
        if let Some(error) = errors.first() {
            let used = errors.len() - opening;
            say(&format!(
                "idle: FAILED: {opening} when opening, {used} when used again; the first: {error}; warnings:\n{}",
                warnings(mesh)
            ));
        }
        (row, kept)
    }
}

/// The last warnings of all processes.
fn warnings(mesh: &Mesh) -> String {
    let logs = mesh.logs();
    let lines: Vec<&str> =
        logs.lines().filter(|line| ["== ", "WARN", "ERROR"].iter().any(|word| line.contains(word))).collect();
    lines[lines.len().saturating_sub(WARNINGS)..].join("\n")
}

fn open_all<C: Send>(count: usize, open: &(impl Fn() -> io::Result<C> + Sync)) -> (Vec<C>, Vec<io::Error>) {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut opened, mut errors) = (Vec::new(), Vec::new());
        while next.fetch_add(1, Ordering::Relaxed) < count {
            match open() {
                Ok(connection) => opened.push(connection),
                Err(error) => errors.push(error),
            }
        }
        (opened, errors)
    };
    let (mut opened, mut errors) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..OPENERS).map(|_index| scope.spawn(work)).collect();
        for thread in threads {
            let (part, failed) = thread.join().expect("an opener");
            opened.extend(part);
            errors.extend(failed);
        }
    });
    (opened, errors)
}
