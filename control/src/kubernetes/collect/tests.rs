use super::*;
use crate::fixtures::{NAMESPACE, objects, pod};

fn item(kind: Kind, news: News) -> Item {
    Item { kind, news }
}

fn seen(text: &str) -> Item {
    let (name, object) = objects(text).remove(0);
    item(name.kind, News::Seen { name, read: Read::Object(object, Vec::new()) })
}

fn finding(name: &ObjectName) -> Finding {
    Finding { file: String::new(), line: 0, object: Some(name.to_string()), field: "f".into(), reason: "r".into() }
}

fn flawed(text: &str) -> Item {
    let (name, object) = objects(text).remove(0);
    let findings = vec![finding(&name)];
    item(name.kind, News::Seen { name, read: Read::Object(object, findings) })
}

fn refused(text: &str) -> Item {
    let (name, _object) = objects(text).remove(0);
    let findings = vec![finding(&name)];
    item(name.kind, News::Seen { name, read: Read::Refused(findings) })
}

fn web() -> String {
    pod("web", "node-1", "10.0.0.1", "")
}

fn list(collector: &mut Collector, kind: Kind, items: Vec<Item>) {
    collector.take(item(kind, News::Began));
    items.into_iter().for_each(|item| collector.take(item));
    collector.take(item(kind, News::Listed));
}

fn complete(pods: Vec<Item>) -> Collector {
    let mut collector = Collector::default();
    list(&mut collector, Kind::Pod, pods);
    list(&mut collector, Kind::Namespace, vec![seen(NAMESPACE)]);
    list(&mut collector, Kind::Service, Vec::new());
    list(&mut collector, Kind::EndpointSlice, Vec::new());
    for kind in KINDS.into_iter().filter(|kind| kind.is_optional()) {
        list(&mut collector, kind, Vec::new());
    }
    collector
}

fn names(scan: &Scan) -> Vec<String> {
    let shown = |event: &Event| match event {
        Event::Upsert(name, _) => format!("+{name}"),
        Event::Remove(name) => format!("-{name}"),
    };
    scan.events.iter().map(shown).collect()
}

#[test]
fn nothing_is_told_before_every_kind_was_listed_once() {
    let mut collector = Collector::default();
    list(&mut collector, Kind::Pod, vec![seen(&web())]);
    list(&mut collector, Kind::Namespace, vec![seen(NAMESPACE)]);
    list(&mut collector, Kind::Service, Vec::new());
    for kind in KINDS.into_iter().filter(|kind| kind.is_optional()) {
        list(&mut collector, kind, Vec::new());
    }
    collector.take(item(Kind::EndpointSlice, News::Began));
    assert!(collector.scan().is_none());
    collector.take(item(Kind::EndpointSlice, News::Listed));
    let scan = collector.scan().unwrap();
    assert_eq!(names(&scan), ["+Namespace demo", "+Pod demo/web"], "what opts in comes first");
    assert!(collector.scan().is_none());
}

#[test]
fn a_first_list_that_broke_off_leaves_nothing_behind() {
    let mut collector = Collector::default();
    collector.take(item(Kind::Pod, News::Began));
    collector.take(seen(&web()));
    for kind in KINDS {
        list(&mut collector, kind, Vec::new());
    }
    let mut index = crate::index::Index::default();
    index.apply(collector.scan().unwrap().events);
    assert_eq!(index.count(Kind::Pod), 0, "it was gone when the list was read again");
}

#[test]
fn a_list_read_again_removes_only_what_it_does_not_name_and_only_when_it_is_complete() {
    let mut collector = complete(vec![seen(&web()), seen(&pod("old", "node-1", "10.0.0.2", ""))]);
    collector.scan().unwrap();
    collector.take(item(Kind::Pod, News::Began));
    assert!(collector.scan().is_none());
    // The connection breaks, and the list begins again.
    collector.take(item(Kind::Pod, News::Began));
    collector.take(seen(&web()));
    assert_eq!(names(&collector.scan().unwrap()), ["+Pod demo/web"]);
    collector.take(item(Kind::Pod, News::Listed));
    assert_eq!(names(&collector.scan().unwrap()), ["-Pod demo/old"]);
}

#[test]
fn a_bad_object_rejects_itself_only_and_is_named() {
    let mut collector = complete(vec![seen(&web())]);
    collector.scan().unwrap();
    collector.take(refused(&web()));
    collector.take(seen(&pod("other", "node-1", "10.0.0.2", "")));
    let scan = collector.scan().unwrap();
    assert_eq!(names(&scan), ["+Pod demo/other"], "its last good version stays");
    assert_eq!(scan.findings[0].to_string(), "Pod demo/web: f: r");
    list(&mut collector, Kind::Pod, vec![refused(&web()), seen(&pod("other", "node-1", "10.0.0.2", ""))]);
    let scan = collector.scan().unwrap();
    assert!(!names(&scan).contains(&"-Pod demo/web".to_owned()), "also over a new list");
    assert_eq!(scan.findings.len(), 1);
    collector.take(seen(&web()));
    assert!(collector.scan().unwrap().findings.is_empty());
}

#[test]
fn an_object_with_a_flaw_is_in_force_and_named() {
    let mut collector = complete(vec![flawed(&web())]);
    let scan = collector.scan().unwrap();
    assert_eq!(names(&scan), ["+Namespace demo", "+Pod demo/web"]);
    assert_eq!(scan.findings.len(), 1);
    collector.take(seen(&web()));
    assert!(collector.scan().unwrap().findings.is_empty());
}

#[test]
fn while_a_kind_cannot_be_listed_only_the_last_of_each_object_is_kept() {
    let mut collector = Collector::default();
    list(&mut collector, Kind::Pod, vec![seen(&web())]);
    for address in 1..=100 {
        collector.take(seen(&pod("web", "node-1", &format!("10.0.0.{address}"), "")));
    }
    assert_eq!(collector.events.len(), 1);
    let (name, _) = objects(&web()).remove(0);
    collector.take(item(Kind::Pod, News::Gone(name.clone())));
    assert_eq!(collector.events.into_values().collect::<Vec<_>>(), [Event::Remove(name)]);
}

#[test]
fn a_refused_object_that_is_gone_is_no_finding_any_more() {
    let mut collector = complete(vec![refused(&web())]);
    assert_eq!(collector.scan().unwrap().findings.len(), 1);
    list(&mut collector, Kind::Pod, Vec::new());
    let scan = collector.scan().unwrap();
    assert!(scan.findings.is_empty() && scan.events.is_empty());
}

/// Seen to fail in the order of objects.
#[test]
fn an_object_with_many_findings_hides_no_other() {
    let finding = |field: usize| Finding {
        file: String::new(),
        line: 0,
        object: Some("Pod demo/web".to_owned()),
        field: field.to_string(),
        reason: "r".to_owned(),
    };
    let many: Vec<Finding> = (0..limits::FINDINGS_IN_CLUSTER).map(finding).collect();
    let Item { news: News::Seen { name, .. }, .. } = seen(&web()) else { panic!() };
    let mut collector = complete(vec![
        item(Kind::Pod, News::Seen { name, read: Read::Refused(many) }),
        refused(&pod("zoo", "node-1", "10.0.0.2", "")),
    ]);
    let findings = collector.scan().unwrap().findings;
    assert_eq!(findings.len(), limits::FINDINGS_IN_CLUSTER);
    assert!(findings.iter().any(|one| one.object.as_deref() == Some("Pod demo/zoo")));
}
