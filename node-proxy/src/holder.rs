//! The privileged half of a node: enters pods' namespaces, loads kernel programs, opens sockets, hands them to the proxy.
//!
//! Must never parse a byte that came from the network, and never read what it keeps for the proxy.

mod arrivals;
pub(crate) mod chain;
mod diag;
mod directory;
mod error;
mod foreign;
pub(crate) mod inside;
mod keeper;
mod leaving;
mod monitor;
pub(crate) mod namespace;
mod netlink;
mod pod;
mod processes;
pub(crate) mod routing;
mod server;
mod settings;
mod sockets;
pub(crate) mod state;
pub(crate) mod sysctl;

use std::{
    cell::Cell,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};
use weir_ebpf_loader::{LoadError, Place, Programs};

use self::{
    chain::Chain,
    keeper::Keeper,
    pod::Machine,
    processes::Processes,
    server::{Client, Server},
    state::StateDirectory,
};
use crate::{
    cni::PluginConfig,
    handover::{FeatureReport, Request},
    limits,
};

/// Arguments of `weir-node holder`.
#[derive(Clone, Debug, clap::Args)]
pub struct HolderArgs {
    /// Unix socket at which the proxy connects
    #[arg(long, default_value = "/run/weir/holder.sock")]
    pub socket: PathBuf,
    /// Cgroup (version 2) whose processes are captured, or a directory with it as `unified`; default: the mount point of the hierarchy
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// BPF file system in which programs and maps are pinned; mounted if need be
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Directory of pods: JSON files with uid, netns and, if wanted, `"enrol": true` and settings
    #[arg(long)]
    pub pods: Option<PathBuf>,
    /// Find pods that run already by kubelet's cgroups of their processes; needs the node's process list (hostPID)
    #[arg(long)]
    pub processes: bool,
    /// Directory in which the CNI names network namespaces
    #[arg(long, default_value = "/run/netns")]
    pub netns_dir: PathBuf,
    /// The node's directory of CNI plugins: the holder's own is put there, so that new pods are captured before they start
    #[arg(long, requires = "cni_conf_dir")]
    pub cni_bin_dir: Option<PathBuf>,
    /// The node's directory of network configurations: the plugin is chained into the first
    #[arg(long, requires = "cni_bin_dir")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Namespaces whose new pods never wait for the mesh: those that it needs to come up itself
    #[arg(long, value_delimiter = ',', default_value = "kube-system,weir")]
    pub cni_exclude_namespaces: Vec<String>,
    /// DaemonSet (namespace/name) that this holder belongs to: when it is deleted, a holder that ends takes the node out of the mesh
    #[arg(long)]
    pub installed_as: Option<String>,
    /// Directory for what a successor needs; must be emptied by a reboot; default: /run/weir/<inode of the node's network namespace>
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// User that the proxy runs as
    #[arg(long, default_value_t = 2102)]
    pub proxy_uid: u32,
    /// Log filter, as in `info,weir_node=debug`
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,
}

/// Why the holder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The kernel side is not as it must be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something on this machine is not as it must be.
    #[error("{what}: {source}")]
    Setup {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No cgroup v2.
    #[error(
        "no cgroup v2 hierarchy is mounted on this machine; mount one (`mount -t cgroup2 none DIR`) and give it with --cgroup"
    )]
    NoCgroup,
}

impl HolderError {
    pub(crate) fn setup(what: impl Into<String>) -> impl FnOnce(io::Error) -> HolderError {
        let what = what.into();
        move |source| HolderError::Setup { what, source }
    }
}

/// What the holder's one loop hears of.
enum Event {
    /// A proxy connected.
    Connected { id: u64, client: Client },
    /// A proxy asks.
    Request { id: u64, request: Request, fds: Vec<OwnedFd> },
    /// A proxy left.
    Gone { id: u64 },
    /// Something changed in a pod's namespace.
    Changed { uid: String },
    /// The directory of pods changed.
    Files { files: Vec<directory::PodFile> },
}

/// Runs until SIGTERM or SIGINT. Programs, maps and rules stay for a successor, unless the node leaves the mesh.
///
/// # Errors
/// See [`HolderError`].
pub fn run(args: HolderArgs) -> Result<(), HolderError> {
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(HolderError::setup("starting the event loop"))?.block_on(hold(args))
}

