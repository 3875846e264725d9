//! HTTP/1.0 and HTTP/1.1.

use weir_tests::{mesh::Pod, nginx, wait};

use crate::{
    stage::{HTTP1, RAW, Stage, digest, noise},
    wire::{End, Wire},
};

/// Many requests over one connection, sent before the first answer came: answered in order.
#[test]
fn pipelined_requests_are_answered_in_order_and_the_connection_stays() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        let mut wire = stage.dial(server, HTTP1);
        for _round in 0..2 {
            let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            wire.send([request("/name"), request("/address"), request("/nothing"), request("/name")].concat());
            let wanted = [
                format!("{}\n", server.pod.name),
                format!("::ffff:{}\n", stage.client.place.v4),
                String::new(),
                format!("{}\n", server.pod.name),
            ];
            for (index, wanted) in wanted.iter().enumerate() {
                let head = wire.head();
                let body = wire.exactly(head.get("content-length").unwrap().parse().unwrap());
                if index == 2 {
                    assert_eq!(head.status(), 404, "{}: {head:?}", server.way);
                } else {
                    assert_eq!(
                        (head.status(), String::from_utf8(body).unwrap()),
                        (200, wanted.clone()),
                        "{}",
                        server.way
                    );
                }
            }
        }
        wire.send("GET /name HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(wire.head().get("connection"), Some("close"));
        assert_eq!(wire.rest(), format!("{}\n", server.pod.name));
    }
}

/// HTTP/1.0 closes unless asked not to, and never sees chunks.
#[test]
fn http_1_0_closes_unless_asked_and_never_sees_chunks() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        let mut wire = stage.dial(server, HTTP1);
        wire.send("GET /name HTTP/1.0\r\n\r\n");
        assert_eq!(wire.head().status(), 200);
        assert_eq!(wire.rest(), format!("{}\n", server.pod.name), "{}", server.way);

        let mut wire = stage.dial(server, HTTP1);
        for _round in 0..2 {
            wire.send("GET /name HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            let head = wire.head();
            assert!(head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")), "{head:?}");
            wire.exactly(head.get("content-length").unwrap().parse().unwrap());
        }

        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("GET / HTTP/1.0\r\n\r\n");
        let mut app = Wire::accept(&listener);
        app.head();
        app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        let head = wire.head();
        assert_eq!(head.get("transfer-encoding"), None, "{}: {head:?}", server.way);
        assert_eq!(wire.rest(), "abcde");
    }
}

/// Chunks come as they are sent, not when the body is complete; trailers pass both ways.
#[test]
fn chunks_flow_both_ways_at_once_with_trailers() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n");
        let mut app = Wire::accept(&listener);
        let head = app.head();
        assert_eq!(head.get("transfer-encoding"), Some("chunked"), "{head:?}");
        assert_eq!(app.until("hello\r\n"), "5\r\nhello\r\n");
        app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n3\r\nyes\r\n");
        assert_eq!(wire.head().get("transfer-encoding"), Some("chunked"));
        assert_eq!(wire.until("yes\r\n"), "3\r\nyes\r\n");
        wire.send("3\r\nyou\r\n0\r\nx-sum: 8\r\n\r\n");
        assert_eq!(app.until("\r\n\r\n"), "3\r\nyou\r\n0\r\nx-sum: 8\r\n\r\n", "{}", server.way);
        app.send("0\r\nx-end: 3\r\n\r\n");
        assert_eq!(wire.until("\r\n\r\n"), "0\r\nx-end: 3\r\n\r\n", "{}", server.way);
    }
}

/// Interim answers reach the client as they come, before the answer itself is known, and fields of a connection do not pass with them. A client of
/// HTTP/1.0 gets none. Seen to fail without waiting for them before the answer, and without forwarding.
#[test]
fn interim_responses_arrive_before_the_answer() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut app = Wire::accept(&listener);
        for round in 0..3 {
            app.head();
            app.send("HTTP/1.1 102 Processing\r\n\r\n");
            assert_eq!(wire.head().status(), 102, "{}", server.way);
            app.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Own\r\nX-Own: 1\r\nContent-Length: 7\r\n\r\n");
            let head = wire.head();
            assert_eq!((head.status(), head.get("link")), (103, Some("</a.css>")), "{}", server.way);
            assert!(["connection", "x-own", "content-length"].iter().all(|name| head.get(name).is_none()), "{head:?}");
            // With the answer in one piece, and the next request on its way.
            wire.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
            app.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
            );
            let head = wire.head();
            assert_eq!((head.status(), head.get("link")), (103, Some("</b.css>")), "{} {round}", server.way);
            let head = wire.head();
            assert_eq!((head.status(), head.get("link")), (200, None), "{} {round}", server.way);
            assert_eq!(wire.exactly(5), b"whole", "{} {round}", server.way);
        }
        app.head();
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wire.head().status(), 200);

        drop((app, wire));
        let mut wire = stage.dial(server, RAW);
        wire.send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
        let mut app = Wire::accept(&listener);
        app.head();
        app.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wire.head().status(), 200, "{}", server.way);
    }
}

