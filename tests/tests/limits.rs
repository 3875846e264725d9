//! Bounds under attack and under many idle connections (docs/limits.md). Sizes are asserted, times are not.
//!
//! Mutations tried, each seen to fail its test: hyper's HTTP/2 server without bounds on streams and resets, its HTTP/1 buffer of a
//! gigabyte. The idle tests failed, at 18 KiB each, before connections were made lean.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test is a panic")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use weir_tests::{
    attack,
    daemon::Daemon,
    mesh::{Mesh, PATIENCE, Pod, PodOptions, ServiceOptions},
    nginx, wait,
};

/// Idle HTTP connections, through both proxies.
const IDLE_HTTP: usize = 8_000;
/// Idle opaque connections, through both proxies.
const IDLE_OPAQUE: usize = 4_000;
/// Most that an idle connection may add to each proxy, HTTP or opaque.
const IDLE_BYTES: usize = 10 * 1024;
/// Most that any attack below may add to a proxy: its buffers, with those of the allocator.
const ATTACK_BYTES: usize = 32 * 1024 * 1024;

struct Stage {
    client: Pod,
    // A pod's namespace ends with it.
    _far: Pod,
    service: SocketAddr,
    http2: SocketAddr,
    opaque: SocketAddr,
    _running: Vec<Daemon>,
    mesh: Mesh,
}

impl Stage {
    fn start() -> Stage {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut mesh = Mesh::start();
        let client = mesh.pod(&PodOptions::new("client", 0));
        let far = mesh.pod(&PodOptions::new("web", 1));
        let logs = mesh.path("logs");
        let server = nginx::start(&far, &mesh.path("nginx"), &logs);
        fs::write(mesh.path("nginx/files/large"), vec![b'x'; 64 * 1024 * 1024]).unwrap();
        let mut redis = far.daemon(
            "redis",
            "redis-server",
            &["--port", "6379", "--protected-mode", "no", "--save", "", "--maxclients", "9000"],
            &logs,
        );
        redis.wait_for("Ready to accept", PATIENCE);
        let mut service = |name: &str, port: u16| -> SocketAddr {
            format!("{}:{port}", mesh.service(&ServiceOptions::new(name, port, port), &[&far])).parse().unwrap()
        };
        let (http1, http2, opaque) = (service("web", 8080), service("web2", 8081), service("redis", 6379));
        mesh.wait_ready(&[&client, &far]);
        Stage { client, _far: far, service: http1, http2, opaque, _running: vec![server, redis], mesh }
    }

    /// Runs in the client pod's namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.place.netns.enter(work)
    }

    fn workers(&self) -> [u32; 2] {
        [0, 1].map(|node| self.mesh.worker(node).expect("a worker"))
    }

    /// Resident bytes of both workers.
    fn memory(&self) -> [usize; 2] {
        self.workers().map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
        })
    }

    /// Runs an attack, then says whether both workers lived through it, in bounds, and still serve.
    fn survives(&self, attack: impl FnOnce() + Send) {
        self.inside(|| exchange(self.service));
        let (workers, before) = (self.workers(), self.memory());
        self.inside(attack);
        let after = self.memory();
        assert_eq!(self.workers(), workers, "no worker died");
        let _told = writeln!(std::io::stdout(), "resident bytes before and after: {before:?} {after:?}");
        for (before, after) in before.into_iter().zip(after) {
            assert!(after < before + ATTACK_BYTES, "from {before} to {after} bytes");
        }
        self.inside(|| exchange(self.service));
    }
}

/// One request and its answer; the connection stays open.
fn exchange(address: SocketAddr) -> TcpStream {
    let mut stream = attack::connect(address).unwrap();
    stream.write_all(b"GET /name HTTP/1.1\r\nhost: web.demo\r\n\r\n").unwrap();
    let mut answer = [0; 1024];
    let mut have = 0;
    while !answer[..have].ends_with(b"web-2\n") {
        let read = stream
            .read(&mut answer[have..])
            .unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&answer[..have])));
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..have]));
        have += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    stream
}

