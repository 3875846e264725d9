//! A whole mesh on this machine: control, two nodes with holder and proxy each, and the pods that a test asks for.
//!
//! Must never reach into the product: it writes YAML, starts the product's binaries and reads what they offer to anyone.

mod manifests;
mod pod;
mod proxy;
mod routes;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

pub use self::{
    manifests::{ServiceOptions, ServicePort},
    pod::{Pod, PodOptions},
    routes::HttpRules,
};
use crate::{
    daemon::Daemon,
    fabric::{Fabric, NODES},
    netns::run,
    wait,
};

/// Longest wait for a part of the mesh to come up: on two busy cores each is a matter of a second or two.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Namespace of pods and services unless said otherwise.
pub const NAMESPACE: &str = "demo";
const CONTROL_PORT: u16 = 8086;
const API_TOKEN: &str = "weir-tests-api-token-0123456789";

/// The product's binaries: beside `WEIR_BINARIES`, else in cargo's release folder.
///
/// # Panics
/// When they are not built.
pub fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("WEIR_BINARIES").map(PathBuf::from).or_else(|| {
        let own = env::current_exe().ok()?;
        // Suites lie in `release/deps`, demo and benchmarks in `release`.
        own.ancestors().skip(1).take(2).find(|folder| folder.join(name).is_file()).map(Path::to_owned)
    });
    let path = folder.unwrap_or_default().join(name);
    assert!(path.is_file(), "{} is not built: run `cargo xtask test` or set WEIR_BINARIES", path.display());
    path
}

#[derive(Debug, Default)]
struct Node {
    holder: Option<Daemon>,
    proxy: Option<Daemon>,
}

/// The mesh; everything ends when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    control: Option<Daemon>,
    nodes: [Node; NODES],
    /// Namespaces and wires.
    pub fabric: Fabric,
    pods: usize,
    services: u8,
    directory: TempDir,
}

impl Default for Mesh {
    fn default() -> Mesh {
        Mesh::start()
    }
}

impl Mesh {
    /// Starts control and both nodes, without pods.
    pub fn start() -> Mesh {
        let directory = tempfile::Builder::new().prefix("weir-mesh-").tempdir().expect("a temporary folder");
        let mut mesh = Mesh {
            control: None,
            nodes: [Node::default(), Node::default()],
            fabric: Fabric::new(),
            pods: 0,
            services: 0,
            directory,
        };
        for folder in ["manifests", "control", "tokens", "logs"] {
            fs::create_dir(mesh.path(folder)).expect("a folder");
        }
        fs::write(mesh.path("api-token"), API_TOKEN).expect("a token");
        for node in 0..NODES {
            let name = Mesh::node_name(node);
            fs::create_dir_all(mesh.path(&name).join("pods")).expect("a folder");
            fs::write(mesh.path("tokens").join(&name), format!("weir-tests-{name}-token-0123456789")).expect("a token");
            mesh.prepare_proxy(node);
        }
        mesh.manifest("namespace", &manifests::namespace(NAMESPACE, true));
        mesh.start_control();
        for node in 0..NODES {
            mesh.start_holder(node);
            mesh.start_proxy(node);
        }
        mesh
    }

    /// Something in the mesh's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As manifests and tokens call the node with this index.
    pub fn node_name(node: usize) -> String {
        format!("node-{}", node + 1)
    }

    /// Starts control in node 1's namespace.
    pub fn start_control(&mut self) {
        self.start_control_with(&[]);
    }

    /// The same with more arguments.
    pub fn start_control_with(&mut self, more: &[&str]) {
        let mut command = self.fabric.node(0).command(binary("weir-control"));
        command.arg("--manifests").arg(self.path("manifests")).arg("--state-dir").arg(self.path("control"));
        command.arg("--node-tokens").arg(self.path("tokens")).arg("--api-token").arg(self.path("api-token"));
        command.args(["--listen", &format!("0.0.0.0:{CONTROL_PORT}")]).args(more);
        let mut control = Daemon::start("control", command, &self.path("logs"));
        control.wait_for("control ready", PATIENCE);
        self.control = Some(control);
    }

    /// Ends control at once.
    pub fn kill_control(&mut self) {
        if let Some(control) = self.control.take() {
            control.kill();
        }
    }

