use weir_api::v1::{
    Candidate, Criterion, ExplainResponse, Failure, Forwarding, HttpMatch, ObjectRef, RouteAside, RoutesInForce,
    ServicePortRef, Setting, Verdict, Way, http_match::Path, way::What,
};

use super::*;

fn service(name: &str) -> Option<ServicePortRef> {
    Some(ServicePortRef { namespace: "shop".into(), name: name.into(), port: 80, port_name: "http".into() })
}

fn route(name: &str) -> Option<ObjectRef> {
    let group = "gateway.networking.k8s.io".into();
    Some(ObjectRef { group, kind: "HTTPRoute".into(), namespace: "shop".into(), name: name.into() })
}

fn candidate(rule: u32, verdict: Verdict, criterion: Criterion, name: &str) -> Candidate {
    Candidate {
        route: route("main"),
        rule,
        condition: Some(HttpMatch { path: Some(Path::PathPrefix(format!("/{rule}"))), ..HttpMatch::default() }),
        verdict: verdict.into(),
        criterion: criterion.into(),
        name: name.into(),
        ..Candidate::default()
    }
}

fn answer() -> Answer {
    let forward = Forwarding { service: service("v1"), endpoints: 3, ready_endpoints: 2, ..Forwarding::default() };
    let failure = Failure { http_status: 500, grpc_code: None, reason: "Service shop/gone not found".into() };
    let given = ExplainResponse {
        service: service("web"),
        protocol: Some(Setting { name: "protocol".into(), value: "detect".into(), source: None }),
        method: "GET".into(),
        authority: "web".into(),
        path: "/0\u{1b}[2J".into(),
        routes_in_force: RoutesInForce::ProducerRoutes.into(),
        candidates: vec![
            candidate(0, Verdict::Won, Criterion::Unspecified, ""),
            candidate(1, Verdict::Behind, Criterion::PathLength, ""),
            candidate(2, Verdict::Unmet, Criterion::Header, "x-tenant"),
        ],
        candidates_left_out: 7,
        aside: vec![RouteAside { route: route("other"), reason: "a GRPCRoute has the port".into() }],
        ways: vec![
            Way { percent: 75.0, what: Some(What::Forward(forward)), ..Way::default() },
            Way { percent: 25.0, what: Some(What::Failure(failure)), ..Way::default() },
        ],
        settings: vec![Setting { name: "timeouts.request".into(), value: "5s".into(), source: None }],
        ..ExplainResponse::default()
    };
    Answer::of(Source { namespace: "shop".into(), kind: "deployment".into(), name: "cart".into() }, given)
}

#[test]
fn people_see_what_happens_and_why() {
    let text = text::of(&answer(), false);
    for line in [
        "GET web/0\\u{1b}[2J",
        "from deployment shop/cart to Service shop/web port 80 (detect: default)",
        "   75% goes to Service shop/v1 port 80, 2 of 3 endpoints ready",
        "   25% is answered 500: Service shop/gone not found",
        "by HTTPRoute shop/main rules[0].matches[0]: PathPrefix /0",
        "and 7 more, which lost",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    for part in ["header x-tenant is not as it asks", "the winner's prefix is longer", "a GRPCRoute has the port"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn programs_see_stable_names() {
    let shown = serde_json::to_value(answer()).unwrap();
    assert_eq!(shown["outcome"][0]["service"]["name"], "v1");
    assert_eq!((&shown["outcome"][1]["result"], &shown["outcome"][1]["status"]), (&"failure".into(), &500.into()));
    assert_eq!(shown["rule"]["route"]["name"], "main");
    assert_eq!((&shown["rule"]["rule"], &shown["rule"]["match"]), (&0.into(), &0.into()));
    let said: Vec<_> = [0, 1, 2]
        .map(|at| {
            format!(
                "{} {} {}",
                shown["candidates"][at]["rule"],
                shown["candidates"][at]["verdict"],
                shown["candidates"][at]["criterion"]
            )
        })
        .into();
    assert_eq!(said, ["0 \"won\" \"\"", "1 \"behind\" \"path_length\"", "2 \"unmet\" \"header\""]);
    assert_eq!(shown["not_asked"][0]["route"]["name"], "other");
    assert_eq!(shown["settings"][0]["source"], serde_json::Value::Null);
}

#[test]
fn requests_as_they_are_written() {
    use clap::Parser as _;
    let asked = |words: &[&str]| {
        let arguments =
            crate::args::Arguments::try_parse_from([&["weir", "explain", "deploy/a"], words].concat()).unwrap();
        let crate::args::Command::Explain(chosen) = arguments.command else { panic!("{words:?}") };
        let from = Source::parse(&chosen.from, "shop").unwrap();
        request(&chosen, &from, Target::parse(&chosen.to, "shop").unwrap())
    };
    let call = asked(&["svc/web:80", "--grpc", "shop.Cart/Add", "-H", "x: a:b"]).unwrap();
    assert_eq!((call.method.as_str(), call.path.as_str(), call.port), ("POST", "/shop.Cart/Add", 80));
    let headers: Vec<_> = call.headers.iter().map(|header| (&*header.name, &*header.value)).collect();
    assert_eq!(headers, [("x", "a:b"), ("content-type", "application/grpc")]);
    let plain = asked(&["web.other"]).unwrap();
    assert_eq!((plain.namespace.as_str(), plain.client_namespace.as_str(), plain.path.as_str()), ("other", "shop", ""));
    assert!(asked(&["svc/web", "-H", "x"]).unwrap_err().contains("NAME: VALUE"));
    assert!(asked(&["svc/web", "--grpc", "Cart"]).unwrap_err().contains("SERVICE/METHOD"));
}
