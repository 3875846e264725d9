//! What `weir explain` and `weir policy` say, against what becomes of real requests.

use serde_json::Value;
use weir_tests::{mesh::PodOptions, wait};

use crate::stage::{Answer, HTTP1, PATIENCE, Stage, ask, service};

const RULES: &str = r#"  rules:
  - matches: [{path: {type: Exact, value: /only}}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /only}}, {path: {value: /two}, headers: [{name: Version, value: two}]}]
    backendRefs: [{name: v2, port: PORT}]
  - matches: [{path: {value: /two}, queryParams: [{name: version, value: one}]}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /two}, method: POST}]
    backendRefs: [{name: v1, port: PORT}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: missing, port: PORT}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: v1, port: PORT, weight: 0}]
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example, statusCode: 301}}]
  - matches: [{path: {value: /back}}]
    backendRefs: [{name: v1, port: PORT, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]}]"#;

/// Longer prefixes and another order of ties; and one host's own.
const LONGER: &str = "  rules: [{matches: [{path: {value: /only/deep}}, {path: {value: /two}, method: POST}], backendRefs: [{name: v2, port: PORT}]}]";
const NAMED: &str = "  hostnames: [web.shop.example]\n  rules: [{matches: [{path: {value: /only}}], backendRefs: [{name: v1, port: PORT}]}]";

/// What the answer says of the request, as [`Answer::who`] has it; and of a redirect where to.
fn said(explained: &Value) -> (String, String) {
    let way = &explained["outcome"][0];
    assert_eq!(way["percent"], 100.0, "{explained:#}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match way["result"].as_str() {
        Some("forward") => (text(&way["service"]["name"]), String::new()),
        _answered => (way["status"].to_string(), text(&way["location"])),
    }
}

fn got(answer: &Answer) -> (String, String) {
    (answer.who(), answer.headers.get("location").cloned().unwrap_or_default())
}

fn explain(stage: &Stage, from: &str, namespace: &str, to: &str, path: &str, more: &[&str]) -> Value {
    let words = [&["explain", from, to, "-n", namespace, "--path", path], more].concat();
    stage.mesh.weir_json(&words)
}

/// Name of the winner's route, its rule and its match.
fn winner(explained: &Value) -> String {
    let rule = &explained["rule"];
    format!("{} {} {}", rule["route"]["name"].as_str().unwrap_or("none"), rule["rule"], rule["match"])
}

/// Three routes, one of a host's own, a consumer's; redirects, invalid backends, no route.
#[test]
fn what_is_explained_is_what_happens() {
    let mut stage = Stage::start();
    let mut options = PodOptions::new("guest", 0);
    (options.namespace, options.enabled) = ("other".to_owned(), Some(true));
    stage.mesh.manifest("namespace-other", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
    let guest = stage.mesh.pod(&options);
    stage.mesh.wait_ready(&[&guest]);
    let plain = explain(&stage, "deploy/client", "demo", "svc/web:8080", "/", &[]);
    assert_eq!((&plain["routes_in_force"], &plain["outcome"][0]["is_itself"]), (&"none".into(), &true.into()));
    stage.route(RULES);
    for (name, spec) in [("longer", LONGER), ("named", NAMED)] {
        stage.write_route(name, "demo", spec);
        stage.knows(&format!("demo/{name}"));
    }
    let authority = format!("{}:{HTTP1}", stage.web);
    for (path, more, expected, rule) in [
        ("/only", &[][..], "v1", "main-8080 0 0"),
        ("/only/", &[], "v2", "main-8080 1 0"),
        ("/only/deep/x", &[], "v2", "longer-8080 0 0"),
        ("/only/deep/x", &["-H", "host: web.shop.example"], "v1", "named-8080 0 0"),
        ("/onlyelse", &[], "404", "none null null"),
        ("/two", &["-H", "version: two"], "v2", "main-8080 1 1"),
        ("/two", &["-H", "version: three"], "404", "none null null"),
        ("/two?version=one", &[], "v1", "main-8080 2 0"),
        // Of two that say the same, the first by name.
        ("/two", &["-X", "POST"], "v2", "longer-8080 0 1"),
        ("/gone", &[], "500", "main-8080 4 0"),
        ("/none", &[], "500", "main-8080 5 0"),
        ("/moved/x?a=b", &[], "301", "main-8080 6 0"),
        ("/back", &[], "302", "main-8080 7 0"),
    ] {
        let real = stage.get(path, more);
        assert_eq!(real.who(), expected, "{path} {more:?}: {real:?}");
        let mut words: Vec<&str> = more.iter().map(|word| if *word == "-X" { "--method" } else { word }).collect();
        if !more.iter().any(|word| word.starts_with("host:")) {
            words.extend(["--authority", &authority]);
        }
        let explained = explain(&stage, "deploy/client", "demo", "svc/web:8080", path, &words);
        assert_eq!(
            (said(&explained), winner(&explained).as_str()),
            (got(&real), rule),
            "{path} {more:?}: {explained:#}"
        );
        let won =
            explained["candidates"].as_array().into_iter().flatten().filter(|one| one["verdict"] == "won").count();
        assert_eq!(won, usize::from(explained["rule"] != Value::Null), "{path}");
    }
    let missing = explain(&stage, "pod/client-1", "demo", "svc/web:8080", "/gone", &[]);
    assert!(
        missing["outcome"][0]["reason"].as_str().is_some_and(|reason| reason.contains("demo/missing not found")),
        "{missing:#}"
    );
    assert_eq!((&missing["from"]["pods"], &missing["from"]["pods_meshed"]), (&1.into(), &1.into()));
    consumers(&stage, &guest);
}

/// A route in the clients' namespace, and there instead of the Service's own.
fn consumers(stage: &Stage, guest: &weir_tests::mesh::Pod) {
    let spec = "  rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: v2, namespace: demo, port: PORT}]}]";
    stage.write_route("guests", "other", spec);
    let url = format!("http://{}:{HTTP1}", stage.web);
    let is_in_force = || (ask(guest, &format!("{url}/only"), &[]).who() == "404").then_some(());
    wait::until("the consumer route", PATIENCE, is_in_force);
    for path in ["/x", "/only"] {
        let real = ask(guest, &format!("{url}{path}"), &[]);
        let explained = explain(stage, "deploy/guest", "other", "web.demo:8080", path, &[]);
        assert_eq!(said(&explained), got(&real), "{path}: {explained:#}");
        assert_eq!(explained["routes_in_force"], "consumer");
        let others = explain(stage, "deploy/client", "demo", "web.demo:8080", path, &[]);
        assert_eq!(said(&others).0, stage.get(path, &[]).who(), "{path}");
        let aside = others["not_asked"].as_array().cloned().unwrap_or_default();
        assert!(aside.iter().any(|route| route["route"]["namespace"] == "other"), "{others:#}");
    }
    let table = stage.mesh.weir(&["explain", "deploy/guest", "web.demo:8080", "-n", "other", "--path", "/x"]).output();
    let table = String::from_utf8_lossy(&table.expect("weir").stdout).into_owned();
    assert!(table.contains("by HTTPRoute other/guests-8080 rules[0].matches[0]: PathPrefix /x"), "{table}");
    for (to, words) in
        [("svc/gone:80", "there is no Service"), ("svc/web:1", "it has 8080"), ("svc/web", "several ports")]
    {
        let refused = stage.mesh.weir(&["explain", "deploy/client", to, "-n", "demo"]).output().expect("weir");
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(words), "{to}: {error}");
    }
}

