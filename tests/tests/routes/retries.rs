//! Requests that are sent again, from YAML to bytes. `/flaky` fails at `v2` alone and `/down` at both; `/tardy` takes three seconds at `v2`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use weir_tests::{
    mesh::{NAMESPACE, ServiceOptions},
    wait,
};

use crate::{
    flaky::{self, GRPC},
    stage::{Answer, HTTP1, HTTP2, PATIENCE, Stage, ask, http2, owned, service},
    turns::{Turn, hasten, listen, play},
};

const RAW: u16 = 9000;

/// `retry` of rules: another endpoint answers. Seen to fail without `persist` in `forward`, and without what `balance` was told to avoid.
#[test]
fn what_failed_at_one_endpoint_is_asked_of_another() {
    let stage = Stage::start();
    stage.route(
        r#"  rules:
  - {matches: [{path: {value: /flaky/again}}], retry: {codes: [503], attempts: 1}}
  - {matches: [{path: {value: /down/other}}], retry: {codes: [500], attempts: 3}}
  - {matches: [{path: {value: /}}]}"#,
    );
    for get in [Stage::get, Stage::get_http2] {
        assert_eq!(get(&stage, "/down/other", &[]).status, 503);
        let before = failures(&stage, "v2");
        // The balancer asks the other one where it can: not each request meets the one that fails.
        wait::until("some have failed at first", PATIENCE, || {
            assert_eq!(get(&stage, "/flaky/again", &[]).status, 200);
            (failures(&stage, "v2") > before + 2.0).then_some(())
        });
    }
}

/// Answers 503 of a pod, as the client's node has counted them.
fn failures(stage: &Stage, pod: &str) -> f64 {
    let labels = ["direction=\"outbound\"", "status_code=\"503\"", &format!("dst_pod=\"{pod}\"")];
    stage.sum(0, "response_total", &labels)
}

/// Annotations of a Service hold without any route; any of a route's replaces all of them; 0 attempts are none.
#[test]
fn annotations_ask_for_it_and_replace() {
    let mut stage = Stage::start();
    let service = service(&mut stage, "patient", &[("retry.linkerd.io/http", "gateway-error")]);
    let all_good = |path: &str| {
        let url = format!("http://{service}:{HTTP1}{path}");
        (0..20).all(|_| ask(&stage.client, &url, &[]).status == 200)
    };
    wait::until("the Service's own", PATIENCE, || all_good("/flaky").then_some(()));
    for (annotation, expected) in [
        ("retry.linkerd.io/limit: \"0\"", false),
        ("retry.linkerd.io/http: \"500-504\"", true),
        ("retry.linkerd.io/http: \"502\"", false),
        ("timeout.linkerd.io/request: 9s", true),
    ] {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: patient, namespace: {NAMESPACE}, annotations: {{{annotation}}}}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: patient}}]}}\n"
        );
        stage.mesh.manifest("patient-route", &text);
        wait::until(annotation, PATIENCE, || (all_good("/flaky") == expected).then_some(()));
    }
}

/// An endpoint that says nothing in time is left for another one; the last attempt may take its time. Seen to fail without `Limit::Retry`.
#[test]
fn an_attempt_that_takes_too_long_is_made_elsewhere() {
    let mut stage = Stage::start();
    stage.servers[0].ready = false;
    let mut options = ServiceOptions::new("hasty", HTTP1, HTTP1).port(http2());
    options.annotations = owned(&[("retry.linkerd.io/timeout", "300ms")]);
    let service = stage.mesh.service(&options, &[&stage.servers[0], &stage.servers[1]]);
    let get = |stage: &Stage, port: u16, path: &str| {
        let more: &[&str] = if port == HTTP2 { &["--http2-prior-knowledge"] } else { &[] };
        let began = Instant::now();
        let answer = ask(&stage.client, &format!("http://{service}:{port}{path}"), more);
        (answer.status, began.elapsed().as_secs_f64())
    };
    for port in [HTTP1, HTTP2] {
        wait::until("v2 is known as fast", PATIENCE, || (get(&stage, port, "/").0 == 200).then_some(()));
    }
    stage.servers[0].ready = true;
    stage.mesh.endpoints(&options, &service, &[&stage.servers[0], &stage.servers[1]]);
    let labels = ["parent_name=\"hasty\"", "endpoint_state=\"ready\""];
    wait::until("v1 is there too", PATIENCE, || {
        (stage.sum(0, "outbound_http_balancer_endpoints", &labels) == 4.0).then_some(())
    });
    for port in [HTTP1, HTTP2] {
        let (status, seconds) = get(&stage, port, "/tardy");
        assert!(status == 200 && (0.3..2.0).contains(&seconds), "{status} after {seconds} s");
        let (status, seconds) = get(&stage, port, "/late");
        assert!(status == 401 && seconds > 3.0, "{status} after {seconds} s");
    }
}

