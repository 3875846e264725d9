//! Our record layer against rustls' own, against itself, and against peers that break the rules.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    record::{self, FRAGMENT, OVERHEAD, Opener, Sealer, content},
    *,
};
use crate::{identities::provider, limits};

const NAME: &str = "server.test";

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (dialled, listener.accept().await.unwrap().0)
}

/// Both ends ours.
async fn pair() -> (TlsStream, TlsStream) {
    let (client, server) = configs();
    let (dialled, accepted) = sockets().await;
    // The client's last flight leaves when it is flushed.
    let client = async {
        let mut stream = connect(client, name(), dialled).await.unwrap().stream;
        stream.flush().await.unwrap();
        stream
    };
    let server = async { accept(server, accepted, Bytes::new()).await.unwrap().stream };
    tokio::join!(client, server)
}

fn blocking(tcp: TcpStream) -> std::net::TcpStream {
    let tcp = tcp.into_std().unwrap();
    tcp.set_nonblocking(false).unwrap();
    tcp
}

/// rustls' own stream, on a thread that runs `with`.
fn rustls_client<R: Send + 'static>(
    config: Arc<ClientConfig>,
    tcp: TcpStream,
    with: impl FnOnce(StreamOwned<ClientConnection, std::net::TcpStream>) -> R + Send + 'static,
) -> std::thread::JoinHandle<R> {
    let tcp = blocking(tcp);
    std::thread::spawn(move || with(StreamOwned::new(ClientConnection::new(config, name()).unwrap(), tcp)))
}

fn rustls_server<R: Send + 'static>(
    config: Arc<ServerConfig>,
    tcp: TcpStream,
    with: impl FnOnce(StreamOwned<ServerConnection, std::net::TcpStream>) -> R + Send + 'static,
) -> std::thread::JoinHandle<R> {
    let tcp = blocking(tcp);
    std::thread::spawn(move || with(StreamOwned::new(ServerConnection::new(config).unwrap(), tcp)))
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Writes in pieces of random size, some of them as several slices.
async fn write_pieces(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = {
            let most = if random.bool() { 200 } else { 200_000 };
            random.usize(1..=most).min(rest.len())
        };
        let cut = random.usize(0..=piece.min(300));
        let slices =
            [std::io::IoSlice::new(&rest[..cut]), std::io::IoSlice::new(&[]), std::io::IoSlice::new(&rest[cut..piece])];
        let count = stream.write_vectored(&slices).await.unwrap();
        assert!(count > 0);
        rest = &rest[count..];
    }
    stream.flush().await.unwrap();
}

