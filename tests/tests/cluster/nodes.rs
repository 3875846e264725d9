//! A look at the nodes themselves, by a privileged pod on each. Must never change anything that the test did not ask for.

use weir_tests::cluster::Cluster;

/// The pods that look, gone with this.
pub(crate) struct Nodes<'a> {
    cluster: &'a Cluster,
    pods: Vec<(String, String)>,
}

impl<'a> Nodes<'a> {
    /// Starts one on every node.
    pub(crate) fn open(cluster: &'a Cluster) -> Nodes<'a> {
        cluster.apply(LOOKER);
        cluster.rolled_out("kube-system", "daemonset/weir-test-looker");
        let pods = cluster.get(&["-n", "kube-system", "pods", "-l", "app=weir-test-looker"]);
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let pods = pods["items"].as_array().unwrap().iter();
        let pods = pods.map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["name"]))).collect();
        Nodes { cluster, pods }
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pods.iter().map(|(node, _)| node.as_str())
    }

    /// Runs a script among a node's processes, in the pod's own root: all of busybox.
    pub(crate) fn run(&self, node: &str, script: &str) -> String {
        self.cluster.exec("kube-system", self.pod(node), &["sh", "-c", script])
    }

    /// Processes of a node whose command line begins like this (a basic regular expression).
    pub(crate) fn processes(&self, node: &str, program: &str) -> Vec<u32> {
        let script = format!(
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^{program}' && echo ${{p#/proc/}}; done; true"
        );
        self.run(node, &script).lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Runs a script in a node's own root.
    pub(crate) fn run_in_root(&self, node: &str, script: &str) -> String {
        self.cluster.exec("kube-system", self.pod(node), &["nsenter", "-t", "1", "-m", "--", "sh", "-c", script])
    }

    fn pod(&self, node: &str) -> &str {
        &self.pods.iter().find(|(name, _)| name == node).unwrap_or_else(|| panic!("no node {node}")).1
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        let arguments = ["-n", "kube-system", "delete", "daemonset/weir-test-looker", "--ignore-not-found"];
        // A failed test has said why already.
        let _output = self.cluster.try_kubectl(&arguments);
    }
}

const LOOKER: &str = r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: weir-test-looker, namespace: kube-system}
spec:
  selector: {matchLabels: {app: weir-test-looker}}
  template:
    metadata: {labels: {app: weir-test-looker}}
    spec:
      hostPID: true
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers:
        - {name: looker, image: weir-test/apps:1, imagePullPolicy: Never, command: [sleep, '100000'], securityContext: {privileged: true}}
";
