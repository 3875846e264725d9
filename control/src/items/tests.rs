use super::*;
use crate::{
    fixtures::{NAMESPACE, SERVICE, objects, options, pod, route, slice},
    manifests::Scan,
    objects::Event,
    parse,
    plane::tests::plane,
};

/// A plane that holds what a text says, and finds what is wrong with it.
fn with(text: &str) -> Plane {
    let plane = plane();
    let parsed = parse::manifest("", text, &options());
    let events = parsed.objects.into_iter().map(|(name, object)| Event::Upsert(name, object)).collect();
    plane.take(Scan { events, findings: parsed.findings });
    plane
}

fn request(kind: ItemKind) -> v1::ListRequest {
    v1::ListRequest { kind: kind.into(), ..v1::ListRequest::default() }
}

fn listed(plane: &Plane, request: &v1::ListRequest) -> (Vec<v1::Item>, bool) {
    page(plane, &Gathered::default(), &Asked::of(request).unwrap(), &Page::of(request))
}

/// Seen to fail with a page that ends where the index is let go of, and with one that forgets what it did not take of a part.
#[test]
fn the_index_is_let_go_of_and_a_page_has_a_bound_in_bytes() {
    let count = limits::ITEMS_AT_ONCE + 20;
    let pods: String = (0..count).map(|number| pod(&format!("p{number:05}"), "node-1", "10.0.0.1", "")).collect();
    let plane = with(&(NAMESPACE.to_owned() + &pods));
    let asked = Asked::of(&request(ItemKind::Workloads)).unwrap();
    let all = Page { after: String::new(), most: usize::MAX, bytes: usize::MAX };
    let (items, has_more) = page(&plane, &Gathered::default(), &asked, &all);
    assert!(!has_more && items.len() == count && items.windows(2).all(|two| two[0].key < two[1].key));
    let mut seen = Vec::new();
    let mut small = Page { bytes: 20_000, ..all };
    loop {
        let (items, has_more) = page(&plane, &Gathered::default(), &asked, &small);
        let bytes: usize = items.iter().map(v1::Item::encoded_len).sum();
        assert!(bytes < 20_500, "{bytes}");
        small.after.clone_from(&items.last().unwrap().key);
        seen.extend(items);
        if !has_more {
            break;
        }
    }
    assert_eq!(seen, items);
}

fn keys(plane: &Plane, request: &v1::ListRequest) -> Vec<String> {
    listed(plane, request).0.into_iter().map(|item| item.key).collect()
}

#[test]
fn a_request_says_what_is_wrong_with_it() {
    let refused = |request: v1::ListRequest| Asked::of(&request).unwrap_err().message().to_owned();
    assert!(refused(v1::ListRequest::default()).starts_with("kind: "));
    assert!(refused(v1::ListRequest { kind: 99, ..v1::ListRequest::default() }).contains("99"));
    let nodes = v1::ListRequest { namespace: "demo".into(), ..request(ItemKind::Nodes) };
    assert!(refused(nodes).starts_with("namespace: "));
}

/// Seen to fail with items that are cut before they are sorted.
#[test]
fn pages_hold_every_item_once() {
    let pods: String = (0..25).map(|number| pod(&format!("p{number:02}"), "node-1", "10.0.0.1", "")).collect();
    let plane = with(&(NAMESPACE.to_owned() + &pods));
    let mut asked = v1::ListRequest { limit: 10, ..request(ItemKind::Workloads) };
    let mut all = Vec::new();
    loop {
        let (items, has_more) = listed(&plane, &asked);
        all.extend(items.into_iter().map(|item| item.key));
        if !has_more {
            break;
        }
        asked.after = all.last().unwrap().clone();
    }
    let expected: Vec<String> = (0..25).map(|number| format!("Pod demo/p{number:02}")).collect();
    assert_eq!(all, expected);
    let one = v1::ListRequest { name: "p07".into(), namespace: "demo".into(), ..request(ItemKind::Workloads) };
    assert_eq!(keys(&plane, &one), ["Pod demo/p07"]);
    let other = v1::ListRequest { namespace: "other".into(), ..one };
    assert!(keys(&plane, &other).is_empty());
}

