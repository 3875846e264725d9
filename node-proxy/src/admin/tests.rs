//! Tests of the admin server, over real sockets.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::{AdminState, LogLevel, serve};
use crate::telemetry::{
    Capture, Certificate, Telemetry,
    fake::{FakeState, http_labels, identity, service, workload},
};

struct Server {
    address: SocketAddr,
    state: Arc<FakeState>,
    // The filter of the test's own subscriber, which nothing logs to.
    _layer: reload::Layer<EnvFilter, Registry>,
}

async fn server() -> Server {
    let mut resources = service();
    resources.push(workload("u1", "web-1"));
    let state = FakeState::new(resources);
    let telemetry = Arc::new(Telemetry::new());
    for index in 0..200 {
        telemetry.http(&http_labels(&format!("h{index}"))).request();
    }
    let (layer, handle) = reload::Layer::new(EnvFilter::new("info"));
    let log_level = LogLevel::new(handle, "info");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = AdminState { telemetry, state: Arc::clone(&state) as _, log_level };
    tokio::spawn(serve(listener, admin));
    Server { address, state, _layer: layer }
}

/// Status, head and body, chunks joined.
async fn ask(server: &Server, head: &str, body: &str) -> (u16, String, Vec<u8>) {
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let length = body.len();
    let request =
        format!("{head} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap();
    let mut body = answer[split + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = joined(&body);
    }
    (head[9..12].parse().unwrap(), head, body)
}

fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&chunks[end + 2..end + 2 + length]);
        chunks = &chunks[end + 4 + length..];
    }
}

async fn text(server: &Server, head: &str) -> (u16, String) {
    let (status, _, body) = ask(server, head, "").await;
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn metrics_in_the_format_and_coding_that_was_asked_for() {
    let server = server().await;
    let (status, head, plain) = ask(&server, "GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let plain = String::from_utf8(plain).unwrap();
    assert_eq!(plain.matches("\nrequest_total{").count(), 200);

    let get =
        "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text\r\naccept-encoding: deflate, gzip;q=0.5\r\nx:";
    let (status, head, body) = ask(&server, get, "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&*body).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked.ends_with("# EOF\n"));
    assert_eq!(unpacked.matches("\nrequest_total{").count(), 200);

    let refused = "GET /metrics HTTP/1.1\r\naccept-encoding: gzip;q=0\r\nx:";
    let (_, head, _) = ask(&server, refused, "").await;
    assert!(!head.contains("content-encoding"), "{head}");
}

#[tokio::test]
async fn ready_says_what_it_waits_for() {
    let server = server().await;
    server.state.synced.store(false, Relaxed);
    let (status, why) = text(&server, "GET /ready").await;
    assert!(status == 503 && why.contains("no configuration yet"), "{why}");
    server.state.synced.store(true, Relaxed);
    assert_eq!(text(&server, "GET /ready").await.0, 200, "a workload that is not captured needs no certificate");
    server.state.captures.lock().push(Capture { uid: Arc::from("u1"), captured: true, reason: String::new() });
    let (status, why) = text(&server, "GET /ready").await;
    assert!(status == 503 && why.contains(identity("default").as_str()), "{why}");
    let certificate = Certificate { identity: identity("default"), not_after: i64::MAX, chain: Vec::new() };
    server.state.certificates.lock().push(certificate);
    assert_eq!(text(&server, "GET /ready").await, (200, "ready\n".to_owned()));
    assert_eq!(text(&server, "GET /live").await, (200, "live\n".to_owned()));
}

#[tokio::test]
async fn config_is_json_with_workloads_and_endpoints() {
    let server = server().await;
    let (status, body) = text(&server, "GET /config").await;
    assert_eq!(status, 200);
    let config: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(config["arguments"]["node-name"], "n1");
    assert_eq!(config["workloads"][0]["uid"], "u1");
    assert_eq!(config["destinations"][0]["service"], "shop/web");
    assert_eq!(config["destinations"][0]["endpoints"][0]["ready"], true);
}

#[tokio::test]
async fn the_log_level_changes_and_bad_filters_do_not_count() {
    let server = server().await;
    assert_eq!(text(&server, "GET /proxy-log-level").await, (200, "info\n".to_owned()));
    assert_eq!(ask(&server, "PUT /proxy-log-level", "warn,weir_node=debug").await.0, 204);
    assert_eq!(text(&server, "GET /proxy-log-level").await.1, "warn,weir_node=debug\n");
    let (status, _, why) = ask(&server, "PUT /proxy-log-level", "weir_node=loud").await;
    assert!(status == 400 && why.starts_with(b"not a log filter"), "{why:?}");
    assert_eq!(ask(&server, "PUT /proxy-log-level", &"a".repeat(5_000)).await.0, 413);
    assert_eq!(text(&server, "GET /proxy-log-level").await.1, "warn,weir_node=debug\n");
}

#[tokio::test]
async fn only_loopback_may_ask_for_the_log_level() {
    use http::{Method, Request};
    use hyper::{client::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;

    let (_layer, handle) = reload::Layer::<_, Registry>::new(EnvFilter::new("info"));
    let state = Arc::new(AdminState {
        telemetry: Arc::new(Telemetry::new()),
        state: FakeState::new(Vec::new()),
        log_level: LogLevel::new(handle, "info"),
    });
    for (peer, expected) in [("10.0.0.1:1", 403), ("[::ffff:127.0.0.1]:1", 200), ("[::1]:1", 200), ("[fe80::1]:1", 403)]
    {
        let peer: SocketAddr = peer.parse().unwrap();
        let (client, server) = tokio::io::duplex(4_096);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, std::convert::Infallible>(super::respond(&state, peer, request).await) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
        let (mut sender, connection) = http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(Method::GET).uri("/proxy-log-level");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected, "{peer}");
    }
}

#[tokio::test]
async fn other_paths_methods_and_huge_heads_are_refused() {
    let server = server().await;
    assert_eq!(text(&server, "GET /secrets").await.0, 404);
    let (status, head, _) = ask(&server, "POST /metrics", "").await;
    assert!(status == 405 && head.contains("allow: GET"), "{head}");
    assert_eq!(text(&server, "DELETE /proxy-log-level").await.0, 405);
    let huge = format!("GET /live HTTP/1.1\r\nx: {}\r\ny:", "a".repeat(20_000));
    assert_eq!(ask(&server, &huge, "").await.0, 431);
}
