use std::sync::Arc;

use tokio::sync::mpsc;
use weir_core::identity::Identity;

use super::*;
use crate::{
    ca::{Authority, CaArgs},
    fixtures::objects,
    manifests::Scan,
    objects::Event,
    plane::Node,
};

fn stage() -> (Arc<Plane>, Replicas, Arc<Node>) {
    let state = tempfile::tempdir().unwrap();
    let args = CaArgs { trust_anchors: None, issuer_certificate: None, issuer_key: None, certificate_hours: 24 };
    let authority = Authority::open(&args, state.path(), "cluster.local").unwrap();
    let plane = Arc::new(Plane::new("cluster.local".into(), authority, None));
    let identity = Identity::of("weir", "weir-control", "cluster.local").unwrap();
    let replicas = Replicas::of_service(Arc::clone(&plane), identity, "c-0".into());
    let node = plane.join("node-1".into(), String::new(), mpsc::channel(1).0).unwrap();
    (plane, replicas, node)
}

/// The Service has this replica and one other.
fn other(plane: &Plane, is_ready: bool) {
    let endpoint = |pod: &str, address: &str, is_ready: bool| {
        format!(
            "- {{addresses: [\"{address}\"], conditions: {{ready: {is_ready}}}, targetRef: {{kind: Pod, name: {pod}, namespace: weir}}}}\n"
        )
    };
    let text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: a\n  namespace: weir\n  labels: {{kubernetes.io/service-name: weir-control}}\naddressType: IPv4\nports: [{{name: grpc, port: 8086}}]\nendpoints:\n{}{}",
        endpoint("c-0", "10.0.0.1", false),
        endpoint("c-1", "10.0.0.2", is_ready),
    );
    let events = objects(&text).into_iter().map(|(name, object)| Event::Upsert(name, object)).collect();
    plane.take(Scan { events, findings: Vec::new() });
}

/// Far more than any machine stands still between two steps of a test.
const READY: Duration = Duration::from_secs(3);
const LONG: Patience = Patience { longest: Duration::from_secs(600), ready: READY };

/// A node that is away for a moment is not gone. Seen to fail with one look.
#[tokio::test]
async fn who_serves_nobody_ends_soon() {
    let (plane, replicas, node) = stage();
    let beside = Arc::clone(&plane);
    plane.leave(&node);
    let is_last = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = beside.join("node-1".into(), String::new(), mpsc::channel(1).0).unwrap();
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        beside.leave(&again);
        Instant::now()
    });
    assert_eq!(may_end(&plane, &replicas, LONG).await, Reason::Deserted);
    let last = is_last.await.unwrap();
    assert!(last.elapsed() >= READY, "{:?}", last.elapsed());
}

/// Seen to fail with a successor that counts as soon as it is named, ready or not, and with one that was ready before.
#[tokio::test]
async fn nodes_are_served_until_another_replica_has_been_ready_for_a_while() {
    let (plane, replicas, _node) = stage();
    let beside = Arc::clone(&plane);
    let is_last = tokio::spawn(async move {
        for (is_ready, long) in [(false, 300), (true, 300), (false, 1_000)] {
            other(&beside, is_ready);
            tokio::time::sleep(Duration::from_millis(long)).await;
        }
        other(&beside, true);
        Instant::now()
    });
    assert_eq!(may_end(&plane, &replicas, LONG).await, Reason::Succeeded);
    let last = is_last.await.unwrap();
    assert!(last.elapsed() >= READY, "{:?}", last.elapsed());
}

#[tokio::test]
async fn without_a_successor_it_ends_before_it_is_killed() {
    let (plane, replicas, _node) = stage();
    other(&plane, false);
    let patience = Patience { longest: Duration::from_millis(50), ready: Duration::ZERO };
    assert_eq!(may_end(&plane, &replicas, patience).await, Reason::Late);
    let manifest = include_str!("../../../deploy/chart/templates/mesh/control.yaml");
    let killed = manifest.split("terminationGracePeriodSeconds: ").nth(1).and_then(|rest| rest.lines().next());
    let killed = Duration::from_secs(killed.unwrap().parse().unwrap());
    assert!(limits::LEAVING + limits::SHUTDOWN * 2 < killed, "{killed:?}");
}