    /// Starts a node's holder.
    pub fn start_holder(&mut self, node: usize) {
        let folder = self.path(&Mesh::node_name(node));
        let mut command = self.fabric.node(node).command(binary("weir-node"));
        command.arg("holder").arg("--socket").arg(folder.join("holder.sock")).arg("--state").arg(folder.join("state"));
        command.arg("--pods").arg(folder.join("pods")).args(["--proxy-uid", &proxy::UID.to_string()]);
        let mut holder = Daemon::start(&format!("holder-{}", node + 1), command, &self.path("logs"));
        holder.wait_for("holder ready", PATIENCE);
        self.nodes[node].holder = Some(holder);
    }

    /// Ends a node's holder at once.
    pub fn kill_holder(&mut self, node: usize) {
        if let Some(holder) = self.nodes[node].holder.take() {
            holder.kill();
        }
    }

    /// The supervisor of a node's proxy.
    ///
    /// # Panics
    /// When it does not run.
    pub fn proxy(&self, node: usize) -> &Daemon {
        self.nodes[node].proxy.as_ref().expect("a running proxy")
    }

    /// Takes the proxy out of the mesh's hands, to be ended in another way than by drop.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take_proxy(&mut self, node: usize) -> Daemon {
        self.nodes[node].proxy.take().expect("a running proxy")
    }

    /// A node's holder.
    ///
    /// # Panics
    /// When it does not run.
    pub fn holder(&self, node: usize) -> &Daemon {
        self.nodes[node].holder.as_ref().expect("a running holder")
    }

    /// Control.
    ///
    /// # Panics
    /// When it does not run.
    pub fn control(&self) -> &Daemon {
        self.control.as_ref().expect("running control")
    }

    /// Process id of a node's proxy worker, when there is one.
    pub fn worker(&self, node: usize) -> Option<u32> {
        let supervisor = self.proxy(node).pid();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
        children.split_whitespace().next()?.parse().ok()
    }

    fn control_url() -> String {
        format!("https://{}", Mesh::control_address())
    }

    /// Where control listens, for programs on nodes.
    pub fn control_address() -> String {
        format!("{}:{CONTROL_PORT}", Fabric::node_address(0))
    }

    /// Replaces one file of manifests in one step.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn manifest(&self, name: &str, text: &str) {
        let aside = self.path(&format!("manifests/.{name}"));
        fs::write(&aside, text).expect("a manifest");
        fs::rename(aside, self.path(&format!("manifests/{name}.yaml"))).expect("a manifest");
    }

    /// Removes a file of manifests.
    pub fn remove_manifest(&self, name: &str) {
        let _gone = fs::remove_file(self.path(&format!("manifests/{name}.yaml")));
    }

    /// Makes a pod: namespace, the holder's file, manifest.
    pub fn pod(&mut self, options: &PodOptions) -> Pod {
        self.pods += 1;
        let place = self.fabric.pod(options.node, &options.name);
        let pod = Pod::new(place, options, self.pods);
        self.describe(&pod);
        pod
    }

    /// Writes a pod's manifest and the holder's file anew, after its fields were changed.
    pub fn describe(&self, pod: &Pod) {
        let file = serde_json::json!({ "uid": pod.uid, "netns": pod.place.netns.path() });
        let folder = self.path(&Mesh::node_name(pod.place.node)).join("pods");
        let aside = folder.join(format!(".{}", pod.uid));
        fs::write(&aside, file.to_string()).expect("a pod's file");
        fs::rename(aside, folder.join(format!("{}.json", pod.uid))).expect("a pod's file");
        // One file per account: control refuses an object that two files define.
        let account = format!("account-{}-{}", pod.namespace, pod.owner);
        self.manifest(&account, &manifests::service_account(pod));
        self.manifest(&format!("pod-{}-{}", pod.namespace, pod.name), &manifests::pod(pod));
    }

    /// Takes a pod out of manifests and of the holder's folder; its namespace goes with it.
    pub fn remove_pod(&self, pod: Pod) {
        self.remove_manifest(&format!("pod-{}-{}", pod.namespace, pod.name));
        let file = self.path(&Mesh::node_name(pod.place.node)).join(format!("pods/{}.json", pod.uid));
        let _gone = fs::remove_file(file);
        drop(pod);
    }

    /// Makes a service over pods and returns its ClusterIP.
    ///
    /// # Panics
    /// After 250 services.
    pub fn service(&mut self, options: &ServiceOptions, pods: &[&Pod]) -> String {
        self.services += 1;
        assert!(self.services < 250, "too many services");
        let address = format!("10.96.0.{}", self.services);
        self.endpoints(options, &address, pods);
        address
    }

    /// Writes a service and its endpoints anew.
    pub fn endpoints(&self, options: &ServiceOptions, address: &str, pods: &[&Pod]) {
        self.manifest(
            &format!("service-{}-{}", options.namespace, options.name),
            &manifests::service(options, address, pods),
        );
    }

    /// Waits until peers speak mTLS to these pods: they are captured, certified, and control knows it; and that control knows
    /// every service made so far.
    pub fn wait_ready(&self, pods: &[&Pod]) {
        let known = format!("weir_control_objects{{kind=\"EndpointSlice\"}} {}", self.services);
        let count = || {
            run(self.fabric.node(0).command("curl").args([
                "--silent",
                "--max-time",
                "5",
                "http://127.0.0.1:9990/metrics",
            ]))
        };
        wait::until("control knows all services", PATIENCE, || count().lines().any(|line| line == known).then_some(()));
        for pod in pods {
            let file = self.path("control/serving");
            let what = format!("{} is in the mesh", pod.name);
            wait::until(&what, PATIENCE, || {
                fs::read_to_string(&file).is_ok_and(|text| text.contains(&pod.uid)).then_some(())
            });
        }
    }

    /// Waits until a pod is captured no more.
    pub fn wait_released(&self, pod: &Pod) {
        let what = format!("{} is out of the mesh", pod.name);
        wait::until(&what, PATIENCE, || (!self.admin(pod.place.node, "/config").contains(&pod.uid)).then_some(()));
    }

    /// What the admin server of a node's proxy answers to a GET; empty when it does not.
    pub fn admin(&self, node: usize, path: &str) -> String {
        let url = format!("http://127.0.0.1:4191{path}");
        let output = self.fabric.node(node).command("curl").args(["--silent", "--max-time", "5", &url]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// A program on the first node.
    pub fn program(&self, program: &str) -> Command {
        self.fabric.node(0).command(program)
    }

    /// The `weir` command, connected to this mesh's control.
    pub fn weir(&self, words: &[&str]) -> Command {
        let mut command = self.fabric.node(0).command(binary("weir"));
        command.env("WEIR_CONTROL", Mesh::control_url());
        command.env("WEIR_TRUST_ANCHORS", self.path("control/ca.crt")).env("WEIR_TOKEN_FILE", self.path("api-token"));
        command.args(words);
        command
    }

    /// Runs `weir` with `-o json`.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn weir_json(&self, words: &[&str]) -> serde_json::Value {
        let text = run(self.weir(words).args(["-o", "json"]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("weir {words:?}: {error}:\n{text}"))
    }

    /// Runs `weir-node cleanup` on both nodes, whose holders must have ended. Returns what they printed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn cleanup(&self) -> Vec<std::process::Output> {
        let clean = |node: usize| {
            let folder = self.path(&Mesh::node_name(node));
            let mut cleanup = self.fabric.node(node).command(binary("weir-node"));
            cleanup.arg("cleanup").arg("--state").arg(folder.join("state")).arg("--pods").arg(folder.join("pods"));
            cleanup.output().expect("weir-node cleanup")
        };
        (0..NODES).map(clean).collect()
    }

    /// All logs, for a failed test's message.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.path("logs")).expect("logs").flatten() {
            text +=
                &format!("== {}\n{}\n", entry.path().display(), fs::read_to_string(entry.path()).unwrap_or_default());
        }
        text
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = env::temp_dir().join(format!("weir-logs-{}", std::process::id()));
            let _copied = Command::new("cp").arg("-r").arg(self.path("logs")).arg(&kept).status();
            // The test's own message was printed already.
            let _told =
                std::io::Write::write_all(&mut std::io::stderr(), format!("logs: {}\n", kept.display()).as_bytes());
        }
        for node in &mut self.nodes {
            *node = Node::default();
        }
        // What is left is in namespaces that go away now; pins are named after them.
        let _outputs = self.cleanup();
    }
}
