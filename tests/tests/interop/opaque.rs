//! Bytes that the mesh does not understand: half-close, resets, greetings, redis, bulk.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    stage::{HTTP1, OTHER, RAW, REDIS, Stage},
    wire::{End, Wire},
};

/// Bytes that no detection takes for anything.
const NOISE: &[u8] = b"\x00\x01 not any protocol \xff\xfe";

/// One connection that the client began with [`NOISE`].
fn opened(stage: &Stage, index: usize) -> (Wire, Wire) {
    let server = &stage.servers[index];
    let listener = server.listen(RAW);
    let mut client = stage.dial(server, RAW);
    client.send(NOISE);
    let mut app = Wire::accept(&listener);
    assert_eq!(app.exactly(NOISE.len()), NOISE, "{}", server.way);
    (client, app)
}

#[test]
fn the_client_closes_its_half_first() {
    let stage = Stage::new();
    for index in 0..2 {
        let (mut client, mut app) = opened(&stage, index);
        client.send("last words");
        client.finish();
        assert_eq!(app.rest(), "last words");
        app.send("answer ");
        assert_eq!(client.exactly(7), b"answer ");
        app.send("and more");
        drop(app);
        assert_eq!(client.rest(), "and more");
    }
}

#[test]
fn the_server_closes_its_half_first() {
    let stage = Stage::new();
    for index in 0..2 {
        let (mut client, mut app) = opened(&stage, index);
        app.send("bye");
        app.finish();
        assert_eq!(client.rest(), "bye");
        client.send("one ");
        assert_eq!(app.exactly(4), b"one ");
        client.send("two");
        client.finish();
        assert_eq!(app.rest(), "two");
    }
}

/// A half-close before a byte was sent, as `nc -N` does with nothing to say.
#[test]
fn a_half_close_without_a_byte_passes() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut client = stage.dial(server, RAW);
        client.finish();
        let mut app = Wire::accept(&listener);
        assert_eq!(app.rest(), "", "{}", server.way);
        app.send("all the same");
        drop(app);
        assert_eq!(client.rest(), "all the same", "{}", server.way);
    }
}

#[test]
fn a_reset_of_the_client_is_a_reset_at_the_server() {
    let stage = Stage::new();
    for (index, server) in stage.servers.iter().enumerate() {
        let (client, mut app) = opened(&stage, index);
        client.reset();
        assert_eq!(app.end(), End::Reset, "{}", server.way);
    }
}

#[test]
fn a_reset_of_the_server_is_a_reset_at_the_client() {
    let stage = Stage::new();
    for (index, server) in stage.servers.iter().enumerate() {
        let (mut client, app) = opened(&stage, index);
        app.reset();
        assert_eq!(client.end(), End::Reset, "{}", server.way);
    }
}

/// Nobody listens: the client is told by a reset, as it would be without the mesh.
#[test]
fn a_refused_opaque_connection_is_reset() {
    let stage = Stage::new();
    for server in &stage.servers {
        let mut client = stage.dial(server, RAW);
        client.send(NOISE);
        assert_eq!(client.end(), End::Reset, "{}", server.way);
    }
}

/// A greeting on a port of which nobody said that the server speaks first.
#[test]
fn a_server_that_speaks_first_does_not_stall() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _connection in 0..5 {
                    let mut app = Wire::accept(&listener);
                    app.send("220 mail.example ESMTP\r\n");
                    assert_eq!(app.until("\r\n"), "EHLO client.example\r\n");
                    app.send("250 fine\r\n");
                    assert_eq!(app.rest(), "");
                }
            });
            let mut fastest = Duration::MAX;
            for _connection in 0..5 {
                let began = Instant::now();
                let mut client = stage.dial(server, RAW);
                assert_eq!(client.until("\r\n"), "220 mail.example ESMTP\r\n");
                fastest = fastest.min(began.elapsed());
                client.send("EHLO client.example\r\n");
                assert_eq!(client.until("\r\n"), "250 fine\r\n");
            }
            // Twice 10 ms of silence, two handshakes, a busy machine; never a detection timeout of seconds.
            assert!(fastest < Duration::from_millis(250), "{}: {fastest:?}", server.way);
        });
    }
}

/// A client that thinks before it speaks HTTP still gets HTTP: its requests are told apart, and it is named to the application.
#[test]
fn a_client_that_speaks_late_still_speaks_http() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut client = stage.dial(server, RAW);
        // The connection dialled during the silence.
        let mut idle = Wire::accept(&listener);
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.end(), End::Closed, "{}: not needed for HTTP", server.way);
        assert_eq!(idle.seen(), "", "{}", server.way);
        let mut app = Wire::accept(&listener);
        let head = app.head();
        assert_eq!(head.get("l5d-client-id"), Some(stage.client.identity().as_str()), "{}", server.way);
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.exactly(2), b"ok");
    }
}

