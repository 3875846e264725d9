//! A small shop: servers on both nodes and a client on the first, in a namespace of its own that is gone at the end.

use std::time::{Duration, Instant};

use weir_tests::cluster::{Cluster, PATIENCE};

/// What servers answer: looked for on the wire.
pub(crate) const MARKER: &str = "a-marker-that-nobody-else-sends";
/// Pods of a shop beside its servers: a client, redis, two gRPC servers.
const OTHERS: usize = 4;

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
        Shop::open_on(cluster, namespace, servers)
    }

    /// As [`Shop::open`], on a cluster that may have no mesh.
    pub(crate) fn open_on(cluster: Cluster, namespace: &str, servers: usize) -> Shop {
        let shop = Shop { cluster, namespace: namespace.to_owned() };
        shop.cluster.apply(&manifests(namespace, servers));
        shop.cluster.rolled_out(namespace, "deployment/web");
        for other in ["client", "redis", "grpc"] {
            shop.cluster.rolled_out(namespace, &format!("deployment/{other}"));
        }
        shop
    }

    /// Sets or removes the label of the namespace.
    pub(crate) fn opt(&self, enabled: bool) {
        let label = if enabled { "weir.mesh/enabled=true" } else { "weir.mesh/enabled-" };
        self.cluster.kubectl(&["label", "--overwrite", "namespace", &self.namespace, label]);
    }

    /// Opts in and waits until all pods are captured.
    pub(crate) fn mesh(&self, servers: usize) {
        self.opt(true);
        self.meshed(servers, PATIENCE);
    }

    /// Waits until `servers` servers and all others are captured, and no other pod of the cluster.
    pub(crate) fn meshed(&self, servers: usize, within: Duration) {
        self.cluster.meshed((servers + OTHERS) as u64, within);
    }

    /// Runs a command in the client's pod.
    pub(crate) fn client(&self, command: &[&str]) -> String {
        self.cluster.exec(&self.namespace, "deployment/client", command)
    }

    /// Runs a command in the client's pod; nothing when it fails or cannot be run.
    pub(crate) fn try_client(&self, command: &[&str]) -> Option<String> {
        let arguments = ["-n", &self.namespace, "exec", "deployment/client", "--"];
        let output = self.cluster.try_kubectl(&[&arguments, command].concat());
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The certificate of who signs those of pods.
    pub(crate) fn identity_issuer(&self) -> String {
        let secret = self.cluster.get(&["-n", "weir", "secret", "weir-identity-issuer"]);
        secret["data"]["tls.crt"].as_str().unwrap().to_owned()
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
      server {{ listen 8080; location / {{ return 200 "{MARKER}\n"; }}
        location /bad {{ return 503; }}
        location /slow {{ limit_rate 50k; root /tmp; }} }}
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
          command: [sh, -c, "head -c 500000 /dev/zero > /tmp/slow; exec nginx -c /etc/web/nginx.conf"]
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
metadata: {{name: redis, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: redis}}}}
  template:
    metadata: {{labels: {{app: redis}}}}
    spec:
      nodeName: node-b
      terminationGracePeriodSeconds: 1
      containers:
        - name: redis
          image: weir-test/apps:1
          imagePullPolicy: Never
          command: [redis-server, --save, "", --protected-mode, "no"]
          readinessProbe: {{tcpSocket: {{port: 6379}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: redis, namespace: {namespace}}}
spec: {{selector: {{app: redis}}, ports: [{{port: 6379}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: grpc, namespace: {namespace}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: grpc}}}}
  template:
    metadata: {{labels: {{app: grpc}}}}
    spec:
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: grpc}}}}}}
      terminationGracePeriodSeconds: 5
      containers:
        - name: grpc
          image: weir-test/apps:1
          imagePullPolicy: Never
          command: [grpc-interop-server, -port, "8080"]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
          lifecycle: {{preStop: {{exec: {{command: [sleep, "2"]}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: grpc, namespace: {namespace}}}
spec: {{selector: {{app: grpc}}, ports: [{{port: 80, targetPort: 8080}}]}}
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
