//! What runs and what does not. Must never change anything.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use super::{
    kubectl::{Kubectl, Node},
    layout::{MACHINES, Place},
    machines,
};
use crate::{
    cache::Cache,
    child::{self, Outcome},
    tools::kubernetes,
};

/// How to print.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Serialize)]
struct Status {
    healthy: bool,
    kubeconfig: String,
    /// The folder with kubectl.
    programs: String,
    /// The folder with `weir`, once it is built.
    product: String,
    logs: String,
    machines: Vec<MachineStatus>,
    nodes: Vec<Node>,
    /// Services have names.
    dns: bool,
}

#[derive(Debug, Serialize)]
struct MachineStatus {
    name: &'static str,
    address: String,
    pods: Option<&'static str>,
    /// The first process; killing it is a power failure.
    pid: Option<i32>,
    up: bool,
    daemons: Vec<DaemonStatus>,
}

#[derive(Debug, Serialize)]
struct DaemonStatus {
    name: String,
    /// As this host counts.
    pid: Option<i32>,
}

/// Prints the status; the exit code says whether the cluster is healthy.
///
/// # Errors
/// No cgroups are mounted here.
pub(super) fn run(cache: &Cache, place: &Place, format: Format) -> Outcome<ExitCode> {
    let status = gather(cache, place)?;
    match format {
        Format::Json => child::say(serde_json::to_string_pretty(&status)?),
        Format::Table => table(&status),
    }
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Is everything up and every node ready?
///
/// # Errors
/// No cgroups are mounted here.
pub(super) fn is_healthy(cache: &Cache, place: &Place) -> Outcome<bool> {
    Ok(gather(cache, place)?.healthy)
}

fn gather(cache: &Cache, place: &Place) -> Outcome<Status> {
    let programs = kubernetes::programs(cache);
    let mut found = Vec::new();
    for machine in MACHINES {
        let marker = machines::marker(machine)?.unwrap_or_default();
        let mut daemons = Vec::new();
        for daemon in marker.daemons {
            daemons.push(DaemonStatus { pid: machines::outside_pid(machine, daemon.pid)?, name: daemon.name });
        }
        found.push(MachineStatus {
            name: machine.name,
            address: machine.address.to_string(),
            pods: machine.pods,
            pid: machines::first_process(machine)?,
            up: machines::is_up(machine, &programs)?,
            daemons,
        });
    }
    let running = found.iter().all(|machine| machine.up && machine.daemons.iter().all(|daemon| daemon.pid.is_some()));
    let kubectl = Kubectl::new(place, programs.join("kubectl"));
    let nodes = if running { kubectl.nodes().unwrap_or_default() } else { Vec::new() };
    let dns = running && kubectl.available("kube-system", "coredns").is_ok_and(|pods| pods > 0);
    let expected = MACHINES.iter().filter(|machine| machine.pods.is_some()).count();
    Ok(Status {
        healthy: dns && nodes.len() == expected && nodes.iter().all(|node| node.ready),
        kubeconfig: place.admin().display().to_string(),
        programs: programs.display().to_string(),
        product: cache.binaries().display().to_string(),
        logs: place.root().join("log").display().to_string(),
        machines: found,
        nodes,
        dns,
    })
}

fn table(status: &Status) {
    let shown = |pid: Option<i32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    child::say(format_args!("{:<8} {:<12} {:<15} {:>8}  {:<9} daemons", "machine", "address", "pods", "pid", "node"));
    for machine in &status.machines {
        let node = status.nodes.iter().find(|node| node.name == machine.name);
        let node = match (machine.pods, node.map(|node| node.ready)) {
            (None, _) => "-",
            (Some(_), Some(true)) => "Ready",
            (Some(_), Some(false)) => "NotReady",
            (Some(_), None) => "unknown",
        };
        let daemons: Vec<String> =
            machine.daemons.iter().map(|daemon| format!("{} {}", daemon.name, shown(daemon.pid))).collect();
        child::say(format_args!(
            "{:<8} {:<12} {:<15} {:>8}  {node:<9} {}",
            machine.name,
            machine.address,
            machine.pods.unwrap_or("-"),
            shown(machine.pid),
            daemons.join(", ")
        ));
    }
    if !status.dns {
        child::say("CoreDNS does not serve");
    }
    child::say(format_args!("\nlogs in {}", status.logs));
    let Status { kubeconfig, programs, product, .. } = status;
    child::say(format_args!("export KUBECONFIG={kubeconfig} PATH={product}:{programs}:$PATH"));
}