/// A client that waits for 100 gets it once, and other interim answers too.
#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        let mut app = Wire::accept(&listener);
        app.head();
        app.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        assert_eq!(wire.head().status(), 100, "{}", server.way);
        wire.send("body");
        assert_eq!(app.exactly(4), b"body");
        app.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wire.head().status(), 103, "{}", server.way);
        let head = wire.head();
        assert_eq!(head.status(), 201, "{}: {head:?}", server.way);
        wire.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(app.head().first(), "GET /again HTTP/1.1");
    }
}

/// Messages that have no body, whatever their fields say, do not shift what follows.
#[test]
fn head_204_and_304_have_no_body() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\nGET /same HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut app = Wire::accept(&listener);
        for (request, answer) in [
            ("HEAD /head HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
            ("GET /none HTTP/1.1", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET /same HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
            ("GET /last HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend"),
        ] {
            assert_eq!(app.head().first(), request, "{}", server.way);
            app.send(answer);
        }
        let head = wire.head();
        assert_eq!((head.status(), head.get("content-length")), (200, Some("12345")), "{head:?}");
        let head = wire.head();
        assert_eq!((head.status(), head.get("transfer-encoding")), (204, None), "{head:?}");
        let head = wire.head();
        assert_eq!((head.status(), head.get("etag")), (304, Some("\"x\"")), "{head:?}");
        assert_eq!(wire.head().status(), 200);
        assert_eq!(wire.exactly(3), b"end");
    }
}

/// 50 MB up and down by curl, to the byte.
#[test]
fn large_bodies_arrive_to_the_byte() {
    let mut stage = Stage::new();
    let file = stage.folder("client").join("noise");
    noise(&file, 50);
    for index in 0..2 {
        let (pod, folder) = (&stage.servers[index].pod, stage.folder(&format!("dav-{index}")));
        let running = dav(&stage, pod, &folder);
        stage.keep(running);
        let server = &stage.servers[index];
        let url = server.url(HTTP1, "/noise");
        let up =
            stage.client.curl(&["--max-time", "60", "--expect100-timeout", "30", "-T", file.to_str().unwrap(), &url]);
        assert!(up.status.success(), "{}: {up:?}", server.way);
        assert_eq!(digest(&folder.join("files/noise")), digest(&file), "{}: upload", server.way);
        let down = stage.folder("client").join("down");
        let got = stage.client.curl(&["--max-time", "60", "--fail", "-o", down.to_str().unwrap(), &url]);
        assert!(got.status.success(), "{}: {got:?}", server.way);
        assert_eq!(digest(&down), digest(&file), "{}: download", server.way);
        // The same body without a length.
        let head = ["--max-time", "60", "-H", "Transfer-Encoding: chunked", "-T", file.to_str().unwrap()];
        let chunked = stage.client.curl(&[&head[..], &[&server.url(HTTP1, "/chunked")]].concat());
        assert!(chunked.status.success(), "{}: {chunked:?}", server.way);
        assert_eq!(digest(&folder.join("files/chunked")), digest(&file), "{}: chunked upload", server.way);
    }
}

/// nginx that takes uploads, on HTTP/1 and HTTP/2.
pub(crate) fn dav(stage: &Stage, pod: &Pod, folder: &std::path::Path) -> weir_tests::daemon::Daemon {
    let location = "location / { root {FOLDER}/files; client_max_body_size 0; dav_methods PUT; }";
    let servers = format!(
        "server {{ listen [::]:8080 ipv6only=off; {location} }} server {{ listen [::]:8081 ipv6only=off http2; {location} }}"
    );
    nginx::run(&pod.place.netns, &pod.name, &servers, folder, &stage.mesh.path("logs"))
}

