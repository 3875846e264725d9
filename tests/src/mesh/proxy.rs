//! The proxies of a mesh, as they run in a cluster: a user of their own, without any privilege.
//!
//! Must never give a proxy more than that: what it cannot do without, the product lacks.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use super::{Mesh, PATIENCE, binary};
use crate::{daemon::Daemon, wait};

/// The user; it owns its token and its state.
pub(super) const UID: u32 = 2102;

fn unprivileged() -> Vec<String> {
    let user = [format!("--reuid={UID}"), format!("--regid={UID}")];
    let rest = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"];
    user.into_iter().chain(rest.map(str::to_owned)).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

impl Mesh {
    /// What the proxy's user has to get to: its token, its state, and the binary, which may lie in root's home.
    pub(super) fn prepare_proxy(&self, node: usize) {
        set_mode(self.directory.path(), 0o755);
        let name = Mesh::node_name(node);
        let (token, state) = (self.path("tokens").join(&name), self.path(&name).join("proxy"));
        fs::create_dir(&state).expect("a folder");
        for (path, mode) in [(token, 0o600), (state, 0o700)] {
            set_mode(&path, mode);
            chown(&path, Some(UID), Some(UID)).expect("an owner");
        }
        let (from, to) = (binary("weir-node"), self.path("weir-node"));
        // On another file system there is no link.
        if !to.exists() && fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("copying {}: {error}", from.display()));
        }
    }

    /// Starts a node's proxy: supervisor and worker, without any privilege.
    pub fn start_proxy(&mut self, node: usize) {
        let mut command = self.fabric.node(node).command("setpriv");
        command.args(unprivileged()).arg(self.path("weir-node")).args(self.proxy_words(node));
        self.begin_proxy(node, command);
    }

    /// Ends a node's proxy and starts its worker, without supervisor, as the last words of `under`: a program that watches programs.
    pub fn start_proxy_under(&mut self, node: usize, under: &[&str]) {
        drop(self.nodes[node].proxy.take());
        let mut command = self.fabric.node(node).command("setpriv");
        command.args(unprivileged()).args(under).arg(self.path("weir-node")).args(self.proxy_words(node));
        command.args(["--worker", "--workers", "1"]);
        self.begin_proxy(node, command);
    }

    fn proxy_words(&self, node: usize) -> Vec<OsString> {
        let name = Mesh::node_name(node);
        let folder = self.path(&name);
        let mut words: Vec<OsString> = vec!["proxy".into()];
        let paths = [
            ("--holder-socket", folder.join("holder.sock")),
            ("--trust-anchors", self.path("anchors.crt")),
            ("--token-file", self.path("tokens").join(&name)),
            ("--state-dir", folder.join("proxy")),
        ];
        for (flag, path) in paths {
            words.extend([flag.into(), path.into()]);
        }
        for (flag, value) in
            [("--node-name", name.as_str()), ("--control", &Mesh::control_url()), ("--admin-addr", "0.0.0.0:4191")]
        {
            words.extend([flag.into(), value.into()]);
        }
        if let Ok(log) = env::var("WEIR_TESTS_LOG") {
            words.extend(["--log".into(), log.into()]);
        }
        words
    }

    fn begin_proxy(&mut self, node: usize, command: Command) {
        // As an operator hands them out: control's own folder is control's.
        let anchors = self.path("anchors.crt");
        fs::copy(self.path("control/ca.crt"), &anchors).expect("control's anchors");
        set_mode(&anchors, 0o644);
        let proxy = Daemon::start(&format!("proxy-{}", node + 1), command, &self.path("logs"));
        self.nodes[node].proxy = Some(proxy);
        let what = format!("proxy of {} live", Mesh::node_name(node));
        wait::until(&what, PATIENCE, || self.admin(node, "/live").contains("live").then_some(()));
    }
}