/// A limit that is in force, with the annotation that it comes from; and the rule's own, which goes before it.
#[test]
fn what_policy_shows_is_in_force() {
    let mut stage = Stage::start();
    let limited = service(
        &mut stage,
        "limited",
        &[("timeout.linkerd.io/request", "700ms"), ("balancer.linkerd.io/failure-accrual", "consecutive")],
    );
    let late = format!("http://{limited}:{HTTP1}/late");
    wait::until("the Service's limit", PATIENCE, || (ask(&stage.client, &late, &[]).who() == "504").then_some(()));
    let of = |all: &Value, name: &str| -> Value {
        let settings = all["settings"].as_array().cloned().unwrap_or_default();
        settings.into_iter().find(|setting| setting["name"] == name).unwrap_or_default()
    };
    let policy = stage.mesh.weir_json(&["policy", "svc/limited:8080", "-n", "demo"]);
    let request = of(&policy, "timeouts.request");
    assert_eq!(request["value"], "700ms");
    assert_eq!(request["source"]["field"], "metadata.annotations.timeout.linkerd.io/request");
    assert_eq!(
        (&request["source"]["object"]["kind"], &request["source"]["object"]["name"]),
        (&"Service".into(), &"limited".into())
    );
    assert_eq!(of(&policy, "breaker.kind")["value"], "consecutive");
    assert_eq!(of(&policy, "breaker.maxFailures")["source"], Value::Null, "Linkerd's seven is a default");
    assert_eq!(policy["ports"][0]["routes_in_force"], "none");
    stage.mesh.manifest(
        "route-limited",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: limited, namespace: demo}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: limited}]\n  rules: [{timeouts: {request: 20s}}]\n",
    );
    wait::until("the rule's limit", PATIENCE, || (ask(&stage.client, &late, &[]).status == 401).then_some(()));
    let policy = stage.mesh.weir_json(&["policy", "svc/limited:8080", "-n", "demo"]);
    let rule = &policy["ports"][0]["routes"][0]["rules"][0];
    let request = of(rule, "timeouts.request");
    assert_eq!(
        (&request["value"], &request["source"]["field"]),
        (&"20s".into(), &"spec.rules[0].timeouts.request".into())
    );
    let explained = explain(&stage, "deploy/client", "demo", "svc/limited:8080", "/late", &[]);
    assert_eq!(of(&explained, "timeouts.request"), request);
    let told = stage.mesh.weir_json(&["diagnostics", "policy", "svc/limited", "8080", "-n", "demo"]);
    assert_eq!(told["key"], format!("{limited}:{HTTP1}"));
    let rule = &told["destination"]["service"]["httpRoutes"][0]["rules"][0];
    assert_eq!((&rule["timeouts"]["requestMs"], &rule["matches"][0]["pathPrefix"]), (&20_000.into(), &"/".into()));
}
