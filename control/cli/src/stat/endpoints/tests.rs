use clap::Parser as _;
use weir_api::v1::PodRef;

use super::*;
use crate::args::{Arguments, Command};

fn endpoint(service: &str, address: &str, pod: &str, state: EndpointState) -> EndpointReport {
    let reference = PodRef { namespace: "shop".into(), name: pod.into(), node_name: "n-2".into(), ..PodRef::default() };
    let is_out = matches!(state, EndpointState::Out | EndpointState::Trial);
    EndpointReport {
        service: service.into(),
        port: 80,
        address: address.into(),
        pod: Some(reference),
        ready: true,
        latency_ms: 11.6,
        pending: 3,
        state: state.into(),
        lasted_ms: is_out.then_some(75_000),
        next_trial_ms: is_out.then_some(2_400),
        ejections: if is_out { 4 } else { 0 },
        ..EndpointReport::default()
    }
}

/// `web-1` is out at one of two nodes, `web-2` is in; `plain` has no breaker.
fn reports() -> Vec<Report> {
    let report = |node: &str, state, more: Vec<EndpointReport>| Report {
        node_name: node.into(),
        endpoints: [
            vec![
                endpoint("shop/web", "10.0.0.1:8080", "web-1", state),
                endpoint("shop/web", "10.0.0.2:8080", "web-2", EndpointState::In),
            ],
            more,
        ]
        .concat(),
        ..Report::default()
    };
    let mut plain = endpoint("shop/plain", "10.0.0.9:8080", "", EndpointState::Unspecified);
    plain.ready = false;
    vec![report("n-1", EndpointState::Out, vec![plain]), report("n-2", EndpointState::In, Vec::new())]
}

