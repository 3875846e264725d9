use weir_api::v1::WorkloadReport;

use super::*;

fn pod(namespace: &str, owner: &str) -> PodRef {
    PodRef {
        namespace: namespace.into(),
        name: format!("{owner}-1"),
        owner_kind: "deployment".into(),
        owner_name: owner.into(),
        ..PodRef::default()
    }
}

fn id(owner: &str) -> String {
    format!("{owner}.shop.serviceaccount.identity.linkerd.cluster.local")
}

fn row(direction: Direction, workload: &str, peer: Option<&str>, client: &str) -> TrafficReport {
    TrafficReport {
        direction: direction.into(),
        workload: Some(pod("shop", workload)),
        peer: peer.map(|peer| pod("shop", peer)),
        tls: "true".into(),
        client_identity: if client.is_empty() { String::new() } else { id(client) },
        success_total: 1,
        ..TrafficReport::default()
    }
}

fn edges(rows: Vec<TrafficReport>, workloads: Vec<WorkloadReport>) -> Vec<String> {
    let reports = [Report { traffic: rows, workloads, window_seconds: 10.0, ..Report::default() }];
    let name = |side: &Side<'_>| side.subject().map_or("?".to_owned(), |subject| subject.to_string());
    flows(&reports, 60.0).iter().map(|flow| format!("{} {}", name(&flow.client), name(&flow.server))).collect()
}

#[test]
fn both_sides_of_one_flow_are_one() {
    let out = row(Direction::Outbound, "cart", Some("web"), "cart");
    for inbound in [row(Direction::Inbound, "web", Some("cart"), "cart"), row(Direction::Inbound, "web", None, "cart")]
    {
        assert_eq!(edges(vec![inbound, out.clone()], vec![]), ["deploy/cart deploy/web"]);
    }
}

#[test]
fn a_client_outside_the_mesh_is_seen_by_the_server_only() {
    let out = row(Direction::Outbound, "cart", Some("web"), "cart");
    let foreign = row(Direction::Inbound, "web", Some("cron"), "");
    let unknown = row(Direction::Inbound, "web", None, "");
    let seen = edges(vec![out, foreign, unknown], vec![]);
    assert_eq!(seen, ["deploy/cart deploy/web", "deploy/cron deploy/web", "? deploy/web"]);
}

#[test]
fn an_identity_names_its_only_owner_else_its_account() {
    let inbound = || vec![row(Direction::Inbound, "web", None, "cart")];
    let workload =
        |owner: &str| WorkloadReport { pod: Some(pod("shop", owner)), identity: id("cart"), ..Default::default() };
    assert_eq!(edges(inbound(), vec![workload("cart"), workload("cart")]), ["deploy/cart deploy/web"]);
    assert_eq!(edges(inbound(), vec![workload("cart"), workload("other")]), ["sa/cart deploy/web"]);
    assert_eq!(edges(inbound(), vec![]), ["sa/cart deploy/web"]);
}

#[test]
fn odd_rows_are_kept_and_harmless() {
    let empty = TrafficReport::default();
    let inbound =
        TrafficReport { direction: Direction::Inbound.into(), client_identity: "\u{1b}".into(), ..empty.clone() };
    let outbound =
        TrafficReport { direction: Direction::Outbound.into(), peer: Some(PodRef::default()), ..empty.clone() };
    let alien = TrafficReport { direction: 77, ..empty };
    assert_eq!(edges(vec![inbound, outbound, alien], vec![]), ["? ?", "? ?"]);
}

#[test]
fn a_senseless_window_is_what_was_asked_for() {
    for (said, expected) in
        [(10.0, 10.0), (0.0, 60.0), (f64::NAN, 60.0), (-1.0, 60.0), (f64::INFINITY, 60.0), (0.01, 1.0)]
    {
        assert_eq!(seconds(&Report { window_seconds: said, ..Report::default() }, 60.0), expected);
    }
}
