//! Sessions that outlive weights, endpoints that come and go, and the node that they began on.

use std::{thread::sleep, time::Duration};

use weir_tests::{
    mesh::{NAMESPACE, ServiceOptions},
    wait,
};

use crate::stage::{Answer, HTTP1, PATIENCE, Stage, http2};

const BOTH: &str = "backendRefs: [{name: v1, port: PORT, weight: ONE}, {name: v2, port: PORT, weight: TWO}]";

/// A rule for everything to both versions, by weight.
fn rules(sessions: &str, weights: [u32; 2]) -> String {
    let backends = BOTH.replace("ONE", &weights[0].to_string()).replace("TWO", &weights[1].to_string());
    format!("  rules: [{{{backends}, sessionPersistence: {sessions}}}]")
}

/// `name=value` of the cookie that an answer sets, and the whole of it.
fn cookie(answer: &Answer) -> (String, String) {
    let set = answer.headers.get("set-cookie").unwrap_or_else(|| panic!("{answer:?}")).clone();
    (set.split(';').next().unwrap_or_default().to_owned(), set)
}

/// The cookie of a session with `server`.
fn session_with(stage: &Stage, server: &str) -> String {
    wait::until(&format!("a session with {server}"), PATIENCE, || {
        let answer = stage.get("/", &[]);
        (answer.who() == server).then(|| cookie(&answer).0)
    })
}

/// Who answers so many requests with a cookie, each on a connection of its own; none of them is told anything new.
fn served(stage: &Stage, cookie: &str, count: usize) -> Vec<String> {
    let header = format!("cookie: theme=dark; {cookie}");
    let answers = (0..count).map(|at| {
        let answer = stage.get(&format!("/{at}"), &["-H", &header]);
        assert_eq!(answer.headers.get("set-cookie"), None, "{answer:?}");
        answer.who()
    });
    answers.collect()
}

/// Writes a version's Service and endpoints anew.
fn behind(stage: &Stage, server: usize, change: impl Fn(ServiceOptions) -> ServiceOptions) {
    let pod = &stage.servers[server];
    let options = change(ServiceOptions::new(&pod.name, HTTP1, HTTP1).port(http2()));
    stage.mesh.endpoints(&options, stage.address(server), &[pod]);
}

/// By cookie: kept over new connections, by all weights, even 0 (GEP-1619); a new one is begun when the endpoint is gone.
#[test]
fn a_cookie_keeps_its_session_whatever_the_weights_are() {
    let mut stage = Stage::start();
    stage.route(&rules("{sessionName: Cart}", [1, 1]));
    let sessions = ["v1", "v2"].map(|server| session_with(&stage, server));
    assert!(sessions.iter().all(|cookie| cookie.starts_with("Cart=")), "{sessions:?}");
    for (server, cookie) in ["v1", "v2"].into_iter().zip(&sessions) {
        assert_eq!(served(&stage, cookie, 30), vec![server; 30]);
    }
    let (_pair, whole) = cookie(&stage.get("/", &[]));
    assert!(whole.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{whole}");

    stage.route(&rules("{sessionName: Cart}", [1, 0]));
    wait::until("nobody new comes to v2", PATIENCE, || (stage.shares(50).get("v1") == Some(&50)).then_some(()));
    assert_eq!(served(&stage, &sessions[1], 30), vec!["v2"; 30], "who is there stays");

    stage.servers[1].ready = false;
    behind(&stage, 1, |options| options);
    let header = format!("cookie: {}", sessions[1]);
    let moved = wait::until("the session has moved", PATIENCE, || {
        let answer = stage.get("/", &["-H", &header]);
        (answer.who() == "v1").then(|| cookie(&answer).0)
    });
    assert_eq!(served(&stage, &moved, 10), vec!["v1"; 10]);
}

/// What clients make up is as good as nothing.
#[test]
fn tokens_that_lead_nowhere_begin_a_new_session() {
    let stage = Stage::start();
    stage.route(&rules("{sessionName: Cart}", [1, 1]));
    let long = format!("Cart={}", "f".repeat(2_000));
    for made_up in ["Cart=", "Cart=0000000000000000", "Cart=zz; Cart=-1", "cart=1", &long] {
        let answer = stage.get("/", &["-H", &format!("cookie: {made_up}")]);
        assert!(answer.status == 200 && cookie(&answer).0.starts_with("Cart="), "{made_up}: {answer:?}");
    }
}

/// Two rules with the same name have no session in common, and a cookie comes back for the paths of its match alone.
#[test]
fn rules_do_not_share_sessions() {
    let stage = Stage::start();
    let rule = |path: &str, backend: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {backend}, port: PORT}}], sessionPersistence: {{sessionName: Cart}}}}"
        )
    };
    stage.route(&format!("  rules: [{}, {}]", rule("/a", "v1"), rule("/b", "v2")));
    let of = |path: &str, more: &[&str]| {
        wait::until(path, PATIENCE, || Some(stage.get(path, more)).filter(|answer| answer.status == 200))
    };
    let (first, whole) = cookie(&of("/a/x", &[]));
    assert!(whole.contains("; Path=/a;"), "{whole}");
    let second = of("/b", &["-H", &format!("cookie: {first}")]);
    assert_eq!(second.who(), "v2");
    assert!(cookie(&second).1.contains("; Path=/b;"), "{second:?}");
}

