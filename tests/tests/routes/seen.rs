//! `weir routes` and `weir stat-outbound`: what people see of requests by route is what became of them.

use std::process::Command;

use serde_json::Value;
use weir_tests::{mesh::NAMESPACE, wait};

use crate::stage::{HTTP1, PATIENCE, Stage, ask, service};

const REQUESTS: usize = 40;

fn lines(stage: &Stage, words: &[&str]) -> Vec<Value> {
    let more = ["--time-window", "5m", "-n", NAMESPACE];
    let shown = stage.mesh.weir_json(&[words, &more].concat());
    shown.as_array().cloned().unwrap_or_default()
}

fn of_route<'a>(lines: &'a [Value], route: &str) -> &'a Value {
    lines.iter().find(|line| line["route"] == route && line["backend"].is_null()).unwrap_or(&Value::Null)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn text(command: &mut Command) -> String {
    String::from_utf8_lossy(&command.output().expect("weir").stdout).into_owned()
}

/// `/flaky` fails at `v2`, and is sent again to `v1`: all requests end well, and what that took is seen. Seen to fail where attempts are counted
/// as requests.
#[test]
fn requests_and_what_they_took_are_told_apart() {
    let stage = Stage::start();
    stage.route(
        "  rules: [{matches: [{path: {value: /flaky}}], retry: {codes: [503], attempts: 2}}, {matches: [{path: {value: /down}}]}]",
    );
    for at in 0..REQUESTS {
        assert_eq!(stage.get(&format!("/flaky/{at}"), &[]).status, 200);
    }
    for _ in 0..REQUESTS / 4 {
        assert_eq!(stage.get("/down", &[]).status, 503);
    }
    // The last ones end a moment after their clients have what they asked for.
    let all = wait::until("all are counted", PATIENCE, || {
        let lines = lines(&stage, &["routes", "svc/web"]);
        (of_route(&lines, "main-8080")["requests"] == REQUESTS + REQUESTS / 4).then_some(lines)
    });
    let main = of_route(&all, "main-8080");
    assert_eq!(
        (&main["service"], &main["port"], &main["route_kind"]),
        (&"web".into(), &HTTP1.into(), &"HTTPRoute".into())
    );
    assert_eq!(main["failures"], REQUESTS / 4, "{main:#}");
    assert!((number(&main["effective_success"]) - 0.8).abs() < 1e-9, "{main:#}");
    let retries = main["retries"].as_u64().expect("retries");
    assert!(retries > 0 && main["attempts"] == REQUESTS as u64 + REQUESTS as u64 / 4 + retries, "{main:#}");
    assert!(number(&main["actual_success"]) < 0.8 && number(&main["actual_rps"]) > number(&main["effective_rps"]));
    assert!(number(&main["latency_ms_p50"]) > 0.0);

    let to = lines(&stage, &["routes", "deploy/client", "--to", "svc/web"]);
    assert_eq!(of_route(&to, "main-8080")["requests"], main["requests"]);
    assert_eq!(lines(&stage, &["routes", "deploy/v1", "--to", "svc/web"]), Vec::<Value>::new(), "it sends nothing");

    let sent = lines(&stage, &["stat-outbound", "deploy/client"]);
    let own = of_route(&sent, "main-8080");
    assert_eq!(
        (&own["name"], &own["requests"], &own["failures"]),
        (&"client".into(), &main["requests"], &main["failures"])
    );
    let share = retries as f64 / (retries as f64 + number(&main["requests"]));
    assert!((number(&own["retry_rate"]) - share).abs() < 1e-9, "{own:#}");
    let backend =
        sent.iter().find(|line| line["route"] == "main-8080" && line["backend"] == "web").expect("its backend");
    assert_eq!(
        (&backend["requests"], &backend["failures"]),
        (&main["attempts"], &(retries + REQUESTS as u64 / 4).into())
    );

    let table = text(&mut stage.mesh.weir(&["stat-outbound", "deploy/client", "-n", NAMESPACE]));
    let has = |parts: &[&str]| table.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["NAME", "SERVICE", "ROUTE", "TYPE", "BACKEND", "TIMEOUTS", "RETRIES"]), "{table}");
    assert!(has(&["client", "web:8080", "main-8080", "HTTPRoute", "80.00%"]) && has(&["────►", "web:8080"]), "{table}");
    let wide = text(&mut stage.mesh.weir(&["routes", "svc/web", "-n", NAMESPACE, "-o", "wide"]));
    assert!(wide.contains("EFFECTIVE_SUCCESS") && wide.contains("ACTUAL_RPS"), "{wide}");
}

/// The names of a ServiceProfile's routes are what people look for.
#[test]
fn routes_of_a_profile_have_its_names() {
    let mut stage = Stage::start();
    let named = service(&mut stage, "named", &[]);
    let profile = format!(
        "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: named.{NAMESPACE}.svc.cluster.local, namespace: {NAMESPACE}}}\n\
         spec: {{routes: [{{name: GET /items, condition: {{pathRegex: /items/.*}}}}]}}\n"
    );
    stage.mesh.manifest("profile-named", &profile);
    let get = |path: &str| ask(&stage.client, &format!("http://{named}:{HTTP1}{path}"), &[]).status;
    let counted =
        |route: &str| of_route(&lines(&stage, &["routes", "svc/named"]), route)["requests"].as_u64().unwrap_or(0);
    wait::until("the profile decides", PATIENCE, || {
        get("/items/0");
        (counted("GET /items") > 0).then_some(())
    });
    let (before, others) = (counted("GET /items"), counted("[DEFAULT]"));
    for at in 0..10 {
        assert_eq!(get(&format!("/items/{at}")), 200);
        assert_eq!(get("/other"), 200);
    }
    wait::until("all are counted", PATIENCE, || {
        (counted("GET /items") == before + 10 && counted("[DEFAULT]") == others + 10).then_some(())
    });
}