/// A server that closes after a few requests loses none of them.
#[test]
fn a_server_that_closes_often_loses_no_request() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let pod = &stage.servers[index].pod;
        let locations = "keepalive_requests 3; location / { return 200 \"fine\\n\"; }";
        let servers = format!("server {{ listen [::]:8080 ipv6only=off; {locations} }}");
        let folder = stage.folder(&format!("nginx-{index}"));
        let running = nginx::run(&pod.place.netns, &pod.name, &servers, &folder, &stage.mesh.path("logs"));
        stage.keep(running);
        let server = &stage.servers[index];
        let said = stage.client.run("h2load", &["--h1", "-n", "300", "-c", "6", &server.url(HTTP1, "/")]);
        assert!(said.contains("300 succeeded, 0 failed"), "{}: {said}", server.way);
        assert!(said.contains("status codes: 300 2xx"), "{}: {said}", server.way);
    }
}

/// WebSocket's way out of HTTP: bytes both ways, and each half closes by itself.
#[test]
fn an_upgrade_leaves_http_and_keeps_half_close() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        wire.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        let mut app = Wire::accept(&listener);
        let head = app.head();
        assert_eq!(head.get("upgrade"), Some("websocket"), "{}: {head:?}", server.way);
        assert_eq!(head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        app.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}early");
        let head = wire.head();
        assert_eq!((head.status(), head.get("upgrade")), (101, Some("websocket")), "{}: {head:?}", server.way);
        assert!(head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head:?}");
        assert_eq!(wire.exactly(6), b"\x01early");
        for round in 0..3_u8 {
            wire.send([round; 1000]);
            assert_eq!(app.exactly(1000), [round; 1000]);
            app.send([round ^ 0xff; 1000]);
            assert_eq!(wire.exactly(1000), [round ^ 0xff; 1000]);
        }
        wire.finish();
        assert_eq!(app.end(), End::Closed, "{}", server.way);
        app.send("still here");
        drop(app);
        assert_eq!(wire.rest(), "still here", "{}", server.way);
    }
}

/// An upgrade that the server does not want is a plain answer, and the connection goes on.
#[test]
fn a_refused_upgrade_is_an_answer_as_any_other() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        let mut wire = stage.dial(server, HTTP1);
        for _round in 0..2 {
            wire.send("GET /name HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            let head = wire.head();
            assert_eq!(head.status(), 200, "{}: {head:?}", server.way);
            wire.exactly(head.get("content-length").unwrap().parse().unwrap());
        }
    }
}

/// A CONNECT proxy (ncat) in a pod, used by curl in another one.
#[test]
fn connect_tunnels_through_a_proxy_in_a_pod() {
    let mut stage = Stage::with_nginx();
    for index in 0..2 {
        let server = &stage.servers[index];
        let running =
            stage.start(&server.pod, "ncat", &["ncat", "--listen", "--keep-open", "--proxy-type", "http", "9000"], RAW);
        stage.keep(running);
        let (server, other) = (&stage.servers[index], &stage.servers[1 - index]);
        let proxy = format!("http://{}:{RAW}", server.address);
        let got = stage.client.curl(&["--proxytunnel", "--proxy", &proxy, &other.url(HTTP1, "/name")]);
        assert_eq!(String::from_utf8_lossy(&got.stdout), format!("{}\n", other.pod.name), "{}: {got:?}", server.way);
    }
}

/// Request targets in all their forms reach the application as one that it understands.
#[test]
fn absolute_form_and_host_agree() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        let ask = |wire: &mut Wire, app: &mut Option<Wire>, request: &str| {
            wire.send(request);
            let app = app.get_or_insert_with(|| Wire::accept(&listener));
            let head = app.head();
            app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(wire.head().status(), 200);
            head
        };
        let mut app = None;
        let head = ask(&mut wire, &mut app, "GET http://shop.example/a?b=c HTTP/1.1\r\nHost: other.example\r\n\r\n");
        assert_eq!(head.get("host"), Some("shop.example"), "{}: RFC 9112 3.2.2: {head:?}", server.way);
        assert!(head.first().ends_with("/a?b=c HTTP/1.1"), "{head:?}");
        let head = ask(&mut wire, &mut app, "OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!((head.first(), head.get("host")), ("OPTIONS * HTTP/1.1", Some("shop.example")), "{}", server.way);
        let head = ask(&mut wire, &mut app, "GET /a%2Fb//c/../d;e?f=%00&g#h HTTP/1.1\r\nHost: shop.example:81\r\n\r\n");
        assert!(head.first().starts_with("GET /a%2Fb//c/../d;e?f=%00&g"), "{}: {head:?}", server.way);
        assert_eq!(head.get("host"), Some("shop.example:81"));
    }
}

