//! What a node's daemons read. Must never write again while the machine runs: others change these files, a mesh's CNI chain for one.

use std::fs;

use serde_json::{Value, json};

use super::super::layout::{DNS, Machine, PODS, Place};
use crate::{child::Outcome, images};

pub(super) const CONTAINERD: &str = "/etc/containerd/config.toml";
pub(super) const KUBELET: &str = "/etc/kubernetes/kubelet.json";
pub(super) const PROXY: &str = "/etc/kubernetes/proxy.json";
const NETWORK: &str = "/etc/cni/net.d/10-pods.conflist";

/// Writes all of them.
///
/// # Errors
/// The machine's root is full.
pub(super) fn write(place: &Place, machine: Machine, pods: &str) -> Outcome {
    for folder in ["/etc/containerd", "/etc/kubernetes", "/etc/cni/net.d"] {
        fs::create_dir_all(folder)?;
    }
    fs::write(CONTAINERD, containerd())?;
    fs::write(NETWORK, serde_json::to_vec_pretty(&network(pods))?)?;
    fs::write(KUBELET, serde_json::to_vec_pretty(&kubelet(place, machine))?)?;
    fs::write(PROXY, serde_json::to_vec_pretty(&proxy(place, machine))?)?;
    Ok(())
}

fn containerd() -> String {
    format!(
        r#"version = 2
# Each of these looks for a file system that is not here, and says so at length.
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  # Some hosts lack CAP_SYS_RESOURCE; scores are then as good as can be had.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#,
        images::PAUSE
    )
}

/// ptp, not bridge: one pod reaches another by way of the host's routes, where kube-proxy sees it without bridge netfilter.
fn network(pods: &str) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                // In memory: a machine that comes back has no pods and so no leases.
                "dataDir": "/run/cni-ipam",
                "ranges": [[{"subnet": pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(place: &Place, machine: Machine) -> Value {
    let pki = |file: &str| place.pki(file).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki(&format!("{}.crt", machine.name)),
        "tlsPrivateKeyFile": pki(&format!("{}.key", machine.name)),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "failCgroupV1": false,
        // The gate only lets kubelet go on where a host refuses limits and scores.
        "featureGates": {"KubeletInUserNamespace": true},
        "oomScoreAdj": 0,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "makeIPTablesUtilChains": false,
        // The disk is the host's: its fill level is nobody's business here.
        "evictionHard": {
            "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi", "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "maxPods": 110,
    })
}

fn proxy(place: &Place, machine: Machine) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": machine.name,
        "clientConnection": {"kubeconfig": place.kubeconfig("proxy")},
        // The table of connections has one size for the whole host: it is not this machine's to set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

#[cfg(test)]
mod tests {
    use super::{containerd, network};

    #[test]
    fn the_network_is_a_chain_with_room_for_more() {
        let chain = network("10.244.1.0/24");
        let types: Vec<_> = chain["plugins"].as_array().expect("a list").iter().map(|plugin| &plugin["type"]).collect();
        assert_eq!(types, ["ptp", "portmap"]);
        assert_eq!(chain["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
    }

    #[test]
    fn pods_start_without_a_registry() {
        assert!(containerd().contains("sandbox_image = \"docker.io/weir-test/pause:1\""));
    }
}
