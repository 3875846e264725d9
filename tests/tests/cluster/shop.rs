//! A small shop: servers on both nodes and a client on the first, in a namespace of its own that is gone at the end.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{
    cluster::{Cluster, PATIENCE},
    wait,
};

/// What servers answer: looked for on the wire.
pub(crate) const MARKER: &str = "a-marker-that-nobody-else-sends";
/// Where the cluster's bridge joins the second node.
const LINK: &str = "weirk-node-b";

/// The namespace and what runs in it.
pub(crate) struct Shop {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
}

impl Shop {
    /// Brings `servers` servers up, spread over both nodes, and a client on the first node.
    pub(crate) fn open(namespace: &str, servers: usize) -> Shop {
        let cluster = Cluster::from_environment();
        cluster.install();
        let shop = Shop { cluster, namespace: namespace.to_owned() };
        shop.cluster.apply(&manifests(namespace, servers));
        shop.cluster.rolled_out(namespace, "deployment/web");
        shop.cluster.rolled_out(namespace, "deployment/client");
        shop
    }

    /// Sets or removes the label of the namespace.
    pub(crate) fn opt(&self, enabled: bool) {
        let label = if enabled { "weir.mesh/enabled=true" } else { "weir.mesh/enabled-" };
        self.cluster.kubectl(&["label", "--overwrite", "namespace", &self.namespace, label]);
    }

    /// Opts in and waits until all `pods` pods are captured.
    pub(crate) fn mesh(&self, pods: u64) {
        self.opt(true);
        self.cluster.meshed(pods, PATIENCE);
    }

    /// Runs a command in the client's pod.
    pub(crate) fn client(&self, command: &[&str]) -> String {
        self.cluster.exec(&self.namespace, "deployment/client", command)
    }

    /// The servers' addresses on one node.
    pub(crate) fn addresses(&self, node: &str) -> Vec<String> {
        let node = format!("spec.nodeName={node}");
        let pods = self.cluster.get(&["-n", &self.namespace, "pods", "-l", "app=web", "--field-selector", &node]);
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let arguments = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--timeout=120s"];
        // A failed test has said why already.
        let _output = self.cluster.try_kubectl(&arguments);
    }
}

fn manifests(namespace: &str, servers: usize) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: web, namespace: {namespace}}}
data:
  nginx.conf: |
    daemon off;
    pid /tmp/nginx.pid;
    error_log /dev/stderr;
    events {{}}
    http {{
      access_log off;
      client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
      server {{ listen 8080; location / {{ return 200 "{MARKER}\n"; }} }}
    }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  replicas: {servers}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}, matchLabelKeys: [pod-template-hash]}}
      terminationGracePeriodSeconds: 5
      containers:
        - name: nginx
          image: weir-test/apps:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/web/nginx.conf]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
          livenessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 2}}
          # Endpoints hear of the end of a pod before its process does, as Kubernetes recommends.
          lifecycle: {{preStop: {{exec: {{command: [sleep, "2"]}}}}}}
          volumeMounts: [{{name: web, mountPath: /etc/web}}]
      volumes: [{{name: web, configMap: {{name: web}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: client, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: client}}}}
  template:
    metadata: {{labels: {{app: client}}}}
    spec:
      nodeName: node-a
      terminationGracePeriodSeconds: 1
      containers:
        - {{name: client, image: weir-test/apps:1, imagePullPolicy: Never, command: [sleep, "100000"]}}
"#
    )
}

/// What passes between the nodes, as it passes.
pub(crate) struct Tap {
    tcpdump: Child,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tap {
    /// Begins to listen at the second node's link.
    pub(crate) fn open() -> Tap {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("link.pcap");
        let tcpdump = Command::new("tcpdump")
            .args(["-i", LINK, "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The header is written when the capture runs.
        wait::until("a capture", PATIENCE, || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0).then_some(()));
        Tap { tcpdump, file, _folder: folder }
    }

    /// Ends it: everything that passed.
    pub(crate) fn close(mut self) -> Vec<u8> {
        kill_process(Pid::from_child(&self.tcpdump), Signal::INT).unwrap();
        self.tcpdump.wait().unwrap();
        std::fs::read(&self.file).unwrap()
    }
}

/// Requests from the client's pod for some time, at a fixed pace, each on its own or a kept connection.
pub(crate) struct Load {
    h2load: Child,
}

/// What became of them.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    text: String,
}

impl Load {
    /// Begins: 8 connections, 200 requests per second in all, HTTP/1.1.
    pub(crate) fn begin(shop: &Shop, seconds: u64) -> Load {
        let time = format!("--duration={seconds}");
        let namespace = shop.namespace.as_str();
        let h2load = shop.cluster.start_kubectl(&[
            "-n",
            namespace,
            "exec",
            "deployment/client",
            "--",
            "h2load",
            "--h1",
            "-c",
            "8",
            &time,
            "--rps=25",
            "http://web/",
        ]);
        Load { h2load }
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Outcome {
        let output = self.h2load.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
        let number = |word: &str| {
            let part = line.split(',').find(|part| part.trim().ends_with(word));
            part.and_then(|part| part.trim().split(' ').rev().nth(1)?.parse().ok()).unwrap_or(u64::MAX)
        };
        Outcome { succeeded: number(" succeeded"), failed: number(" failed"), text }
    }
}

impl Outcome {
    /// Every request was answered, and there were some.
    pub(crate) fn is_whole(&self, at_least: u64) {
        assert!(self.failed == 0 && self.succeeded >= at_least && self.succeeded < u64::MAX, "{self:?}");
        assert!(self.text.contains(" 0 4xx, 0 5xx"), "{}", self.text);
    }
}

/// Prints one figure of the suite.
#[expect(clippy::print_stdout, reason = "what the suite measures is read by people")]
pub(crate) fn figure(what: &str, value: impl std::fmt::Display) {
    println!("figure: {what}: {value}");
}

/// Time that something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    (work(), begin.elapsed())
}
