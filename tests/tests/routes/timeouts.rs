//! Time limits from YAML to bytes. `/late` answers 401 after three seconds, `/slow` takes eight for its body.

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{mesh::ServiceOptions, wait};

use crate::stage::{HTTP1, HTTP2, PATIENCE, SLOW_BYTES, Stage, ask};

type Get = fn(&Stage, &str, &[&str]) -> crate::stage::Answer;

const PROTOCOLS: [(&str, Get); 2] = [("HTTP/1", Stage::get), ("HTTP/2", Stage::get_http2)];

/// `timeouts` of rules: 504 in the place of a late answer, another rule and 0s are not felt. Seen to fail without `within` in `balance`.
#[test]
fn a_request_that_takes_too_long_is_answered_with_504() {
    let stage = Stage::start();
    stage.route(
        r#"  rules:
  - {matches: [{path: {value: /late/request}}], timeouts: {request: 300ms}}
  - {matches: [{path: {value: /late/backend}}], timeouts: {request: 10s, backendRequest: 300ms}}
  - {matches: [{path: {value: /late/lifted}}], timeouts: {request: 0s}}
  - {matches: [{path: {value: /late/lifted/backend}}], timeouts: {backendRequest: 0s}}
  - {matches: [{path: {value: /}}]}"#,
    );
    for (protocol, get) in PROTOCOLS {
        for (path, status, error) in [
            ("/late/request", 504, "request timeout"),
            ("/late/backend", 504, "backend request timeout"),
            ("/late/lifted", 401, ""),
            ("/late/lifted/backend", 401, ""),
            ("/late/other", 401, ""),
            ("/", 200, ""),
        ] {
            let answer = get(&stage, path, &[]);
            let said = answer.headers.get("l5d-proxy-error").map_or("", String::as_str);
            assert_eq!((answer.status, said), (status, error), "{protocol} {path} {answer:?}");
        }
    }
    let metrics = stage.mesh.admin(0, "/metrics");
    for error in ["request timeout", "backend request timeout"] {
        assert!(metrics.contains(&format!("error=\"{error}\"")), "{error}");
    }
}

/// A response that has begun ends without its end: nobody takes a part for the whole. Seen to fail without `Body::limited`.
#[test]
fn a_response_that_is_not_whole_in_time_breaks_off() {
    let stage = Stage::start();
    stage.route(
        "  rules: [{matches: [{path: {value: /slow}}], timeouts: {request: 1500ms}}, {matches: [{path: {value: /}}]}]",
    );
    for (port, protocol) in [(HTTP1, "--http1.1"), (HTTP2, "--http2-prior-knowledge")] {
        let url = format!("http://{}:{port}/slow", stage.web);
        let out = stage.client.curl(&[
            "-s",
            "--max-time",
            "20",
            protocol,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
            &url,
        ]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let (status, bytes) = said.split_once(' ').unwrap();
        assert!(status == "200" && (1..SLOW_BYTES).contains(&bytes.parse().unwrap()), "{protocol} {said}");
        // CURLE_PARTIAL_FILE, CURLE_HTTP2_STREAM
        assert!(matches!(out.status.code(), Some(18 | 92)), "{protocol} {:?}", out.status);
    }
}

/// Annotations of a Service hold without any route; of a route, they replace all of the Service's.
#[test]
fn annotations_limit_and_replace() {
    let mut stage = Stage::start();
    let mut options = ServiceOptions::new("limited", HTTP1, HTTP1);
    options.annotations = vec![
        ("timeout.linkerd.io/response".to_owned(), "300ms".to_owned()),
        ("timeout.linkerd.io/idle".to_owned(), "2s".to_owned()),
    ];
    let limited = stage.mesh.service(&options, &[&stage.servers[0]]);
    let get = || ask(&stage.client, &format!("http://{limited}:{HTTP1}/late"), &[]);
    let error = |answer: &crate::stage::Answer| answer.headers.get("l5d-proxy-error").cloned().unwrap_or_default();
    wait::until("the Service's own limit", PATIENCE, || (error(&get()) == "response timeout").then_some(()));
    let route = |annotation: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: limited, namespace: demo, annotations: {{{annotation}}}}}\n\
             spec:\n  parentRefs: [{{group: \"\", kind: Service, name: limited}}]\n  rules: [{{timeouts: {{request: 1s}}}}]\n"
        );
        stage.mesh.manifest("limited-route", &text);
    };
    for (annotation, expected) in [
        ("timeout.linkerd.io/idle: 200ms", "idle timeout"),
        ("timeout.linkerd.io/response: 30s", "request timeout"),
        ("timeout.linkerd.io/request: 700ms, timeout.linkerd.io/response: 400ms", "response timeout"),
    ] {
        route(annotation);
        wait::until(annotation, PATIENCE, || (error(&get()) == expected).then_some(()));
    }
    route("timeout.linkerd.io/request: 0s");
    wait::until("lifted", PATIENCE, || (get().status == 401).then_some(()));
}

