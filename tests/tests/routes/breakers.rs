//! Endpoints that keep failing, from annotations to bytes. `/flaky` fails at `v2` alone and `/down` at both; `/tardy` takes three seconds at `v2`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use weir_tests::{mesh::ServiceOptions, wait};

use crate::{
    flaky::{self, GRPC},
    stage::{HTTP1, PATIENCE, Stage, TURNS, ask, owned, service},
    turns::listen,
};

const KIND: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const PANIC: &str = "weir.mesh/failure-accrual-panic-threshold";
/// One failure is enough, for longer than a test takes.
const OUT: [(&str, &str); 3] = [(KIND, "consecutive"), (MAX_FAILURES, "1"), (MIN_PENALTY, "60s")];
/// Of a server that a test plays.
const RAW: u16 = 9000;

/// The statuses of so many requests, one after the other.
fn statuses(stage: &Stage, address: &str, path: &str, count: usize) -> Vec<u16> {
    let url = format!("http://{address}:{HTTP1}{path}?[1-{count}]");
    let said = stage.client.curl(&["--silent", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}\n", &url]);
    String::from_utf8_lossy(&said.stdout).lines().filter_map(|line| line.parse().ok()).collect()
}

fn failed(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status != 200).count()
}

/// How many endpoints of a Service's first port are in this state, at the client's node.
fn endpoints(stage: &Stage, name: &str, state: &str) -> f64 {
    let labels =
        [&format!("parent_name=\"{name}\"") as &str, "parent_port=\"8080\"", &format!("endpoint_state=\"{state}\"")];
    stage.sum(0, "outbound_http_balancer_endpoints", &labels)
}

fn ejections(stage: &Stage, name: &str) -> f64 {
    stage.sum(0, "outbound_http_balancer_ejections_total", &[&format!("parent_name=\"{name}\"")])
}

/// The client's node knows the Service, and both of its servers.
fn knows(stage: &Stage, address: &str) {
    wait::until("the Service is known", PATIENCE, || {
        let servers: Vec<String> =
            (0..20).map(|_| ask(&stage.client, &format!("http://{address}:{HTTP1}/"), &[]).who()).collect();
        ["v1", "v2"].iter().all(|name| servers.iter().any(|server| server == name)).then_some(())
    });
}

/// `consecutive`: after so many failures in a row nothing more is sent there, but for a trial now and then; one that succeeds ends it. Seen to
/// fail, as those after it but one, with endpoints that are always admitted as if they were in.
#[test]
fn what_keeps_failing_is_left_out_until_a_trial_succeeds() {
    let mut stage = Stage::start();
    let annotations = [(KIND, "consecutive"), (MAX_FAILURES, "3"), (MIN_PENALTY, "1s"), (MAX_PENALTY, "1s")];
    let address = service(&mut stage, "fragile", &annotations);
    knows(&stage, &address);
    assert_eq!((ejections(&stage, "fragile"), endpoints(&stage, "fragile", "ejected")), (0.0, 0.0));
    // The balancer prefers who is faster: until it was asked three times.
    wait::until("v2 is out", PATIENCE, || {
        statuses(&stage, &address, "/flaky", 20);
        (endpoints(&stage, "fragile", "ejected") == 1.0).then_some(())
    });
    let (begin, before) = (Instant::now(), ejections(&stage, "fragile"));
    let failed = failed(&statuses(&stage, &address, "/flaky", 300));
    let trials = ejections(&stage, "fragile") - before;
    // One for each second that has begun.
    let most = begin.elapsed().as_secs() + 1;
    assert!(
        failed as u64 <= most && failed as f64 == trials,
        "{failed} of 300 failed in {trials} trials, at most {most}"
    );
    assert_eq!(endpoints(&stage, "fragile", "ready"), 1.0);
    wait::until("v2 is back", PATIENCE, || {
        statuses(&stage, &address, "/", 20);
        (endpoints(&stage, "fragile", "ejected") == 0.0).then_some(())
    });
    knows(&stage, &address);
}