/// By a header, with the dialled Service itself as the only backend.
#[test]
fn a_header_keeps_its_session() {
    let stage = Stage::start();
    stage.route("  rules: [{sessionPersistence: {type: Header, sessionName: X-Session}}]");
    for server in ["v1", "v2"] {
        let token = wait::until(&format!("a session with {server}"), PATIENCE, || {
            let answer = stage.get_http2("/", &[]);
            let token = answer.headers.get("x-session").filter(|_| answer.who() == server);
            token.map(|token| format!("X-Session: {token}"))
        });
        for _ in 0..20 {
            let answer = stage.get_http2("/", &["-H", &token]);
            assert_eq!((answer.who().as_str(), answer.headers.get("x-session")), (server, None), "{answer:?}");
        }
    }
}

/// Limits of a session: told to the browser where the cookie is permanent, kept by the proxy in any case.
#[test]
fn a_session_ends_when_its_time_is_over() {
    let stage = Stage::start();
    stage.route(&rules("{sessionName: Cart, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}", [1, 1]));
    let (_pair, whole) = cookie(&stage.get("/", &[]));
    assert!(whole.ends_with("; Max-Age=3600"), "{whole}");
    stage.write_route("main", NAMESPACE, &rules("{sessionName: Idle, idleTimeout: 5s}", [1, 1]));
    let begun = wait::until("a limit when nothing comes", PATIENCE, || {
        let answer = stage.get("/", &[]);
        let (pair, _whole) = cookie(&answer);
        pair.starts_with("Idle=").then(|| (pair, answer.who()))
    });
    let (mut pair, server) = begun.clone();
    // Longer than the limit, and never idle for so long.
    for _ in 0..7 {
        sleep(Duration::from_secs(1));
        let answer = stage.get("/", &["-H", &format!("cookie: {pair}")]);
        assert_eq!(answer.who(), server);
        pair = cookie(&answer).0;
    }
    // The first token was last seen long ago: it is a new client's now, and balanced.
    let header = format!("cookie: {}", begun.0);
    wait::until("another server", PATIENCE, || (stage.get("/", &["-H", &header]).who() != server).then_some(()));
}

/// Two kinds of the same: a Service with `sessionAffinity: ClientIP` behind it refuses the route (GEP-1619), and the Service is served without.
#[test]
fn a_service_with_affinity_of_its_own_refuses_such_a_route() {
    let stage = Stage::start();
    stage.route(&rules("{sessionName: Cart}", [1, 0]));
    assert!(stage.get("/", &[]).headers.contains_key("set-cookie"));
    behind(&stage, 0, |options| ServiceOptions { client_affinity: true, ..options });
    wait::until("the route is put aside", PATIENCE, || {
        let answer = stage.get("/", &[]);
        (answer.status == 200 && !answer.headers.contains_key("set-cookie")).then_some(())
    });
}
