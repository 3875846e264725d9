//! What the end of a holder means: replaced, or uninstalled? Must never take a node out of the mesh because an answer is missing.

use std::{io, path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::installed::UNINSTALLED;

/// Where kubelet puts a pod's credentials.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether the DaemonSet `namespace/name` is being deleted or gone. Asked by another process, which has no privileges.
pub(super) async fn is_uninstalled(daemonset: &str) -> bool {
    match ask(daemonset).await {
        Ok(code) => {
            tracing::info!(daemonset, uninstalled = code == Some(i32::from(UNINSTALLED)), "asked what leaving means");
            code == Some(i32::from(UNINSTALLED))
        }
        Err(error) => {
            tracing::error!(daemonset, %error, "cannot ask what leaving means; pods stay captured for a successor");
            false
        }
    }
}

async fn ask(daemonset: &str) -> io::Result<Option<i32>> {
    let (namespace, name) = daemonset.split_once('/').ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("--installed-as: {daemonset:?} is not namespace/name"))
    })?;
    let credentials = Path::new(CREDENTIALS);
    let token = std::fs::read(credentials.join("token"))?;
    let mut child = Command::new("/proc/self/exe")
        .args(["installed", "--namespace", namespace, "--daemonset", name, "--authority"])
        .arg(credentials.join("ca.crt"))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&token).await?;
    }
    Ok(child.wait().await?.code())
}
