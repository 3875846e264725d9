//! A small shop: servers on both nodes and a client on the first, in a namespace of its own that is gone at the end.

use std::time::{Duration, Instant};

use weir_tests::{
    cluster::{Cluster, PATIENCE},
    wait,
};

/// What servers answer: looked for on the wire.
pub(crate) const MARKER: &str = "a-marker-that-nobody-else-sends";
/// Pods of a shop beside its servers: a client, redis, two gRPC servers.
const OTHERS: usize = 4;

/// Asks each Service once.
pub(crate) const ASK_ALL: &str = "curl -sS --fail -o /dev/null http://web/ && echo PING | ncat redis 6379 && \
    grpc-interop-client -server_host grpc -server_port 80 -test_case empty_unary";

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
        // What an interrupted run left would be counted as meshed.
        cluster.kubectl(&["delete", "namespace", "--selector=weir-test=shop", "--timeout=120s"]);
        let shop = Shop { cluster, namespace: namespace.to_owned() };
        shop.cluster.apply(&manifests(namespace, servers));
        shop.cluster.rolled_out(namespace, "deployment/web");
        for other in ["client", "redis", "grpc"] {
            shop.cluster.rolled_out(namespace, &format!("deployment/{other}"));
        }
        // kube-proxy is up to half a second behind: until then it refuses what goes to a Service.
        wait::until("the Services of a new shop", PATIENCE, || shop.try_client(&["sh", "-c", ASK_ALL]));
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

    /// What the proxies that run count.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let pods = self.cluster.get(&["-n", "weir", "pods", "-l", "weir.mesh/component=proxy"]);
        let addresses = pods["items"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|pod| pod["status"]["podIP"].as_str());
        let texts = addresses.filter_map(|address| {
            self.try_client(&["curl", "-sS", "--fail", &format!("http://{address}:4191/metrics")])
        });
        texts.collect()
    }

    /// What they count of requests of this namespace that failed, with their reasons.
    pub(crate) fn failures_counted(&self) -> String {
        let text = self.metrics();
        let lines = text.iter().flat_map(|text| text.lines());
        let failed = lines.filter(|line| {
            let answered = line.contains("_statuses_total{") || line.starts_with("response_total{");
            let gave_up = line.contains("error=\"") && !line.contains("error=\"\"");
            let failed = gave_up || line.contains("http_status=\"5") || line.contains("status_code=\"5");
            answered && failed && line.contains(&self.namespace)
        });
        failed.fold("what the proxies count as failed:\n".to_owned(), |said, line| said + line + "\n")
    }

    /// The certificate of who signs those of pods.
    pub(crate) fn identity_issuer(&self) -> String {
        let secret = self.cluster.get(&["-n", "weir", "secret", "weir-identity-issuer"]);
        secret["data"]["tls.crt"].as_str().unwrap().to_owned()
    }

    /// The servers' addresses on one node, without those that leave: nobody may listen there any more.
    pub(crate) fn addresses(&self, node: &str) -> Vec<String> {
        let node = format!("spec.nodeName={node}");
        let pods = self.cluster.get(&["-n", &self.namespace, "pods", "-l", "app=web", "--field-selector", &node]);
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        let staying = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        staying.filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned)).collect()
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
    let text = include_str!("shop.yaml").replace("NAMESPACE", namespace);
    text.replace("SERVERS", &servers.to_string()).replace("MARKER", MARKER)
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
