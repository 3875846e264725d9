use super::*;
use crate::{
    fixtures::{NAMESPACE, SERVICE, pod, slice, upsert},
    objects::{Kind, ObjectName},
};

mod policies;

const ANCHORS: &v1::TrustBundle =
    &v1::TrustBundle { trust_domain: String::new(), anchors: Vec::new(), issuer: Vec::new() };

fn begin(index: &Index, hello: &v1::Hello) -> Session {
    Session::new("node-1".into(), "cluster.local".into(), hello, index)
}

fn cluster() -> Index {
    let mut index = Index::default();
    let text = format!(
        "{NAMESPACE}{SERVICE}{}{}{}",
        slice(&[("10.0.0.1", true)]),
        pod("web", "node-1", "10.0.0.1", ""),
        pod("far", "node-2", "10.0.1.1", "")
    );
    upsert(&mut index, &text);
    index
}

fn keys(update: &v1::Update) -> Vec<String> {
    let shown = |key: &v1::ResourceKey| format!("{}:{}", key.kind().as_str_name(), key.name);
    let upserts = update.upserts.iter().filter_map(|resource| Some(format!("+{}", shown(resource.key.as_ref()?))));
    upserts.chain(update.removals.iter().map(|key| format!("-{}", shown(key)))).collect()
}

fn acknowledge(session: &mut Session, update: &v1::Update) {
    session.acknowledge(&v1::Acknowledge { nonce: update.nonce, rejected: Vec::new() }).unwrap();
}

fn web() -> Vec<String> {
    vec!["10.96.0.1:80".to_owned()]
}

#[test]
fn a_node_gets_its_own_pods_and_what_it_asks_for() {
    let index = cluster();
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&first), ["+TRUST_BUNDLE:cluster.local", "+MESHED_NAMESPACE:demo", "+WORKLOAD:uid-web"]);
    assert!(first.synced);
    session.subscribe(&web(), &index);
    let second = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&second), ["+ENDPOINTS:demo/web-1", "+DESTINATION:10.96.0.1:80"]);
    assert!(!second.synced);
    session.unsubscribe(&web());
    acknowledge(&mut session, &first);
    let third = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&third), ["-ENDPOINTS:demo/web-1"]);
}

#[test]
fn a_node_that_resumes_gets_only_what_differs() {
    let index = cluster();
    let mut session = begin(&index, &v1::Hello { destinations: web(), ..v1::Hello::default() });
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let known: Vec<v1::ResourceVersion> = first
        .upserts
        .iter()
        .map(|resource| v1::ResourceVersion { key: resource.key.clone(), version: resource.version })
        .collect();
    let hello = v1::Hello { known, destinations: web(), ..v1::Hello::default() };
    let resumed = begin(&index, &hello).next(&index, ANCHORS, Instant::now()).unwrap();
    assert!(resumed.upserts.is_empty() && resumed.removals.is_empty() && resumed.synced);
    let mut index = index;
    index.apply(vec![crate::objects::Event::Remove(ObjectName { kind: Kind::Pod, name: Name::new("demo", "web") })]);
    let later = begin(&index, &hello).next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&later), ["+ENDPOINTS:demo/web-1", "-WORKLOAD:uid-web"]);
}

#[test]
fn two_updates_at_most_are_under_way() {
    let mut index = cluster();
    let mut session = begin(&index, &v1::Hello { destinations: web(), ..v1::Hello::default() });
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    for ready in [false, true, false, true] {
        let changed = upsert(&mut index, &slice(&[("10.0.0.1", ready)]));
        session.touch(&changed, &index);
        if let Some(update) = session.next(&index, ANCHORS, Instant::now()) {
            assert_eq!(keys(&update), ["+ENDPOINTS:demo/web-1"]);
        }
    }
    assert_eq!(session.in_flight.len(), limits::UPDATES_IN_FLIGHT);
    acknowledge(&mut session, &first);
    let last = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let Some(Body::Endpoints(endpoints)) = &last.upserts[0].body else { panic!("not endpoints") };
    assert!(endpoints.endpoints[0].ready, "what was changed meanwhile arrives as its last state");
    assert!(session.acknowledge(&v1::Acknowledge { nonce: 99, rejected: Vec::new() }).is_err());
}

