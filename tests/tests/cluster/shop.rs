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

/// Requests from the client's pod for some time, over kept connections and over one each.
pub(crate) struct Load {
    kept: Child,
    new: Child,
}

/// Connections that are kept, and the pause between requests on each: 200 requests per second in all.
const KEPT: &str =
    "echo 'function delay() return 40 end' > /tmp/pace.lua; exec wrk -t 1 -c 8 --timeout 10s -s /tmp/pace.lua";
/// One connection each, one after the other.
const NEW: &str =
    "while [ $(date +%s) -lt $end ]; do curl -sS --fail --max-time 10 -o /dev/null http://web/ && echo done; done 2>&1";

/// What became of them.
#[derive(Debug)]
pub(crate) struct Outcome {
    kept: String,
    new: String,
}

impl Load {
    /// Begins.
    pub(crate) fn begin(shop: &Shop, seconds: u64) -> Load {
        let start = |script: &str| {
            let arguments = ["-n", &shop.namespace, "exec", "deployment/client", "--", "sh", "-c", script];
            shop.cluster.start_kubectl(&arguments)
        };
        let kept = start(&format!("{KEPT} -d {seconds}s http://web/"));
        Load { kept, new: start(&format!("end=$(($(date +%s) + {seconds})); {NEW}")) }
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Outcome {
        let text = |child: Child| String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned();
        Outcome { kept: text(self.kept), new: text(self.new) }
    }
}

impl Outcome {
    /// Every request was answered, and there were enough.
    pub(crate) fn is_whole(&self, at_least: u64) {
        let line = self.kept.lines().find(|line| line.contains(" requests in ")).unwrap_or_default();
        let count: u64 = line.trim().split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let failed = self.kept.contains("Socket errors") || self.kept.contains("Non-2xx");
        assert!(count >= at_least && !failed, "{}", self.kept);
        let complaints: Vec<&str> = self.new.lines().filter(|line| *line != "done").collect();
        let done = self.new.lines().count() - complaints.len();
        assert!(complaints.is_empty() && done as u64 >= at_least / 20, "{done} done, then {complaints:?}");
        figure("requests over kept connections, and over one each; failed: 0", format!("{count}, {done}"));
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
