//! New connections at a steady rate, each with one HTTP/1 request, counted by what became of them.
//!
//! Must never reuse a connection, and never count a failure as something milder than it was.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::netns::Netns;

/// Longest that a connect, a write or a read may take before it counts as timed out.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of connections.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered with status 200.
    pub answered: AtomicU64,
    /// `connect` failed with ECONNREFUSED.
    pub refused: AtomicU64,
    /// `connect`, write or read took too long.
    pub timed_out: AtomicU64,
    /// Ended after the connect, without an answer: in flight when something died.
    pub broken: AtomicU64,
    /// Answered with another status.
    pub other: AtomicU64,
}

impl Counts {
    /// Everything that was begun.
    pub fn total(&self) -> u64 {
        [&self.answered, &self.refused, &self.timed_out, &self.broken, &self.other]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    fn note(&self, outcome: io::Result<bool>, connected: bool) {
        let count = match outcome {
            Ok(true) => &self.answered,
            Ok(false) => &self.other,
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused if !connected => &self.refused,
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => &self.timed_out,
                _broken => &self.broken,
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Load in progress.
#[derive(Debug)]
pub struct Load {
    /// So far.
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins `per_second` connections to `address` from inside `netns`, spread over `threads` threads that are never behind by design:
    /// each begins its next connection when that is due, or at once when it is late.
    pub fn start(netns: &Netns, address: SocketAddr, per_second: u32, threads: u32) -> Load {
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs(1) * threads / per_second;
        let threads = netns.enter(|| {
            let spawn = |_index: u32| {
                let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
                // A thread is born in its parent's namespace.
                std::thread::spawn(move || run(address, pause, &counts, &stop))
            };
            (0..threads).map(spawn).collect()
        });
        Load { counts, stop, threads }
    }

    /// Ends the load and returns what became of it.
    ///
    /// # Panics
    /// When a thread did.
    pub fn finish(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a thread of the load");
        }
        self.counts
    }
}

fn run(address: SocketAddr, pause: Duration, counts: &Counts, stop: &AtomicBool) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if due > now {
            std::thread::park_timeout(due - now);
            continue;
        }
        due += pause;
        let stream = TcpStream::connect_timeout(&address, TIMEOUT);
        let connected = stream.is_ok();
        counts.note(stream.and_then(request), connected);
    }
}

fn request(mut stream: TcpStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /name HTTP/1.1\r\nhost: web.demo\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::with_capacity(512);
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
