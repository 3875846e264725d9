use super::*;
use crate::{
    ca::CaArgs,
    fixtures::{NAMESPACE, objects, pod},
    objects::{Event, Kind, Name, ObjectName},
};

pub(crate) fn plane() -> Plane {
    let state = tempfile::tempdir().unwrap();
    let args = CaArgs { trust_anchors: None, issuer_certificate: None, issuer_key: None, certificate_hours: 24 };
    Plane::new("cluster.local".into(), Authority::open(&args, state.path(), "cluster.local").unwrap(), None)
}

fn take(plane: &Plane, text: &str) {
    let events = objects(text).into_iter().map(|(name, object)| Event::Upsert(name, object)).collect();
    plane.take(Scan { events, findings: Vec::new() });
}

fn gone(plane: &Plane, name: &str) {
    let name = ObjectName { kind: Kind::Pod, name: Name::new("demo", name) };
    plane.take(Scan { events: vec![Event::Remove(name)], findings: Vec::new() });
}

fn join(plane: &Plane) -> Arc<Node> {
    plane.join("node-1".into(), String::new(), mpsc::channel(1).0).unwrap()
}

fn status(uid: &str) -> v1::WorkloadStatus {
    v1::WorkloadStatus { uid: uid.to_owned(), captured: true, reason: String::new(), certificate_not_after: 7 }
}

#[test]
fn what_a_node_said_of_a_pod_goes_with_the_pod() {
    let plane = plane();
    let node = join(&plane);
    let said = || plane.statuses(|_| true).len();
    take(&plane, NAMESPACE);
    for number in 0..=limits::STATUSES_PER_NODE {
        let name = format!("job-{number}");
        take(&plane, &pod(&name, "node-1", "10.0.0.1", ""));
        plane.status(&node, status(&format!("uid-{name}")));
        assert_eq!(said(), 1, "{number}");
        gone(&plane, &name);
        assert_eq!(said(), 0);
    }
    take(&plane, &pod("web", "node-1", "10.0.0.1", ""));
    plane.status(&node, status("uid-web"));
    assert_eq!((said(), plane.statuses(|status| status.certificate_not_after > 7).len()), (1, 0));
    take(&plane, &NAMESPACE.replace("true", "false"));
    assert_eq!(said(), 0, "opted out");
    plane.status(&node, status("uid-web"));
    plane.status(&node, status("uid-nobody"));
    assert_eq!(said(), 0);
}

#[test]
fn what_changes_no_pod_wakes_nobody() {
    let plane = plane();
    let mut changes = plane.changes();
    let mut is_news = || {
        let news = changes.has_changed().unwrap();
        changes.mark_unchanged();
        news
    };
    plane.take(Scan::default());
    assert!(is_news(), "the first one, also of an empty cluster");
    let web = pod("web", "node-1", "10.0.0.1", "");
    take(&plane, &web);
    assert!(is_news());
    take(&plane, &web);
    assert!(!is_news(), "kubelet wrote what nobody reads");
    take(&plane, NAMESPACE);
    assert!(is_news(), "its pods are opted in");
}
