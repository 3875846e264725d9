//! What the end of a holder means: replaced, or uninstalled? Must never take a node out of the mesh because an answer is missing.

use std::{
    io,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{installed::Installed, limits};

/// Where kubelet puts a pod's credentials.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether the DaemonSet `namespace/name` is being deleted or gone. Asked by another process, which has no privileges.
/// `has_successor`: another holder of this node waits for us to end. `is_served`: a proxy of this node accepts connections.
pub(super) async fn is_uninstalled(
    daemonset: &str,
    has_successor: impl Fn() -> bool,
    is_served: impl Fn() -> bool,
) -> bool {
    let ask = async || ask(daemonset).await;
    let uninstalled = conclude(ask, has_successor, is_served, limits::SUCCESSOR_WITHIN, limits::INSTALLED_AGAIN).await;
    tracing::info!(daemonset, uninstalled, "asked what leaving means");
    uninstalled
}

/// A token that is valid no more says that our account is gone, or only our pod: who deletes a pod by force leaves no time to see the
/// difference. Of a pod alone there is soon a successor; so pods stay captured until there was time for one. Unless the proxies leave
/// as well: then it is an uninstallation, and to wait would only keep pods (and kubelet's probes) from being served by anybody.
async fn conclude(
    ask: impl AsyncFn() -> io::Result<Installed>,
    has_successor: impl Fn() -> bool,
    is_served: impl Fn() -> bool,
    within: Duration,
    pause: Duration,
) -> bool {
    let deadline = Instant::now() + within;
    // Looked at twice in a row: a proxy's worker that died is back within that time.
    let mut unserved = 0;
    loop {
        match ask().await {
            Ok(Installed::Yes) => return false,
            Ok(Installed::No) => return true,
            Ok(Installed::Unknown) if has_successor() => return false,
            Ok(Installed::Unknown) => {
                unserved = if is_served() { 0 } else { unserved + 1 };
                if unserved > 1 || Instant::now() >= deadline {
                    return true;
                }
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                tracing::error!(%error, "cannot ask what leaving means; pods stay captured for a successor");
                return false;
            }
        }
    }
}

async fn ask(daemonset: &str) -> io::Result<Installed> {
    let (namespace, name) = daemonset.split_once('/').ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("--installed-as: {daemonset:?} is not namespace/name"))
    })?;
    let credentials = Path::new(CREDENTIALS);
    // Each time anew: kubelet renews it.
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
    let status = child.wait().await?;
    status.code().and_then(Installed::of).ok_or_else(|| io::Error::other(format!("no answer ({status})")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What is concluded from these answers, the last of them for ever, and how often was asked.
    async fn concluded(answers: &[Installed], successor_after: usize) -> (bool, usize) {
        concluded_while(answers, successor_after, |_asked| true).await
    }

    /// The same, with a proxy that serves at these questions.
    async fn concluded_while(
        answers: &[Installed],
        successor_after: usize,
        is_served: impl Fn(usize) -> bool,
    ) -> (bool, usize) {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            answers.get(asked.get() - 1).or(answers.last()).copied().ok_or_else(|| io::Error::other("away"))
        };
        let has_successor = || asked.get() > successor_after;
        let pause = Duration::from_millis(1);
        (conclude(ask, has_successor, || is_served(asked.get()), pause * 20, pause).await, asked.get())
    }

    // Seen to fail when a token that is refused means "uninstalled": a pod deleted by force took its node out of the mesh.
    #[tokio::test]
    async fn a_refused_token_alone_does_not_mean_uninstalled() {
        use Installed::{No, Unknown, Yes};
        let never = usize::MAX;
        assert_eq!(concluded(&[Yes], never).await, (false, 1));
        assert_eq!(concluded(&[No], never).await, (true, 1));
        assert_eq!(concluded(&[], never).await, (false, 1));
        assert_eq!(concluded(&[Unknown, Unknown, Yes], never).await, (false, 3), "a look-up had failed");
        assert_eq!(concluded(&[Unknown, No], never).await, (true, 2));
        assert_eq!(concluded(&[Unknown], 2).await, (false, 3), "a successor is at the door");
        let (uninstalled, asked) = concluded(&[Unknown], never).await;
        assert!(uninstalled && asked > 1, "nobody came");
    }

    // Seen to fail without the look at proxies: probes of every second or two restart containers while nobody serves.
    #[tokio::test]
    async fn nobody_waits_where_nobody_serves() {
        use Installed::{Unknown, Yes};
        let never = usize::MAX;
        assert_eq!(concluded_while(&[Unknown], never, |_asked| false).await, (true, 2));
        assert_eq!(concluded_while(&[Unknown], never, |asked| asked < 4).await, (true, 5), "its proxies end later");
        let (_, asked) = concluded_while(&[Unknown], never, |asked| asked % 2 == 0).await;
        assert!(asked > 2, "a worker that died came back");
        assert_eq!(concluded_while(&[Unknown, Yes], never, |_asked| false).await, (false, 2));
        assert_eq!(concluded_while(&[Unknown], 1, |_asked| false).await, (false, 2), "a successor is at the door");
    }
}