async fn read_pieces(stream: &mut (impl tokio::io::AsyncRead + Unpin), seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    loop {
        let most = if random.bool() { 50 } else { 100_000 };
        let mut piece = vec![0; random.usize(1..=most)];
        match stream.read(&mut piece).await.unwrap() {
            0 => return all,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

#[tokio::test]
async fn carries_bytes_both_ways_at_once_in_pieces_of_any_size() {
    for seed in 0..8 {
        let (client, server) = pair().await;
        let (up, down) = (noise(seed, 3_000_000), noise(seed + 100, 2_000_000));
        let run = |stream: TlsStream, sent: Vec<u8>, seed| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async {
                write_pieces(&mut writer, &sent, seed).await;
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, read_pieces(&mut reader, seed + 1)).1
        };
        let (at_client, at_server) = tokio::join!(run(client, up.clone(), seed), run(server, down.clone(), seed + 7));
        assert!(at_client == down && at_server == up, "seed {seed}");
    }
}

#[tokio::test]
async fn speaks_with_rustls_as_client_key_updates_included() {
    let (client, server) = configs();
    let (dialled, accepted) = sockets().await;
    let theirs = rustls_server(server, accepted, |mut stream| {
        let mut bytes = vec![0; 500_000];
        stream.read_exact(&mut bytes).unwrap();
        // Asks for a change of our key as well.
        stream.conn.refresh_traffic_keys().unwrap();
        stream.write_all(&bytes).unwrap();
        let mut second = vec![0; 100_000];
        stream.read_exact(&mut second).unwrap();
        stream.write_all(&second).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    });
    let mut ours = connect(client, name(), dialled).await.unwrap().stream;
    for length in [500_000, 100_000] {
        let bytes = noise(3, length);
        write_pieces(&mut ours, &bytes, 5).await;
        let mut back = vec![0; length];
        ours.read_exact(&mut back).await.unwrap();
        assert!(back == bytes);
        ours.update_key().unwrap();
    }
    assert_eq!(ours.read(&mut [0; 16]).await.unwrap(), 0, "their close_notify is an end in order");
    ours.shutdown().await.unwrap();
    theirs.join().unwrap();
}

#[tokio::test]
async fn speaks_with_rustls_as_server_with_data_right_behind_the_handshake() {
    let (client, server) = configs();
    let (dialled, accepted) = sockets().await;
    let theirs = rustls_client(client, dialled, |mut stream| {
        // rustls sends this in one write with its Finished.
        stream.write_all(b"first").unwrap();
        stream.conn.refresh_traffic_keys().unwrap();
        stream.write_all(b"second").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        back
    });
    let done = accept(server, accepted, Bytes::new()).await.unwrap();
    assert_eq!(done.peer, None);
    let mut ours = done.stream;
    let mut bytes = [0; 11];
    ours.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"firstsecond");
    ours.write_all(b"third").await.unwrap();
    assert_eq!(ours.read(&mut bytes).await.unwrap(), 0);
    assert_eq!(&theirs.join().unwrap(), b"third");
}

#[tokio::test]
async fn one_half_may_end_before_the_other() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"question");
    write_pieces(&mut server, &noise(1, 300_000), 2).await;
    server.shutdown().await.unwrap();
    assert_eq!(read_pieces(&mut client, 3).await.len(), 300_000);
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_end_that_the_peer_did_not_seal_is_an_error() {
    let (mut client, server) = pair().await;
    drop(server);
    let error = client.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_us_hold_one_write_and_no_more() {
    let (mut client, _server) = pair().await;
    let bytes = noise(9, 1 << 20);
    let mut accepted = 0;
    // As much as the kernel takes, and then ours.
    while let Ok(written) = tokio::time::timeout(std::time::Duration::from_millis(200), client.write(&bytes)).await {
        accepted += written.unwrap();
        assert!(accepted < 64 << 20, "nobody reads, and yet everything is taken");
    }
    assert!(client.kept() <= limits::COPY_BYTES + 5 * OVERHEAD + FRAGMENT, "{} bytes", client.kept());
}

#[tokio::test]
async fn the_wrong_name_is_refused_and_the_server_hears_of_it() {
    let (client, server) = configs();
    let (dialled, accepted) = sockets().await;
    let other = ServerName::try_from("other.test").unwrap();
    let (ours, theirs) = tokio::join!(connect(client, other, dialled), accept(server, accepted, Bytes::new()));
    assert_eq!(ours.err().unwrap().kind(), std::io::ErrorKind::InvalidData);
    assert!(theirs.err().unwrap().to_string().contains("alert"), "the alert says why");
}

#[tokio::test]
async fn a_handshake_without_end_is_ended() {
    let (_client, server) = configs();
    let (mut dialled, accepted) = sockets().await;
    // A ClientHello of 16 MiB, said to be.
    let flood = tokio::spawn(async move {
        let record = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], noise(1, FRAGMENT - 4).as_slice()].concat();
        for _ in 0..200 {
            if dialled.write_all(&record).await.is_err() {
                return;
            }
        }
        let mut rest = Vec::new();
        let _reset = dialled.read_to_end(&mut rest).await;
    });
    assert_eq!(accept(server, accepted, Bytes::new()).await.err().unwrap().kind(), std::io::ErrorKind::InvalidData);
    flood.await.unwrap();
}

