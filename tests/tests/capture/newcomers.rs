//! Pods that the CNI plugin announces, as the holder of a Kubernetes node hears of them: the test is plugin and proxy.

use std::{path::Path, time::Instant};

use rustix::{process::Uid, thread::set_thread_res_uid};
use weir_node::{
    handover::{Arrival, Part, Reply, Request, VERSION, channel::Channel},
    limits,
};
use weir_tests::{fabric::Place, wait};

use super::stage::{PROXY_UID, Stage, WITHIN};

/// A connection of the proxy's user, which has said who it is.
async fn proxy(stage: &Stage) -> Channel {
    let become_user = |uid: u32| set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
    become_user(PROXY_UID);
    let connected = Channel::connect(&stage.socket());
    become_user(0);
    let channel = connected.unwrap();
    channel.send(&Request::Hello { version: VERSION }, &[]).await.unwrap();
    assert_eq!(channel.receive::<Reply>().await.unwrap().0, Reply::Welcome { version: VERSION });
    channel
}

/// What the plugin hears of a pod.
async fn announce(stage: &Stage, uid: &str, netns: &Path) -> Arrival {
    let channel = Channel::connect(&stage.socket()).unwrap();
    let arrival = Request::Arrive { uid: uid.to_owned(), namespace: "shop".to_owned(), netns: netns.to_owned() };
    channel.send(&arrival, &[]).await.unwrap();
    match tokio::time::timeout(WITHIN + limits::CNI_WAIT, channel.receive()).await.unwrap().unwrap() {
        (Reply::Arrived { arrival }, _) => arrival,
        (other, _) => panic!("{other:?}"),
    }
}

// Seen to fail when what nobody declared waits for its next namespace: the second sandbox is captured at once, and without one the
// pod would be waited for ever.
#[tokio::test]
async fn without_control_the_namespace_decides_for_each_sandbox_anew() {
    let mut stage = Stage::on_kubernetes();
    let sandboxes: [Place; 2] = ["first", "second"].map(|name| stage.pod(name));
    let proxy = proxy(&stage).await;
    let shop = || vec!["shop".to_owned()];
    for (part, namespaces) in
        [(Part::First, Vec::new()), (Part::Further, shop()), (Part::Last { current: false }, Vec::new())]
    {
        let word = Request::Expect { part, plain: Vec::new(), meshed_namespaces: namespaces };
        proxy.send(&word, &[]).await.unwrap();
    }
    for sandbox in &sandboxes {
        let began = Instant::now();
        assert_eq!(announce(&stage, "new", sandbox.netns.path()).await, Arrival::Captured);
        assert!(began.elapsed() >= limits::CNI_AWAY, "{:?}: nobody asked for it", began.elapsed());
    }
}

// Seen to fail when a namespace that cannot be opened counts as the one that is captured.
#[tokio::test]
async fn a_sandbox_that_cannot_be_looked_at_does_not_start() {
    let mut stage = Stage::on_kubernetes();
    let pod = stage.pod("server");
    let netns = pod.netns.path().display();
    stage.write_pod_file("a", &format!(r#"{{"uid": "u", "netns": "{netns}", "enrol": true}}"#));
    wait::until("the captured pod", WITHIN, || stage.holder().log().contains("pod captured").then_some(()));
    assert_eq!(announce(&stage, "u", pod.netns.path()).await, Arrival::Captured);
    let missing = "/run/netns/of-nobody";
    let Arrival::NotYet { reason } = announce(&stage, "u", Path::new(missing)).await else { panic!("it may start") };
    assert!(reason.contains(missing), "{reason}");
}