/// A method that dribbles in byte by byte is HTTP; something that only begins like one is not.
#[test]
fn first_bytes_that_dribble_are_waited_for() {
    let stage = Stage::new();
    for server in &stage.servers {
        let listener = server.listen(RAW);
        let mut client = stage.dial(server, RAW);
        client.tcp.set_nodelay(true).unwrap();
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
            client.send([*byte]);
        }
        let mut app = Wire::accept(&listener);
        assert!(app.head().get("l5d-client-id").is_some(), "{}", server.way);
        drop((app, client));
        let mut client = stage.dial(server, RAW);
        client.send("GETTING nowhere\n");
        let mut app = Wire::accept(&listener);
        assert_eq!(app.until("\n"), "GETTING nowhere\n", "{}", server.way);
    }
}

#[test]
fn redis_answers_and_is_measured() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let command = ["redis-server", "--port", "6379", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"];
        let running = stage.start(&stage.servers[index].pod, "redis", &command, REDIS);
        stage.keep(running);
        let server = &stage.servers[index];
        let cli = |words: &[&str]| stage.client.run("redis-cli", &[&["-h", &server.address][..], words].concat());
        assert_eq!(cli(&["set", "key", "value"]).trim(), "OK");
        assert_eq!(cli(&["get", "key"]).trim(), "value", "{}", server.way);
        let arguments = ["-h", &server.address, "-n", "2000", "-c", "10", "-P", "16", "-q", "-t", "set,get,lpush"];
        let said = stage.client.run("redis-benchmark", &arguments);
        assert!(said.contains("LPUSH:") && !said.contains("rror"), "{}: {said}", server.way);
        let labels = [format!("dst_pod=\"{}\"", server.pod.name), "tls=\"true\"".to_owned()];
        let opened = stage.metric(0, "tcp_open_total", &labels.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(opened >= 3.0, "{}: {opened} connections counted", server.way);
    }
}

/// 64 MB each way at the same time, compared byte for byte.
#[test]
fn bulk_goes_both_ways_to_the_byte() {
    const BYTES: usize = 64 * 1024 * 1024;
    let stage = Stage::new();
    for index in 0..2 {
        let (client, app) = opened(&stage, index);
        thread::scope(|scope| {
            for (wire, own, other) in [(&client, 1, 2), (&app, 2, 1)] {
                let mut writer = wire.tcp.try_clone().unwrap();
                scope.spawn(move || {
                    stream(own, BYTES, |part| writer.write_all(part).unwrap());
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut reader: TcpStream = wire.tcp.try_clone().unwrap();
                scope.spawn(move || {
                    let mut got = vec![0; 64 * 1024];
                    stream(other, BYTES, |wanted| {
                        reader.read_exact(&mut got[..wanted.len()]).unwrap();
                        assert!(got[..wanted.len()] == *wanted, "other bytes came than were sent");
                    });
                    assert_eq!(reader.read(&mut got).unwrap(), 0, "more bytes came than were sent");
                });
            }
        });
    }
}

/// Reproducible noise in parts of changing size (xorshift).
fn stream(seed: u64, total: usize, mut part: impl FnMut(&[u8])) {
    let (mut state, mut left) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), total);
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        for word in buffer.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let size = left.min(1 + usize::try_from(state % (64 * 1024)).unwrap());
        part(&buffer[..size]);
        left -= size;
    }
}

/// An opaque connection on which nobody speaks for a while stays.
#[test]
fn an_idle_opaque_connection_stays() {
    let stage = Stage::new();
    let mut pairs = [opened(&stage, 0), opened(&stage, 1)];
    assert!(pairs[0].0.is_silent_for(Duration::from_secs(5)), "closed while idle");
    for (client, app) in &mut pairs {
        app.send("pong");
        assert_eq!(client.exactly(4), b"pong");
        client.send("ping");
        assert_eq!(app.exactly(4), b"ping");
    }
}

/// Two programs of others', socat with half-close and ncat, through both ways.
#[test]
fn socat_and_ncat_exchange_files() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let server = &stage.servers[index].pod;
        let sums = ["socat", "-t", "30", "TCP6-LISTEN:9000,ipv6only=0,fork,reuseaddr", "SYSTEM:sha256sum"];
        let running = [
            stage.start(server, "socat", &sums, RAW),
            stage.start(
                server,
                "echo",
                &["socat", "-t", "30", "TCP6-LISTEN:9001,ipv6only=0,fork,reuseaddr", "EXEC:/bin/cat"],
                OTHER,
            ),
        ];
        running.into_iter().for_each(|program| stage.keep(program));
        let server = &stage.servers[index];
        let file = stage.folder("files").join("noise");
        crate::stage::noise(&file, 8);
        let sum = format!("socat -t 30 - TCP:{}:{RAW} < {}", server.address, file.display());
        let said = stage.client.run("sh", &["-c", &sum]);
        assert!(said.starts_with(&crate::stage::digest(&file)), "{}: {said}", server.way);
        let echo = format!("ncat {} {OTHER} < {} | sha256sum", server.address, file.display());
        let said = stage.client.run("sh", &["-c", &echo]);
        assert!(said.starts_with(&crate::stage::digest(&file)), "{}: {said}", server.way);
    }
    // Never one of them on another port.
    let refused = stage.client.curl(&[&stage.far().url(HTTP1, "/")]);
    assert!(String::from_utf8_lossy(&refused.stdout).is_empty(), "{refused:?}");
}
