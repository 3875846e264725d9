//! Endpoints that breakers of nodes have taken out: what is said on their pods, and what whoever asks any replica is told.

use weir_api::v1;

use crate::{SERVICE, connect, ha::weir, populated};

fn seen(state: v1::EndpointState) -> v1::Report {
    let pod = v1::PodRef { namespace: "shop".into(), name: "web".into(), ..v1::PodRef::default() };
    let endpoint = v1::EndpointReport {
        service: "shop/web".into(),
        port: 80,
        address: "10.1.0.5:8080".into(),
        pod: Some(pod),
        ready: true,
        state: state.into(),
        ejections: 2,
        ..v1::EndpointReport::default()
    };
    v1::Report { endpoints: vec![endpoint], ..v1::Report::default() }
}

/// Each node speaks to another replica, and one of these leads. Seen to fail, for the table, with a question that is not passed on to other
/// replicas.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_out_is_told_of_on_its_pod() {
    let stage = populated();
    stage.apply(&SERVICE.replace(
        "ports: [{name: http, port: 80,",
        "ports: [{name: other, port: 81, targetPort: 8080}, {name: http, port: 80,",
    ));
    let replicas = ["control-0", "control-1"].map(|name| stage.replica(name).until_ready());
    let near = connect(&replicas[0], &stage, "node-a").await;
    let far = connect(&replicas[1], &stage, "node-b").await;
    let web = stage.uid("shop", "web");
    let notes = |reason: &str| {
        // What each node says of its own port: one of them speaks to a replica that does not lead.
        let selector = format!("--field-selector=regarding.name=web,reason={reason}");
        let arguments = ["-n", "shop", "get", "events.events.k8s.io", &selector, "-o", "jsonpath={.items[*].note}"];
        stage.until(reason, &arguments, |text| {
            ["80", "81"].iter().all(|port| text.contains(&format!("shop/web port {port}")))
        });
    };
    near.out(&web, Some(80)).await;
    far.out(&web, Some(81)).await;
    notes("EndpointEjected");
    near.out(&web, None).await;
    far.out(&web, None).await;
    notes("EndpointReinstated");

    *near.report.lock().unwrap() = seen(v1::EndpointState::In);
    *far.report.lock().unwrap() = seen(v1::EndpointState::Out);
    let _nodes = [near.attend(), far.attend()];
    let viewer = stage.token("weir-viewer", "weir.mesh/api", None);
    for control in &replicas {
        let (_, table, notes) = weir(&stage, control, &viewer, &["stat", "endpoints", "svc/web", "-n", "shop"]);
        let line = table.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line, "web 80 10.1.0.5:8080 web - yes 1/2 4", "{table}{notes}");
    }
}
