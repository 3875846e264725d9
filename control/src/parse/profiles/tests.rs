use super::*;
use crate::{
    fixtures,
    objects::Kind,
    parse::{self, Finding},
};

fn text(spec: &str) -> String {
    format!(
        "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: web.demo.svc.cluster.local, namespace: demo}}\nspec:\n{spec}\n"
    )
}

fn read(text: &str) -> HttpRoute {
    let mut objects = fixtures::objects(text);
    let (name, object) = objects.pop().unwrap();
    assert!(name.kind.is_profile());
    let crate::objects::Object::HttpRoute(route) = object else { panic!("{object:?}") };
    HttpRoute::clone(&route)
}

fn findings(text: &str) -> Vec<Finding> {
    parse::manifest("test.yaml", text, &fixtures::options()).findings
}

fn range(first: u32, last: u32) -> v1::StatusRange {
    v1::StatusRange { first, last }
}

/// Linkerd's own example: the books demo.
#[test]
fn linkerds_example_is_read_as_it_stands() {
    let route = read(&text(
        "  routes:
  - name: POST /authors
    isRetryable: true
    timeout: 1.5s
    condition: {method: post, pathRegex: ' /authors\\.json '}
  - name: HEAD /authors/{id}.json
    condition: {all: [{method: HEAD}, {pathRegex: '/authors/[^/]*\\.json'}], not: {pathRegex: /authors/0}}
    responseClasses:
    - condition: {status: {min: 500, max: 503}}
    - condition: {any: [{status: {min: 404, max: 404}}, {status: {min: 500}}]}
      isFailure: true
  retryBudget: {retryRatio: 0.25, minRetriesPerSecond: 3, ttl: 20s}
  dstOverrides:
  - {authority: web-v2.demo.svc.cluster.local:8080, weight: 500m}
  - {authority: web.demo.svc.cluster.local., weight: 1}
  opaquePorts: [\"3306\", 9000]",
    ));
    assert_eq!(route.parents[0].service, Name::new("demo", "web"));
    let names: Vec<&str> = route.rules.iter().map(|rule| &*rule.of_profile.as_ref().unwrap().name).collect();
    assert_eq!(names, ["POST /authors", "HEAD /authors/{id}.json", "[DEFAULT]"]);
    let first = &route.rules[0];
    let path = Is::PathPattern("/authors\\.json".to_owned());
    let both = [Is::Method("POST".to_owned()), path].map(|is| v1::Condition { is: Some(is) }).to_vec();
    let own = first.of_profile.as_ref().unwrap();
    assert_eq!(own.condition.is, Some(Is::All(v1::ConditionList { conditions: both })));
    assert_eq!((first.timeouts.request.unwrap().as_millis(), &own.classes), (1500, &None));
    let retry = first.retry.as_ref().unwrap();
    assert_eq!((&*retry.statuses, &*retry.codes), (&[range(500, 599)][..], &FAILURES[..]));
    assert_eq!(
        route.rules[1].retry.as_ref().unwrap().limit,
        0,
        "not retryable, whatever the Service's annotations say"
    );
    let classes = route.rules[1].of_profile.as_ref().unwrap().classes.clone().unwrap();
    assert_eq!(classes.failures, [range(404, 404), range(504, 599)]);
    assert_eq!(classes.successes, [range(500, 503)], "of several the first class counts");
    let profile = route.profile.unwrap();
    let to = |name: &str, port, weight| Override { service: Name::new("demo", name), port, weight };
    assert_eq!(profile.overrides, [to("web-v2", Some(8080), 500), to("web", None, 1000)]);
    let budget = v1::RetryBudget { ratio_permille: 250, min_per_second: 3, ttl_ms: 20_000 };
    assert_eq!((profile.retry_budget, profile.has_routes), (Some(budget), true));
    assert_eq!(profile.opaque_ports, [PortSpec::Range(3306, 3306), PortSpec::Range(9000, 9000)]);
}

#[test]
fn what_is_a_failure_is_sent_again() {
    let of = |classes: &str| {
        let spec = format!(
            "  routes: [{{name: a, condition: {{method: GET}}, isRetryable: true, responseClasses: {classes}}}]"
        );
        let retry = read(&text(&spec)).rules[0].retry.clone().unwrap();
        (retry.statuses, retry.codes.len())
    };
    assert_eq!(of("[]"), (vec![range(500, 599)], 6));
    assert_eq!(of("[{condition: {status: {min: 500, max: 500}}}]"), (vec![range(501, 599)], 6));
    let ok = "{condition: {not: {status: {min: 300}}}, isFailure: true}";
    assert_eq!(
        of(&format!("[{ok}]")),
        (vec![range(100, 299), range(500, 599)], 17),
        "a call's HTTP status decides first"
    );
    assert_eq!(of("[{condition: {status: {max: 299}}, isFailure: false}]"), (vec![range(500, 599)], 0));
}

#[test]
fn what_cannot_be_followed_is_refused_by_field() {
    let route = |more: &str| format!("  routes: [{{name: a, condition: {{method: GET}}, {more}}}]");
    let deep = (0..20).fold("{method: GET}".to_owned(), |inner, _| format!("{{not: {inner}}}"));
    for (spec, field) in [
        (route("timeout: soon"), "spec.routes[0].timeout"),
        (route("isRetriable: true"), "spec.routes[0].isRetriable"),
        (route("responseClasses: [{isFailure: true}]"), "spec.routes[0].responseClasses[0].condition"),
        (route("responseClasses: [{condition: {}}]"), "spec.routes[0].responseClasses[0].condition"),
        (
            route("responseClasses: [{condition: {any: [{status: {min: 600}}]}}]"),
            "spec.routes[0].responseClasses[0].condition.any[0].status",
        ),
        ("  routes: [{name: a}]".to_owned(), "spec.routes[0].condition"),
        ("  routes: [{name: a, condition: {}}]".to_owned(), "spec.routes[0].condition"),
        ("  routes: [{name: a, condition: {any: [{}]}}]".to_owned(), "spec.routes[0].condition.any[0]"),
        ("  routes: [{condition: {method: GET}}]".to_owned(), "spec.routes[0].name"),
        ("  routes: [{name: a, condition: {pathRegex: '('}}]".to_owned(), "spec.routes"),
        ("  routes: [{name: a, condition: {method: 'a b'}}]".to_owned(), "spec.routes"),
        (format!("  routes: [{{name: a, condition: {deep}}}]"), "spec.routes[0].condition"),
        ("  dstOverrides: [{authority: web-v2, weight: 1}]".to_owned(), "spec.dstOverrides[0].authority"),
        ("  dstOverrides: [{authority: 'a.b.svc:0', weight: 1}]".to_owned(), "spec.dstOverrides[0].authority"),
        ("  dstOverrides: [{authority: a.b.svc, weight: some}]".to_owned(), "spec.dstOverrides[0].weight"),
        ("  dstOverrides: [{authority: a.b.svc}]".to_owned(), "spec.dstOverrides[0].weight"),
        ("  retryBudget: {retryRatio: -1}".to_owned(), "spec.retryBudget.retryRatio"),
        ("  retryBudget: {ttl: 1ms}".to_owned(), "spec.retryBudget.ttl"),
        ("  opaquePorts: ['70000']".to_owned(), "spec.opaquePorts[0]"),
        (format!("  opaquePorts: [{}]", vec!["'80'"; 129].join(", ")), "spec.opaquePorts"),
        (format!("  dstOverrides: [{}]", vec!["{authority: a.b.svc, weight: 1}"; 129].join(", ")), "spec.dstOverrides"),
        ("  port: 80".to_owned(), "spec.port"),
    ] {
        let found = findings(&text(&spec));
        assert!(!found.is_empty() && found[0].field.starts_with(field), "{spec}: {found:?}");
    }
    let named = text("  routes: []").replace("web.demo.svc.cluster.local", "example.com");
    assert_eq!(findings(&named)[0].field, "metadata.name");
    let far = text("  retryBudget: {ttl: 5s}").replace("namespace: demo", "namespace: other");
    let found = findings(&far);
    assert!(found[0].field == "spec.retryBudget" && found[0].reason.contains("namespace demo"), "{found:?}");
    assert_eq!(fixtures::objects(&text("  routes: []"))[0].0.kind, Kind::ServiceProfile);
}

#[test]
fn splits_of_all_versions() {
    let split = |version: &str, spec: &str| {
        format!(
            "apiVersion: split.smi-spec.io/{version}\nkind: TrafficSplit\nmetadata: {{name: canary, namespace: demo}}\nspec:\n{spec}\n"
        )
    };
    let to = |namespace: &str, name: &str, weight| Override { service: Name::new(namespace, name), port: None, weight };
    for (version, weights, expected) in [
        ("v1alpha1", ["900m", "0.1"], [900, 100]),
        ("v1alpha2", ["90", "10"], [90_000, 10_000]),
        ("v1alpha3", ["1k", "0"], [1_000_000, 0]),
        ("v1alpha4", ["1", "1"], [1000, 1000]),
    ] {
        let [first, second] = weights;
        let spec = format!(
            "  service: web.demo.svc.cluster.local\n  backends: [{{service: web-v1, weight: {first}}}, {{service: web-v2.shop.svc, weight: {second}}}]"
        );
        let route = read(&split(version, &spec));
        assert_eq!(route.parents[0].service, Name::new("demo", "web"));
        assert_eq!(
            route.overrides(),
            [to("demo", "web-v1", expected[0]), to("shop", "web-v2", expected[1])],
            "{version}"
        );
        assert_eq!(route.rules.len(), 1);
    }
    for (spec, field) in [
        ("  service: web", "spec.backends"),
        ("  service: web.com\n  backends: [{service: a, weight: 1}]", "spec.service"),
        ("  service: web\n  backends: [{service: '', weight: 1}]", "spec.backends[0].service"),
        ("  service: web\n  backends: [{service: a, weight: -1}]", "spec.backends[0].weight"),
        (
            "  service: web\n  backends: [{service: a, weight: 1}]\n  matches: [{kind: HTTPRouteGroup, name: a}]",
            "spec.matches",
        ),
    ] {
        assert_eq!(findings(&split("v1alpha2", spec))[0].field, field, "{spec}");
    }
}
