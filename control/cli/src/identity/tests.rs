use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use weir_api::v1::PodRef;

use super::*;

fn certificate() -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["web.shop.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 2);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn workload(name: &str, chain: Vec<Vec<u8>>) -> WorkloadReport {
    WorkloadReport {
        uid: "uid-1".into(),
        pod: Some(PodRef { namespace: "shop".into(), name: name.into(), ..PodRef::default() }),
        captured: true,
        identity: "web.shop".into(),
        certificate_chain: chain,
        ..WorkloadReport::default()
    }
}

fn report(workloads: Vec<WorkloadReport>) -> Vec<Report> {
    vec![Report { node_name: "n1".into(), workloads, ..Report::default() }]
}

#[test]
fn a_pods_certificate_in_full() {
    let reports = report(vec![workload("web-1", vec![certificate()]), workload("web-2", vec![])]);
    let shown = pods(&reports, Some("shop"), &["web-1"]);
    let end = shown[0].certificates[0].not_after_unix;
    let text = full(&shown[0], end - 3_600);
    for part in
        ["POD web-1 (pod/web-1, node n1)", "DNS:web.shop.example", "2026-01-02T00:00:00Z (in 1h0m)", "EC 256 bits"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(shown.len(), 1);
    assert!(pods(&reports, Some("other"), &[]).is_empty());
}

#[test]
fn an_overview_says_what_is_missing() {
    let reports = report(vec![
        workload("a", vec![certificate()]),
        workload("b", vec![]),
        workload("c", vec![certificate(), b"junk".to_vec()]),
        WorkloadReport { uid: "uid-9".into(), ..WorkloadReport::default() },
    ]);
    let shown = pods(&reports, None, &[]);
    let text = overview(&shown, shown[1].certificates[0].not_after_unix + 60, true).text(false);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line(" a ").contains("expired 1m0s ago"), "{text}");
    assert!(line(" b ").contains("no certificate"), "{text}");
    assert!(line(" c ").contains("certificate 2 of the chain: not a certificate"), "{text}");
    assert!(line("uid-9").starts_with("-  "), "{text}");
}

#[test]
fn pods_are_named_with_or_without_their_kind() {
    assert_eq!(bare("pod/web-1").unwrap(), "web-1");
    assert_eq!(bare("web-1").unwrap(), "web-1");
    assert!(bare("deploy/web").is_err() && bare("pod/").is_err());
}
