use v1::{Criterion, Verdict, way::What};

use super::*;
use crate::fixtures::{NAMESPACE, SERVICE, pod, route, slice, upsert};

fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    upsert(&mut index, &texts.concat());
    index
}

fn canary() -> String {
    let service = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
    service + &slice(&[("10.0.0.2", true)]).replace("web", "canary")
}

fn asked(client: &str, path: &str, headers: &[(&str, &str)]) -> v1::ExplainRequest {
    let header = |(name, value): &(&str, &str)| v1::Header { name: (*name).into(), value: (*value).into() };
    v1::ExplainRequest {
        client_namespace: client.into(),
        namespace: "demo".into(),
        service: "web".into(),
        path: path.into(),
        headers: headers.iter().map(header).collect(),
        ..v1::ExplainRequest::default()
    }
}

fn answer(index: &Index, request: v1::ExplainRequest) -> v1::ExplainResponse {
    gather(index, &[], request).unwrap().answer().unwrap()
}

/// Where it goes, in short.
fn ways(answer: &v1::ExplainResponse) -> Vec<String> {
    let way = |way: &v1::Way| {
        let what = match way.what.as_ref().unwrap() {
            What::Forward(forward) => {
                let service = forward.service.as_ref().unwrap();
                format!("{}:{} {}/{}", service.name, service.port, forward.ready_endpoints, forward.endpoints)
            }
            What::Redirect(redirect) => format!("{} {}", redirect.status_code, redirect.location),
            What::Preflight(answer) => format!("preflight {}", answer.headers.len()),
            What::Failure(failure) => format!("{} {:?} {}", failure.http_status, failure.grpc_code, failure.reason),
        };
        format!("{}% {what}", way.percent)
    };
    answer.ways.iter().map(way).collect()
}

const RULES: &str = "  rules:
  - {matches: [{path: {value: /}}, {path: {value: /}, headers: [{name: x, value: '1'}]}], backendRefs: [{name: canary, port: 80, weight: 3}, {name: web, port: 80}]}
  - {matches: [{path: {value: /gone}}], backendRefs: [{name: missing, port: 80}]}
  - {matches: [{path: {value: /moved}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: other.org, statusCode: 301}}]}
  - {matches: [{path: {type: Exact, value: /only}}], timeouts: {request: 3s}}";

