//! A server that does something else with each request, and shows what it read. Must never wait for a request for ever.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use weir_tests::{mesh::Pod, wait};

use crate::stage::PATIENCE;

/// A socket in a pod; accepting does not wait.
pub(crate) fn listen(pod: &Pod, port: u16) -> TcpListener {
    let listener =
        pod.place.netns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).expect("a server of one request");
    listener.set_nonblocking(true).expect("a server of one request");
    listener
}

/// A server that accepts until it is dropped, and serves each connection in a thread of its own.
pub(crate) struct Accepting {
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Accepting {
    /// Begins; `serve` gets each connection, and what says that it is over.
    pub(crate) fn start(
        listeners: Vec<TcpListener>,
        serve: impl Fn(TcpStream, Arc<AtomicBool>) + Clone + Send + 'static,
    ) -> Accepting {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let accepting = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for listener in &listeners {
                    while let Ok((tcp, _client)) = listener.accept() {
                        tcp.set_nonblocking(false).expect("a server");
                        let (serve, stopped) = (serve.clone(), Arc::clone(&stopped));
                        thread::spawn(move || serve(tcp, stopped));
                    }
                }
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        Accepting { stop, accepting: Some(accepting) }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _panicked = accepting.join();
        }
    }
}

/// What a server of one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Answers 503 when it has read all.
    Refuse,
    /// Answers 503 without having read the body.
    Hasten,
    /// Closes the connection when it has read all.
    Leave,
    /// Answers 200 when it has read all.
    Take,
}

/// Serves one connection for each turn; the bodies that it read.
pub(crate) fn play(listener: TcpListener, script: Vec<Turn>) -> JoinHandle<Vec<Vec<u8>>> {
    thread::spawn(move || {
        let mut bodies = Vec::new();
        for turn in script {
            let what = format!("a connection to {turn:?}");
            let (mut tcp, _client) = wait::until(&what, PATIENCE, || listener.accept().ok());
            tcp.set_nonblocking(false).expect("a server of one request");
            tcp.set_read_timeout(Some(PATIENCE)).expect("a server of one request");
            let head = head(&mut tcp);
            if turn != Turn::Hasten {
                bodies.push(body(&mut tcp, &head));
            }
            let status = match turn {
                Turn::Refuse | Turn::Hasten => "503 No",
                Turn::Take => "200 Yes",
                Turn::Leave => continue,
            };
            write!(tcp, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .expect("a server of one request");
            // What is still on its way is read, so that the answer is not lost in a reset.
            tcp.shutdown(std::net::Shutdown::Write).expect("a server of one request");
            let _rest = std::io::copy(&mut tcp, &mut std::io::sink());
        }
        bodies
    })
}

/// Answers 503 to a request whose body still comes, and says so; takes the one after it, unless the client has its answer before there is
/// one. The body of that one.
pub(crate) fn hasten(
    listener: TcpListener,
    told: mpsc::SyncSender<()>,
    is_over: Arc<AtomicBool>,
) -> JoinHandle<Option<Vec<u8>>> {
    thread::spawn(move || {
        let (mut first, _client) = wait::until("the first attempt", PATIENCE, || listener.accept().ok());
        first.set_nonblocking(false).expect("a server of one request");
        head(&mut first);
        first
            .write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("a server of one request");
        told.send(()).expect("a client");
        let _read = thread::spawn(move || std::io::copy(&mut first, &mut std::io::sink()));
        let second = wait::until("a second attempt, or none", PATIENCE, || match listener.accept() {
            Ok((second, _client)) => Some(Some(second)),
            Err(_none) => is_over.load(Ordering::Relaxed).then_some(None),
        });
        let mut second = second?;
        second.set_nonblocking(false).expect("a server of one request");
        second.set_read_timeout(Some(PATIENCE)).expect("a server of one request");
        let head = head(&mut second);
        let body = body(&mut second, &head);
        second
            .write_all(b"HTTP/1.1 200 Yes\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("a server of one request");
        Some(body)
    })
}

/// A message's head, in lower case.
pub(crate) fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("a server of one request");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a server of one request").to_lowercase()
}

fn body(tcp: &mut TcpStream, head: &str) -> Vec<u8> {
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()));
    let mut body = Vec::new();
    let take = |count: usize, from: &mut TcpStream| {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).expect("a server of one request");
        bytes
    };
    if let Some(length) = field("content-length:") {
        return take(length.parse().expect("a server of one request"), tcp);
    }
    if field("transfer-encoding:").is_none() {
        return body;
    }
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(take(1, tcp));
        }
        let length = usize::from_str_radix(std::str::from_utf8(&line).expect("a server of one request").trim(), 16)
            .expect("a server of one request");
        body.extend(take(length, tcp));
        take(2, tcp);
        if length == 0 {
            return body;
        }
    }
}
