use super::*;
use crate::{
    fixtures::{NAMESPACE, SERVICE, pod, slice, upsert},
    objects::{Kind, ObjectName},
};

const ANCHORS: &[Vec<u8>] = &[];

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
    assert_eq!(keys(&first), ["+TRUST_BUNDLE:cluster.local", "+WORKLOAD:uid-web"]);
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
    assert!(session.next(&index, ANCHORS, now).is_none());
    let due = session.due().unwrap();
    assert!(due > now);
    let update = session.next(&index, ANCHORS, due).unwrap();
    assert_eq!(keys(&update), ["-WORKLOAD:uid-web"]);
}