async fn hold(args: HolderArgs) -> Result<(), HolderError> {
    let terminate = signal(SignalKind::terminate()).map_err(HolderError::setup("listening for SIGTERM"))?;
    let interrupt = signal(SignalKind::interrupt()).map_err(HolderError::setup("listening for SIGINT"))?;
    raise_descriptor_limit();
    let node = namespace::own_inode().map_err(HolderError::setup("reading /proc/self/ns/net"))?;
    let path = args.state.clone().unwrap_or_else(|| StateDirectory::default_path(node));
    let failed = HolderError::setup(format!("state directory {}", path.display()));
    let state = StateDirectory::open(&path, true).map_err(failed)?;
    let cgroup = match &args.cgroup {
        Some(given) => cgroup_at(given)?,
        None => cgroup_mount()?,
    };
    let programs = Programs::load(Place::prepare(&args.bpffs, node)?, &cgroup)?;
    let (events, mut heard) = mpsc::channel(limits::HOLDER_REQUESTS);
    let machine = Machine { programs, state, events: events.clone(), node };
    let processes = args.processes.then(|| Processes::new(PathBuf::from("/proc"), args.netns_dir.clone()));
    let mut keeper = Keeper::new(machine, features(), processes);
    keeper.resume().map_err(HolderError::setup(format!("state directory {}", path.display())))?;
    let failed = HolderError::setup(format!("socket {}", args.socket.display()));
    let chain = args.cni_bin_dir.zip(args.cni_conf_dir);
    let chain = chain.map(|(binaries, configurations)| Chain::new(binaries, configurations));
    let server = Server::bind(&args.socket, args.proxy_uid).map_err(failed)?;
    tokio::spawn(server.run(events.clone()));
    let chaining = chain.map(|chain| {
        let plugin = PluginConfig::new(&args.socket, args.cni_exclude_namespaces);
        let (stop, stopped) = oneshot::channel();
        (stop, tokio::spawn(chain.keep(plugin, stopped)))
    });
    if let Some(directory) = args.pods {
        tokio::spawn(directory::watch(directory, events));
    }
    tracing::info!(node, cgroup = %cgroup.display(), socket = %args.socket.display(), "holder ready");
    let served = Cell::new(false);
    let leaving = is_uninstalled([terminate, interrupt], args.installed_as, path, &served);
    tokio::pin!(leaving);
    let uninstalled = loop {
        let due = tokio::time::Instant::from_std(keeper.due());
        tokio::select! {
            Some(event) = heard.recv() => {
                keeper.hear(event);
                served.set(keeper.is_served());
                // One thread: what it has to say goes out before the next pod is worked on, not after the last.
                tokio::task::yield_now().await;
            }
            () = tokio::time::sleep_until(due) => keeper.tick(),
            // Begins anew with every event: this is when nothing happens.
            () = tokio::time::sleep(limits::STOCK_PAUSE), if keeper.lacks_stock() => keeper.stock(),
            uninstalled = &mut leaving => break uninstalled,
        }
    };
    if !uninstalled {
        return Ok(());
    }
    // Before pods are let go: none that starts from now on waits for us.
    if let Some((stop, chaining)) = chaining {
        drop(stop);
        let chain = chaining.await.flatten();
        let left =
            chain.map_err(|error| error.to_string()).and_then(|chain| chain.leave().map_err(|error| error.to_string()));
        if let Err(error) = left {
            tracing::error!(error, "the CNI plugin is still chained; remove its entry by hand");
        }
    }
    uninstall(keeper, &mut heard).await?;
    state::remove(&args.socket).map_err(HolderError::setup(format!("removing {}", args.socket.display())))
}

/// Waits for the end, and says what it means. Pods and proxies are served meanwhile.
async fn is_uninstalled(
    [mut terminate, mut interrupt]: [Signal; 2],
    daemonset: Option<String>,
    state: PathBuf,
    served: &Cell<bool>,
) -> bool {
    tokio::select! {
        _signal = terminate.recv() => {}
        _signal = interrupt.recv() => {}
    }
    match daemonset {
        Some(daemonset) => {
            leaving::is_uninstalled(&daemonset, || StateDirectory::has_successor(&state), || served.get()).await
        }
        None => false,
    }
}

/// Lets every pod go in order, then whatever is left, then programs, maps and state.
async fn uninstall(mut keeper: Keeper, heard: &mut mpsc::Receiver<Event>) -> Result<(), HolderError> {
    let deadline = tokio::time::Instant::now() + limits::UNINSTALL_WITHIN;
    keeper.release_all();
    while !keeper.is_empty() {
        let due = tokio::time::Instant::from_std(keeper.due());
        tokio::select! {
            Some(event) = heard.recv() => keeper.hear(event),
            () = tokio::time::sleep_until(due) => keeper.tick(),
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    keeper.destroy()
}

/// The cgroup v2 hierarchy at a path, or below it beside version 1.
fn cgroup_at(given: &Path) -> Result<PathBuf, HolderError> {
    // linux/magic.h: CGROUP2_SUPER_MAGIC
    let is_two = |path: &Path| rustix::fs::statfs(path).is_ok_and(|found| found.f_type == 0x6367_7270);
    let below = given.join("unified");
    let found = [given, &below].into_iter().find(|path| is_two(path));
    found.map(Path::to_owned).ok_or(HolderError::NoCgroup)
}

/// Mount point of the cgroup v2 hierarchy.
pub(crate) fn cgroup_mount() -> Result<PathBuf, HolderError> {
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").map_err(HolderError::setup("reading /proc/self/mounts"))?;
    find_cgroup(&mounts).map(Path::to_owned).ok_or(HolderError::NoCgroup)
}

/// Namespaces named in a directory of pods.
pub(crate) fn namespaces(directory: &Path) -> Vec<PathBuf> {
    directory::read(directory).into_iter().map(|file| file.netns).collect()
}

fn find_cgroup(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then_some(Path::new(path))
    })
}

fn features() -> Vec<FeatureReport> {
    weir_ebpf_loader::probe()
        .into_iter()
        .map(|feature| FeatureReport {
            name: feature.name.to_owned(),
            required: feature.required,
            present: feature.present,
            detail: feature.detail,
        })
        .collect()
}

// Four descriptors for each pod: the usual soft limit of 1,024 would end at 250 pods.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the descriptor limit could not be raised; this many pods may be too many");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup_two_beside_one() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup(mounts), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
