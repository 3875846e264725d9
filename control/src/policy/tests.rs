use super::*;
use crate::{
    fixtures::{NAMESPACE, SERVICE, options, route, slice, upsert},
    parse,
};

fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    upsert(&mut index, &texts.concat());
    index
}

fn annotated(text: &str, annotations: &str) -> String {
    text.replacen("namespace: demo}", &format!("namespace: demo, annotations: {{{annotations}}}}}"), 1)
}

fn asked() -> v1::PolicyRequest {
    v1::PolicyRequest { namespace: "demo".into(), service: "web".into(), ..v1::PolicyRequest::default() }
}

/// `value from`: the object's kind and the field, or `default`.
fn said(settings: &[v1::Setting], name: &str) -> String {
    let found = settings.iter().find(|setting| setting.name == name);
    let Some(v1::Setting { value, source, .. }) = found else { return "nothing".to_owned() };
    match source {
        None => format!("{value} default"),
        Some(source) => {
            let kind = source.object.as_ref().map_or("nobody", |object| &object.kind);
            format!("{value} {kind} {}", source.field.trim_start_matches("metadata.annotations."))
        }
    }
}

#[test]
fn every_default_is_called_one() {
    let index = index(&[NAMESPACE, SERVICE, &slice(&[])]);
    let policy = policy(&index, &[], &asked()).unwrap();
    assert!(policy.settings.iter().all(|setting| setting.source.is_none()), "{:?}", policy.settings);
    for (name, value) in [
        ("timeouts.request", "none"),
        ("timeouts.backendRequest", "none"),
        ("retry.limit", "0"),
        ("retry.budget.ratio", "0.2"),
        ("retry.budget.ttl", "10s"),
        ("breaker.kind", "none"),
        ("loadBias.penalty", "none"),
        ("balancer.kind", "peak-ewma"),
        ("balancer.slowStart", "none"),
        ("balancer.zoneOverflow", "none"),
        ("endpoints", "all"),
        ("l5dRequestHeaders", "ignored"),
    ] {
        assert_eq!(said(&policy.settings, name), format!("{value} default"), "{name}");
    }
    assert_eq!(policy.client_namespace, "demo");
    assert_eq!(policy.ports[0].protocol.as_ref().map(|setting| setting.value.as_str()), Some("detect"));
}

#[test]
fn a_rules_sessions_are_said() {
    let sessions =
        "{sessionName: Cart, absoluteTimeout: 90m, idleTimeout: 1500ms, cookieConfig: {lifetimeType: Permanent}}";
    let route = route("main", "demo", &format!("  rules: [{{}}, {{sessionPersistence: {sessions}}}]"));
    let policy = policy(&index(&[NAMESPACE, SERVICE, &slice(&[]), &route]), &[], &asked()).unwrap();
    let rules = &policy.ports[0].routes[0].rules;
    assert_eq!(said(&rules[0].settings, "sessionPersistence"), "nothing");
    let expected = "cookie:Cart,absolute=5400s,idle=1500ms,permanent HTTPRoute spec.rules[1].sessionPersistence";
    assert_eq!(said(&rules[1].settings, "sessionPersistence"), expected);
}