/// With all endpoints out there is nothing to wait for but the next trial: 504 after the failfast time, then at once. Below the panic
/// threshold they are all as good as in.
#[test]
fn with_all_out_requests_fail_fast_or_panic() {
    let mut stage = Stage::start();
    let address = service(&mut stage, "closed", &OUT);
    let panicking = service(&mut stage, "panicking", &[&OUT[..], &[(PANIC, "0.6")]].concat());
    for (name, address) in [("closed", &address), ("panicking", &panicking)] {
        knows(&stage, address);
        wait::until("one is out", PATIENCE, || {
            statuses(&stage, address, "/flaky", 20);
            (endpoints(&stage, name, "ejected") == 1.0).then_some(())
        });
    }
    assert_eq!(statuses(&stage, &address, "/down", 1), [503], "the other one's only failure");
    assert_eq!(endpoints(&stage, "closed", "ejected"), 2.0);
    let begin = Instant::now();
    let answer = ask(&stage.client, &format!("http://{address}:{HTTP1}/"), &[]);
    assert!(answer.status == 504 && begin.elapsed().as_secs_f64() > 2.5, "{answer:?} after {:?}", begin.elapsed());
    assert!(answer.headers.get("l5d-proxy-error").is_some_and(|error| error.contains("ready")), "{answer:?}");
    let begin = Instant::now();
    assert_eq!(statuses(&stage, &address, "/", 20), [504; 20]);
    assert!(begin.elapsed().as_secs_f64() < 2.5, "refused at once: {:?}", begin.elapsed());

    // One slow answer of v2 keeps a balancer by latency from it for seconds; trials alone would be two of a hundred at most.
    wait::until("v2 is asked as if it were in", PATIENCE, || {
        (failed(&statuses(&stage, &panicking, "/flaky", 100)) > 10).then_some(())
    });
}

/// `unified`: a part of failures takes it out that is never so many in a row.
#[test]
fn a_low_success_rate_takes_it_out() {
    let mut stage = Stage::start();
    let annotations = [
        (KIND, "unified"),
        // In turns, one of two paths might always be v1's.
        (TURNS.0, "random"),
        (MAX_FAILURES, "0"),
        ("balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold", "0.7"),
        ("balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests", "10"),
        ("balancer.alpha.linkerd.io/failure-accrual-success-rate-window", "1m"),
    ];
    let address = service(&mut stage, "rated", &annotations);
    knows(&stage, &address);
    let two = |path: &str| {
        statuses(&stage, &address, path, 1);
        statuses(&stage, &address, "/", 1);
    };
    wait::until("v2 is out", PATIENCE, || {
        (0..10).for_each(|_| two("/flaky"));
        (endpoints(&stage, "rated", "ejected") == 1.0).then_some(())
    });
    assert_eq!(failed(&statuses(&stage, &address, "/flaky", 5)), 0, "v1 alone");
}

/// What trailers say counts. Each failure takes the only endpoint out for a moment, and each next call is its trial.
#[test]
fn grpc_statuses_count() {
    let mut stage = Stage::start();
    let _server = flaky::serve(&stage);
    let mut options = ServiceOptions::new("calls", GRPC, GRPC);
    let annotations =
        [(KIND, "consecutive"), (MAX_FAILURES, "1"), (MIN_PENALTY, "1ms"), (MAX_PENALTY, "1ms"), (JITTER, "0")];
    options.annotations = owned(&annotations);
    let address = stage.mesh.service(&options, &[&stage.servers[0]]);
    wait::until("ten of twenty calls fail", PATIENCE, || {
        let before = ejections(&stage, "calls");
        let failed = flaky::call(&stage, &format!("{address}:{GRPC}"));
        (failed == Some(10) && ejections(&stage, "calls") - before == 10.0).then_some(())
    });
}

/// An endpoint that does not answer in the time that its Service allows is to blame; one that does not in a client's own is not.
/// Seen to fail when both count.
#[test]
fn time_limits_count_and_those_of_clients_do_not() {
    let mut stage = Stage::start();
    let hurried = service(&mut stage, "hurried", &OUT);
    let limited = service(&mut stage, "limited", &[&OUT[..], &[("timeout.linkerd.io/response", "300ms")]].concat());
    for address in [&hurried, &limited] {
        knows(&stage, address);
    }
    let call = |address: &str, path: &str, more: &[&str]| {
        ask(
            &stage.client,
            &format!("http://{address}:{}{path}", crate::stage::HTTP2),
            &[&["--http2-prior-knowledge"], more].concat(),
        )
    };
    let own = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-timeout: 300m"];
    wait::until("v2 has been late for a client", PATIENCE, || {
        let answer = call(&hurried, "/tardy", &own);
        answer.headers.get("grpc-status").is_some_and(|status| status == "4").then_some(())
    });
    assert_eq!(ejections(&stage, "hurried"), 0.0);
    wait::until("v2 has been late", PATIENCE, || (call(&limited, "/tardy", &[]).status == 504).then_some(()));
    assert_eq!(ejections(&stage, "limited"), 1.0);
}

