//! One pod: a namespace with real programs in it. Must never be a process of the mesh.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::{daemon::Daemon, fabric::Place, netns::run};

use super::NAMESPACE;

/// What a pod is made of.
#[derive(Clone, Debug)]
pub struct PodOptions {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of its Deployment and its ServiceAccount.
    pub owner: String,
    /// Index of its node.
    pub node: usize,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// The label `weir.mesh/enabled` of the pod itself.
    pub enabled: Option<bool>,
    /// More fields of its container, in YAML's flow style.
    pub container: String,
}

impl PodOptions {
    /// A pod of the Deployment `owner`, named after it and its node.
    pub fn new(owner: &str, node: usize) -> PodOptions {
        PodOptions {
            name: format!("{owner}-{}", node + 1),
            namespace: NAMESPACE.to_owned(),
            owner: owner.to_owned(),
            node,
            annotations: Vec::new(),
            enabled: None,
            container: String::new(),
        }
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> PodOptions {
        name.clone_into(&mut self.name);
        self
    }

    /// With an annotation more.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> PodOptions {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With these fields more in its container, in YAML's flow style.
    #[must_use]
    pub fn container(mut self, fields: &str) -> PodOptions {
        self.container = format!(", {fields}");
        self
    }

    /// With the label of its own.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> PodOptions {
        self.enabled = Some(enabled);
        self
    }
}

/// A pod that exists.
#[derive(Debug)]
pub struct Pod {
    /// Where it lives.
    pub place: Place,
    /// As in the manifest.
    pub uid: String,
    /// As in the manifest.
    pub name: String,
    /// As in the manifest.
    pub namespace: String,
    /// Deployment and ServiceAccount.
    pub owner: String,
    /// As in the manifest.
    pub annotations: Vec<(String, String)>,
    /// As in the manifest.
    pub enabled: Option<bool>,
    /// As in the manifest.
    pub container: String,
    /// Whether its endpoints are ready.
    pub ready: bool,
}

impl Pod {
    pub(super) fn new(place: Place, options: &PodOptions, number: usize) -> Pod {
        Pod {
            place,
            uid: format!("00000000-0000-4000-8000-{number:012}"),
            name: options.name.clone(),
            namespace: options.namespace.clone(),
            owner: options.owner.clone(),
            annotations: options.annotations.clone(),
            enabled: options.enabled,
            container: options.container.clone(),
            ready: true,
        }
    }

    /// Its identity in the mesh.
    pub fn identity(&self) -> String {
        format!("{}.{}.serviceaccount.identity.linkerd.cluster.local", self.owner, self.namespace)
    }

    /// A program to be run in it.
    pub fn command(&self, program: &str) -> Command {
        self.place.netns.command(program)
    }

    /// Starts a program in it that goes on until the result is dropped.
    pub fn daemon(&self, name: &str, program: &str, arguments: &[&str], logs: &Path) -> Daemon {
        let mut command = self.command(program);
        command.args(arguments);
        Daemon::start(&format!("{}-{name}", self.name), command, logs)
    }

    /// Runs a program in it that must succeed; returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(self.command(program).args(arguments))
    }

    /// Runs curl in it, which may fail.
    ///
    /// # Panics
    /// When curl is not there.
    pub fn curl(&self, arguments: &[&str]) -> Output {
        let defaults = ["--silent", "--show-error", "--max-time", "10"];
        self.command("curl").args(defaults).args(arguments).output().expect("curl")
    }

    /// Runs curl in it and returns the body.
    ///
    /// # Panics
    /// When curl fails.
    pub fn get(&self, url: &str) -> String {
        let output = self.curl(&[url]);
        assert!(output.status.success(), "{}: curl {url}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
