//! HTTP/1 servers that show what they were asked, or behave as no server should. Must never answer before they have read all.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use weir_tests::mesh::Pod;

use crate::{
    stage::PATIENCE,
    turns::{Accepting, listen},
};

/// Requests that no test has looked at: more than any makes.
const UNREAD: usize = 10_000;

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// None of one that broke off.
    pub(crate) body: Option<Vec<u8>>,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers 200.
    Answers,
    /// Reads, and says nothing.
    Mute,
    /// Begins an answer that does not end.
    Endless,
    /// Reads nothing: connections wait in the kernel.
    Deaf,
}

/// A server; it ends with this.
pub(crate) struct Recorder {
    arrived: mpsc::Receiver<Arrived>,
    begun: Arc<AtomicUsize>,
    /// Where nobody accepts.
    _deaf: Vec<TcpListener>,
    _server: Accepting,
}

impl Recorder {
    /// One server for all of `places`: pods and ports.
    pub(crate) fn start(places: &[(&Pod, u16)], manner: Manner) -> Recorder {
        let listeners: Vec<_> = places.iter().map(|(pod, port)| listen(pod, *port)).collect();
        let (arrive, arrived) = mpsc::sync_channel(UNREAD);
        let begun = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&begun);
        let (deaf, listeners) = if manner == Manner::Deaf { (listeners, Vec::new()) } else { (Vec::new(), listeners) };
        let server = Accepting::start(listeners, move |tcp, _stop| serve(tcp, manner, &count, &arrive));
        Recorder { arrived, begun, _deaf: deaf, _server: server }
    }

    /// Requests whose head has arrived.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// The next request; waits for it.
    pub(crate) fn next(&self, what: &str) -> Arrived {
        self.arrived.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// All requests that are there.
    pub(crate) fn all(&self) -> Vec<Arrived> {
        self.arrived.try_iter().collect()
    }
}

/// Until the client goes.
fn serve(tcp: TcpStream, manner: Manner, begun: &AtomicUsize, arrive: &mpsc::SyncSender<Arrived>) {
    let Ok(mut out) = tcp.try_clone() else { return };
    let mut input = BufReader::with_capacity(64 * 1024, tcp);
    while let Some(arrived) = request(&mut input, begun) {
        let is_whole = arrived.body.is_some();
        let _gone = arrive.send(arrived);
        if !is_whole {
            return;
        }
        match manner {
            Manner::Answers => {
                if out.write_all(b"HTTP/1.1 200 Yes\r\ncontent-length: 3\r\n\r\nyes").is_err() {
                    return;
                }
            }
            Manner::Mute | Manner::Deaf => {
                let _gone = input.read(&mut [0]);
                return;
            }
            Manner::Endless => {
                let mut said = out.write_all(b"HTTP/1.1 200 Yes\r\ntransfer-encoding: chunked\r\n\r\n");
                while said.is_ok() {
                    said = out.write_all(b"1\r\nx\r\n");
                    thread::park_timeout(Duration::from_millis(10));
                }
                return;
            }
        }
    }
}

fn request(input: &mut BufReader<TcpStream>, begun: &AtomicUsize) -> Option<Arrived> {
    let line = line(input)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = fields(input)?;
    begun.fetch_add(1, Ordering::Relaxed);
    let body = body(input, &headers);
    Some(Arrived { method, target, headers, body })
}

fn line(input: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    Some(line.strip_suffix("\r\n")?.to_owned())
}

fn fields(input: &mut BufReader<TcpStream>) -> Option<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    loop {
        let line = line(input)?;
        let Some((name, value)) = line.split_once(':') else { return Some(fields) };
        fields.insert(name.to_lowercase(), value.trim().to_owned());
    }
}

fn body(input: &mut BufReader<TcpStream>, headers: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let take = |count: usize, input: &mut BufReader<TcpStream>, body: &mut Vec<u8>| {
        let before = body.len();
        body.resize(before + count, 0);
        input.read_exact(&mut body[before..]).ok()
    };
    if let Some(length) = headers.get("content-length") {
        take(length.parse().ok()?, input, &mut body)?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let count = usize::from_str_radix(&line(input)?, 16).ok()?;
            if count == 0 {
                // Trailers, if there are any.
                fields(input)?;
                break;
            }
            take(count, input, &mut body)?;
            line(input)?;
        }
    }
    Some(body)
}
