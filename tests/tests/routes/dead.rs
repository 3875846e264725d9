//! Applications that are gone while their pods are still said to be ready: their proxies live, and answer for them.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use weir_tests::{
    daemon::Daemon,
    mesh::{NAMESPACE, Pod, ServiceOptions},
    nginx, wait,
};

use crate::{
    stage::{PATIENCE, Stage, ask},
    turns::{Accepting, head, listen},
};

/// Nobody listens there but in the pod that lives.
const HTTP1: u16 = 9400;
const HTTP2: u16 = 9401;
/// How a client speaks to which port.
const HOW: [(u16, &[&str]); 4] =
    [(HTTP1, &[]), (HTTP2, &["--http2-prior-knowledge"]), (HTTP1, &["--request", "DELETE"]), (HTTP1, &["--head"])];

fn living(stage: &Stage, index: usize, answer: &str) -> Daemon {
    let servers = format!(
        "server {{ listen [::]:{HTTP1} ipv6only=off; {answer} }}\nserver {{ listen [::]:{HTTP2} ipv6only=off http2; {answer} }}\n"
    );
    let name = format!("living-{index}");
    let folder = stage.mesh.path(&format!("nginx-{name}"));
    nginx::run(&stage.servers[index].place.netns, &name, &servers, &folder, &stage.mesh.path("logs"))
}

/// A Service with these servers that the client's node knows; its URL.
fn service(stage: &mut Stage, name: &str, port: u16, servers: &[usize]) -> String {
    let Stage { mesh, servers: all, .. } = stage;
    let pods: Vec<&Pod> = servers.iter().map(|index| &all[*index]).collect();
    let address = mesh.service(&ServiceOptions::new(name, port, port), &pods);
    let url = format!("http://{address}:{port}/");
    wait::until(&format!("{name} is known"), PATIENCE, || {
        // A destination that nobody dialled is not known yet.
        ask(&stage.client, &url, &[]);
        stage.mesh.admin(0, "/config").contains(&format!("\"{NAMESPACE}/{name}\"")).then_some(())
    });
    url
}

/// What a node's clients heard of a dead application, whether they noticed or not.
fn asked(stage: &Stage, service: &str, dead: usize) -> f64 {
    let labels = [
        "direction=\"outbound\"".to_owned(),
        format!("dst_service=\"{service}\""),
        format!("dst_pod=\"{}\"", stage.servers[dead].name),
        "status_code=\"502\"".to_owned(),
    ];
    stage.sum(0, "response_total", &labels.each_ref().map(String::as_str))
}

/// What has no body is asked of another endpoint, on the other node and on the client's own, whatever its method: nobody has seen it. No retry is
/// configured. Seen to fail with the far proxy's answer passed on.
#[test]
fn requests_without_a_body_do_not_meet_it() {
    for dead in [0, 1] {
        let mut stage = Stage::start();
        let _program = living(&stage, 1 - dead, "return 200;");
        for (number, (port, more)) in HOW.into_iter().enumerate() {
            let name = format!("half-{number}");
            let url = service(&mut stage, &name, port, &[0, 1]);
            wait::until(&format!("{name}: the dead one is asked"), PATIENCE, || {
                let answer = ask(&stage.client, &url, more);
                assert_eq!(answer.status, 200, "{more:?}, dead: {}", stage.servers[dead].name);
                (asked(&stage, &name, dead) >= 1.0).then_some(())
            });
        }
    }
}