#[test]
fn a_pod_that_is_opted_out_is_taken_away_after_its_peers_know() {
    let mut index = cluster();
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    acknowledge(&mut session, &first);
    let changed = upsert(&mut index, &NAMESPACE.replace("true", "false"));
    session.touch(&changed, &index);
    let now = Instant::now();
    let update = session.next(&index, ANCHORS, now).unwrap();
    assert_eq!(keys(&update), ["-MESHED_NAMESPACE:demo"], "new pods are plain at once, but not a running one");
    acknowledge(&mut session, &update);
    assert!(session.next(&index, ANCHORS, now).is_none());
    let due = session.due().unwrap();
    assert!(due > now);
    let update = session.next(&index, ANCHORS, due).unwrap();
    assert_eq!(keys(&update), ["+PLAIN_POD:uid-web", "-WORKLOAD:uid-web"], "never both, and never neither");
    acknowledge(&mut session, &update);
    let changed = upsert(&mut index, NAMESPACE);
    session.touch(&changed, &index);
    let update = session.next(&index, ANCHORS, due).unwrap();
    assert_eq!(keys(&update), ["+MESHED_NAMESPACE:demo", "+WORKLOAD:uid-web", "-PLAIN_POD:uid-web"]);
}

#[test]
fn a_pod_is_told_before_it_has_an_address() {
    let mut index = cluster();
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    acknowledge(&mut session, &first);
    let early = pod("new", "node-1", "10.0.0.7", "").replace("  podIPs: [{ip: 10.0.0.7}]\n", "");
    let changed = upsert(&mut index, &early);
    session.touch(&changed, &index);
    let update = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&update), ["+WORKLOAD:uid-new"]);
    let Some(Body::Workload(workload)) = &update.upserts[0].body else { panic!("not a workload") };
    assert!(workload.addresses.is_empty());
    acknowledge(&mut session, &update);
    let changed = upsert(&mut index, &pod("new", "node-1", "10.0.0.7", ""));
    session.touch(&changed, &index);
    assert_eq!(keys(&session.next(&index, ANCHORS, Instant::now()).unwrap()), ["+WORKLOAD:uid-new"]);
    let changed = index
        .apply(vec![crate::objects::Event::Remove(ObjectName { kind: Kind::Pod, name: Name::new("demo", "new") })]);
    session.touch(&changed, &index);
    assert_eq!(keys(&session.next(&index, ANCHORS, Instant::now()).unwrap()), ["-WORKLOAD:uid-new"], "gone at once");
}

#[test]
fn plain_pods_are_told_to_their_own_node_and_namespaces_to_all() {
    let mut index = cluster();
    let plain = |name: &str, node: &str| pod(name, node, "10.0.2.1", "").replace("namespace: demo", "namespace: other");
    upsert(&mut index, &format!("{}{}", plain("here", "node-1"), plain("there", "node-3")));
    let told = |node: &str| {
        let mut session = Session::new(node.into(), "cluster.local".into(), &v1::Hello::default(), &index);
        keys(&session.next(&index, ANCHORS, Instant::now()).unwrap())
    };
    let common = ["+TRUST_BUNDLE:cluster.local", "+MESHED_NAMESPACE:demo"];
    assert_eq!(told("node-1"), [&common[..], &["+WORKLOAD:uid-web", "+PLAIN_POD:uid-here"]].concat());
    assert_eq!(told("node-9"), common);
}

#[test]
fn a_node_that_resumes_hears_what_became_of_plain_pods_and_namespaces() {
    let index = cluster();
    let known = [
        (v1::ResourceKind::PlainPod, "uid-web"),
        (v1::ResourceKind::PlainPod, "uid-gone"),
        (v1::ResourceKind::MeshedNamespace, "gone"),
    ];
    let known = known.map(|(kind, name)| v1::ResourceVersion {
        key: Some(v1::ResourceKey { kind: kind.into(), name: name.to_owned() }),
        version: 1,
    });
    let mut session = begin(&index, &v1::Hello { known: known.to_vec(), ..v1::Hello::default() });
    let update = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let removals = ["-MESHED_NAMESPACE:gone", "-PLAIN_POD:uid-gone", "-PLAIN_POD:uid-web"];
    assert_eq!(keys(&update)[3..], removals);
}

