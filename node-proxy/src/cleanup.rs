//! `weir-node cleanup`: removes everything that a holder of this node left in the kernel. Must never touch what is not ours.

use std::{io, path::PathBuf};

use weir_ebpf_loader::{LoadError, Place, directories};

use crate::holder::{
    chain::{Chain, ChainError},
    inside, namespace,
    state::StateDirectory,
};

/// Arguments of `weir-node cleanup`.
#[derive(Clone, Debug, clap::Args)]
pub struct CleanupArgs {
    /// BPF file system in which the holder pinned its programs
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// State directory of the holder; default: /run/weir/<inode of the node's network namespace>
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Directory of pods, whose namespaces are cleaned too
    #[arg(long)]
    pub pods: Option<PathBuf>,
    /// The node's directory of CNI plugins, if ours was put there
    #[arg(long, requires = "cni_conf_dir")]
    pub cni_bin_dir: Option<PathBuf>,
    /// The node's directory of network configurations, if our plugin was chained
    #[arg(long, requires = "cni_bin_dir")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Remove the pins of every node that shares this kernel, not only of this one
    #[arg(long)]
    pub all: bool,
}

/// Why something of ours may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A holder is at work.
    #[error("a holder of this node is running (it has {0} locked): stop it first")]
    Running(PathBuf),
    /// The BPF file system.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The CNI plugin.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Something else.
    #[error("{what}: {source}")]
    Step {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn step(what: impl Into<String>) -> impl FnOnce(io::Error) -> CleanupError {
    let what = what.into();
    move |source| CleanupError::Step { what, source }
}

/// Detaches programs first, so that nothing new is captured, then removes rules and routes, then the state. Prints a line for
/// each thing done. Connections through the proxy break when it leaves.
///
/// # Errors
/// See [`CleanupError`]. Running it again goes on where it stopped.
pub fn run(args: CleanupArgs) -> Result<(), CleanupError> {
    for line in clean(args)? {
        #[expect(clippy::print_stdout, reason = "what this command is for is done; its user reads what that was")]
        {
            println!("{line}");
        }
    }
    Ok(())
}

fn clean(args: CleanupArgs) -> Result<Vec<String>, CleanupError> {
    let node = namespace::own_inode().map_err(step("reading /proc/self/ns/net"))?;
    let path = args.state.unwrap_or_else(|| StateDirectory::default_path(node));
    let state = if path.exists() {
        Some(StateDirectory::open(&path, false).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => CleanupError::Running(path.clone()),
            _other => step(format!("state directory {}", path.display()))(error),
        })?)
    } else {
        None
    };
    let mut done = Vec::new();
    if let (Some(binaries), Some(configurations)) = (args.cni_bin_dir, args.cni_conf_dir)
        && Chain::new(binaries, configurations).leave()?
    {
        done.push("removed the CNI plugin".to_owned());
    }
    let places = if args.all { directories(&args.bpffs)? } else { vec![Place::of(&args.bpffs, node)] };
    for place in places {
        if place.directory().exists() {
            place.remove()?;
            done.push(format!("removed programs and maps pinned at {}", place.directory().display()));
        }
    }
    let pods = match &state {
        Some(state) => state.load().map_err(step(format!("state directory {}", path.display())))?,
        None => Vec::new(),
    };
    for pod in pods {
        pod.clear().map_err(step(format!("removing rules from the namespace of pod {}", pod.uid())))?;
        done.push(format!("removed rules and routes of pod {}", pod.uid()));
    }
    for netns in args.pods.as_deref().map(crate::holder::namespaces).unwrap_or_default() {
        let cleared = namespace::Namespace::open(&netns).and_then(|netns| netns.inside(|| inside::clear(&[])));
        // A namespace that is gone took its rules with it.
        if let Ok(Ok(count @ 1..)) = cleared {
            done.push(format!("removed {count} rules and routes from {}", netns.display()));
        }
    }
    if let Some(state) = state {
        state.destroy().map_err(step(format!("state directory {}", path.display())))?;
    }
    Ok(done)
}
