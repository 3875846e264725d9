//! Load that no common program makes: an open loop timed from the intended start, new connections, bulk.
//!
//! Must never start a request later without counting the wait, and never hide an error.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    num::NonZeroU64,
    thread,
    time::{Duration, Instant},
};

use super::load::Sample;
use crate::wait;

/// Connections of a closed or open loop.
const CONNECTIONS: u32 = 16;
/// Longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that an opaque connection sends and gets back.
const ECHO_BYTES: usize = 64;
/// Write size of bulk, in bytes.
const BULK_BYTES: usize = 256 * 1024;
/// One MB, in which bulk is counted.
const MEGABYTE: u64 = 1_000_000;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n";

/// A connection of our own to an HTTP/1.1 origin with small answers.
#[derive(Debug)]
pub(super) struct Http {
    stream: TcpStream,
}

impl Http {
    /// Connects.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Http> {
        connect(address).map(|stream| Http { stream })
    }

    /// One request and its whole answer.
    pub(super) fn get(&mut self) -> io::Result<()> {
        self.stream.write_all(REQUEST)?;
        let mut buffer = [0; 4096];
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut buffer[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if complete(&buffer[..filled])? {
                return Ok(());
            }
        }
    }
}

/// Whether the bytes hold a whole answer; an error when it is none of status 200 with a length.
fn complete(bytes: &[u8]) -> io::Result<bool> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(head.replace("\r\n", " | ")));
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("an answer without length"))?;
    Ok(body.len() >= length)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// `rate` requests per second over 16 connections; latencies from the intended start.
pub(super) fn open_loop(address: SocketAddr, rate: u32, length: Duration) -> Result<Sample, String> {
    let interval = Duration::from_secs(1) * CONNECTIONS / rate;
    let begin = Instant::now() + Duration::from_millis(50);
    parallel(begin, |index| {
        // The default slack of 50 µs would be part of every latency.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut http = Http::connect(address)?;
        let mut seen = Seen::default();
        let mut intended = begin + Duration::from_secs(1) / rate * index;
        while intended < begin + length {
            wait::until_instant(intended);
            http.get()?;
            seen.latencies.push(intended.elapsed());
            intended += interval;
        }
        Ok(seen)
    })
}

/// Closed loop of 16: connect, one request, until the server closes.
pub(super) fn new_requests(address: SocketAddr, length: Duration) -> Result<Sample, String> {
    closed_loop(length, || {
        let mut stream = connect(address)?;
        stream.write_all(LAST_REQUEST)?;
        let mut answer = Vec::with_capacity(512);
        stream.read_to_end(&mut answer)?;
        if complete(&answer)? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    })
}

/// Closed loop of 16: connect, 64 bytes there and back, both sides closed in order.
pub(super) fn new_echoes(address: SocketAddr, length: Duration) -> Result<Sample, String> {
    closed_loop(length, || {
        let mut stream = connect(address)?;
        echo(&mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        let rest = stream.read(&mut [0; 1])?;
        if rest == 0 { Ok(()) } else { Err(io::Error::other("more came back than was sent")) }
    })
}

/// An opaque connection that has echoed once.
pub(super) fn echo_connection(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    echo(&mut stream)?;
    Ok(stream)
}

/// 64 bytes there and back.
pub(super) fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let sent = [0x5a; ECHO_BYTES];
    let mut back = [0; ECHO_BYTES];
    stream.write_all(&sent)?;
    stream.read_exact(&mut back)?;
    if back == sent { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// One connection that sends until the time is over; counted in MB that arrived.
pub(super) fn bulk(address: SocketAddr, length: Duration) -> Result<Sample, String> {
    let send = || -> io::Result<Sample> {
        let mut stream = connect(address)?;
        let chunk = vec![0x5a; BULK_BYTES];
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < length {
            stream.write_all(&chunk)?;
            sent += BULK_BYTES as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        // The sink closes when it has read everything.
        let rest = stream.read(&mut [0; 1])?;
        if rest != 0 {
            return Err(io::Error::other("the sink answered"));
        }
        Ok(Sample { count: sent / MEGABYTE, elapsed: begin.elapsed(), ..Sample::default() })
    };
    send().map_err(|error| error.to_string())
}

/// What one thread saw.
#[derive(Debug, Default)]
struct Seen {
    latencies: Vec<Duration>,
    errors: usize,
}

fn closed_loop(length: Duration, work: impl Fn() -> io::Result<()> + Sync) -> Result<Sample, String> {
    let begin = Instant::now();
    let end = begin + length;
    parallel(begin, |_index| {
        let mut seen = Seen::default();
        while Instant::now() < end {
            let begin = Instant::now();
            match work() {
                Ok(()) => seen.latencies.push(begin.elapsed()),
                Err(_counted) => seen.errors += 1,
            }
        }
        Ok(seen)
    })
}

/// Runs `work` on one thread for each connection, measured from `begin`; threads inherit this one's namespace.
fn parallel(begin: Instant, work: impl Fn(u32) -> io::Result<Seen> + Sync) -> Result<Sample, String> {
    let mut all = Seen::default();
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..CONNECTIONS).map(|index| scope.spawn(move || work(index))).collect();
        for thread in threads {
            let part = thread.join().map_err(|_panic| "a thread panicked".to_owned())?;
            let part = part.map_err(|error| error.to_string())?;
            all.latencies.extend(part.latencies);
            all.errors += part.errors;
        }
        Ok::<(), String>(())
    })?;
    let errors = all.errors;
    Ok(Sample { errors, ..Sample::of(all.latencies, begin.elapsed()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_length() {
        assert!(!complete(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap());
        assert!(!complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").unwrap());
        assert!(complete(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n").unwrap());
        complete(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").unwrap_err();
        complete(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err();
    }
}