#[test]
fn it_says_what_decided_and_where_the_request_goes() {
    let web = slice(&[("10.0.0.1", true), ("10.0.0.9", false)]);
    let index = index(&[NAMESPACE, SERVICE, &web, &canary(), &route("main", "demo", RULES)]);
    for (path, expected, winner) in [
        ("/", &["75% canary:80 1/1", "25% web:80 1/2"][..], Some((0, 0))),
        ("/moved/x?a=b", &["100% 301 http://other.org/moved/x?a=b"], Some((2, 0))),
        (
            "/gone",
            &["100% 500 None the route's backend is missing or invalid: Service demo/missing not found"],
            Some((1, 0)),
        ),
        ("/only", &["100% web:80 1/2"], Some((3, 0))),
    ] {
        let answer = answer(&index, asked("demo", path, &[]));
        assert_eq!(ways(&answer), expected, "{path}");
        let won = answer.candidates.first().filter(|first| first.verdict() == Verdict::Won);
        assert_eq!(won.map(|won| (won.rule, won.r#match)), winner, "{path}");
        assert_eq!(answer.candidates.len(), 5);
        assert_eq!(answer.routes_in_force(), v1::RoutesInForce::ProducerRoutes);
    }
    let found = answer(&index, asked("demo", "/only", &[]));
    let said: Vec<_> = found
        .candidates
        .iter()
        .map(|one| (one.rule, one.r#match, one.verdict(), one.criterion(), one.name.as_str()))
        .collect();
    use v1::{Criterion as C, Verdict as V};
    let expected = [
        (3, 0, V::Won, C::Unspecified, ""),
        (0, 0, V::Behind, C::PathKind, ""),
        (0, 1, V::Unmet, C::Header, "x"),
        (1, 0, V::Unmet, C::Path, ""),
        (2, 0, V::Unmet, C::Path, ""),
    ];
    assert_eq!(said, expected);
    let limit = found.settings.iter().find(|setting| setting.name == "timeouts.request").unwrap();
    let source = limit.source.as_ref().unwrap();
    assert_eq!((limit.value.as_str(), source.field.as_str()), ("3s", "spec.rules[3].timeouts.request"));
}

/// The choice between them is the nodes': `RoutesInForce` of both answers is the same.
#[test]
fn a_consumers_routes_stand_instead_of_the_services_own() {
    let own = route("own", "other", "  rules: [{matches: [{path: {value: /x}}]}]");
    let index = index(&[SERVICE, &slice(&[]), &canary(), &route("main", "demo", RULES), &own]);
    let of_policy = |client: &str| {
        let asked = v1::PolicyRequest {
            namespace: "demo".into(),
            service: "web".into(),
            port: 0,
            client_namespace: client.into(),
        };
        policy::policy(&index, &[], &asked).unwrap().ports.remove(0).routes_in_force()
    };
    let consumer = answer(&index, asked("other", "/", &[]));
    assert_eq!(ways(&consumer), ["100% 404 None no route of the service is for this request"]);
    assert_eq!((consumer.routes_in_force(), consumer.authority.as_str()), (of_policy("other"), "web.demo"));
    assert_eq!(consumer.routes_in_force(), v1::RoutesInForce::ConsumerRoutes);
    assert!(consumer.aside[0].reason.contains("namespace other, the client's own"), "{:?}", consumer.aside);
    assert!(consumer.settings.is_empty());
    let producer = answer(&index, asked("demo", "/", &[]));
    assert_eq!((producer.routes_in_force(), producer.authority.as_str()), (of_policy("demo"), "web"));
    assert_eq!(ways(&producer), ["100% canary:80 1/1"], "a Service without endpoints leaves its share");
    assert!(producer.aside[0].reason.contains("clients of namespace other alone"), "{:?}", producer.aside);
    let call = answer(&index, asked("other", "/a.B/C", &[("content-type", "application/grpc")]));
    assert_eq!(ways(&call), ["100% 404 Some(5) no route of the service is for this request"]);
}

#[test]
fn without_routes_it_goes_to_the_service_itself() {
    let opaque = SERVICE.replace("port: 80,", "port: 6379,");
    let index = index(&[&opaque, &slice(&[("10.0.0.1", true)]), &route("main", "demo", RULES)]);
    let answer = answer(&index, asked("demo", "/", &[]));
    assert_eq!(ways(&answer), ["100% web:6379 1/1"]);
    assert_eq!(answer.routes_in_force(), v1::RoutesInForce::NoRoutes);
    assert!(answer.aside[0].reason.contains("UnsupportedProtocol"), "{:?}", answer.aside);
    let protocol = answer.protocol.unwrap();
    assert_eq!((protocol.value.as_str(), protocol.source.unwrap().field.as_str()), ("opaque", "well-known port"));
    let Some(What::Forward(forward)) = &answer.ways[0].what else { panic!("{:?}", answer.ways) };
    assert!(forward.is_itself && forward.is_opaque);
}

/// GEP-1619: where it goes to the Service itself, and where it goes to a backend; the other rules' backends are their own business.
#[test]
fn sessions_do_not_go_together_with_a_services_affinity() {
    let affine = |text: &str| text.replace("  ports:\n", "  sessionAffinity: ClientIP\n  ports:\n");
    let to_canary = "backendRefs: [{name: canary, port: 80}]";
    let cases = [
        (affine(SERVICE), canary(), "{sessionPersistence: {}}".to_owned(), Some("Service demo/web has")),
        (
            SERVICE.to_owned(),
            affine(&canary()),
            format!("{{{to_canary}, sessionPersistence: {{}}}}"),
            Some("Service demo/canary has"),
        ),
        (affine(SERVICE), canary(), format!("{{{to_canary}, sessionPersistence: {{}}}}"), None),
        (SERVICE.to_owned(), affine(&canary()), format!("{{{to_canary}}}, {{sessionPersistence: {{}}}}"), None),
    ];
    for (service, canary, rules, expected) in cases {
        let route = route("main", "demo", &format!("  rules: [{rules}]"));
        let answer = answer(&index(&[&service, &slice(&[]), &canary, &route]), asked("demo", "/", &[]));
        let aside = answer.aside.first().map(|aside| aside.reason.as_str());
        let is_as_expected = match expected {
            Some(part) => aside.is_some_and(|said| said.contains("UnsupportedValue") && said.contains(part)),
            None => aside.is_none(),
        };
        assert!(is_as_expected, "{rules}: {aside:?}");
        let is_told = answer.routes_in_force() == v1::RoutesInForce::ProducerRoutes;
        assert_eq!(is_told, expected.is_none(), "{rules}");
    }
}

#[test]
fn ties_say_whether_age_or_name_decided() {
    let created = |name: &str, day: u8| {
        route(name, "demo", "")
            .replace("metadata: {", &format!("metadata: {{creationTimestamp: \"2026-01-0{day}T00:00:00Z\", "))
    };
    let index = index(&[SERVICE, &slice(&[]), &created("b", 1), &created("c", 1), &created("a", 2)]);
    let answer = answer(&index, asked("demo", "/", &[]));
    let name = |one: &v1::Candidate| one.route.as_ref().map(|route| route.name.clone()).unwrap_or_default();
    let said: Vec<_> = answer.candidates.iter().map(|one| (name(one), one.criterion())).collect();
    let expected = [
        ("b".to_owned(), Criterion::Unspecified),
        ("c".to_owned(), Criterion::RouteName),
        ("a".to_owned(), Criterion::RouteAge),
    ];
    assert_eq!(said, expected);
}

#[test]
fn clients_that_are_not_in_the_mesh_are_named() {
    let of_client = |name: &str| v1::ExplainRequest {
        client_kind: "pod".into(),
        client_name: name.into(),
        ..asked("demo", "/", &[])
    };
    let index = index(&[SERVICE, &slice(&[]), &pod("plain", "node-1", "10.0.0.5", "")]);
    for (name, pods, word) in [("plain", 1, "none of the 1 pods"), ("nobody", 0, "no pod of pod demo/nobody")] {
        let answer = answer(&index, of_client(name));
        assert_eq!((answer.client_pods, answer.client_pods_meshed), (pods, 0));
        assert!(answer.notes[0].contains(word), "{:?}", answer.notes);
    }
}

#[test]
fn what_cannot_be_asked_is_named() {
    let two =
        SERVICE.replace("  ports:\n", "  ports:\n  - {name: other, port: 81}\n").replace("name: web", "name: two");
    let headless = SERVICE.replace("10.96.0.1", "None").replace("name: web", "name: headless");
    let index = index(&[SERVICE, &two.replace("10.96.0.1", "10.96.0.7"), &headless]);
    let wrong = |change: &dyn Fn(&mut v1::ExplainRequest)| {
        let mut request = asked("demo", "/", &[]);
        change(&mut request);
        gather(&index, &[], request).err().unwrap().message().to_owned()
    };
    let service = |name: &'static str, port: u32| {
        move |request: &mut v1::ExplainRequest| {
            (request.service, request.port) = (name.to_owned(), port);
        }
    };
    for (message, words) in [
        (wrong(&service("gone", 0)), "there is no Service demo/gone"),
        (wrong(&service("web", 8080)), "no TCP port 8080; it has 80 (http)"),
        (wrong(&service("two", 0)), "several ports, name one as in two:81: 81 (other), 80 (http)"),
        (wrong(&service("headless", 80)), "has no ClusterIP"),
        (wrong(&|request| request.path = "x".into()), "does not begin with a slash"),
        (wrong(&|request| request.method = "a b".into()), "is no method"),
        (wrong(&|request| request.client_namespace.clear()), "client's namespace"),
        (wrong(&|request| request.headers = vec![v1::Header { name: "a b".into(), value: String::new() }]), "no name"),
        (wrong(&|request| request.path = format!("/{}", "x".repeat(limits::EXPLAINED_BYTES))), "at most 65536"),
    ] {
        assert!(message.contains(words), "{message}");
    }
}

/// The names of a ServiceProfile's routes, and what each of them says of itself.
#[test]
fn routes_of_profiles_are_told_by_name() {
    let profile = "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: web.demo.svc.cluster.local, namespace: demo}\nspec:\n  \
         routes:\n  - {name: read, timeout: 2s, isRetryable: true, condition: {method: GET, pathRegex: /a}}\n  - {name: late, condition: {pathRegex: /a}}\n  - {name: other, condition: {pathRegex: /b}}\n  \
         retryBudget: {retryRatio: 0.1, minRetriesPerSecond: 1, ttl: 5s}\n---\n";
    let index = index(&[NAMESPACE, SERVICE, &slice(&[("10.0.0.1", true)]), &route("main", "demo", ""), profile]);
    let answer = gather(&index, &[], asked("demo", "/a", &[])).unwrap().answer().unwrap();
    let said: Vec<(&str, Verdict, Criterion)> =
        answer.candidates.iter().map(|one| (one.rule_name.as_str(), one.verdict(), one.criterion())).collect();
    let expected = [
        ("read", Verdict::Won, Criterion::Unspecified),
        ("late", Verdict::Behind, Criterion::RuleOrder),
        ("[DEFAULT]", Verdict::Behind, Criterion::RuleOrder),
        ("other", Verdict::Unmet, Criterion::Condition),
    ];
    assert_eq!(said, expected);
    assert!(answer.candidates.iter().all(|one| one.profile_condition.is_some() && one.condition.is_none()));
    assert!(answer.aside[0].reason.contains("ServiceProfile demo/web.demo.svc.cluster.local stands instead"));
    let of = |name: &str| {
        let found = answer.settings.iter().find(|setting| setting.name == name).unwrap();
        (found.value.as_str(), found.source.as_ref().map_or("default", |source| &source.field))
    };
    assert_eq!(of("timeouts.request"), ("2s", "spec.routes[0].timeout"));
    assert_eq!(of("retry.http"), ("500-599", "spec.routes[0].isRetryable"));
    let policy = policy::policy(
        &index,
        &[],
        &v1::PolicyRequest { namespace: "demo".into(), service: "web".into(), ..v1::PolicyRequest::default() },
    );
    let policy = policy.unwrap();
    let ratio = policy.settings.iter().find(|setting| setting.name == "retry.budget.ratio").unwrap();
    assert_eq!((&*ratio.value, &*ratio.source.as_ref().unwrap().field), ("0.1", "spec.retryBudget"));
    let rules: Vec<&str> = policy.ports[0].routes[0].rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(rules, ["read", "late", "other", "[DEFAULT]"]);
    let last = policy.ports[0].routes[0].rules.last().unwrap();
    assert!(last.settings.iter().all(|setting| setting.source.is_none()), "nobody says anything: {last:?}");
}
