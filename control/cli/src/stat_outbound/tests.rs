use clap::Parser as _;

use super::*;
use crate::{
    args::{Arguments, Command},
    by_route::fixtures::reports,
};

fn asked(arguments: &str) -> Result<Selector, CliError> {
    let words = "weir --control https://c:1 stat-outbound".split(' ').chain(arguments.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let Command::StatOutbound(chosen) = &arguments.command else { panic!("{arguments:?}") };
    selector(chosen, &Session::new(&arguments.global, &arguments.command).unwrap())
}

fn shown(arguments: &str) -> Vec<String> {
    let selector = asked(arguments).unwrap();
    let text = table(&rows(&reports(), 60.0, &selector), &selector).text(false);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_route_and_what_it_sends_to() {
    assert_eq!(
        shown("deploy/cart -n shop"),
        [
            "NAME SERVICE ROUTE TYPE BACKEND SUCCESS RPS LATENCY_P50 LATENCY_P95 LATENCY_P99 TIMEOUTS RETRIES",
            "cart web:80 main HTTPRoute 95.00% 20.0rps 15ms 20ms 20ms 2.00% 20.00%",
            "├─── ────────► v1:8080 100.00% 6.0rps 5ms 10ms 10ms 0.00%",
            "└─── ────────► v2:8080 53.84% 6.5rps 5ms 10ms 10ms 6.15%",
            "cart web:80 [DEFAULT] 100.00% 2.0rps 15ms 20ms 20ms 0.00% 0.00%",
        ]
    );
}

#[test]
fn clients_of_all_kinds_and_other_namespaces() {
    assert_eq!(shown("-n shop").iter().filter(|line| line.starts_with("deploy/")).count(), 3);
    assert!(shown("deploy/cron -n shop")[1].starts_with("cron api.front:80 shop/GET /a ServiceProfile 100.00%"));
    assert!(shown("pod -A")[1].starts_with("shop cart-1 web:80 main"));
    assert!(shown("ns")[1].starts_with("shop api.front:80"));
    assert_eq!(shown("-n front").len(), 1);
    assert_eq!(question(&asked("deploy -n shop").unwrap()).client_namespace, "shop");
    assert_eq!(question(&asked("ns/shop").unwrap()).client_namespace, "", "whatever the namespace is");
    let Err(CliError::Argument(said)) = asked("svc/web") else { panic!("a Service sends nothing") };
    assert!(said.contains("weir routes"), "{said}");
}

#[test]
fn programs_get_a_line_per_backend_too() {
    let selector = asked("deploy/cart -n shop").unwrap();
    let rows = rows(&reports(), 60.0, &selector);
    let value = serde_json::to_value(json_rows(&rows)).unwrap();
    assert_eq!(
        value[2],
        serde_json::json!({
            "namespace": "shop", "kind": "deployment", "name": "cart", "service_namespace": "shop", "service": "web", "port": 80,
            "route": "main", "route_namespace": "shop", "route_kind": "HTTPRoute",
            "backend_namespace": "shop", "backend": "v2", "backend_port": 8080,
            "success": 35.0 / 65.0, "rps": 6.5, "latency_ms_p50": 5.0, "latency_ms_p95": 9.5, "latency_ms_p99": 9.9,
            "timeout_rate": 4.0 / 65.0, "retry_rate": null, "requests": 65, "failures": 30,
        })
    );
    let first = &value[0];
    assert_eq!((&first["backend"], &first["retry_rate"], &first["requests"]), (&().into(), &0.2.into(), &200.into()));
}
