//! What requests say of their own retries and limits, where the operator allows it. `/flaky` fails at `v2` alone, `/late` answers after three
//! seconds.

use weir_tests::wait;

use crate::stage::{Answer, HTTP1, HTTP2, PATIENCE, Stage, ask, service};

type Get = fn(&Stage, &str, &[&str]) -> Answer;

const PROTOCOLS: [Get; 2] = [Stage::get, Stage::get_http2];

fn allow(stage: &mut Stage) {
    stage.mesh.kill_control();
    stage.mesh.start_control_with(&["--allow-l5d-request-headers"]);
    // Whoever has not said that yet is not asked for it.
    for get in PROTOCOLS {
        wait::until("requests may speak for themselves", PATIENCE, || {
            (get(stage, "/late", &["-H", "l5d-timeout: 100ms"]).status == 504).then_some(())
        });
    }
}

/// Where nothing else says so, and over what a route says; what is taken is not passed on. Nothing of it before it is allowed.
#[test]
fn requests_say_how_they_are_sent_again_and_how_long_they_may_take() {
    let mut stage = Stage::start();
    // Of its own: who was late for `web` is not asked again for a minute.
    let fickle = service(&mut stage, "fickle", &[]);
    let limited = ["-H", "l5d-timeout: 300ms"];
    for get in PROTOCOLS {
        let answer = get(&stage, "/late", &limited);
        assert_eq!(answer.status, 401, "nobody has allowed it: {answer:?}");
        assert_eq!(get(&stage, "/", &limited).asked.get("asked").map(String::as_str), Some("300ms"), "nor taken it");
    }
    allow(&mut stage);
    for (port, protocol) in [(HTTP1, "--http1.1"), (HTTP2, "--http2-prior-knowledge")] {
        let statuses = |more: &[&str]| -> Vec<u16> {
            let url = format!("http://{fickle}:{port}/flaky");
            (0..40).map(|_| ask(&stage.client, &url, &[&[protocol], more].concat()).status).collect()
        };
        wait::until("v2 fails without a word", PATIENCE, || statuses(&[]).contains(&503).then_some(()));
        assert_eq!(statuses(&["-H", "l5d-retry-http: 500-503"]), [200; 40]);
        // Of several words for one thing those that are known count, and 0 is none.
        assert_eq!(statuses(&["-H", "l5d-retry-http: some,gateway-error", "-H", "l5d-retry-limit: 2"]), [200; 40]);
        wait::until("not sent again", PATIENCE, || {
            statuses(&["-H", "l5d-retry-http: 503", "-H", "l5d-retry-limit: 0"]).contains(&503).then_some(())
        });
    }
    for get in PROTOCOLS {
        assert_eq!(get(&stage, "/", &limited).asked.get("asked").map(String::as_str), Some(""), "it is taken");
        for (header, error) in [
            ("l5d-timeout: 300ms", "request timeout"),
            ("l5d-request-timeout: 300ms", "request timeout"),
            ("l5d-response-timeout: 300ms", "response timeout"),
        ] {
            let answer = get(&stage, "/late", &["-H", header]);
            let said = answer.headers.get("l5d-proxy-error").map(String::as_str);
            assert_eq!((answer.status, said), (504, Some(error)), "{header}");
        }
    }
    stage.route("  rules: [{timeouts: {request: 200ms}}]");
    for get in PROTOCOLS {
        wait::until("the route's limit", PATIENCE, || (get(&stage, "/late", &[]).status == 504).then_some(()));
        assert_eq!(get(&stage, "/late", &["-H", "l5d-timeout: 9s"]).status, 401, "longer than the route's");
        assert_eq!(get(&stage, "/late", &["-H", "l5d-timeout: 0"]).status, 401, "lifted");
    }
}

/// A request that gives an endpoint too little time says nothing about the endpoint. Seen to fail with limits that are never the client's, and
/// with every 504 of a request that has one.
#[test]
fn what_requests_ask_for_is_no_endpoints_fault() {
    let mut stage = Stage::start();
    let breaker = [
        ("balancer.linkerd.io/failure-accrual", "consecutive"),
        ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "1"),
    ];
    let address = service(&mut stage, "guarded", &breaker);
    allow(&mut stage);
    let call = |header: &str| ask(&stage.client, &format!("http://{address}:{HTTP1}/late"), &["-H", header]).status;
    wait::until("the Service is known", PATIENCE, || (call("l5d-timeout: 200ms") == 504).then_some(()));
    assert_eq!(["l5d-timeout: 200ms", "l5d-response-timeout: 200ms", "weir-timeout: 200ms"].map(call), [504; 3]);
    let over = ask(
        &stage.client,
        &format!("http://{address}:{HTTP2}/late"),
        &["--http2-prior-knowledge", "-H", "l5d-timeout: 200ms"],
    );
    assert_eq!(over.status, 504);
    let ejections = || stage.sum(0, "outbound_http_balancer_ejections_total", &["parent_name=\"guarded\""]);
    assert_eq!(ejections(), 0.0);
    // An endpoint that gives up long before its client does has nobody else to blame.
    let url = format!("http://{address}:{HTTP1}/gateway");
    assert_eq!(ask(&stage.client, &url, &["-H", "weir-timeout: 1h"]).status, 504);
    assert_eq!(ejections(), 1.0);
}
