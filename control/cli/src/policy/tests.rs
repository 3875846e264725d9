use weir_api::v1::{
    BackendPolicy, HttpMatch, ObjectRef, PolicyResponse, RoutePolicy, RoutesInForce, RulePolicy, Source,
    http_match::Path,
};

use super::*;

fn policy() -> Policy {
    let object = |kind: &str, name: &str| {
        Some(ObjectRef { kind: kind.into(), namespace: "shop".into(), name: name.into(), ..ObjectRef::default() })
    };
    let setting = |name: &str, value: &str, source: Option<Source>| v1::Setting {
        name: name.into(),
        value: value.into(),
        source,
    };
    let annotation = "metadata.annotations.timeout.linkerd.io/idle".to_owned();
    let idle = setting("timeouts.idle", "9s", Some(Source { object: object("Service", "web"), field: annotation }));
    let of_rule = Some(Source { object: object("HTTPRoute", "main"), field: "spec.rules[0].timeouts.request".into() });
    let rule = RulePolicy {
        matches: vec![HttpMatch { path: Some(Path::ExactPath("/a".into())), ..HttpMatch::default() }],
        backends: vec![BackendPolicy {
            weight: 1,
            target: Some(To::Invalid("no such Service".into())),
            filters: Vec::new(),
        }],
        settings: vec![setting("timeouts.request", "2s", of_rule), idle.clone()],
        ..RulePolicy::default()
    };
    let route = |name: &str, is_in_force: bool, reason: &str, rules: Vec<RulePolicy>| RoutePolicy {
        route: object("HTTPRoute", name),
        is_in_force,
        reason: reason.into(),
        hostnames: Vec::new(),
        rules,
    };
    Policy::of(PolicyResponse {
        namespace: "shop".into(),
        service: "web".into(),
        client_namespace: "shop".into(),
        settings: vec![setting("timeouts.request", "none", None), idle],
        ports: vec![v1::PortPolicy {
            port: 80,
            name: "http".into(),
            protocol: Some(setting("protocol", "detect", None)),
            routes_in_force: RoutesInForce::ProducerRoutes.into(),
            routes: vec![
                route("main", true, "", vec![rule]),
                route("late", false, "TooManyMatches: older ones", Vec::new()),
            ],
            ..v1::PortPolicy::default()
        }],
        flaws: Vec::new(),
    })
}

#[test]
fn people_see_values_and_where_they_come_from() {
    let text = text(&policy(), false);
    let rows: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "Service shop/web, for clients of namespace shop",
        "timeouts.request none default",
        "timeouts.idle 9s Service shop/web timeout.linkerd.io/idle",
        "port 80 (http), protocol detect (default)",
        "HTTPRoute shop/main: in force",
        "HTTPRoute shop/late: not in force: TooManyMatches: older ones",
        "0 match Exact /a spec.rules[0].matches",
        "0 to nobody, weight 1: no such Service spec.rules[0].backendRefs",
        "0 timeouts.request 2s HTTPRoute shop/main spec.rules[0].timeouts.request",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row:?} is not in\n{text}");
    }
    assert!(!rows.iter().any(|row| row.starts_with("0 timeouts.idle")), "it is the Service's\n{text}");
}

#[test]
fn programs_see_stable_names() {
    let shown = serde_json::to_value(policy()).unwrap();
    assert_eq!(shown["settings"][0]["source"], serde_json::Value::Null);
    assert_eq!(shown["settings"][1]["source"]["object"]["kind"], "Service");
    let rule = &shown["ports"][0]["routes"][0]["rules"][0];
    assert_eq!((&rule["is_itself"], &rule["backends"][0]["invalid"]), (&false.into(), &"no such Service".into()));
    assert_eq!(shown["ports"][0]["routes_in_force"], "producer");
}