/// A server of ours, and a peer that holds the keys of the other side and writes what it likes.
async fn villain() -> (TlsStream, TcpStream, Sealer, Opener) {
    let (client, mut server) = configs();
    // So that all that we say is an answer to what the villain does.
    Arc::get_mut(&mut server).unwrap().send_tls13_tickets = 0;
    let (dialled, accepted) = sockets().await;
    let villain = blocking(dialled);
    let villain = std::thread::spawn(move || {
        let mut tcp = villain;
        let mut connection = ClientConnection::new(client, name()).unwrap();
        while connection.is_handshaking() || connection.wants_write() {
            while connection.wants_write() {
                connection.write_tls(&mut tcp).unwrap();
            }
            if connection.is_handshaking() {
                connection.read_tls(&mut tcp).unwrap();
                connection.process_new_packets().unwrap();
            }
        }
        let keys = connection.dangerous_extract_secrets().unwrap();
        (tcp, Sealer::new(keys.tx.0, &keys.tx.1).unwrap(), Opener::new(keys.rx.0, &keys.rx.1).unwrap())
    });
    let ours = accept(server, accepted, Bytes::new()).await.unwrap().stream;
    let (tcp, sealer, opener) = villain.join().unwrap();
    tcp.set_nonblocking(true).unwrap();
    (ours, TcpStream::from_std(tcp).unwrap(), sealer, opener)
}

fn sealed(sealer: &mut Sealer, kind: u8, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plain.len() + OVERHEAD];
    let length = sealer.seal(kind, plain, &mut out).unwrap();
    assert_eq!(length, out.len());
    out
}

/// What comes of `bytes` after some that are in order, and the alert that the peer is sent.
async fn after(bytes: impl FnOnce(&mut Sealer) -> Vec<u8>) -> (std::io::Error, Option<u8>) {
    let (mut ours, mut tcp, mut sealer, mut opener) = villain().await;
    let wire = [sealed(&mut sealer, content::DATA, b"good"), bytes(&mut sealer)].concat();
    tcp.write_all(&wire).await.unwrap();
    let mut good = [0; 4];
    ours.read_exact(&mut good).await.unwrap();
    assert_eq!(&good, b"good", "what came in order is delivered first");
    let error = ours.read(&mut [0; 64]).await.unwrap_err();
    let again = ours.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), again.kind(), "a broken connection stays broken");
    drop(ours);
    let mut answer = Vec::new();
    let _reset = tcp.read_to_end(&mut answer).await;
    let alert = record::length(&answer).ok().flatten().map(|length| {
        let mut out = vec![0; record::room(length)];
        let (kind, count) = opener.open(&answer[..length], &mut out).unwrap();
        assert_eq!((kind, count), (content::ALERT, 2));
        out[1]
    });
    (error, alert)
}

#[tokio::test]
async fn a_changed_byte_anywhere_in_a_record_is_noticed() {
    for index in [5, 6, 20, 26] {
        let (error, alert) = after(|sealer| {
            let mut record = sealed(sealer, content::DATA, b"hello");
            record[index] ^= 1;
            record
        })
        .await;
        assert_eq!((error.kind(), alert), (std::io::ErrorKind::InvalidData, Some(20)), "byte {index}");
    }
}

#[tokio::test]
async fn a_record_that_comes_twice_or_too_late_is_noticed() {
    let (error, alert) = after(|sealer| {
        let record = sealed(sealer, content::DATA, b"");
        [record.clone(), record].concat()
    })
    .await;
    assert_eq!((error.kind(), alert), (std::io::ErrorKind::InvalidData, Some(20)));
    let (_error, alert) = after(|sealer| {
        let (first, second) = (sealed(sealer, content::DATA, b"1"), sealed(sealer, content::DATA, b"2"));
        [second, first].concat()
    })
    .await;
    assert_eq!(alert, Some(20));
}

