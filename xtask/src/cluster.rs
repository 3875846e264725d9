//! A real Kubernetes on this one machine, for development and CI: control plane and two nodes, each a process tree with its own
//! namespaces and root. Must never touch what carries no name of its own: other processes, links and cgroups are other people's.

mod certificates;
mod cgroups;
mod kubectl;
mod layout;
mod lifecycle;
mod load;
mod machine;
mod machines;
mod status;
mod suites;
mod sysctls;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Args, Subcommand};

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
};
use layout::Place;

/// What to do with the cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: Verb,
    /// Where keys, disks and logs of the cluster lie.
    #[arg(long, global = true, default_value = layout::STATE)]
    state: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Brings the cluster up; a healthy one is left alone, a damaged one is repaired or replaced.
    Up,
    /// Takes everything down: no process, mount, namespace, cgroup, link or route stays.
    Down,
    /// Shows machines, process ids and KUBECONFIG; fails when the cluster is not healthy.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: status::Format,
    },
    /// Imports docker-archive files into every node.
    LoadImages {
        /// The archives; without any, the cluster's own images and the product's are loaded.
        files: Vec<PathBuf>,
    },
    /// Runs the suites that need Kubernetes' own programs.
    Test(suites::TestArgs),
    /// A power failure: kills a machine's first process, and with it all others of that machine.
    KillNode {
        /// `cp`, `node-a` or `node-b`.
        name: String,
    },
    /// Starts a machine again on its old disk, killing it first if it runs.
    RestartNode {
        /// `cp`, `node-a` or `node-b`.
        name: String,
    },
    /// The first process of a machine.
    #[command(hide = true)]
    Machine(machine::MachineArgs),
}

impl ClusterArgs {
    /// A machine's own process: it has left the checkout, the cache's environment and cargo behind.
    pub(crate) fn is_inside_a_machine(&self) -> bool {
        matches!(self.command, Verb::Machine(_))
    }
}

/// Becomes a machine.
///
/// # Errors
/// Its root, network or a daemon cannot be set up; the text is in the machine's own log.
pub(crate) fn machine(args: &ClusterArgs) -> Outcome<ExitCode> {
    let Verb::Machine(machine) = &args.command else {
        return Err(Failure::new("only `cluster machine` runs inside a machine"));
    };
    machine::run(&Place::at(args.state.clone())?, machine)
}

/// Carries out one command.
///
/// # Errors
/// Not root, or what the command needs is missing; the text names the log file to read.
pub(crate) fn run(cache: &Cache, args: &ClusterArgs) -> Outcome<ExitCode> {
    if !child::is_root() {
        return Err(Failure::new(
            "namespaces, mounts and cgroups need root: run this as root (sudo -E env \"PATH=$PATH\" cargo xtask …)",
        ));
    }
    let place = Place::at(args.state.clone())?;
    match &args.command {
        Verb::Up => lifecycle::up(cache, &place)?,
        Verb::Down => lifecycle::down(&place)?,
        Verb::Status { output } => return status::run(cache, &place, *output),
        Verb::LoadImages { files } => load::run(cache, files)?,
        Verb::Test(test) => return suites::run(cache, &place, test),
        Verb::KillNode { name } => lifecycle::kill_node(&place, name)?,
        Verb::RestartNode { name } => lifecycle::restart_node(cache, &place, name)?,
        Verb::Machine(_) => return machine(args),
    }
    Ok(ExitCode::SUCCESS)
}

/// All suites on Kubernetes, run by `work`: what CI does. The cluster is taken down again if there was none.
///
/// # Errors
/// As [`run`], and those of `work`.
pub(crate) fn suites<T>(
    cache: &Cache,
    filter: Option<&str>,
    work: impl FnOnce(&mut Command) -> Outcome<T>,
) -> Outcome<T> {
    if !child::is_root() {
        return Err(Failure::new("a cluster needs root: run this as root, or leave `--kubernetes` out"));
    }
    suites::run_all(cache, &Place::at(PathBuf::from(layout::STATE))?, filter, work)
}
