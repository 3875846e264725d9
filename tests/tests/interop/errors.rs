//! What the proxy refuses, and what it says when something behind it fails.

use std::time::{Duration, Instant};

use weir_tests::{nginx, wait};

use crate::{
    stage::{HTTP1, RAW, Stage, noise},
    wire::{PATIENCE, Wire},
};

/// Requests that two programs could read differently.
const AMBIGUOUS: [(&str, &str); 13] = [
    ("two hosts", "Host: b\r\nContent-Length: 5\r\n\r\nhello"),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("a list of lengths", "Content-Length: 5, 6\r\n\r\nhello!"),
    ("a signed length", "Content-Length: +5\r\n\r\nhello"),
    ("a negative length", "Content-Length: -1\r\n\r\n"),
    ("a hexadecimal length", "Content-Length: 0x5\r\n\r\nhello"),
    ("a length beyond 64 bits", "Content-Length: 18446744073709551616\r\n\r\n"),
    ("an unknown coding last", "Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n"),
    ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("space before the colon", "Content-Length : 5\r\n\r\nhello"),
    ("a folded line", "X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"),
    ("a NUL in a value", "X-A: b\0c\r\nContent-Length: 5\r\n\r\nhello"),
    ("no name", ": b\r\nContent-Length: 5\r\n\r\nhello"),
];

/// Each is answered with 400 and the connection closed.
#[test]
fn ambiguous_requests_are_refused() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        listener.set_nonblocking(true).unwrap();
        let mut wrong = Vec::new();
        for (what, shape) in AMBIGUOUS {
            let mut wire = stage.dial(server, RAW);
            wire.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{shape}"));
            wire.tcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut first = [0; 12];
            let answered = std::io::Read::read(&mut wire.tcp, &mut first);
            if !matches!(answered, Ok(12)) || &first != b"HTTP/1.1 400" {
                wrong.push(format!("{what}: {answered:?} {:?}", String::from_utf8_lossy(&first)));
                continue;
            }
            wire.end();
        }
        assert!(wrong.is_empty(), "{}: {wrong:#?}", server.way);
        assert!(listener.accept().is_err(), "{}: something reached the application", server.way);
    }
}

/// Chunks beat a length (RFC 9112 6.3): the application sees the chunks only, and nothing that follows on that connection.
#[test]
fn length_and_chunks_together_have_one_reading() {
    let stage = Stage::new();
    let stolen = "GET /stolen HTTP/1.1\r\nHost: a\r\n\r\n";
    for server in &stage.servers {
        let listener = server.listen(RAW);
        for fields in
            ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
        {
            let mut wire = stage.dial(server, RAW);
            wire.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{stolen}"));
            let mut app = Wire::accept(&listener);
            let head = app.head();
            assert_eq!(
                (head.get("transfer-encoding"), head.get("content-length")),
                (Some("chunked"), None),
                "{head:?}"
            );
            assert_eq!(app.until("\r\n\r\n"), "0\r\n\r\n");
            app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(wire.head().status(), 200);
            wire.end();
            assert!(!app.has_more(), "{}: {:?}", server.way, app.seen());
        }
    }
}

/// Chunks that are none end the request; the application never takes it for complete.
#[test]
fn broken_chunks_never_complete_a_request() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        listener.set_nonblocking(true).unwrap();
        for chunks in BROKEN_CHUNKS {
            let mut wire = stage.dial(server, RAW);
            wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
            wire.end();
            let said = wire.seen();
            assert!(
                said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 502"),
                "{}: {chunks:?}: {said}",
                server.way
            );
            // It may have come as far as the application, but not to its end.
            if let Ok((tcp, _peer)) = listener.accept() {
                tcp.set_nonblocking(false).unwrap();
                let mut app = Wire::new(tcp);
                app.end();
                let seen = app.seen();
                assert!(!seen.ends_with("0\r\n\r\n"), "{}: {chunks:?} came through as {seen:?}", server.way);
            }
        }
    }
}

/// Bodies in chunks that break the grammar of RFC 9112 7.1.
const BROKEN_CHUNKS: [&str; 6] = [
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "-1\r\n\r\n",
    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ";\r\n\r\n",
];

