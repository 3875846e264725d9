use super::*;
use crate::fixtures::{NAMESPACE, SERVICE, pod, route, slice, upsert};

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

fn marked(mark: &str) -> String {
    let condition = format!("  conditions: [{{type: weir.mesh/Meshed, status: \"True\", message: {mark}}}]\n---\n");
    pod("web", "node-1", "10.0.0.1", "").replace("---\n", &condition)
}

fn is_serving(index: &Index) -> bool {
    index.is_serving(index.pod_by_uid("uid-web").unwrap())
}

fn marks(index: &Index) -> (usize, usize) {
    (index.unmarked().count(), index.wrongly_marked().count())
}

#[test]
fn what_another_replica_or_run_heard_counts_whichever_object_comes_first() {
    for texts in [[NAMESPACE.to_owned(), marked("a")], [marked("a"), NAMESPACE.to_owned()]] {
        let mut index = Index::default();
        for text in texts {
            upsert(&mut index, &text);
        }
        assert!(is_serving(&index));
        assert_eq!(marks(&index), (0, 0));
    }
}

#[test]
fn a_mark_from_before_an_opt_out_says_nothing_about_the_time_after() {
    let mut index = Index::default();
    upsert(&mut index, &format!("{NAMESPACE}{}", marked("a")));
    upsert(&mut index, &NAMESPACE.replace("true", "false"));
    assert_eq!(marks(&index), (0, 1), "to be taken off");
    upsert(&mut index, NAMESPACE);
    assert!(!is_serving(&index), "opted in again before the mark was taken off");
    index.mark_serving("uid-web");
    assert_eq!(marks(&index), (1, 0), "its node spoke anew: to be marked anew");
    upsert(&mut index, &pod("web", "node-1", "10.0.0.1", ""));
    assert!(is_serving(&index), "the old mark that goes takes nothing with it");
    assert_eq!(marks(&index), (1, 0));
    upsert(&mut index, &marked("b"));
    assert_eq!(marks(&index), (0, 0));
    let mut other = Index::default();
    upsert(&mut other, &format!("{NAMESPACE}{}", marked("a")));
    upsert(&mut other, &NAMESPACE.replace("true", "false"));
    upsert(&mut other, NAMESPACE);
    upsert(&mut other, &marked("b"));
    assert!(is_serving(&other), "a new mark is news, wherever it was made");
}

#[test]
fn a_mark_that_is_taken_off_is_an_opt_out_whichever_is_seen_first() {
    let taken_off = marked("gone").replace("\"True\"", "\"False\", reason: OptedOut");
    let mut index = Index::default();
    upsert(&mut index, &format!("{NAMESPACE}{}", marked("a")));
    upsert(&mut index, &taken_off);
    assert!(!is_serving(&index));
    assert_eq!(marks(&index), (0, 0), "nobody is to mark it again");
    upsert(&mut index, &NAMESPACE.replace("true", "false"));
    upsert(&mut index, NAMESPACE);
    assert!(!is_serving(&index), "its node has to say so");

    let mut index = Index::default();
    upsert(&mut index, &format!("{NAMESPACE}{}", marked("a")));
    upsert(&mut index, &NAMESPACE.replace("true", "false"));
    upsert(&mut index, NAMESPACE);
    index.mark_serving("uid-web");
    upsert(&mut index, &taken_off);
    assert!(is_serving(&index), "that was about the time before");
}

#[test]
fn a_pod_that_is_opted_in_is_one_of_workload_plain_and_neither() {
    let kinds = |text: &str| {
        let mut index = Index::default();
        upsert(&mut index, &format!("{NAMESPACE}{text}"));
        let pod = index.pods().next().unwrap();
        (index.is_enabled(pod), index.is_plain(pod), index.is_refused(pod))
    };
    let web = pod("web", "node-1", "10.0.0.1", "");
    assert_eq!(kinds(&web), (true, false, false));
    assert_eq!(kinds(&web.replace("  podIPs: [{ip: 10.0.0.1}]\n", "")), (true, false, false), "without an address");
    let opted_out = pod("web", "node-1", "10.0.0.1", "  labels: {weir.mesh/enabled: \"false\"}");
    assert_eq!(kinds(&opted_out), (false, true, false));
    assert_eq!(kinds(&web.replace("spec:\n", "spec:\n  hostNetwork: true\n")), (false, false, true));
    assert_eq!(kinds(&web.replace("Running", "Succeeded")), (false, false, false));
    let sidecar = "  initContainers: [{name: istio-proxy, restartPolicy: Always}]\n";
    assert_eq!(kinds(&web.replace("status:\n", &format!("{sidecar}status:\n"))), (false, true, true));
    assert_eq!(kinds(&web.replace("name: app", "name: linkerd-proxy")), (false, true, true));
    assert_eq!(kinds(&web.replace("spec:\n", "spec:\n  runtimeClassName: kata-qemu\n")), (false, true, true));
}

