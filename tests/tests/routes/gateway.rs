//! What Gateway API's conformance suite (v1.6) asks of Gateways alone, asked of a Service: rewrites, CORS and retries with the suite's own rules
//! and requests. Time limits and mirrors have theirs in `timeouts.rs` and `mirrors.rs`.

use weir_tests::{daemon::Daemon, mesh::ServiceOptions, python, wait};

use crate::stage::{Answer, PATIENCE, Stage, ask};

type Get = fn(&Stage, &str, &[&str]) -> Answer;

const PROTOCOLS: [Get; 2] = [Stage::get, Stage::get_http2];

const MODIFIED: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: set-overwrites-values}], add: [{name: X-Added, value: header-val-2}], remove: [X-Removed]}}";

fn said<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.asked.get(name).map_or("", String::as_str)
}

/// HTTPRouteRewriteHost and HTTPRouteRewritePath.
#[test]
fn hosts_and_paths_are_rewritten() {
    let stage = Stage::start();
    let rule = |path: &str, rewrite: &str, more: &str, backend: &str| {
        format!(
            "  - {{matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: {{{rewrite}}}}}{more}], backendRefs: [{{name: {backend}, port: PORT}}]}}\n"
        )
    };
    let prefix = |to: &str| format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}");
    let full = |to: &str| format!("path: {{type: ReplaceFullPath, replaceFullPath: {to}}}");
    let modified = format!(", {MODIFIED}");
    let rules = [
        rule("/one", "hostname: one.example.org", "", "v1"),
        rule("/", "hostname: example.org", "", "v2"),
        rule("/rewrite-host-and-modify-headers", "hostname: test.example.org", &modified, "v2"),
        rule("/prefix/one", &prefix("/one"), "", "v1"),
        rule("/strip-prefix", &prefix("/"), "", "v1"),
        rule("/full/one", &full("/one"), "", "v1"),
        rule("/full/rewrite-path-and-modify-headers", &full("/test"), &modified, "v1"),
        rule("/prefix/rewrite-path-and-modify-headers", &prefix("/prefix"), &modified, "v1"),
    ];
    stage.route(&format!("  hostnames: [rewrite.example]\n  rules:\n{}", rules.concat()));
    let own = "rewrite.example";
    let sent = ["Host: rewrite.example", "X-Removed: remove-val", "X-Set: set-val"];
    let sent: Vec<&str> = sent.iter().flat_map(|header| ["-H", *header]).collect();
    for get in PROTOCOLS {
        for (path, uri, host, server, is_modified) in [
            ("/one", "/one", "one.example.org", "v1", false),
            ("/two", "/two", "example.org", "v2", false),
            ("/rewrite-host-and-modify-headers", "/rewrite-host-and-modify-headers", "test.example.org", "v2", true),
            ("/prefix/one/two", "/one/two", own, "v1", false),
            ("/strip-prefix/three", "/three", own, "v1", false),
            ("/strip-prefix", "/", own, "v1", false),
            ("/full/one/two", "/one", own, "v1", false),
            ("/full/rewrite-path-and-modify-headers/test", "/test", own, "v1", true),
            ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/one", own, "v1", true),
        ] {
            let answer = get(&stage, path, &sent);
            assert_eq!(
                (answer.who().as_str(), said(&answer, "uri"), said(&answer, "host")),
                (server, uri, host),
                "{path}"
            );
            let headers = [said(&answer, "set"), said(&answer, "added"), said(&answer, "removed")];
            let expected = match is_modified {
                true => ["set-overwrites-values", "header-val-2", ""],
                false => ["set-val", "", "remove-val"],
            };
            assert_eq!(headers, expected, "{path}");
        }
    }
}

