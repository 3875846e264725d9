use super::*;
use crate::fixtures::{NAMESPACE, SERVICE, pod, slice, upsert};

fn removed(index: &mut Index, kind: Kind, name: &str) -> Changed {
    index.apply(vec![Event::Remove(ObjectName { kind, name: Name::new("demo", name) })])
}

#[test]
fn a_pod_touches_its_workload_its_address_and_the_slices_that_show_it() {
    let mut index = Index::default();
    upsert(&mut index, &format!("{NAMESPACE}{SERVICE}{}", slice(&[("10.0.0.1", true)])));
    let changed = upsert(&mut index, &pod("web", "node-1", "10.0.0.1", ""));
    assert!(changed.workloads.contains(&("node-1".into(), "uid-web".into())));
    assert!(changed.addresses.contains(&"10.0.0.1".parse().unwrap()));
    assert!(
        changed.endpoints.contains(&Name::new("demo", "web-1")),
        "a pod that came after the slice that names its address"
    );
    assert!(upsert(&mut index, &pod("web", "node-1", "10.0.0.1", "")).is_empty(), "the same again changes nothing");
}

#[test]
fn a_slice_that_joins_or_leaves_a_service_touches_its_addresses() {
    let mut index = Index::default();
    upsert(&mut index, SERVICE);
    let joined = upsert(&mut index, &slice(&[("10.0.0.1", true)]));
    assert!(joined.addresses.contains(&"10.96.0.1".parse().unwrap()));
    let same = upsert(&mut index, &slice(&[("10.0.0.1", false)]));
    assert!(same.addresses.is_empty() && same.endpoints.len() == 1, "readiness alone touches only the slice");
    assert!(removed(&mut index, Kind::EndpointSlice, "web-1").addresses.contains(&"10.96.0.1".parse().unwrap()));
}

#[test]
fn serving_lasts_until_the_pod_goes_or_is_opted_out() {
    let mut index = Index::default();
    let web = pod("web", "node-1", "10.0.0.1", "");
    upsert(&mut index, &web);
    assert!(index.mark_serving("uid-web").is_empty(), "not opted in");
    upsert(&mut index, NAMESPACE);
    assert!(!index.mark_serving("uid-web").is_empty());
    assert!(index.mark_serving("uid-web").is_empty(), "nothing new");
    let found = Arc::clone(index.pod_by_uid("uid-web").unwrap());
    assert!(index.is_serving(&found));
    upsert(&mut index, &NAMESPACE.replace("true", "false"));
    assert!(!index.is_serving(&found));
    upsert(&mut index, NAMESPACE);
    assert!(!index.is_serving(&found), "opting in again does not bring back what its node has to say anew");
}

#[test]
fn an_address_that_was_reused_belongs_to_the_pod_that_has_it_now() {
    let mut index = Index::default();
    upsert(&mut index, &pod("old", "node-1", "10.0.0.1", ""));
    removed(&mut index, Kind::Pod, "old");
    upsert(&mut index, &pod("new", "node-2", "10.0.0.1", ""));
    assert_eq!(&*index.pod_by_address(&"10.0.0.1".parse().unwrap()).unwrap().uid, "uid-new");
    assert!(index.pod_by_uid("uid-old").is_none());
    assert_eq!(index.pods_of_node("node-1").count(), 0);
}
