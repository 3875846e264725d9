//! The inside of a machine: its first process. Must never need the checkout, cargo or the host's root once it has its own.

mod configs;
mod daemons;
mod network;
mod root;
mod supervise;

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    cgroups,
    layout::{Machine, Place},
};
use crate::child::{Failure, Outcome};

/// Where a machine tells what runs in it, in its own root.
pub(super) const MARKER: &str = "/run/weir-machine.json";

/// Which machine to be.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    name: String,
    /// The folder with Kubernetes' programs.
    #[arg(long)]
    programs: PathBuf,
    /// The namespaces are there: be their first process.
    #[arg(long)]
    first: bool,
}

/// What the marker says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Marker {
    /// All daemons have been started once.
    pub(super) up: bool,
    /// The folder that the daemons come from; another version lies in another one.
    pub(super) programs: PathBuf,
    /// The cluster's folder.
    #[serde(default)]
    pub(super) state: PathBuf,
    pub(super) daemons: Vec<Running>,
}

/// One daemon, by its process id inside the machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) pid: i32,
}

/// Moves into the machine's cgroups, then becomes `unshare`, which starts this program again as the machine's first process.
///
/// # Errors
/// A namespace, a mount or a daemon fails.
pub(super) fn run(place: &Place, args: &MachineArgs) -> Outcome<ExitCode> {
    let machine = Machine::named(&args.name)?;
    if !args.first {
        return Err(leave_host(place, machine, &args.programs));
    }
    root::enter(place, machine, &args.programs)?;
    rustix::system::sethostname(machine.name.as_bytes())?;
    network::set_up(machine)?;
    let daemons = match machine.pods {
        None => daemons::control_plane(place, &args.programs),
        Some(pods) => {
            configs::write(place, machine, pods)?;
            daemons::node(place, machine, &args.programs)
        }
    };
    let marker = Marker { programs: args.programs.clone(), state: place.root().to_owned(), ..Marker::default() };
    supervise::run(&place.logs(machine), marker, &daemons)
}

fn leave_host(place: &Place, machine: Machine, programs: &Path) -> Failure {
    let name = machine.outside_name();
    let entered = cgroups::enter(&name).and_then(|()| Ok(rustix::process::setsid().map(drop)?));
    if let Err(failure) = entered {
        return failure;
    }
    let error = Command::new("unshare")
        .args(["--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup", "--fork", "--kill-child"])
        .args(["--propagation", "private"])
        .arg(place.program())
        .arg("cluster")
        .arg("--state")
        .arg(place.root())
        .args(["machine", "--first", machine.name, "--programs"])
        .arg(programs)
        .exec();
    Failure::new(format!("cannot start unshare (package util-linux): {error}"))
}

impl Marker {
    /// Puts it where the host looks for it.
    ///
    /// # Errors
    /// The machine's /run is full.
    fn publish(&self) -> Outcome {
        fs::write(format!("{MARKER}.new"), serde_json::to_vec(self)?)?;
        fs::rename(format!("{MARKER}.new"), MARKER)?;
        Ok(())
    }
}