/// More fields than `HTTP_HEADERS` of docs/limits.md: 431, and the connection is over.
#[test]
fn too_many_fields_are_refused() {
    let stage = Stage::with_nginx();
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: v\r\n")).collect::<String>();
    // With Host a hundred.
    let mut wire = stage.dial(stage.far(), HTTP1);
    wire.send(format!("GET /name HTTP/1.1\r\nHost: a\r\n{}\r\n", many(99)));
    assert_eq!(wire.head().status(), 200);
    for fields in [many(100), many(200), format!("X-Long: {}\r\n", "v".repeat(100 * 1024))] {
        let mut wire = stage.dial(stage.far(), HTTP1);
        wire.send(format!("GET /name HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(wire.head().status(), 431);
        wire.end();
    }
    assert_eq!(stage.client.get(&stage.far().url(HTTP1, "/name")), "far-2\n");
}

/// A request that fails, and what the client is told.
fn ask(stage: &Stage, url: &str) -> (u16, Option<String>) {
    let output = stage.client.curl(&["-i", url]);
    assert!(output.status.success(), "{output:?}");
    let head = crate::wire::Head(String::from_utf8_lossy(&output.stdout).into_owned());
    (head.status(), head.get("l5d-proxy-error").map(str::to_owned))
}

/// Nobody listens: 502 and the reason, from whichever proxy saw it.
#[test]
fn a_refused_connection_is_502_with_the_reason() {
    let stage = Stage::new();
    for server in &stage.servers {
        let (status, reason) = ask(&stage, &server.url(RAW, "/"));
        assert_eq!(status, 502, "{}", server.way);
        assert!(reason.as_ref().is_some_and(|text| text.contains("connect")), "{}: {reason:?}", server.way);
    }
}

/// The application dies with the request on it, or answers with something else than HTTP: 502 and the reason.
#[test]
fn an_answer_that_is_none_is_502_with_the_reason() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        for answer in [
            "",
            "HTTP/1.1 banana\r\n\r\n",
            "220 mail.example ESMTP\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ] {
            let mut wire = stage.dial(server, RAW);
            wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            let mut app = Wire::accept(&listener);
            app.head();
            app.exactly(2);
            app.send(answer);
            drop(app);
            let head = wire.head();
            assert_eq!(head.status(), 502, "{} {answer:?}: {head:?}", server.way);
            assert!(head.get("l5d-proxy-error").is_some(), "{} {answer:?}: {head:?}", server.way);
        }
    }
}

/// A response that breaks off is never taken for complete.
#[test]
fn a_response_that_breaks_off_is_seen_to() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        for (head, exit) in [("Content-Length: 100", 18), ("Transfer-Encoding: chunked", 18)] {
            std::thread::scope(|scope| {
                let asked = scope.spawn(|| stage.client.curl(&[&server.url(RAW, "/")]));
                let mut app = Wire::accept(&listener);
                app.head();
                app.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
                drop(app);
                let output = asked.join().unwrap();
                assert_eq!(output.status.code(), Some(exit), "{} {head}: {output:?}", server.way);
            });
        }
    }
}

/// No endpoint is ready: the request waits for the failfast time, then 504; the next ones are refused at once.
#[test]
fn without_a_ready_endpoint_failfast_answers() {
    let mut stage = Stage::with_nginx();
    assert_eq!(stage.client.get(&stage.far().url(HTTP1, "/name")), "far-2\n");
    stage.servers[0].pod.ready = false;
    let far = &stage.servers[0];
    stage.mesh.endpoints(&far.options, &far.address, &[&far.pod]);
    let url = far.url(HTTP1, "/name");
    // The change arrives within a second; until then the endpoint answers.
    let (first, took) = wait::until("the endpoint is gone", Duration::from_secs(8), || {
        let began = Instant::now();
        let answer = ask(&stage, &url);
        (answer.0 != 200).then(|| (answer, began.elapsed()))
    });
    assert_eq!(first.0, 504, "{first:?}");
    assert!(first.1.as_ref().is_some_and(|text| text.contains("failfast")), "{first:?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let began = Instant::now();
    assert_eq!(ask(&stage, &url).0, 504);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // It comes back without being asked.
    stage.servers[0].pod.ready = true;
    let far = &stage.servers[0];
    stage.mesh.endpoints(&far.options, &far.address, &[&far.pod]);
    wait::until("the endpoint is back", Duration::from_secs(3), || (ask(&stage, &url).0 == 200).then_some(()));
}

/// An answer that comes before the request is complete reaches the client.
#[test]
fn an_answer_to_half_a_request_arrives() {
    let mut stage = Stage::new();
    let file = stage.folder("client").join("noise");
    noise(&file, 20);
    for index in 0..2 {
        let pod = &stage.servers[index].pod;
        let servers = "server { listen [::]:8080 ipv6only=off; client_max_body_size 1k; location / { root {FOLDER}/files; dav_methods PUT; } }";
        let folder = stage.folder(&format!("nginx-{index}"));
        let running = nginx::run(&pod.place.netns, &pod.name, servers, &folder, &stage.mesh.path("logs"));
        stage.keep(running);
        let server = &stage.servers[index];
        let arguments = ["-H", "Expect:", "-w", "%{http_code}", "-o", "/dev/null", "-T", file.to_str().unwrap()];
        let got = stage.client.curl(&[&arguments[..], &[&server.url(HTTP1, "/put")]].concat());
        assert_eq!(String::from_utf8_lossy(&got.stdout), "413", "{}: {got:?}", server.way);
    }
}

/// A client that leaves in the middle of an answer ends it at the application, and nobody waits for the rest.
#[test]
fn a_client_that_leaves_ends_the_request_at_the_application() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        for reset in [true, false] {
            let mut wire = stage.dial(server, RAW);
            wire.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut app = Wire::accept(&listener);
            app.head();
            app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            wire.head();
            assert_eq!(wire.until("hello\r\n"), "5\r\nhello\r\n");
            if reset {
                wire.reset();
            } else {
                drop(wire);
            }
            // A close is seen when the next bytes are refused.
            wait::until(&format!("{}: the application is told (reset: {reset})", server.way), PATIENCE, || {
                app.try_send("5\r\nagain\r\n").is_err().then_some(())
            });
        }
    }
}