/// Fields pass in number and in order; what concerns one connection only does not.
#[test]
fn fields_pass_but_for_those_of_the_connection() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut wire = stage.dial(server, RAW);
        let many: String = (0..80).map(|number| format!("X-Field-{number}: {}\r\n", "v".repeat(200))).collect();
        wire.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: secret\r\nConnection: X-Second\r\nX-Second: secret\r\nKeep-Alive: timeout=5\r\nl5d-client-id: forged\r\nAccept: a\r\nAccept: b\r\n{many}\r\n"
        ));
        let mut app = Wire::accept(&listener);
        let head = app.head();
        assert_eq!(
            (0..80).filter(|number| head.get(&format!("x-field-{number}")).is_some()).count(),
            80,
            "{}",
            server.way
        );
        assert_eq!(head.all("accept"), ["a", "b"]);
        for name in ["x-mine", "x-second", "keep-alive"] {
            assert_eq!(head.get(name), None, "{}: {head:?}", server.way);
        }
        assert_eq!(head.get("l5d-client-id"), Some(stage.client.identity().as_str()), "{}", server.way);
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\n\r\n");
        let head = wire.head();
        assert_eq!(head.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(head.get("x-theirs"), None, "{}: {head:?}", server.way);
    }
}

/// An idle connection is parked after two seconds and serves on.
#[test]
fn an_idle_connection_serves_on() {
    let stage = Stage::with_nginx();
    let mut wires: Vec<_> = stage.servers.iter().map(|server| stage.dial(server, HTTP1)).collect();
    let ask = |wire: &mut Wire| {
        wire.send("GET /name HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = wire.head();
        assert_eq!(head.status(), 200);
        wire.exactly(head.get("content-length").unwrap().parse().unwrap());
    };
    wires.iter_mut().for_each(ask);
    let silent = std::time::Duration::from_millis(4500);
    assert!(wires[0].is_silent_for(silent), "an idle connection was closed");
    wires.iter_mut().for_each(ask);
    // Nothing of it is left in a pool for longer than the application would keep it.
    let open = || stage.far().pod.run("ss", &["-Htn", "state", "established", &format!("sport = :{HTTP1}")]);
    wait::until("pooled connections to the application are over", std::time::Duration::from_secs(10), || {
        // One is the mTLS connection of the other node, which ends in the proxy.
        (open().lines().count() <= 1).then_some(())
    });
}

/// A server that closes after each answer without having said so, as one does whose idle time is over.
#[test]
fn a_server_that_closes_without_a_word_loses_no_request() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let answering = std::thread::spawn(move || {
            let mut answered = 0;
            while answered < 400 {
                let mut app = Wire::accept(&listener);
                if app.has_head() {
                    app.head();
                    app.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    answered += 1;
                }
            }
        });
        let mut wire = stage.dial(server, RAW);
        let mut refused = 0;
        for _request in 0..400 {
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = wire.head();
            refused += usize::from(head.status() != 200);
            wire.exactly(head.get("content-length").unwrap().parse().unwrap());
        }
        assert_eq!(refused, 0, "{}", server.way);
        answering.join().unwrap();
    }
}

/// A kept connection dies under a request: a safe one is sent again on another (RFC 9110 9.2.2), any other one never.
#[test]
fn a_kept_connection_that_dies_under_a_request_is_replaced_for_safe_methods_only() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let answering = std::thread::spawn(move || {
            let under = ["GET", "POST"].map(|method| {
                let mut app = Wire::accept(&listener);
                app.head();
                app.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                (method, app.head().0)
            });
            (under, listener)
        });
        let mut wire = stage.dial(server, RAW);
        let statuses = ["GET", "GET", "POST"].map(|method| {
            wire.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
            let head = wire.head();
            wire.exactly(head.get("content-length").unwrap().parse().unwrap());
            head.status()
        });
        assert_eq!(statuses, [200, 200, 502], "{}", server.way);
        let (under, listener) = answering.join().unwrap();
        for (method, head) in under {
            assert!(head.to_uppercase().starts_with(method), "{}: {head}", server.way);
        }
        let again = listener.accept().map(|_| ()).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock, "{}: the POST was sent again", server.way);
    }
}