/// A client's own deadline holds, and what is left of it, or of a shorter limit, is passed on. Seen to fail without `grpc::set_timeout`.
#[test]
fn grpc_deadlines_are_honoured_and_reduced() {
    let stage = Stage::start();
    stage.route(
        "  rules: [{matches: [{path: {value: /late}}]}, {matches: [{path: {value: /}}], timeouts: {request: 5s}}]",
    );
    let grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    let get = |path: &str, timeout: &str| stage.get_http2(path, &[&grpc[..], &["-H", timeout]].concat());
    let late = get("/late", "grpc-timeout: 300m");
    assert_eq!((late.status, late.headers.get("grpc-status").map(String::as_str)), (200, Some("4")), "{late:?}");
    for (timeout, most) in [("grpc-timeout: 3S", 3_000_000), ("grpc-timeout: 1H", 5_000_000)] {
        let answer = get("/", timeout);
        let told = answer.asked.get("timeout").and_then(|text| text.strip_suffix('u')?.parse::<u64>().ok());
        assert!(told.is_some_and(|micros| (1..most).contains(&micros)), "{timeout} {answer:?}");
    }
}

/// The same for requests that are not gRPC. Seen to fail without `Told::read` of it.
#[test]
fn deadlines_of_http_are_honoured_and_reduced() {
    let stage = Stage::start();
    stage.route(
        "  rules: [{matches: [{path: {value: /late}}]}, {matches: [{path: {value: /}}], timeouts: {request: 5s}}]",
    );
    for (protocol, get) in PROTOCOLS {
        let late = get(&stage, "/late", &["-H", "weir-timeout: 300ms"]);
        let error = late.headers.get("l5d-proxy-error").map(String::as_str);
        assert_eq!((late.status, error), (504, Some("request timeout")), "{protocol} {late:?}");
        for (timeout, most) in [("weir-timeout: 3s", 3000), ("weir-timeout: 1h", 5000), ("weir-timeout: soon", 0)] {
            let answer = get(&stage, "/", &["-H", timeout]);
            let told = answer.asked.get("weir").and_then(|text| text.strip_suffix("ms")?.parse::<u64>().ok());
            assert_eq!(
                told.map(|millis| (1..=most).contains(&millis)),
                (most > 0).then_some(true),
                "{protocol} {answer:?}"
            );
        }
    }
}

/// A request that is over leaves the connection that it asked for to the next one: else a limit shorter than a handshake would never get
/// one. Seen to fail with a dial that ends with its request.
#[test]
fn a_connection_outlives_the_request_that_asked_for_it() {
    const PORT: u16 = 9000;
    let mut stage = Stage::start();
    let mut options = ServiceOptions::new("brief", PORT, PORT);
    options.annotations = vec![("timeout.linkerd.io/request".to_owned(), "300ms".to_owned())];
    let address = stage.mesh.service(&options, &[&stage.servers[0]]);
    let worker = stage.mesh.worker(1).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    wait::until("a request is over before the handshake is", PATIENCE, || {
        let answer = ask(&stage.client, &format!("http://{address}:{PORT}/"), &[]);
        (answer.headers.get("l5d-proxy-error").map(String::as_str) == Some("request timeout")).then_some(())
    });
    kill_process(worker, Signal::CONT).unwrap();
    let labels = ["direction=\"outbound\"", "peer=\"dst\"", "dst_service=\"brief\""];
    wait::until("the connection is there", PATIENCE, || (stage.sum(0, "tcp_open_total", &labels) > 0.0).then_some(()));
}

/// What nobody waits for any more is no load of its endpoint. Seen to fail before `Attempt` counted what is dropped: each client that
/// left before its answer came was counted as open for ever.
#[test]
fn a_client_that_leaves_is_no_load() {
    let stage = Stage::start();
    stage.route("  rules: [{matches: [{path: {value: /late/limited}}], timeouts: {request: 200ms}}, {matches: [{path: {value: /}}]}]");
    for (protocol, get) in PROTOCOLS {
        for path in ["/late", "/late/limited"] {
            let answer = get(&stage, path, &["--max-time", "0.4"]);
            assert_eq!(answer.status, if path == "/late" { 0 } else { 504 }, "{protocol} {path}");
        }
    }
    wait::until("no request is open", PATIENCE, || {
        let config = stage.mesh.admin(0, "/config");
        let compact: String = config.split_whitespace().collect();
        let open =
            compact.split("\"pending\":").skip(1).filter(|rest| !rest.starts_with("0,") && !rest.starts_with("0}"));
        (open.count() == 0 && compact.contains("\"pending\":")).then_some(())
    });
}
