use clap::Parser as _;

use super::*;
use crate::{
    args::{Arguments, Command},
    by_route::fixtures::reports,
};

fn query(arguments: &str) -> Result<(Query, Session), CliError> {
    let words = "weir --control https://c:1 routes".split(' ').chain(arguments.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let Command::Routes(routes) = &arguments.command else { panic!("{arguments:?}") };
    let session = Session::new(&arguments.global, &arguments.command).unwrap();
    Query::new(routes, &session).map(|query| (query, session))
}

fn shown(arguments: &str) -> Vec<String> {
    let (query, session) = query(arguments).unwrap();
    let text = table(&rows(&reports(), &query), &query, session.format == Format::Wide).text(false);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn routes_of_a_service() {
    let expected = [
        "ROUTE SERVICE SUCCESS RPS LATENCY_P50 LATENCY_P95 LATENCY_P99",
        "main web:80 95.00% 20.0rps 15ms 20ms 20ms",
        "[DEFAULT] web:80 100.00% 2.0rps 15ms 20ms 20ms",
    ];
    for arguments in ["svc/web -n shop", "-n shop", "svc -n shop", "deploy/cart --to svc/web -n shop"] {
        assert_eq!(shown(arguments), expected, "{arguments}");
    }
    assert_eq!(shown("svc/other -n shop").len(), 1);
    assert_eq!(shown("deploy/cron --to svc/web -n shop").len(), 1);
}

/// 200 requests of which 95 % ended well took 125 attempts on one node, of which 76 % did: retries hide failures from clients.
#[test]
fn what_retries_hide_is_shown_beside() {
    assert_eq!(
        shown("svc/web -n shop -o wide")[..2],
        [
            "ROUTE SERVICE EFFECTIVE_SUCCESS EFFECTIVE_RPS ACTUAL_SUCCESS ACTUAL_RPS LATENCY_P50 LATENCY_P95 LATENCY_P99",
            "main web:80 95.00% 20.0rps 76.00% 12.5rps 15ms 20ms 20ms",
        ]
    );
    assert!(shown("svc/web -n shop -o wide")[2].starts_with("[DEFAULT] web:80 100.00% 2.0rps - -"));
}

#[test]
fn routes_of_other_namespaces_are_named() {
    assert_eq!(shown("-A")[1], "front shop/GET /a api:80 100.00% 1.0rps 15ms 20ms 20ms");
    let between = "deploy/cron --to svc/api --to-namespace front -n shop";
    assert_eq!(shown(between)[1], "shop/GET /a api:80 100.00% 1.0rps 15ms 20ms 20ms");
    let (query, _) = query(between).unwrap();
    let asked = query.question();
    assert_eq!((asked.client_namespace.as_str(), asked.service_namespace.as_str()), ("shop", "front"));
}

#[test]
fn programs_get_names_and_nulls() {
    let (query, _) = query("svc -n shop").unwrap();
    let rows = rows(&reports(), &query);
    let value: Vec<JsonRow<'_>> = rows.iter().map(|(key, figures)| JsonRow::new(key, figures)).collect();
    let value = serde_json::to_value(value).unwrap();
    assert_eq!(
        value[0],
        serde_json::json!({
            "namespace": "shop", "service": "web", "port": 80, "route": "main", "route_namespace": "shop", "route_kind": "HTTPRoute",
            "effective_success": 0.95, "effective_rps": 20.0, "actual_success": 0.76, "actual_rps": 12.5,
            "latency_ms_p50": 15.0, "latency_ms_p95": 19.5, "latency_ms_p99": 19.9,
            "requests": 200, "failures": 10, "attempts": 125, "retries": 50, "timeouts": 4,
        })
    );
    let default = &value[1];
    assert_eq!((&default["route"], &default["actual_rps"]), (&"[DEFAULT]".into(), &().into()));
}

#[test]
fn what_cannot_be_asked_is_said() {
    for (arguments, advice) in [
        ("deploy/web", "--to svc/NAME"),
        ("svc/a --to svc/b", "from pods to a Service"),
        ("deploy/a --to deploy/b", "from pods to a Service"),
    ] {
        let Err(CliError::Argument(said)) = query(arguments) else { panic!("{arguments}") };
        assert!(said.contains(advice), "{said}");
    }
}