#[test]
fn a_namespace_that_is_opted_in_or_out_is_news_itself() {
    let mut index = Index::default();
    assert!(upsert(&mut index, NAMESPACE).namespaces.contains("demo"));
    assert_eq!(index.meshed_namespaces().count(), 1);
    assert!(upsert(&mut index, NAMESPACE).is_empty());
    assert!(upsert(&mut index, &NAMESPACE.replace("true", "false")).namespaces.contains("demo"));
    assert_eq!(index.meshed_namespaces().count(), 0);
}

#[test]
fn a_mark_of_an_installation_that_was_removed_says_nothing() {
    let mesh = |uid: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: weir, uid: {uid}}}\n---\n");
    let mut index = Index::default();
    upsert(&mut index, &format!("{}{NAMESPACE}{}", mesh("now"), marked("installation before")));
    assert!(!is_serving(&index), "no node of this one has captured it");
    index.mark_serving("uid-web");
    assert_eq!(marks(&index), (1, 0), "to be marked by this one");
    upsert(&mut index, &marked("installation now"));
    assert_eq!(marks(&index), (0, 0));
    let mut restarted = Index::default();
    upsert(&mut restarted, &format!("{}{NAMESPACE}{}", mesh("now"), marked("installation now")));
    assert!(is_serving(&restarted));
}

#[test]
fn a_route_touches_its_parent_and_so_does_each_service_that_it_leads_to() {
    let mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: canary, port: 80}}}]";
    for rule in [
        "backendRefs: [{name: canary, port: 80}]".to_owned(),
        mirror.to_owned(),
        format!("backendRefs: [{{name: web, port: 80, {mirror}}}]"),
    ] {
        touches_its_parent(&route("web", "demo", &format!("  rules: [{{{rule}}}]")));
    }
}

fn touches_its_parent(to_canary: &str) {
    let mut index = Index::default();
    let web = "10.96.0.1".parse().unwrap();
    upsert(&mut index, SERVICE);
    assert!(upsert(&mut index, to_canary).addresses.contains(&web));
    assert!(upsert(&mut index, to_canary).is_empty(), "the same again changes nothing");
    let canary = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
    assert!(upsert(&mut index, &canary).addresses.contains(&web), "a backend that comes");
    let slice = slice(&[("10.0.0.1", true)]).replace("web", "canary");
    assert!(upsert(&mut index, &slice).addresses.contains(&web), "a backend's first slice");
    assert!(removed(&mut index, Kind::Service, "canary").addresses.contains(&web), "a backend that goes");
    assert!(removed(&mut index, Kind::HttpRoute, "web").addresses.contains(&web));
    assert!(upsert(&mut index, &canary).addresses.len() == 1, "nothing leads there any more");
}

#[test]
fn routes_stand_in_the_order_that_breaks_ties() {
    let mut index = Index::default();
    let dated = |name: &str, date: &str| {
        route(name, "demo", "  rules: []").replace("{name:", &format!("{{creationTimestamp: \"{date}\", name:"))
    };
    for (name, date) in [("b", "2026-01-02T00:00:00Z"), ("c", "2026-01-01T00:00:00Z"), ("a", "2026-01-02T00:00:00Z")] {
        upsert(&mut index, &dated(name, date));
    }
    let names: Vec<String> =
        index.routes_of(&Name::new("demo", "web")).iter().map(|(own, _)| own.name.to_string()).collect();
    assert_eq!(names, ["demo/c", "demo/a", "demo/b"]);
}

#[test]
fn routes_of_several_kinds_may_have_one_name() {
    let mut index = Index::default();
    let http = route("same", "demo", "  rules: []");
    let grpc = http.replace("HTTPRoute", "GRPCRoute");
    let policy = http.replace("gateway.networking.k8s.io/v1", "policy.linkerd.io/v1beta3");
    upsert(&mut index, NAMESPACE);
    upsert(&mut index, &http);
    upsert(&mut index, &grpc);
    upsert(&mut index, &policy);
    for kind in ["TLSRoute", "TCPRoute"] {
        upsert(&mut index, &http.replace("HTTPRoute", kind).replace("rules: []", "rules: [{}]"));
    }
    let kinds = |index: &Index| -> Vec<Kind> {
        index.routes_of(&Name::new("demo", "web")).iter().map(|(own, _)| own.kind).collect()
    };
    assert_eq!(kinds(&index), Kind::ROUTES);
    assert_eq!(Kind::ROUTES.map(|kind| index.count(kind)), [1; 5]);
    removed(&mut index, Kind::HttpRoute, "same");
    assert_eq!(kinds(&index), &Kind::ROUTES[1..]);
}
