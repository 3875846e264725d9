//! Who may call whom, by default policies; kubelet's probes come through all the same.

use weir_tests::authority;

use crate::{
    nodes::Nodes,
    shop::{MARKER, Shop},
};

/// Pods of a namespace that lets nobody in become ready and stay alive, because their own kubelet is known; what only says that it is
/// kubelet is refused. Without the kernel's word (the `sock_ops` program) no pod gets ready.
#[test]
fn probes_of_kubelet_pass_where_nobody_else_does() {
    let shop = Shop::open("denied", 4);
    let namespace = shop.namespace.as_str();
    shop.mesh(4);
    assert!(shop.client(&["curl", "-sS", "http://web/"]).contains(MARKER));
    shop.cluster.kubectl(&["annotate", "namespace", namespace, "config.linkerd.io/default-inbound-policy=deny"]);
    let folder = tempfile::tempdir().unwrap();
    authority::self_signed(folder.path(), "probed");
    let file = |kind: &str, name: &str| format!("--{kind}={}", folder.path().join(name).display());
    let (certificate, key) = (file("cert", "probed.crt"), file("key", "probed.key"));
    shop.cluster.kubectl(&["-n", namespace, "create", "secret", "tls", "probed", &certificate, &key]);
    shop.cluster.apply(&include_str!("probed.yaml").replace("NAMESPACE", namespace));
    // New pods: ready by their HTTP probe on a named port, redis and gRPC by their TCP probe.
    for deployment in ["web", "redis", "grpc"] {
        shop.cluster.kubectl(&["-n", namespace, "rollout", "restart", &format!("deployment/{deployment}")]);
    }
    // `probed`: ready by HTTPS and a redirect, alive by gRPC.
    for deployment in ["web", "redis", "grpc", "probed"] {
        shop.cluster.rolled_out(namespace, &format!("deployment/{deployment}"));
    }
    let status = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-A", "kube-probe/1.34"];
    let asked = |url: &str| shop.client(&[&status[..], &[url]].concat());
    assert_eq!(asked("http://web/"), "403", "a meshed client");
    let there = shop.addresses("node-b").pop().unwrap();
    let url = format!("http://{there}:8080/");
    assert_eq!(asked(&url), "403", "a forged probe of a pod");
    let nodes = Nodes::open(&shop.cluster);
    let forged = format!("curl -sS -o /dev/null -w '%{{http_code}}' -A kube-probe/1.34 {url}");
    assert_eq!(nodes.run("node-a", &forged), "403", "a forged probe of another node's own network");
    // kubelet asks every second or two whether they live: none was started again.
    let pods = shop.cluster.get(&["-n", namespace, "pods", "-l", "app in (web, probed)"]);
    // Pods of before may be there still, ended and on their way out.
    let stay = |pod: &&serde_json::Value| pod["metadata"]["deletionTimestamp"].is_null();
    let stay: Vec<_> = pods["items"].as_array().unwrap().iter().filter(stay).collect();
    assert!(stay.len() >= 3, "{pods}");
    for pod in stay {
        let status = &pod["status"]["containerStatuses"][0];
        assert!(status["ready"] == true && status["restartCount"] == 0, "{status}");
    }
}
