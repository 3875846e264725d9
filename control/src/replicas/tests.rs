use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use tonic::Code;

use super::*;
use crate::{fixtures::upsert, index::Index};

fn control() -> Identity {
    Identity::of("weir", "weir-control", "cluster.local").unwrap()
}

fn peer(name: &str) -> Peer {
    Peer { name: name.to_owned(), address: "10.0.0.1:8086".parse().unwrap(), is_ready: true }
}

fn node(name: &str, age_ms: u64) -> v1::ConnectedNode {
    v1::ConnectedNode { node_name: name.to_owned(), age_ms, ..v1::ConnectedNode::default() }
}

fn report(node: &str, version: &str) -> v1::Report {
    v1::Report { node_name: node.to_owned(), version: version.to_owned(), ..v1::Report::default() }
}

fn slice(name: &str, family: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: weir\n  labels: {{kubernetes.io/service-name: weir-control}}\naddressType: {family}\nports: [{{name: grpc, port: 8086}}]\nendpoints:\n{endpoints}---\n"
    )
}

fn endpoint(address: &str, pod: &str, is_ready: bool) -> String {
    format!(
        "- {{addresses: [\"{address}\"], conditions: {{ready: {is_ready}}}, targetRef: {{kind: Pod, name: {pod}, namespace: weir}}}}\n"
    )
}

#[test]
fn the_others_are_the_services_endpoints_each_once_and_unready_ones_too() {
    let mut index = Index::default();
    let all =
        [endpoint("10.0.0.2", "c-1", true), endpoint("10.0.0.3", "c-2", false), endpoint("10.0.0.1", "c-0", true)];
    upsert(&mut index, &slice("a", "IPv4", &all.concat()));
    upsert(&mut index, &slice("b", "IPv6", &endpoint("fd00::2", "c-1", true)));
    let others: Vec<(String, String)> =
        peers::others(&index, "c-0").into_iter().map(|peer| (peer.name, peer.address.to_string())).collect();
    let expected = [("c-1", "10.0.0.2:8086"), ("c-2", "10.0.0.3:8086")];
    assert_eq!(others, expected.map(|(name, address)| (name.to_owned(), address.to_owned())));
    let ready: Vec<bool> = peers::others(&index, "c-0").iter().map(|peer| peer.is_ready).collect();
    assert_eq!(ready, [true, false], "who is not is no successor");
    assert_eq!(peers::others(&Index::default(), "c-0"), []);
}

#[test]
fn only_controls_own_name_is_a_replicas() {
    let chain = |names: &[&str]| {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        vec![CertificateDer::from(certificate.der().to_vec())]
    };
    let code =
        |chain: Option<&Vec<CertificateDer<'static>>>| peers::authenticate(chain, &control()).map_err(|s| s.code());
    assert_eq!(code(Some(&chain(&[control().as_str()]))), Ok(()));
    assert_eq!(code(None), Err(Code::Unauthenticated));
    for names in [&["web.shop.serviceaccount.identity.linkerd.cluster.local"][..], &[], &[control().as_str(), "x"]] {
        assert_eq!(code(Some(&chain(names))), Err(Code::PermissionDenied), "{names:?}");
    }
    let mut uri = CertificateParams::default();
    uri.subject_alt_names = vec![SanType::URI(control().spiffe_uri().try_into().unwrap())];
    let uri = uri.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    assert_eq!(code(Some(&vec![uri.into()])), Err(Code::PermissionDenied));
}

#[test]
fn a_node_that_changed_its_replica_is_counted_once_where_it_is_now() {
    let own = v1::ShareResponse {
        nodes: vec![node("a", 9_000), node("b", 1)],
        reports: vec![report("b", "own")],
        missing_nodes: vec!["a".to_owned()],
        ..v1::ShareResponse::default()
    };
    let mut gathered = Gathered::of("c-0", own);
    let status = v1::WorkloadStatus { uid: "u".to_owned(), captured: true, ..v1::WorkloadStatus::default() };
    let moved = v1::ConnectedNode { statuses: vec![status], ..node("a", 5) };
    let share = v1::ShareResponse {
        version: "2".to_owned(),
        nodes: vec![moved],
        reports: vec![report("a", "other")],
        authority_problem: "no".to_owned(),
        ..v1::ShareResponse::default()
    };
    gathered.add(&peer("c-1"), Ok(share));
    gathered.add(&peer("c-2"), Err("refused".to_owned()));
    assert_eq!(gathered.nodes["a"].age_ms, 5);
    assert!(gathered.statuses()["u"].captured);
    let reports: Vec<(&str, &str)> =
        gathered.reports.iter().map(|report| (report.node_name.as_str(), report.version.as_str())).collect();
    assert_eq!(reports, [("a", "other"), ("b", "own")]);
    assert_eq!(gathered.missing_nodes, [""; 0], "it answered its new replica");
    let missing = gathered.missing_replicas();
    assert_eq!((missing.len(), missing[0].name.as_str(), missing[0].problem.as_str()), (1, "c-2", "refused"));
    assert_eq!(gathered.authority_problems, [("c-1".to_owned(), "no".to_owned())]);
    assert_eq!(
        gathered.replicas.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>(),
        ["c-0", "c-1", "c-2"]
    );
}

/// Seen to hang with two locks in one expression, as `weir check` did.
#[test]
fn what_a_node_said_is_told_without_waiting_for_itself() {
    let (sender, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let plane = crate::plane::tests::plane();
        let (asked, _queries) = tokio::sync::mpsc::channel(1);
        let node = plane.join("n-1".into(), "1".to_owned(), asked).unwrap();
        let mute = connected(&node);
        *node.out.lock() = Some(Vec::new());
        sender.send((mute.has_said_out, connected(&node).has_said_out))
    });
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(30)), Ok((false, true)));
}