/// Who fails at once is not taken for the fastest: after its first failure, the other one is asked. On the client's own node not even that one is
/// felt, since nothing of the body has left. Seen to fail with the time that the answer took as its cost.
#[test]
fn it_draws_no_requests() {
    for (dead, failures) in [(0, 2), (1, 0)] {
        let mut stage = Stage::start();
        let _program = living(&stage, 1 - dead, "return 200;");
        let url = service(&mut stage, "half", HTTP1, &[0, 1]);
        let mut failed = 0;
        let mut post = || {
            let answer = ask(&stage.client, &url, &["--data-binary", "a body"]);
            failed += usize::from(answer.status != 200);
        };
        wait::until("the dead one is asked", PATIENCE, || {
            post();
            (asked(&stage, "half", dead) >= 1.0).then_some(())
        });
        (0..40).for_each(|_| post());
        assert!(failed <= failures, "{failed} of 41, dead: {}", stage.servers[dead].name);
        assert!(asked(&stage, "half", dead) <= 2.0);
    }
}

/// Alone, it is what its client hears of, at once.
#[test]
fn alone_it_is_said_to_be_gone() {
    let mut stage = Stage::start();
    for dead in [0, 1] {
        let name = format!("gone-{dead}");
        let url = service(&mut stage, &name, HTTP1, &[dead]);
        let before = asked(&stage, &name, dead);
        let answer = ask(&stage.client, &url, &[]);
        assert_eq!(answer.status, 502);
        assert_eq!(answer.headers["l5d-proxy-error"], "connect to an endpoint failed");
        assert_eq!(asked(&stage, &name, dead) - before, 1.0);
    }
}

/// A gateway passes on what its own proxy said of another server, or says so by itself: it has seen the request, and nobody else shall. Seen to fail
/// where only the client's half takes the word off.
#[test]
fn who_passes_its_words_on_has_seen_the_request() {
    let mut stage = Stage::start();
    let said = "add_header l5d-proxy-error 'connect to an endpoint failed' always; add_header weir-unsent 1 always; return 502;";
    let _programs = [0, 1].map(|index| living(&stage, index, said));
    for (port, more) in [(HTTP1, &["--request", "DELETE"][..]), (HTTP2, &["--http2-prior-knowledge"][..])] {
        let name = format!("gateway-{port}");
        let url = service(&mut stage, &name, port, &[0, 1]);
        let both = || asked(&stage, &name, 0) + asked(&stage, &name, 1);
        let before = both();
        for _ in 0..20 {
            let answer = ask(&stage.client, &url, more);
            assert_eq!((answer.status, answer.headers.get("weir-unsent")), (502, None));
        }
        assert_eq!(both() - before, 20.0);
    }
}

/// An upgrade is more than its head: the client's half goes to the next endpoint with it. Seen to fail with a half that stays where the first one
/// refused.
#[test]
fn an_upgrade_finds_who_lives() {
    for dead in [0, 1] {
        let mut stage = Stage::start();
        let _echo = echo(&stage.servers[1 - dead], HTTP1);
        let url = service(&mut stage, "half", HTTP1, &[0, 1]);
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        wait::until("the dead one is asked", PATIENCE, || {
            let mut tcp = stage.client.place.netns.enter(|| TcpStream::connect(&address)).unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(tcp, "GET /chat HTTP/1.1\r\nhost: half\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n").unwrap();
            let answer = head(&mut tcp);
            assert!(answer.starts_with("http/1.1 101"), "{answer}, dead: {}", stage.servers[dead].name);
            tcp.write_all(b"ping").unwrap();
            let mut echoed = [0; 4];
            tcp.read_exact(&mut echoed).unwrap();
            assert_eq!(&echoed, b"ping");
            (asked(&stage, "half", dead) >= 1.0).then_some(())
        });
    }
}

/// Says back what it hears after an upgrade, and answers 200 to what is none.
fn echo(pod: &Pod, port: u16) -> Accepting {
    Accepting::start(vec![listen(pod, port)], |mut tcp, _stop| {
        // Whoever left does not hear it.
        let _gone = if head(&mut tcp).contains("upgrade: echo") {
            tcp.write_all(b"HTTP/1.1 101 Echo\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
                .and_then(|()| std::io::copy(&mut tcp.try_clone()?, &mut tcp).map(drop))
        } else {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        };
    })
}
