//! Origins of the opaque scenarios: one that swallows, one that echoes. Must never be slower than what is measured in front of it.

use std::{net::Ipv4Addr, thread};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime,
};

use crate::netns::Netns;

/// Port of the origin that reads and drops: among the default opaque ports.
pub(super) const SINK: u16 = 5432;
/// Port of the origin that echoes: among the default opaque ports.
pub(super) const ECHO: u16 = 6379;
/// Read size of the sink, in bytes: four times what proxies read, so that it costs little beside them.
const SINK_BYTES: usize = 256 * 1024;
/// Read size of the echo, in bytes.
const ECHO_BYTES: usize = 1024;

/// Serves both ports in `netns` on one thread for as long as this process runs.
///
/// # Panics
/// When a port is taken.
pub(super) fn start(netns: &Netns) {
    let bind = |port| {
        netns.enter(move || {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port in a new namespace")
        })
    };
    let (sink, echo) = (bind(SINK), bind(ECHO));
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async move {
            tokio::join!(accept(sink, swallow), accept(echo, reflect));
        });
    });
}

async fn accept<F: Future<Output = ()> + 'static + Send>(listener: std::net::TcpListener, serve: fn(TcpStream) -> F) {
    listener.set_nonblocking(true).expect("a nonblocking listener");
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _peer)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

async fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; SINK_BYTES];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

async fn reflect(mut stream: TcpStream) {
    let _set = stream.set_nodelay(true);
    let mut buffer = [0; ECHO_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
