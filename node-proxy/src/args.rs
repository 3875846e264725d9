//! The command line of `weir-node`. Must never read anything but arguments and the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use ipnet::IpNet;

use crate::{cleanup::CleanupArgs, holder::HolderArgs, installed::InstalledArgs};

/// Weir's data plane on one node.
#[derive(Debug, Parser)]
#[command(name = "weir-node", version)]
pub struct Args {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The privileged part: enters pods' network namespaces, attaches eBPF, keeps listening sockets.
    Holder(HolderArgs),
    /// The data plane, without privileges: a supervisor that keeps one worker process running.
    Proxy(ProxyArgs),
    /// Removes every rule, route, program, map and pin of Weir's from this node.
    Cleanup(CleanupArgs),
    /// Says by its exit code whether the holder's DaemonSet is still there; the holder runs this when it ends.
    #[command(hide = true)]
    Installed(InstalledArgs),
}

/// Arguments of the proxy. All are the operator's; none comes from the network.
#[derive(Clone, Debug, clap::Args)]
pub struct ProxyArgs {
    /// Name of this node, as control knows it.
    #[arg(long, env = "WEIR_NODE_NAME")]
    pub node_name: String,
    /// Unix socket of this node's holder.
    #[arg(long, default_value = "/run/weir/holder.sock")]
    pub holder_socket: PathBuf,
    /// URL of control, `https://host:port`.
    #[arg(long, env = "WEIR_CONTROL")]
    pub control: String,
    /// Identity that control must prove.
    #[arg(long, default_value = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local")]
    pub control_identity: String,
    /// PEM file with the trust anchors of the mesh; read again at each connect.
    #[arg(long)]
    pub trust_anchors: PathBuf,
    /// File with this node's token; read again at each connect.
    #[arg(long)]
    pub token_file: PathBuf,
    /// Folder for the last good configuration (without secrets).
    #[arg(long, default_value = "/var/lib/weir")]
    pub state_dir: PathBuf,
    /// Address of the admin server.
    #[arg(long, default_value = "0.0.0.0:4191")]
    pub admin_addr: SocketAddr,
    /// Networks of the cluster: who is in them for the `cluster-` default policies.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    )]
    pub cluster_networks: Vec<IpNet>,
    /// Worker threads; default: the CPU quota of this process, rounded up.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Log filter, as in `info,weir_node=debug`.
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,
    /// Run the worker itself: the supervisor passes this.
    #[arg(long, hide = true)]
    pub worker: bool,
}