fn ping(address: SocketAddr, index: usize) -> TcpStream {
    let mut stream = attack::connect(address).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("connection {index}: {error}"));
    assert_eq!(&answer, b"+PONG\r\n");
    stream
}

fn grown(stage: &Stage, before: [usize; 2], count: usize) -> [usize; 2] {
    let after = stage.memory();
    [0, 1].map(|node| after[node].saturating_sub(before[node]) / count)
}

/// Thousands of idle connections cost kilobytes each, and every one of them still works.
#[test]
fn idle_http_connections_are_cheap() {
    let stage = Stage::start();
    for _warm in 0..64 {
        stage.inside(|| exchange(stage.service));
    }
    let before = stage.memory();
    let mut http: Vec<TcpStream> = stage.inside(|| (0..IDLE_HTTP).map(|_| exchange(stage.service)).collect());
    // What the proxy keeps for a connection that just spoke it gives back a moment later.
    let mut each = [0; 2];
    let at_rest = wait::within(PATIENCE, || {
        each = grown(&stage, before, IDLE_HTTP);
        each.iter().all(|bytes| *bytes <= IDLE_BYTES).then_some(())
    });
    assert!(at_rest.is_some(), "bytes per idle HTTP connection: {each:?}");
    let _told = writeln!(std::io::stdout(), "bytes per idle HTTP connection: {each:?}");
    for stream in http.iter_mut().step_by(100) {
        stream.write_all(b"GET /name HTTP/1.1\r\nhost: web.demo\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).unwrap() > 0);
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

/// The same for opaque connections, each with an mTLS connection of its own between the nodes.
#[test]
fn idle_opaque_connections_are_cheap() {
    let stage = Stage::start();
    for _warm in 0..64 {
        stage.inside(|| ping(stage.opaque, 0));
    }
    let before = stage.memory();
    let mut opaque: Vec<TcpStream> = stage.inside(|| (0..IDLE_OPAQUE).map(|index| ping(stage.opaque, index)).collect());
    let each = grown(&stage, before, IDLE_OPAQUE);
    let _told = writeln!(std::io::stdout(), "bytes per idle opaque connection: {each:?}");
    assert!(each.iter().all(|bytes| *bytes <= IDLE_BYTES), "{each:?}");
    for stream in opaque.iter_mut().step_by(100) {
        stream.write_all(b"PING\r\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
    }
}

/// Peers that ask for large answers and never read them.
#[test]
fn peers_that_never_read_hold_no_memory() {
    let stage = Stage::start();
    stage.survives(|| {
        let _kept = attack::never_read(stage.service, "/large", 64).unwrap();
        exchange(stage.service);
    });
}

/// A hundred megabytes of headers, in many fields and in one.
#[test]
fn endless_headers_are_refused() {
    let stage = Stage::start();
    for field in [
        b"x-filler: 0123456789012345678901234567890123456789\r\n".as_slice(),
        b"01234567890123456789012345678901".as_slice(),
    ] {
        stage.survives(|| {
            let (refused, sent) = attack::endless_headers(stage.service, field).unwrap();
            assert!(refused, "{sent} bytes of headers were taken");
        });
    }
}

/// Ten thousand streams on one connection, left open.
#[test]
fn ten_thousand_streams_are_bounded() {
    let stage = Stage::start();
    stage.survives(|| {
        // Cut off or refused one by one: both are bounded.
        let _cut_off = attack::streams(stage.http2, 10_000, false).unwrap();
    });
}

/// Ten thousand streams on one connection, each reset at once (CVE-2023-44487).
#[test]
fn rapid_resets_are_bounded() {
    let stage = Stage::start();
    stage.survives(|| {
        assert!(attack::streams(stage.http2, 10_000, true).unwrap(), "the connection was not cut off");
    });
}

/// A handshake that never ends, requests that never end: each holds a place, none holds a buffer that grows.
#[test]
fn slow_requests_hold_little() {
    let stage = Stage::start();
    stage.survives(|| {
        let _kept = attack::never_ask(stage.service, 500).unwrap();
        exchange(stage.service);
    });
}