#[test]
fn a_route_says_what_became_of_it() {
    let good =
        route("good", "demo", "  rules: [{backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80}]}]");
    let lost =
        route("lost", "demo", "  rules: [{}]").replace("name: web, namespace: demo", "name: none, namespace: demo");
    let bad = route("bad", "demo", "  rules: [{timeouts: {request: soon}}]");
    let split = "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: s, namespace: demo}\nspec: {service: web, backends: [{service: web, weight: 1}, {service: other, weight: 2}]}\n";
    let plane = with(&[NAMESPACE, SERVICE, &good, &lost, &bad, split].concat());
    let (items, _more) = listed(&plane, &request(ItemKind::Routes));
    let of = |name: &str| {
        let found = items.iter().find(|item| item.key.ends_with(name)).unwrap();
        let Some(item::Item::Route(route)) = &found.item else { panic!("{found:?}") };
        route
    };
    let conditions = |name: &str| -> Vec<String> {
        let all = of(name).parents.iter().flat_map(|parent| &parent.conditions);
        all.map(|one| format!("{} {} {}", one.r#type, one.status, one.reason)).collect()
    };
    // The split stands instead of it.
    assert!(conditions("/good")[0].starts_with("Accepted false"), "{:?}", conditions("/good"));
    assert_eq!(conditions("/good")[1], "ResolvedRefs false BackendNotFound");
    assert_eq!(conditions("/lost")[0], "Accepted false NoMatchingParent");
    let backends: Vec<_> = of("/good").rules[0].backends.iter().map(|one| (one.weight, one.target.clone())).collect();
    assert_eq!(backends[0].0, 3);
    assert!(matches!(&backends[1].1, Some(v1::backend_policy::Target::Invalid(why)) if why.contains("demo/gone")));
    assert!(of("/bad").refused.contains("timeouts.request") && of("/bad").parents.is_empty());
    assert_eq!(of("/s").rules[0].backends.len(), 2);
    assert_eq!(of("/s").refused, "");
}

#[test]
fn services_endpoints_and_identities_are_listed_as_nodes_are_told_them() {
    let web = pod("web", "node-1", "10.0.0.1", "");
    let plane = with(&[NAMESPACE, SERVICE, &web, &slice(&[("10.0.0.1", true), ("10.0.0.2", false)])].concat());
    let (services, _more) = listed(&plane, &request(ItemKind::Services));
    let Some(item::Item::Service(policy)) = &services[0].item else { panic!("{services:?}") };
    assert!(policy.settings.iter().any(|setting| setting.name == "balancer.kind") && policy.flaws.is_empty());
    let (endpoints, _more) = listed(&plane, &request(ItemKind::Endpoints));
    let keys: Vec<&str> = endpoints.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys, ["Endpoint demo/web:80 10.0.0.1 8080", "Endpoint demo/web:80 10.0.0.2 8080"]);
    let (identities, _more) = listed(&plane, &request(ItemKind::Identities));
    let Some(item::Item::Identity(identity)) = &identities[0].item else { panic!("{identities:?}") };
    assert_eq!((identity.pods, identity.certified_pods, identity.certificate_not_after), (1, 0, 0));
    assert_eq!(identity.identity, "web.demo.serviceaccount.identity.linkerd.cluster.local");
}

#[test]
fn what_nobody_acts_on_is_news_for_those_who_list() {
    let plane = with(NAMESPACE);
    let (mut items, mut changes) = (plane.item_changes(), plane.changes());
    items.mark_unchanged();
    changes.mark_unchanged();
    // A Service that no node can dial, and that nobody's status depends on.
    let headless = SERVICE.replace("10.96.0.1", "None");
    let events = objects(&headless).into_iter().map(|(name, object)| Event::Upsert(name, object)).collect();
    plane.take(Scan { events, findings: Vec::new() });
    assert!(items.has_changed().unwrap() && !changes.has_changed().unwrap());
}