/// Failing is quick, which makes an endpoint look good; not where failures count as slow answers. Seen to fail when they count for nothing.
#[test]
fn failures_do_not_attract_requests_where_they_are_penalized() {
    let mut stage = Stage::start();
    let by_latency = (TURNS.0, "peak-ewma");
    let annotations = [("balancer.alpha.linkerd.io/penalize-failures", "true"), by_latency];
    let address = service(&mut stage, "biased", &annotations);
    knows(&stage, &address);
    let plain = service(&mut stage, "plain", &[by_latency]);
    knows(&stage, &plain);
    let failed = |address: &str| failed(&statuses(&stage, address, "/flaky", 200));
    let biased = failed(&address);
    assert!(biased <= 4, "{biased} of 200 failed");
    // One slow answer of v2 keeps a balancer by latency from it for seconds.
    wait::until("failures attract requests where nothing is penalized", PATIENCE, || {
        (failed(&plain) > 20).then_some(())
    });
}

/// A canary that is out takes no part of the requests. Seen to fail with backends that count as ready while all of their endpoints are out.
#[test]
fn a_backend_that_is_out_leaves_its_share() {
    let mut stage = Stage::start();
    for (name, server, annotations) in [("stable", 0, &[][..]), ("canary", 1, &OUT)] {
        let mut options = ServiceOptions::new(name, HTTP1, HTTP1);
        options.annotations = owned(annotations);
        stage.mesh.service(&options, &[&stage.servers[server]]);
    }
    let backends = ["stable", "canary"].map(|name| format!("{{name: {name}, port: {HTTP1}}}")).join(", ");
    stage.route(&format!("  rules: [{{backendRefs: [{backends}]}}]"));
    let address = stage.web.clone();
    wait::until("the canary is out", PATIENCE, || {
        statuses(&stage, &address, "/flaky", 20);
        let labels = ["backend_name=\"canary\"", "endpoint_state=\"ejected\"", "parent_port=\"8080\""];
        (stage.sum(0, "outbound_http_balancer_endpoints", &labels) == 1.0).then_some(())
    });
    assert_eq!(failed(&statuses(&stage, &address, "/flaky", 100)), 0);
}

/// A request that its client never sends to its end is held against nobody; one that was sent and not answered is. Seen to fail when the
/// first counts too.
#[test]
fn what_a_client_does_not_send_is_not_the_servers_fault() {
    let mut stage = Stage::start();
    let mut options = ServiceOptions::new("silent", RAW, RAW);
    options.annotations = owned(&[&OUT[..], &[("timeout.linkerd.io/request", "500ms")]].concat());
    let address = stage.mesh.service(&options, &[&stage.servers[0]]);
    let _never_answers = listen(&stage.servers[0], RAW);
    let ask = |text: &str| {
        let mut tcp = stage.client.place.netns.enter(|| TcpStream::connect((&*address, RAW))).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        // It may be closed with a reset, as the request was not whole.
        let _end = tcp.read_to_string(&mut said);
        said.lines().next().unwrap_or_default().to_owned()
    };
    let half = "POST / HTTP/1.1\r\nhost: silent\r\ncontent-length: 1000\r\n\r\nhalf";
    wait::until("the Service and its limit are known", PATIENCE, || {
        (ask(half) == "HTTP/1.1 504 Gateway Timeout").then_some(())
    });
    ask(half);
    assert_eq!(ejections(&stage, "silent"), 0.0);
    assert_eq!(ask("GET / HTTP/1.1\r\nhost: silent\r\nconnection: close\r\n\r\n"), "HTTP/1.1 504 Gateway Timeout");
    assert_eq!(ejections(&stage, "silent"), 1.0);
}
