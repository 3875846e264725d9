//! Latencies of other connections while a peer misbehaves. Must never share a pod between the attacker and who is measured.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{generate, load::Sample, report::BesideRow, say, stage};
use crate::{
    attack,
    daemon::Daemon,
    mesh::{Mesh, Pod, PodOptions, ServiceOptions},
    nginx,
    stop::Stop,
    wait,
};

/// As options call it.
pub(super) const NAME: &str = "beside";
/// Requests per second of those who are measured.
const RATE: u32 = 500;
/// Pause between two attacks of the kind that is over at once.
const PAUSE: Duration = Duration::from_millis(250);
/// What an attack may take to fill the buffers on its way.
const BEGUN: Duration = Duration::from_secs(3);
/// Peers that hold connections.
const PEERS: usize = 64;
/// A slow reader takes this much at a time, of each answer.
const SIP: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(20);
/// The answer that attackers ask for.
const LARGE: usize = 64 * 1024 * 1024;

/// What an attacker does until it is told to stop.
type Attack = fn(&Targets, &AtomicBool) -> io::Result<()>;

/// Where attackers go.
struct Targets {
    http1: SocketAddr,
    http2: SocketAddr,
}

const ATTACKS: [(&str, Attack); 7] = [
    ("64 peers that never read an answer of 64 MiB", |to, stop| {
        hold(attack::never_read(to.http1, "/large", PEERS)?, stop);
        Ok(())
    }),
    ("64 readers that take 1 KiB every 50 ms", |to, stop| sip(attack::never_read(to.http1, "/large", PEERS)?, stop)),
    ("500 requests that never end", |to, stop| {
        hold(attack::never_ask(to.http1, 500)?, stop);
        Ok(())
    }),
    ("100 MB of headers in many fields, again and again", |to, stop| {
        again(stop, || {
            attack::endless_headers(to.http1, b"x-filler: 0123456789012345678901234567890123456789\r\n").map(drop)
        })
    }),
    ("100 MB of headers in one field, again and again", |to, stop| {
        again(stop, || attack::endless_headers(to.http1, b"01234567890123456789012345678901").map(drop))
    }),
    ("10,000 streams left open, again and again", |to, stop| {
        again(stop, || attack::streams(to.http2, 10_000, false).map(drop))
    }),
    ("10,000 streams reset at once, again and again", |to, stop| {
        again(stop, || attack::streams(to.http2, 10_000, true).map(drop))
    }),
];

fn hold(kept: Vec<TcpStream>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        thread::park_timeout(PAUSE);
    }
    drop(kept);
}

fn sip(mut kept: Vec<TcpStream>, stop: &AtomicBool) -> io::Result<()> {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for stream in &mut kept {
            io::Read::read(stream, &mut [0; SIP])?;
        }
        due += Duration::from_millis(50);
        wait::until_instant(due);
    }
    Ok(())
}

fn again(stop: &AtomicBool, attack: impl Fn() -> io::Result<()>) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        attack()?;
        wait::until_instant(Instant::now() + PAUSE);
    }
    Ok(())
}

struct Beside {
    mesh: Mesh,
    client: Pod,
    attacker: Pod,
    targets: Targets,
    // Its namespace ends with it.
    _far: Pod,
    _running: [Daemon; 1],
}

impl Beside {
    fn start() -> Beside {
        let mut mesh = Mesh::start();
        let (client, attacker) = (mesh.pod(&PodOptions::new("client", 0)), mesh.pod(&PodOptions::new("attacker", 0)));
        let far = mesh.pod(&PodOptions::new("far", 1));
        [&client, &attacker, &far].into_iter().for_each(|pod| stage::tune(&pod.place.netns));
        let folder = mesh.path("nginx");
        let server = nginx::start(&far, &folder, &mesh.path("logs"));
        fs::write(folder.join("files/large"), vec![b'x'; LARGE]).expect("a file");
        fs::write(folder.join("files/index.html"), "hello\n").expect("a file");
        let mut service = |name: &str, port: u16| {
            let address = mesh.service(&ServiceOptions::new(name, port, port), &[&far]);
            SocketAddr::new(address.parse().expect("an address"), port)
        };
        let targets = Targets { http1: service("web", 8080), http2: service("web2", 8081) };
        mesh.wait_ready(&[&client, &attacker, &far]);
        let beside = Beside { mesh, client, attacker, targets, _far: far, _running: [server] };
        wait::until("a request through the mesh", PATIENCE, || beside.measure(PAUSE).ok());
        beside
    }

    /// Latencies of a client that does nothing wrong.
    fn measure(&self, length: Duration) -> Result<Sample, String> {
        self.client.place.netns.enter(|| generate::open_loop(self.targets.http1, RATE, length))
    }

    fn under(&self, attack: Attack, length: Duration) -> Result<Sample, String> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let attacker = scope.spawn(|| self.attacker.place.netns.enter(|| attack(&self.targets, &stop)));
            // What fills the buffers is a burst like any other; the question is what the attack does from then on.
            wait::until_instant(Instant::now() + BEGUN);
            let sample = self.measure(length);
            stop.store(true, Ordering::Relaxed);
            let attacked = attacker.join().map_err(|_panic| "the attacker panicked".to_owned())?;
            attacked.map_err(|error| format!("the attack failed: {error}"))?;
            sample
        })
    }
}

/// Measures each attack, quiet rounds between them.
///
/// # Panics
/// When the mesh does not start.
pub(super) fn run(rounds: usize, length: Duration, stop: &Stop) -> Vec<BesideRow> {
    say("starting a mesh for attacks");
    let beside = Beside::start();
    let mut rows: Vec<BesideRow> = ATTACKS.iter().map(|(name, _attack)| BesideRow::new(name)).collect();
    for round in 0..rounds.max(1) {
        for ((name, attack), row) in ATTACKS.iter().zip(&mut rows) {
            let workers = [0, 1].map(|node| beside.mesh.worker(node));
            if stop.asked().is_some() {
                return rows;
            }
            // What the attack before left behind, also in the server, is over by then.
            wait::until_instant(Instant::now() + BEGUN);
            let quiet = beside.measure(length);
            let attacked = beside.under(*attack, length);
            let died = [0, 1].map(|node| beside.mesh.worker(node)) != workers;
            say(&format!("beside         round {} {name}: {}", round + 1, row.note(quiet, attacked, died)));
        }
    }
    rows
}