/// A body is sent again byte by byte, whether its server read it or not, said something or left; one beyond the bound is sent once.
/// Seen to fail with attempts that do not begin with what went by before.
#[test]
fn bodies_are_sent_again_up_to_a_bound() {
    let mut stage = Stage::start();
    let address = raw(&mut stage);
    let url = format!("http://{address}/");
    let listener = listen(&stage.servers[0], RAW);
    let ask = |bytes: usize, more: &[&str], script: &[Turn]| {
        let body: Vec<u8> = (0..bytes).map(|index| b'a' + (index % 23) as u8).collect();
        let file = stage.mesh.path("body");
        std::fs::write(&file, &body).unwrap();
        let upload = format!("@{}", file.display());
        let running = play(listener.try_clone().unwrap(), script.to_vec());
        let answer = ask(&stage.client, &url, &[&["--data-binary", &upload][..], more].concat());
        let taken = running.join().unwrap_or_else(|_late| panic!("{bytes} {more:?} {script:?}: {answer:?}"));
        (answer.status, taken, body)
    };
    let chunked = ["-H", "transfer-encoding: chunked"];
    for (bytes, more) in [(0, &[][..]), (1, &[]), (50_000, &[]), (50_000, &chunked), (65_536, &[])] {
        for script in [[Turn::Refuse, Turn::Take], [Turn::Hasten, Turn::Take], [Turn::Leave, Turn::Take]] {
            let (status, taken, body) = ask(bytes, more, &script);
            assert_eq!(status, 200, "{bytes} {more:?} {script:?}");
            assert!(taken.last() == Some(&body), "{bytes} {more:?} {script:?}: {:?}", taken.last().map(Vec::len));
        }
    }
    for more in [&[][..], &chunked] {
        let (status, taken, _body) = ask(65_537, more, &[Turn::Refuse]);
        assert_eq!((status, taken.len()), (503, 1), "{more:?}");
    }
}

/// What a client sends while its request is being sent again, more than is kept of it, is part of the next attempt or there is none: no
/// server takes a part for the whole.
#[test]
fn a_body_that_still_comes_is_never_sent_in_part() {
    const FIRST: usize = 1000;
    const REST: usize = 100_000;
    let mut stage = Stage::start();
    let address = raw(&mut stage);
    let listener = listen(&stage.servers[0], RAW);
    let mut again = 0;
    for _ in 0..30 {
        let (told, hear) = mpsc::sync_channel(1);
        let is_over = Arc::new(AtomicBool::new(false));
        let server = hasten(listener.try_clone().unwrap(), told, Arc::clone(&is_over));
        let mut tcp = stage.client.place.netns.enter(|| TcpStream::connect(&address)).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(tcp, "POST / HTTP/1.1\r\nhost: raw\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        write!(tcp, "{FIRST:x}\r\n{}\r\n", "a".repeat(FIRST)).unwrap();
        hear.recv_timeout(PATIENCE).unwrap();
        write!(tcp, "{REST:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(REST)).unwrap();
        let mut status = [0; 12];
        tcp.read_exact(&mut status).unwrap();
        is_over.store(true, Ordering::Relaxed);
        match server.join().unwrap() {
            None => assert_eq!(&status, b"HTTP/1.1 503"),
            Some(body) => {
                assert_eq!((body.len(), &status), (FIRST + REST, b"HTTP/1.1 200"));
                again += 1;
            }
        }
    }
    assert!(again > 0, "none was sent again");
}

/// Interim responses pass with retries armed, of whatever attempt they are.
#[test]
fn interim_responses_pass_with_retries_armed() {
    let mut stage = Stage::start();
    let address = raw(&mut stage);
    let listener = listen(&stage.servers[0], RAW);
    listener.set_nonblocking(false).unwrap();
    let server = thread::spawn(move || {
        for (hint, status) in [("first", "503 Busy"), ("second", "200 OK")] {
            let (tcp, _client) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            let head = BufReader::new(&tcp).lines().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()));
            assert!(head.count() > 0);
            write!(&tcp, "HTTP/1.1 103 Early Hints\r\nLink: <{hint}>\r\n\r\nHTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let got = stage.client.curl(&["--dump-header", "-", &format!("http://{address}/")]);
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    let said: Vec<&str> =
        got.lines().filter(|line| line.starts_with("HTTP/") || line.to_lowercase().starts_with("link")).collect();
    let [one, first, two, second, last] = &said[..] else { panic!("{got}") };
    assert!([one, two].iter().all(|line| line.contains("103")) && last.contains("200"), "{got}");
    assert!(first.contains("<first>") && second.contains("<second>"), "{got}");
    server.join().unwrap();
}

/// A Service with one server that the test plays, at the other node, and a rule that sends again; its address.
fn raw(stage: &mut Stage) -> String {
    let address = stage.mesh.service(&ServiceOptions::new("raw", RAW, RAW), &[&stage.servers[0]]);
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: again, namespace: {NAMESPACE}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: raw}}]\n  rules: [{{retry: {{codes: [503], attempts: 2}}}}]\n"
    );
    stage.mesh.manifest("raw-route", &text);
    wait::until("the route is in force", PATIENCE, || {
        // A destination that nobody dialled is not known yet; nobody listens there.
        ask(&stage.client, &format!("http://{address}:{RAW}/"), &[]);
        stage.mesh.admin(0, "/config").contains(&format!("\"HTTPRoute {NAMESPACE}/again\"")).then_some(())
    });
    format!("{address}:{RAW}")
}