#[test]
fn every_value_names_its_object_and_field() {
    let service = annotated(
        SERVICE,
        "timeout.linkerd.io/request: 5s, timeout.linkerd.io/idle: 500ms, retry.linkerd.io/http: \"5xx,429\", retry.linkerd.io/grpc: unavailable, \
         weir.mesh/retry-budget-ratio: \"0.5\", balancer.linkerd.io/failure-accrual: unified, \
         balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold: \"0.95\", balancer.alpha.linkerd.io/penalize-failures: \"true\", \
         config.linkerd.io/opaque-ports: \"81\", \
         weir.mesh/balancer: consistent-hash, weir.mesh/balancer-hash: \"header:X-User\", weir.mesh/balancer-slow-start: 30s",
    );
    let service =
        service.replace("  ports:\n", "  internalTrafficPolicy: Local\n  ports:\n  - {name: raw, port: 81}\n");
    let policy = policy(&index(&[NAMESPACE, &service, &slice(&[])]), &[], &asked()).unwrap();
    for (name, expected) in [
        ("timeouts.request", "5s Service timeout.linkerd.io/request"),
        ("timeouts.response", "none default"),
        ("timeouts.idle", "500ms Service timeout.linkerd.io/idle"),
        ("retry.http", "429,500-599 Service retry.linkerd.io/http"),
        ("retry.grpc", "unavailable Service retry.linkerd.io/grpc"),
        ("retry.limit", "1 default"),
        ("retry.backoff", "25ms default"),
        ("retry.budget.ratio", "0.5 Service weir.mesh/retry-budget-ratio"),
        ("retry.budget.minPerSecond", "10 default"),
        ("breaker.kind", "unified Service balancer.linkerd.io/failure-accrual"),
        ("breaker.maxFailures", "7 default"),
        (
            "breaker.successRate.threshold",
            "0.95 Service balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold",
        ),
        ("loadBias.penalty", "5s Service balancer.alpha.linkerd.io/penalize-failures"),
        ("balancer.kind", "consistent-hash Service weir.mesh/balancer"),
        ("balancer.hash", "header:x-user Service weir.mesh/balancer-hash"),
        ("balancer.slowStart", "none Service weir.mesh/balancer-slow-start"),
        ("endpoints", "client's node Service spec.internalTrafficPolicy"),
    ] {
        assert_eq!(said(&policy.settings, name), expected, "{name}");
    }
    let protocols: Vec<String> = policy.ports.iter().map(|port| said(port.protocol.as_slice(), "protocol")).collect();
    assert_eq!(protocols, ["opaque Service config.linkerd.io/opaque-ports", "detect default"]);
}

/// A route's annotations replace all of the Service's; a rule's field stands below them.
#[test]
fn rules_say_which_word_is_in_force() {
    let service = annotated(SERVICE, "timeout.linkerd.io/idle: 9s, retry.linkerd.io/http: 5xx");
    let rules = "  rules:\n  - {timeouts: {request: 2s, backendRequest: 1s}, retry: {codes: [503], attempts: 2}}\n  - {matches: [{path: {value: /x}}], backendRefs: [{name: gone, port: 80}]}";
    let plain = route("plain", "demo", rules);
    let own = route("own", "demo", rules)
        .replace("namespace: demo}\nspec", "namespace: demo, annotations: {timeout.linkerd.io/request: 7s}}\nspec");
    let policy = policy(&index(&[&service, &slice(&[]), &plain, &own]), &[], &asked()).unwrap();
    let routes = &policy.ports[0].routes;
    let rule = |route: &str, rule: usize| {
        let found = routes.iter().find(|one| one.route.as_ref().is_some_and(|object| object.name == route));
        &found.unwrap().rules[rule]
    };
    for (route, at, name, expected) in [
        ("plain", 0, "timeouts.request", "2s HTTPRoute spec.rules[0].timeouts.request"),
        ("plain", 0, "timeouts.backendRequest", "1s HTTPRoute spec.rules[0].timeouts.backendRequest"),
        ("plain", 0, "timeouts.idle", "9s Service timeout.linkerd.io/idle"),
        ("plain", 0, "retry.http", "503 HTTPRoute spec.rules[0].retry"),
        ("plain", 0, "retry.limit", "2 HTTPRoute spec.rules[0].retry"),
        ("plain", 1, "retry.http", "500-599 Service retry.linkerd.io/http"),
        ("own", 0, "timeouts.request", "7s HTTPRoute timeout.linkerd.io/request"),
        ("own", 0, "timeouts.idle", "none default"),
    ] {
        assert_eq!(said(&rule(route, at).settings, name), expected, "{route} {at} {name}");
    }
    let backend = &rule("plain", 1).backends[0];
    assert_eq!(backend.target, Some(v1::backend_policy::Target::Invalid("Service demo/gone not found".into())));
    assert!(rule("plain", 0).is_itself && rule("plain", 0).backends.is_empty());
}