const CROSS: &str = r#"  rules:
  - matches: [{path: {value: /cors-1}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://www.foo.com", "https://*.bar.com"], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /cors-2}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://www.foo.com"], allowMethods: ["*"]}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /cors-wildcard-origin}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: [PUT], allowCredentials: false}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /cors-wildcard-methods-headers}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], allowCredentials: true}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /cors-wildcard-methods-headers-unauth}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], allowCredentials: false}}]
    backendRefs: [{name: v1, port: PORT}]"#;

/// Of an answer: allow-origin, allow-credentials, allow-methods, allow-headers.
fn allowed(answer: &Answer) -> [&str; 4] {
    let names = ["origin", "credentials", "methods", "headers"];
    names.map(|name| answer.headers.get(&format!("access-control-allow-{name}")).map_or("", String::as_str))
}

/// HTTPRouteCORS. Where the suite takes one of several answers, this is ours.
#[test]
fn other_origins_may_do_what_rules_say() {
    let stage = Stage::start();
    stage.route(CROSS);
    let both = "x-header-1, x-header-2";
    // Path, origin, method and headers that are asked for; what is allowed.
    let preflights = [
        ("/cors-1", "https://www.foo.com", "GET", both, ["https://www.foo.com", "true", "GET, OPTIONS", both]),
        ("/cors-1", "https://www.bar.com", "GET", both, ["https://www.bar.com", "true", "GET, OPTIONS", both]),
        (
            "/cors-1",
            "https://xpto.www.bar.com",
            "GET",
            both,
            ["https://xpto.www.bar.com", "true", "GET, OPTIONS", both],
        ),
        ("/cors-1", "https://foobar.com", "GET", "", [""; 4]),
        ("/cors-2", "https://www.foo.com", "POST", "", ["https://www.foo.com", "", "*", ""]),
        ("/cors-wildcard-origin", "https://foobar.com", "PUT", "", ["*", "", "PUT", ""]),
        ("/cors-wildcard-origin", "https://foobar.com:12345", "PUT", "", ["*", "", "PUT", ""]),
        (
            "/cors-wildcard-methods-headers",
            "https://other.foo.com",
            "PUT",
            both,
            ["https://other.foo.com", "true", "PUT", both],
        ),
        ("/cors-wildcard-methods-headers-unauth", "https://other.foo.com", "PUT", both, ["*", "", "*", both]),
    ];
    let requests = [
        ("/cors-1", "https://www.foo.com", "GET", ["https://www.foo.com", "true"]),
        ("/cors-1", "https://www.bar.com", "GET", ["https://www.bar.com", "true"]),
        ("/cors-1", "https://foobar.com", "GET", [""; 2]),
        ("/cors-wildcard-origin", "https://foobar.com:12345", "PUT", ["*", ""]),
        ("/cors-wildcard-origin", "https://foobar.com", "PUT", ["*", ""]),
        ("/cors-wildcard-methods-headers", "https://other.foo.com", "GET", ["https://other.foo.com", "true"]),
        ("/cors-wildcard-methods-headers-unauth", "https://other.foo.com", "GET", ["*", ""]),
    ];
    for get in PROTOCOLS {
        for (path, origin, method, headers, expected) in preflights {
            let origin = format!("Origin: {origin}");
            let method = format!("Access-Control-Request-Method: {method}");
            let headers = format!("Access-Control-Request-Headers: {headers}");
            let mut more = vec!["--request", "OPTIONS", "-H", &origin, "-H", &method];
            if !headers.ends_with(": ") {
                more.extend(["-H", &headers]);
            }
            let answer = get(&stage, path, &more);
            assert_eq!((answer.status, allowed(&answer)), (204, expected), "{path} {more:?}");
            if path == "/cors-1" && !expected[0].is_empty() {
                let rest = ["expose-headers", "max-age"]
                    .map(|name| answer.headers[&format!("access-control-{name}")].as_str());
                assert_eq!(rest, ["x-header-3, x-header-4", "3600"]);
            }
        }
        for (path, origin, method, expected) in requests {
            let answer = get(&stage, path, &["--request", method, "-H", &format!("Origin: {origin}")]);
            let [origin, credentials, ..] = allowed(&answer);
            assert_eq!((answer.who().as_str(), [origin, credentials]), ("v1", expected), "{path} {method}");
        }
    }
}

const FALTERS: u16 = 9600;

/// Python's own server at `v1`, behind a Service of its own: its address.
fn falters(stage: &mut Stage) -> (Daemon, String) {
    let pod = &stage.servers[0];
    let mut command = pod.place.netns.command(python::interpreter().to_str().expect("a path in UTF-8"));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/routes/faltering.py");
    command.args([program, &FALTERS.to_string()]);
    let daemon = Daemon::start("faltering", command, &stage.mesh.path("logs"));
    wait::until("it listens", PATIENCE, || {
        let open = pod.run("ss", &["-Hltn", &format!("sport = :{FALTERS}")]);
        (!open.trim().is_empty()).then_some(())
    });
    let address = stage.mesh.service(&ServiceOptions::new("falters", FALTERS, FALTERS), &[&stage.servers[0]]);
    (daemon, address)
}

/// HTTPRouteRetry, with the only endpoint that there is.
#[test]
fn what_fails_is_asked_again_as_often_as_rules_say() {
    let mut stage = Stage::start();
    let (_daemon, address) = falters(&mut stage);
    let rule = |path: &str, codes: &str, attempts: u32| {
        format!(
            "  - {{matches: [{{path: {{value: /retry/{path}}}}}], retry: {{codes: [{codes}], attempts: {attempts}}}, backendRefs: [{{name: falters, port: {FALTERS}}}]}}\n"
        )
    };
    let rules = [rule("one", "500", 3), rule("all", "500, 502, 503, 504", 2)];
    stage.mesh.manifest(
        "falters-route",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: falters, namespace: demo}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: falters}}]\n  rules:\n{}",
            rules.concat()
        ),
    );
    let url = |path: &str, code: u16, after: u32, id: &str| {
        format!("http://{address}:{FALTERS}/retry/{path}?code={code}&after={after}&id={id}")
    };
    let mut tries = 0;
    wait::until("the route is in force", PATIENCE, || {
        tries += 1;
        (ask(&stage.client, &url("one", 500, 1, &format!("first-{tries}")), &[]).status == 200).then_some(())
    });
    let of_one = [(500, 2, 200, 3), (500, 4, 500, 4), (503, 2, 503, 1)];
    let of_all = [500, 502, 503, 504].map(|code| [(code, 1, 200, 2), (code, 3, code, 3)]).concat();
    let cases = of_one.map(|case| ("one", case)).into_iter().chain(of_all.into_iter().map(|case| ("all", case)));
    for (path, (code, after, status, asked)) in cases {
        let answer = ask(&stage.client, &url(path, code, after, &format!("{path}-{code}-{after}")), &[]);
        assert_eq!(
            (answer.status, said(&answer, "asked")),
            (status, asked.to_string().as_str()),
            "{path} {code} {after}"
        );
    }
}