fn parsed(arguments: &str) -> Result<Option<Query>, CliError> {
    let words = "weir --control https://c:1 stat".split(' ').chain(arguments.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let Command::Stat(stat) = &arguments.command else { panic!("{arguments:?}") };
    Query::of(stat, &Session::new(&arguments.global, &arguments.command).unwrap())
}

fn rendered(arguments: &str, reports: &[Report]) -> String {
    let words = "weir --control https://c:1 --color never stat".split(' ').chain(arguments.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let session = Session::new(&arguments.global, &arguments.command).unwrap();
    let Command::Stat(stat) = &arguments.command else { panic!("{arguments:?}") };
    let query = Query::of(stat, &session).unwrap().unwrap();
    table::render(&rows(reports), &query, &session).unwrap()
}

fn shown(arguments: &str, reports: &[Report]) -> Vec<String> {
    let text = rendered(arguments, reports);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_line_says_how_many_nodes_have_taken_it_out() {
    assert_eq!(
        shown("endpoints -n shop", &reports()),
        [
            "SERVICE PORT ADDRESS POD NODE READY OUT EJECTIONS",
            "plain 80 10.0.0.9:8080 - - no - -",
            "web 80 10.0.0.1:8080 web-1 n-2 yes 1/2 4",
            "web 80 10.0.0.2:8080 web-2 n-2 yes 0/2 0",
        ]
    );
    assert_eq!(shown("ep -A", &reports())[2], "shop web 80 10.0.0.1:8080 web-1 n-2 yes 1/2 4");
    assert!(rendered("ep", &[]).is_empty());
}

#[test]
fn wide_has_a_line_for_each_node() {
    assert_eq!(
        shown("endpoints -n shop -o wide", &reports())[..4],
        [
            "SERVICE PORT ADDRESS POD NODE READY SEEN_BY STATE FOR UNTIL EJECTIONS LATENCY OPEN",
            "plain 80 10.0.0.9:8080 - - no n-1 - - - - 12ms 3",
            "web 80 10.0.0.1:8080 web-1 n-2 yes n-1 out 1m15s 2s 4 12ms 3",
            "web 80 10.0.0.1:8080 web-1 n-2 yes n-2 in - - 0 12ms 3",
        ]
    );
}

#[test]
fn programs_get_all_of_it() {
    let value: serde_json::Value = serde_json::from_str(&rendered("endpoints -o json", &reports())).unwrap();
    let web = &value[1];
    for (name, expected) in [
        ("namespace", serde_json::json!("shop")),
        ("service", "web".into()),
        ("port", 80.into()),
        ("address", "10.0.0.1:8080".into()),
        ("pod", "web-1".into()),
        ("node", "n-2".into()),
        ("ready", true.into()),
        ("breaker", true.into()),
        ("nodes_out", 1.into()),
        ("nodes", 2.into()),
        ("ejections", 4.into()),
    ] {
        assert_eq!(web[name], expected, "{name}: {web:#}");
    }
    let seen = serde_json::json!({"node": "n-1", "state": "out", "for_ms": 75_000, "until_ms": 2_400, "ejections": 4, "latency_ms": 11.6, "open_requests": 3});
    assert_eq!(web["seen_by"][0], seen);
    assert_eq!((&value[0]["breaker"], &value[0]["seen_by"][0]["state"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(rendered("ep -o json", &[]).trim(), "[]");
}

#[test]
fn a_trial_counts_as_out_and_an_older_node_as_without_breaker() {
    let mut reports = reports();
    reports[1].endpoints[0] = endpoint("shop/web", "10.0.0.1:8080", "web-1", EndpointState::Trial);
    reports[1].endpoints[1].state = 77;
    assert_eq!(shown("ep -n shop", &reports)[2], "web 80 10.0.0.1:8080 web-1 n-2 yes 2/2 8");
    assert_eq!(shown("ep -n shop", &reports)[3], "web 80 10.0.0.2:8080 web-2 n-2 yes 0/2 0");
}

#[test]
fn services_by_name() {
    let services = |arguments: &str| parsed(arguments).unwrap().unwrap().question();
    assert_eq!(services("endpoints svc/web api -n shop").services, ["web", "api"]);
    assert_eq!(services("ep/web").services, ["web"]);
    assert_eq!(services("endpoints -n shop").namespace, "shop");
    assert_eq!((services("Endpoints -A").namespace, services("ep -A").services.len()), (String::new(), 0));
    assert!(parsed("deploy").unwrap().is_none() && parsed("").unwrap().is_none());
    for wrong in ["ep/", "ep svc/", "ep deploy/web", "ep --to svc/web", "ep --from deploy/web", "ep --unmeshed"] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

/// A pod's address is another one's after it.
#[test]
fn a_later_report_of_the_same_address_hides_none_that_is_out() {
    let (out, is_in) = (EndpointState::Out, EndpointState::In);
    let one = |pod: &str, state| endpoint("shop/web", "10.0.0.1:8080", pod, state);
    let report = |endpoints| [Report { node_name: "n-1".into(), endpoints, ..Report::default() }];
    let shown = |first, second| shown("ep -n shop", &report(vec![first, second]))[1..].to_vec();
    let lines = ["web 80 10.0.0.1:8080 web-1 n-2 yes 1/1 4", "web 80 10.0.0.1:8080 web-2 n-2 yes 0/1 0"];
    assert_eq!(shown(one("web-1", out), one("web-2", is_in)), lines);
    // As a StatefulSet's, which keeps its name.
    assert_eq!(shown(one("web-1", out), one("web-1", is_in)), lines[..1]);
    assert_eq!(shown(one("web-1", is_in), one("web-1", out)), lines[..1]);
}

#[test]
fn what_is_left_out_is_said_to_be_in_only_where_that_is_known() {
    let full = |node: &str, states: &[EndpointState], endpoints_left_out| Report {
        node_name: node.into(),
        endpoints: states.iter().map(|state| endpoint("shop/web", "10.0.0.1:8080", "web-1", *state)).collect(),
        endpoints_left_out,
        ..Report::default()
    };
    let said = |reports: &[Report]| left_out(&ObserveResponse { reports: reports.to_vec(), ..Default::default() });
    let (out, trial, is_in) = (EndpointState::Out, EndpointState::Trial, EndpointState::In);
    let first = full("n-1", &[out, is_in], 3);
    assert!(said(std::slice::from_ref(&first)).unwrap().contains("3 that are in are not shown"));
    let text = said(&[first, full("n-2", &[out, trial], 4)]).unwrap();
    assert!(
        text.contains("2 nodes (as n-1)") && text.contains("7 are not shown, and some of them may be out"),
        "{text}"
    );
    assert_eq!(said(&[full("n-1", &[out], 0)]), None);
}