#[test]
fn routes_that_are_not_in_force_say_why() {
    let grpc = route("calls", "demo", "").replace("HTTPRoute", "GRPCRoute");
    let index = index(&[SERVICE, &slice(&[]), &route("http", "demo", ""), &grpc, &route("own", "other", "")]);
    let of = |client: &str| -> Vec<(String, bool, String)> {
        let policy = policy(&index, &[], &v1::PolicyRequest { client_namespace: client.into(), ..asked() }).unwrap();
        let routes = policy.ports.into_iter().flat_map(|port| port.routes);
        routes.map(|one| (one.route.unwrap_or_default().name, one.is_in_force, one.reason)).collect()
    };
    let demo = of("demo");
    assert_eq!((demo[0].0.as_str(), demo[0].1), ("calls", true));
    assert!(!demo[1].1 && demo[1].2.starts_with("RouteReasonConflicted"), "{demo:?}");
    assert!(!demo[2].1 && demo[2].2.contains("namespace other alone"), "{demo:?}");
    let other = of("other");
    assert_eq!((other[0].0.as_str(), other[0].1), ("own", true), "what decides comes first");
    assert!(other[1..].iter().all(|one| !one.1) && other[1].2.contains("hold instead"), "{other:?}");
}

#[test]
fn what_is_not_understood_is_told() {
    let wrong = annotated(
        SERVICE,
        "timeout.linkerd.io/request: soon, balancer.linkerd.io/failure-accrual: some, weir.mesh/balancer: fastest",
    );
    let parsed = parse::manifest("test.yaml", &wrong, &options());
    let mut index = Index::default();
    index.apply(parsed.objects.into_iter().map(|(name, object)| crate::objects::Event::Upsert(name, object)).collect());
    let policy = policy(&index, &parsed.findings, &asked()).unwrap();
    assert_eq!(policy.flaws.len(), 3, "{:?}", policy.flaws);
    assert_eq!(said(&policy.settings, "timeouts.request"), "none default");
    assert_eq!(said(&policy.settings, "breaker.kind"), "none default");
    assert_eq!(said(&policy.settings, "balancer.kind"), "peak-ewma default");
    let route_refused = Finding {
        file: String::new(),
        line: 0,
        object: Some("HTTPRoute demo/main".into()),
        field: "spec.rules[0].matches".into(),
        reason: "no".into(),
    };
    upsert(&mut index, &route("main", "demo", ""));
    let policy = super::policy(&index, std::slice::from_ref(&route_refused), &asked()).unwrap();
    let main = &policy.ports[0].routes[0];
    assert!(main.is_in_force && main.reason.contains("last good one stays"), "{main:?}");
    assert!(policy.flaws.is_empty(), "told with the route: {:?}", policy.flaws);
    let never_good = Finding { object: Some("HTTPRoute demo/never-good".into()), ..route_refused.clone() };
    let elsewhere = Finding { object: Some("HTTPRoute far/never-good".into()), ..route_refused };
    let policy = super::policy(&index, &[never_good, elsewhere], &asked()).unwrap();
    let fields: Vec<&str> = policy.flaws.iter().map(|flaw| flaw.field.as_str()).collect();
    assert_eq!(fields, ["HTTPRoute demo/never-good spec.rules[0].matches"]);
}

/// Nobody reads the answer for a hundred ports; the answer's size must not grow with them either.
#[test]
fn a_service_of_many_ports_is_asked_about_port_by_port() {
    let ports: String =
        (0..=limits::SHOWN_PORTS).map(|at| format!("  - {{name: p{at}, port: {}}}\n", 1000 + at)).collect();
    let service = SERVICE.replace("  ports:\n", &format!("  ports:\n{ports}"));
    let index = index(&[&service, &slice(&[])]);
    let refused = policy(&index, &[], &asked()).unwrap_err();
    assert!(refused.message().contains("svc/web:"), "{refused:?}");
    let one = policy(&index, &[], &v1::PolicyRequest { port: 1000, ..asked() }).unwrap();
    assert_eq!(one.ports.len(), 1);
}
