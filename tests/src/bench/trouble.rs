//! What clients get while some of a Service's endpoints are in trouble, with and without what Weir does about it.
//!
//! Must never count an answer that is no success as one, nor what origins were asked by anybody else.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    report::{TroubleRound, TroubleRow},
    say,
};
use crate::{
    mesh::{Mesh, Pod, PodOptions, ServiceOptions},
    stop::Stop,
    wait,
};

/// As options call it.
pub(super) const NAME: &str = "trouble";
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests per second, and connections that make them: enough that a slow answer holds none of the others up.
const RATE: u32 = 400;
const CONNECTIONS: u32 = 128;
/// Of every ten requests of the endpoint that fails.
const FAILED_OF_TEN: u64 = 3;
const SLOW: Duration = Duration::from_millis(200);
/// For as long a budget remembers, and a moment more.
const BUDGET: Duration = Duration::from_secs(11);
/// Most that a Service whose endpoints all fail may be asked, for each request of its clients.
const STORM: f64 = 1.2;

const RETRY: [(&str, &str); 2] = [("retry.linkerd.io/http", "5xx"), ("retry.linkerd.io/limit", "3")];
const BREAKER: [(&str, &str); 2] = [
    ("balancer.linkerd.io/failure-accrual", "unified"),
    ("balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold", "0.8"),
];
const WITHOUT_BUDGET: (&str, &str) = ("weir.mesh/retry-budget-ratio", "100");

/// A Service, or the client's own choice.
struct Variant {
    name: &'static str,
    title: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    /// All of its endpoints fail, always; else one of four fails three of ten, and one is slow.
    is_down: bool,
    /// Most requests at its endpoints for each request of its clients.
    bar: Option<f64>,
}

const VARIANTS: [Variant; 6] = [
    Variant {
        name: "outside",
        title: "a client outside of the mesh, its connections spread evenly",
        annotations: &[],
        is_down: false,
        bar: None,
    },
    Variant { name: "plain", title: "Weir: peak-EWMA alone", annotations: &[], is_down: false, bar: None },
    Variant { name: "retry", title: "and retries", annotations: &RETRY, is_down: false, bar: None },
    Variant {
        name: "breaker",
        title: "and a circuit breaker",
        annotations: &[RETRY[0], RETRY[1], BREAKER[0], BREAKER[1]],
        is_down: false,
        bar: None,
    },
    Variant {
        name: "storm",
        title: "all endpoints fail: 3 retries without a budget",
        annotations: &[RETRY[0], RETRY[1], WITHOUT_BUDGET],
        is_down: true,
        bar: None,
    },
    Variant {
        name: "budget",
        title: "all endpoints fail: 3 retries, the budget as it is",
        annotations: &RETRY,
        is_down: true,
        bar: Some(STORM),
    },
];

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Good,
    /// 503, `FAILED_OF_TEN` times of ten.
    Failing,
    /// 503, always.
    Down,
    /// Right, and late.
    Slow,
}

/// Of the four endpoints, and of the one pair that is down.
const MANNERS: [Manner; 6] = [Manner::Good, Manner::Good, Manner::Failing, Manner::Slow, Manner::Down, Manner::Down];
const TROUBLED: usize = 4;

struct Trouble {
    // Its threads end with the process.
    asked: Vec<Arc<AtomicU64>>,
    client: Pod,
    outside: Pod,
    endpoints: Vec<Pod>,
    services: Vec<IpAddr>,
    _mesh: Mesh,
}

impl Trouble {
    fn start() -> Trouble {
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let outside = mesh.pod(&PodOptions::new("outside", 0).enabled(false));
        let pod = |at: usize| PodOptions::new("web", at % 2).named(&format!("web-{at}"));
        let endpoints: Vec<Pod> = (0..MANNERS.len()).map(|at| mesh.pod(&pod(at))).collect();
        let asked: Vec<_> = endpoints.iter().zip(MANNERS).map(|(pod, manner)| serve(pod, manner)).collect();
        let (troubled, down) = endpoints.split_at(TROUBLED);
        let mut service = |variant: &Variant| -> IpAddr {
            let mut options = ServiceOptions::new(variant.name, PORT, PORT).protocol("http");
            options.annotations =
                variant.annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let pods: Vec<&Pod> = if variant.is_down { down } else { troubled }.iter().collect();
            mesh.service(&options, &pods).parse().expect("an address")
        };
        let services = VARIANTS.iter().map(&mut service).collect();
        mesh.wait_ready(&endpoints.iter().chain([&client]).collect::<Vec<_>>());
        let trouble = Trouble { asked, client, outside, endpoints, services, _mesh: mesh };
        for (variant, service) in VARIANTS.iter().zip(&trouble.services) {
            let address = SocketAddr::new(*service, PORT);
            wait::until(variant.name, PATIENCE, || {
                trouble.client.place.netns.enter(|| get(&mut connect(address).ok()?).ok())
            });
        }
        trouble
    }