/// A server that fails everything gets a fifth more and no more. Seen to fail without a look at the budget.
#[test]
fn retries_stay_within_their_budget() {
    let mut stage = Stage::start();
    let annotations = [
        ("retry.linkerd.io/http", "5xx"),
        ("retry.linkerd.io/limit", "5"),
        ("weir.mesh/retry-budget-min-per-second", "0"),
    ];
    let service = service(&mut stage, "frugal", &annotations);
    let url = format!("http://{service}:{HTTP1}/down/[1-200]");
    let attempts = || stage.sum(0, "request_total", &["dst_service=\"frugal\""]);
    wait::until("the Service is known", PATIENCE, || {
        (ask(&stage.client, &format!("http://{service}:{HTTP1}/"), &[]).status == 200).then_some(())
    });
    let before = attempts();
    let said = stage.client.curl(&["--silent", "--max-time", "60", "-w", "%{http_code}\n", &url]).stdout;
    assert_eq!(String::from_utf8_lossy(&said).lines().filter(|line| *line == "503").count(), 200);
    let more = attempts() - before - 200.0;
    assert!((20.0..=41.0).contains(&more), "{more} retries of 200 requests");
}

/// gRPC: by status, in the header of an answer without messages and after the header of one that had begun. Seen to fail without `peek`.
#[test]
fn grpc_statuses_are_asked_for_again() {
    let mut stage = Stage::start();
    let annotations = [("retry.linkerd.io/grpc", "unavailable")];
    let web = service(&mut stage, "calls", &annotations);
    let get = || {
        let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--http2-prior-knowledge"];
        ask(&stage.client, &format!("http://{web}:{HTTP2}/call"), &headers)
    };
    let is_good = |answer: &Answer| answer.headers.get("grpc-status").is_some_and(|status| status == "0");
    wait::until("the annotation is in force", PATIENCE, || (0..20).all(|_| is_good(&get())).then_some(()));

    let _server = flaky::serve(&stage);
    let fail = |stage: &mut Stage, name: &str, annotations: &[(&str, &str)], expected: u32| {
        let mut options = ServiceOptions::new(name, GRPC, GRPC);
        options.annotations = owned(annotations);
        let address = stage.mesh.service(&options, &[&stage.servers[0]]);
        let target = format!("{address}:{GRPC}");
        // More than once: before the Service is known, none of them arrives.
        wait::until(&format!("{expected} calls fail"), PATIENCE, || {
            (flaky::call(stage, &target) == Some(expected)).then_some(())
        });
    };
    fail(&mut stage, "once", &[], 10);
    fail(&mut stage, "twice", &annotations, 0);
}
