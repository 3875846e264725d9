//! A real Kubernetes cluster that `cargo xtask cluster up` brought up, through kubectl. Must never touch a cluster that it was not
//! told of by name: `WEIR_KUBECONFIG` has no default.

use std::{
    env,
    io::Read as _,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::wait;

/// The longest that anything on the cluster may take: a rollout of a DaemonSet that drains.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A kubectl in the background.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// What it prints, as it does. To be asked for once.
    ///
    /// # Panics
    /// The second time.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("the pipe, once")
    }

    /// Waits for its end: what it printed.
    pub fn output(mut self) -> String {
        let mut text = String::new();
        let read = self.stdout().read_to_string(&mut text);
        read.expect("kubectl prints text");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Access to the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubectl: PathBuf,
    weir: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that the environment names.
    ///
    /// # Panics
    /// When it names none: this suite never chooses a cluster by itself.
    pub fn from_environment() -> Cluster {
        let path = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask cluster test`"))
        };
        let binaries = path("WEIR_BINARIES");
        Cluster { kubectl: path("WEIR_KUBECTL"), weir: binaries.join("weir"), kubeconfig: path("WEIR_KUBECONFIG") }
    }

    fn run(program: &PathBuf, kubeconfig: &PathBuf, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut stdin = child.stdin.take().expect("a pipe");
        std::thread::scope(|scope| {
            // A reader of little may end before it has read all; then its own message says why.
            scope.spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
            child.wait_with_output().expect("an output")
        })
    }

    fn succeeded(what: &[&str], output: Output) -> String {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what:?}: {}\n{text}{error}", output.status);
        text
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with all that it said.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        Cluster::succeeded(arguments, self.try_kubectl(arguments))
    }

    /// Runs kubectl, however it ends.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Cluster::run(&self.kubectl, &self.kubeconfig, arguments, "")
    }

    /// A kubectl that goes on running; killed on drop.
    pub fn start_kubectl(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        Running(command.stdout(Stdio::piped()).spawn().expect("kubectl"))
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) {
        self.apply_as(manifests, &[]);
    }

    /// Applies manifests with flags that say who does, as `--as=jane`.
    pub fn apply_as(&self, manifests: &str, flags: &[&str]) {
        let arguments = [&["apply", "-f", "-"], flags].concat();
        Cluster::succeeded(&arguments, Cluster::run(&self.kubectl, &self.kubeconfig, &arguments, manifests));
    }

    /// Deletes what manifests name, and waits until it is gone.
    pub fn delete(&self, manifests: &str) {
        let arguments = ["delete", "--ignore-not-found", "--timeout=120s", "-f", "-"];
        Cluster::succeeded(&arguments, Cluster::run(&self.kubectl, &self.kubeconfig, &arguments, manifests));
    }

    /// An object, or a list of objects.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = ["get"].iter().chain(arguments).chain(&["-o", "json"]).copied().collect();
        serde_json::from_str(&self.kubectl(&arguments)).expect("JSON")
    }

    /// Runs `weir` and returns what it printed.
    pub fn weir(&self, arguments: &[&str]) -> String {
        Cluster::succeeded(arguments, Cluster::run(&self.weir, &self.kubeconfig, arguments, ""))
    }

    /// Removes the mesh as a user does, if it is there.
    pub fn uninstall(&self) {
        let manifests = self.weir(&["uninstall"]);
        if manifests.contains("kind:") {
            self.delete(&manifests);
        }
    }

    /// Waits for a rollout.
    pub fn rolled_out(&self, namespace: &str, what: &str) {
        self.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=120s"]);
    }

    /// Runs a command in a pod.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> String {
        let arguments: Vec<&str> = ["-n", namespace, "exec", pod, "--"].iter().chain(command).copied().collect();
        self.kubectl(&arguments)
    }

    /// Installs the mesh as a user does, again where it is there already, and waits until `weir check` is content.
    pub fn install(&self) {
        self.apply(&self.weir(&["install"]));
        self.weir(&["check", "--wait", "90s"]);
    }

    /// Waits until control's status says that this many opted-in pods are captured and hold a certificate, and no other is opted in.
    pub fn meshed(&self, pods: u64, within: Duration) {
        let count = |status: &Value, name: &str| status.pointer(&format!("/pods/{name}")).and_then(Value::as_u64);
        let mut last = Value::Null;
        let reached = wait::within(within, || {
            last = self.status();
            let all = ["enabled", "captured", "certified"].iter().all(|name| count(&last, name) == Some(pods));
            all.then_some(())
        });
        assert!(reached.is_some(), "not {pods} meshed pods within {within:?}: {last}");
    }

    /// Control's status.
    pub fn status(&self) -> Value {
        let map = self.get(&["-n", "weir", "configmap", "weir-status"]);
        let text = map.pointer("/data/status.json").and_then(Value::as_str).unwrap_or("{}");
        serde_json::from_str(text).unwrap_or_default()
    }
}