#[test]
fn a_node_has_the_trust_bundle_that_it_acknowledged_and_not_one_that_it_refused() {
    let index = cluster();
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let one = first.upserts[0].version;
    assert_eq!(session.trust_version(), 0, "sent is not taken");
    acknowledge(&mut session, &first);
    assert_eq!(session.trust_version(), one);

    let other = v1::TrustBundle { anchors: vec![vec![1]], ..ANCHORS.clone() };
    session.touch(&Changed { trust: true, ..Changed::default() }, &index);
    let second = session.next(&index, &other, Instant::now()).unwrap();
    let rejected = v1::Rejection { key: second.upserts[0].key.clone(), reason: "no".to_owned() };
    session.acknowledge(&v1::Acknowledge { nonce: second.nonce, rejected: vec![rejected] }).unwrap();
    assert_eq!(session.trust_version(), one);

    let known = vec![v1::ResourceVersion { key: first.upserts[0].key.clone(), version: one }];
    let resumed = begin(&index, &v1::Hello { known, ..v1::Hello::default() });
    assert_eq!(resumed.trust_version(), one, "it had it before");
}

#[test]
fn a_pod_that_is_opted_out_and_in_again_is_asked_for_anew() {
    let mut index = cluster();
    index.mark_serving("uid-web");
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    acknowledge(&mut session, &first);
    let mut label = |session: &mut Session, value: &str| {
        let changed = upsert(&mut index, &NAMESPACE.replace("true", value));
        session.touch(&changed, &index);
        let update = session.next(&index, ANCHORS, Instant::now());
        update.map(|update| {
            acknowledge(session, &update);
            keys(&update)
        })
    };
    assert_eq!(label(&mut session, "false").unwrap(), ["-MESHED_NAMESPACE:demo"]);
    let asked = ["+MESHED_NAMESPACE:demo", "+WORKLOAD:uid-web"];
    assert_eq!(label(&mut session, "true").unwrap(), asked, "its node never lost it, and has to say so");
    assert!(session.due().is_none() && session.leaving.is_empty());
    // Both in one batch: the node is told of neither.
    index.mark_serving("uid-web");
    let mut changed = upsert(&mut index, &NAMESPACE.replace("true", "false"));
    changed.merge(&upsert(&mut index, NAMESPACE));
    session.touch(&changed, &index);
    assert_eq!(keys(&session.next(&index, ANCHORS, Instant::now()).unwrap()), ["+WORKLOAD:uid-web"]);
}

#[test]
fn a_node_that_does_not_acknowledge_is_not_looked_at_for_what_is_due() {
    let mut index = cluster();
    let mut session = begin(&index, &v1::Hello { destinations: web(), ..v1::Hello::default() });
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let changed = upsert(&mut index, &NAMESPACE.replace("true", "false"));
    session.touch(&changed, &index);
    session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(session.in_flight.len(), limits::UPDATES_IN_FLIGHT);
    assert_eq!(session.due(), None, "nothing could be sent");
    assert!(session.overdue().is_some());
    acknowledge(&mut session, &first);
    assert!(session.due().is_some());
}

#[test]
fn a_workload_is_named_once_more_when_it_is_asked_for_anew() {
    let index = cluster();
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    acknowledge(&mut session, &first);
    session.ask_anew(&"uid-web".into());
    session.ask_anew(&"uid-of-nobody".into());
    assert_eq!(keys(&session.next(&index, ANCHORS, Instant::now()).unwrap()), ["+WORKLOAD:uid-web"]);
}

/// What nodes would not take must not end their stream, nor keep the rest from them. Seen to fail without the bound.
#[test]
fn a_resource_that_is_too_large_is_not_sent() {
    let mut index = cluster();
    let slice_name = "s".repeat(60);
    // Told with each backend that names its Service.
    let slices: String =
        (0..40).map(|at| slice(&[("10.0.0.1", true)]).replace("web-1", &format!("{slice_name}-{at}"))).collect();
    upsert(&mut index, &slices);
    let mut session = begin(&index, &v1::Hello::default());
    session.subscribe(&web(), &index);
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert!(keys(&first).contains(&"+DESTINATION:10.96.0.1:80".to_owned()));
    acknowledge(&mut session, &first);
    let route = |backends: usize| {
        let backends = vec!["{name: web, port: 80}"; backends].join(", ");
        crate::fixtures::route("large", "demo", &format!("  rules: [{{backendRefs: [{backends}]}}]"))
    };
    for (backends, is_sent) in [(8_000, false), (2, true)] {
        let changed = upsert(&mut index, &route(backends));
        session.touch(&changed, &index);
        let update = session.next(&index, ANCHORS, Instant::now());
        let sent: Vec<String> = update.iter().flat_map(keys).collect();
        assert_eq!(sent.contains(&"+DESTINATION:10.96.0.1:80".to_owned()), is_sent, "{backends}: {sent:?}");
        update.iter().for_each(|update| acknowledge(&mut session, update));
    }
}