#[tokio::test]
async fn what_tls_forbids_ends_the_connection() {
    let update = [24, 0, 0, 1, 0];
    for (kind, plain, alert) in [
        // Key updates with something behind them, of another length, with another request.
        (content::HANDSHAKE, [update, update].concat(), 10),
        (content::HANDSHAKE, vec![24, 0, 0, 2, 0, 0], 10),
        (content::HANDSHAKE, vec![24, 0, 0, 1, 2], 10),
        // A ticket from a client, a ClientHello, a message that is too long, an empty record.
        (content::HANDSHAKE, vec![4, 0, 0, 1, 0], 10),
        (content::HANDSHAKE, vec![1, 0, 0, 1, 0], 10),
        (content::HANDSHAKE, vec![4, 1, 0, 0], 50),
        (content::HANDSHAKE, Vec::new(), 22),
        // ChangeCipherSpec, an unknown type, nothing but padding, half an alert.
        (20, vec![1], 22),
        (99, vec![1], 22),
        (0, Vec::new(), 10),
        (content::ALERT, vec![2], 22),
    ] {
        let (error, told) = after(|sealer| sealed(sealer, kind, &plain)).await;
        assert_eq!((error.kind(), told), (std::io::ErrorKind::InvalidData, Some(alert)), "{kind} {plain:?}");
    }
    for header in [[22, 3, 3, 0, 40], [23, 3, 3, 0, 16], [23, 3, 3, 0x41, 0x01], [21, 3, 3, 0, 2], *b"GET /"] {
        let (error, told) = after(|_sealer| header.to_vec()).await;
        assert_eq!((error.kind(), told), (std::io::ErrorKind::InvalidData, Some(22)), "{header:?}");
    }
}

#[tokio::test]
async fn an_alert_of_the_peers_is_an_error_and_not_answered() {
    let (error, told) = after(|sealer| sealed(sealer, content::ALERT, &[2, 42])).await;
    assert_eq!((error.kind(), told), (std::io::ErrorKind::ConnectionReset, None));
    assert!(error.to_string().contains("42"), "{error}");
}

#[tokio::test]
async fn padding_and_empty_records_are_taken_and_messages_may_span_records() {
    let (mut ours, mut tcp, mut sealer, mut opener) = villain().await;
    let padded = {
        // Sealed as data of type `content::DATA` followed by zeros: the last byte that is not zero is the type.
        let mut out = vec![0; 8 + OVERHEAD];
        let length = sealer.seal(0, b"pad\x17\0\0\0\0", &mut out).unwrap();
        out.truncate(length);
        out
    };
    let wire = [
        padded,
        sealed(&mut sealer, content::DATA, b""),
        sealed(&mut sealer, content::HANDSHAKE, &[24, 0]),
        sealed(&mut sealer, content::HANDSHAKE, &[0, 1, 1]),
    ]
    .concat();
    for byte in &wire {
        tcp.write_all(&[*byte]).await.unwrap();
    }
    let mut bytes = [0; 3];
    ours.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"pad");
    // The key update asks for one of ours, which comes though nothing is written.
    let waiting = tokio::spawn(async move { ours.read(&mut [0; 16]).await.map_err(|error| error.kind()) });
    let mut answer = vec![0; 5 + OVERHEAD];
    tcp.read_exact(&mut answer).await.unwrap();
    let mut out = vec![0; record::room(answer.len())];
    assert_eq!(opener.open(&answer, &mut out).unwrap(), (content::HANDSHAKE, 5));
    assert_eq!(out[..5], [24, 0, 0, 1, 0]);
    drop(tcp);
    assert_eq!(waiting.await.unwrap(), Err(std::io::ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn a_key_is_not_used_for_ever() {
    let keys = || {
        let (key, iv) = ([7; 32].into(), [9; 12].into());
        rustls::ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    };
    assert!(!Sealer::new(limits::TLS_RECORDS_PER_KEY - 1, &keys()).unwrap().is_worn());
    let mut sealer = Sealer::new(limits::TLS_RECORDS_PER_KEY - 1, &keys()).unwrap();
    sealed(&mut sealer, content::DATA, b"last");
    assert!(sealer.is_worn());
}

#[test]
fn a_connection_at_rest_is_small() {
    assert!(size_of::<TlsStream>() <= 2048, "{} bytes", size_of::<TlsStream>());
}