    fn measure(&self, at: usize, length: Duration) -> Result<TroubleRound, String> {
        if VARIANTS[at].is_down {
            // What a budget lends to who has asked for nothing yet is no storm.
            self.answers(at, BUDGET)?;
        }
        let before = self.asked();
        let answers = self.answers(at, length)?;
        let asked = self.asked().into_iter().zip(before).map(|(now, before)| now - before).collect();
        Ok(TroubleRound::of(answers, asked))
    }

    fn answers(&self, at: usize, length: Duration) -> Result<Vec<(bool, Duration)>, String> {
        if VARIANTS[at].name == "outside" {
            let to = |index: u32| {
                let pod = &self.endpoints[index as usize % TROUBLED];
                SocketAddr::new(pod.place.v4, PORT)
            };
            return self.outside.place.netns.enter(|| open_loop(to, length));
        }
        let service = SocketAddr::new(self.services[at], PORT);
        self.client.place.netns.enter(|| open_loop(|_index| service, length))
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// An origin in a pod; how often it was asked.
fn serve(pod: &Pod, manner: Manner) -> Arc<AtomicU64> {
    let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port in a new namespace");
    let listener = pod.place.netns.enter(bind);
    let asked = Arc::<AtomicU64>::default();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            // Whoever leaves ends it.
            thread::spawn(move || answer(stream, manner, &count));
        }
    });
    asked
}

fn answer(mut stream: TcpStream, manner: Manner, count: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        filled = 0;
        let number = count.fetch_add(1, Ordering::Relaxed);
        let fails = match manner {
            Manner::Good => false,
            // Spread over the ten.
            Manner::Failing => number * 7 % 10 < FAILED_OF_TEN,
            Manner::Down => true,
            Manner::Slow => {
                wait::until_instant(Instant::now() + SLOW);
                false
            }
        };
        let status = if fails { "503 No" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request; whether its answer is a success.
fn get(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    // No answer here has a body.
    while !buffer[..filled].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(buffer.starts_with(b"HTTP/1.1 200 "))
}

/// `RATE` requests per second; of each whether it was a success, and its latency from the intended start.
fn open_loop(to: impl Fn(u32) -> SocketAddr + Sync, length: Duration) -> Result<Vec<(bool, Duration)>, String> {
    let begin = Instant::now() + Duration::from_millis(100);
    let client = |index: u32| -> io::Result<Vec<(bool, Duration)>> {
        let mut stream = connect(to(index))?;
        let mut seen = Vec::new();
        let mut intended = begin + Duration::from_secs(1) / RATE * index;
        while intended < begin + length {
            wait::until_instant(intended);
            let is_success = get(&mut stream)?;
            seen.push((is_success, intended.elapsed()));
            intended += Duration::from_secs(1) * CONNECTIONS / RATE;
        }
        Ok(seen)
    };
    let client = &client;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|index| scope.spawn(move || client(index))).collect();
        let mut all = Vec::new();
        for thread in threads {
            let part = thread.join().map_err(|_panic| "a thread panicked".to_owned())?;
            all.extend(part.map_err(|error| error.to_string())?);
        }
        Ok(all)
    })
}

/// Measures all of them, in turns.
///
/// # Panics
/// When the mesh does not start.
pub(super) fn run(rounds: usize, length: Duration, stop: &Stop) -> Vec<TroubleRow> {
    say("starting a mesh with endpoints in trouble");
    let trouble = Trouble::start();
    let mut rows: Vec<TroubleRow> =
        VARIANTS.iter().map(|variant| TroubleRow::new(variant.title, variant.bar)).collect();
    for round in 0..rounds.max(1) {
        for (at, row) in rows.iter_mut().enumerate() {
            if stop.asked().is_some() {
                return rows;
            }
            let said = row.note(trouble.measure(at, length));
            say(&format!("trouble        round {} {:<8} {said}", round + 1, VARIANTS[at].name));
        }
    }
    rows
}
