use weir_api::v1::{Direction, PodRef, TrafficReport};

use super::*;

const CART: &str = "cart.shop.serviceaccount.identity.linkerd.cluster.local";
const WEB: &str = "web.front.serviceaccount.identity.linkerd.cluster.local";

fn pod(namespace: &str, owner: &str) -> Option<PodRef> {
    Some(PodRef {
        namespace: namespace.into(),
        name: format!("{owner}-1"),
        owner_kind: "deployment".into(),
        owner_name: owner.into(),
        ..PodRef::default()
    })
}

fn reports() -> Vec<Report> {
    let secured = TrafficReport {
        direction: Direction::Outbound.into(),
        workload: pod("shop", "cart"),
        peer: pod("front", "web"),
        service: "front/web-svc".into(),
        tls: "true".into(),
        client_identity: CART.into(),
        server_identity: WEB.into(),
        ..TrafficReport::default()
    };
    let other_side = TrafficReport {
        direction: Direction::Inbound.into(),
        workload: pod("front", "web"),
        peer: pod("shop", "cart"),
        service: String::new(),
        ..secured.clone()
    };
    let plain = TrafficReport {
        workload: pod("front", "web"),
        peer: None,
        tls: "no_tls_from_remote".into(),
        client_identity: String::new(),
        ..other_side.clone()
    };
    let down = TrafficReport { peer: None, tls: String::new(), server_identity: String::new(), ..secured.clone() };
    vec![
        Report { traffic: vec![secured, down], ..Report::default() },
        Report { traffic: vec![other_side, plain], ..Report::default() },
    ]
}

fn selector(resource: &str, namespace: Option<&str>) -> Selector {
    Selector { resources: vec![Resource::parse(resource).unwrap()], namespace: namespace.map(str::to_owned) }
}

fn lines(resource: &str, namespace: Option<&str>) -> Vec<String> {
    let text = table(&edges(&reports(), &selector(resource, namespace)), false).text(false);
    text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn one_line_per_edge_with_the_reason() {
    assert_eq!(
        lines("all", None),
        [
            "deploy/cart deploy/web shop front cart.shop web.front √",
            "deploy/cart svc/web-svc shop front cart.shop - unknown",
            "unknown deploy/web - front - web.front no_tls_from_remote",
        ]
    );
}

#[test]
fn either_end_is_enough() {
    assert_eq!(lines("all", Some("shop")).len(), 2);
    assert_eq!(lines("all", Some("front")).len(), 2, "of failed requests only the client is known");
    assert_eq!(lines("deploy/web", None).len(), 2);
    assert_eq!(lines("all", Some("elsewhere")).len(), 0);
}

#[test]
fn pods_and_services() {
    assert_eq!(lines("pod", None)[0], "pod/cart-1 pod/web-1 shop front cart.shop web.front √");
    assert_eq!(lines("svc", None)[1], "deploy/cart svc/web-svc shop front cart.shop web.front √");
}

#[test]
fn json_has_stable_names() {
    let value = serde_json::to_value(edges(&reports(), &selector("all", None))).unwrap();
    assert_eq!(
        value[0],
        serde_json::json!({
            "src": "deploy/cart", "src_namespace": "shop", "dst": "deploy/web", "dst_namespace": "front",
            "client_id": CART, "server_id": WEB, "secured": true, "no_tls_reason": "",
        })
    );
}
