//! Command line arguments. Must never hold a default that is not shown by `--help`.

pub(crate) mod asked;
pub(crate) mod install;
pub(crate) mod seen;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use self::{
    asked::{Diagnostics, ExplainArgs, PolicyArgs},
    install::{InstallArgs, PruneArgs, RenderArgs, UninstallArgs},
    seen::{RoutesArgs, StatOutboundArgs},
};
use crate::{
    chart::Stage,
    duration, limits,
    output::{ColorChoice, Format},
};

/// Install, see and check a Weir service mesh.
///
/// It reaches the mesh through Kubernetes, with the rights of the kubeconfig's user; or, with --control, control itself.
///
/// Exit codes: 0 done (`check`: no errors), 1 failed (`check`: errors found), 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Namespace of the pods to look at (default: the context's, or `default`)
    #[arg(short, long, global = true, env = "WEIR_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Kubeconfig file (default: KUBECONFIG, or ~/.kube/config)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig (default: its current one)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// User to impersonate towards Kubernetes
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) impersonate: Option<String>,
    /// Group to impersonate; may be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "impersonate")]
    pub(crate) impersonate_groups: Vec<String>,
    /// Namespace in which the mesh is installed
    #[arg(long, global = true, default_value = "weir", value_name = "NAME")]
    pub(crate) weir_namespace: String,
    /// URL of control, instead of Kubernetes: https://HOST:PORT, or http:// towards this machine
    #[arg(long, global = true, env = "WEIR_CONTROL", value_name = "URL")]
    pub(crate) control: Option<String>,
    /// PEM file with the trust anchors of the mesh, for --control
    #[arg(long, global = true, env = "WEIR_TRUST_ANCHORS", value_name = "FILE")]
    pub(crate) trust_anchors: Option<PathBuf>,
    /// Identity that control must prove (default: weir-control.weir.serviceaccount.identity.linkerd.cluster.local, with the
    /// installed namespace and trust domain where there is Kubernetes to ask)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) control_identity: Option<String>,
    /// File with control's API token, for --control
    #[arg(long, global = true, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Form of the answer (default: yaml for manifests, else table)
    #[arg(short, long, global = true, value_enum)]
    pub(crate) output: Option<Format>,
    /// Colours; `auto` honours NO_COLOR
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    /// Time to connect, and for each answer
    #[arg(long, global = true, default_value = "10s", value_parser = timeout, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manifests of an installation: `weir install | kubectl apply -f -`
    Install(InstallArgs),
    /// Manifests of an upgrade, with the values of the installation that runs: `weir upgrade | kubectl apply -f -`
    Upgrade(InstallArgs),
    /// Objects of the installation, to delete it: `weir uninstall | kubectl delete -f -`
    Uninstall(UninstallArgs),
    /// Objects that an older version left, to delete them: `weir prune | kubectl delete -f -`
    Prune(PruneArgs),
    /// Success rate, request rate, latencies and connections of resources; and endpoints as nodes see them
    Stat(StatArgs),
    /// Success rate, request rate and latencies of a service's requests, by the route that decides
    Routes(RoutesArgs),
    /// What resources send, by service, route and backend, with time-outs and retries
    StatOutbound(StatOutboundArgs),
    /// Who talks to whom, with which identities, and whether it is secured
    Edges(EdgesArgs),
    /// Certificates of pods
    Identity(IdentityArgs),
    /// Endpoints of a service, as nodes get to know them
    Endpoints(EndpointsArgs),
    /// What becomes of a request, and why: the rule that wins, and why each other one loses
    Explain(ExplainArgs),
    /// What is in force for a service, and from which object each part comes
    Policy(PolicyArgs),
    /// What nodes are told
    #[command(subcommand)]
    Diagnostics(Diagnostics),
    /// Look for problems; exit code 1 when there are errors
    Check(CheckArgs),
    /// Log levels of the nodes' proxies, shown or set while they run
    LogLevel(LogLevelArgs),
    /// Versions of this program, control and nodes
    Version(VersionArgs),
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Forms of its answer, the default first.
    pub(crate) fn formats(&self) -> &'static [Format] {
        match self {
            Command::Install(_) | Command::Upgrade(_) | Command::Uninstall(_) | Command::Prune(_) => {
                &[Format::Yaml, Format::Json]
            }
            Command::Check(_) => &[Format::Table, Format::Json, Format::Short],
            Command::Completions { .. }
            | Command::Explain(_)
            | Command::Policy(_)
            | Command::StatOutbound(_)
            | Command::LogLevel(_) => &[Format::Table, Format::Json],
            Command::Diagnostics(_) => &[Format::Yaml, Format::Json],
            Command::Stat(_)
            | Command::Routes(_)
            | Command::Edges(_)
            | Command::Identity(_)
            | Command::Endpoints(_)
            | Command::Version(_) => &[Format::Table, Format::Json, Format::Wide],
        }
    }
}

/// Which namespaces.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Place {
    /// The namespace; `None` for all.
    pub(crate) fn namespace(&self, chosen: &str) -> Option<String> {
        (!self.all_namespaces).then(|| chosen.to_owned())
    }
}

/// `weir stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// KIND, KIND/NAME…, or KIND NAME…; kinds: deploy sts ds job cj rs pod ns svc all (default: all owners of pods);
    /// or `endpoints [svc/NAME…]`: what nodes know of the endpoints of services that they have in use, and which are out
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Count what the resources send to this one, as they see it
    #[arg(long, value_name = "RESOURCE", conflicts_with_all = ["from", "from_namespace"])]
    pub(crate) to: Option<String>,
    /// Namespace of --to (default: that of the resources)
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["from", "from_namespace"])]
    pub(crate) to_namespace: Option<String>,
    /// Count what the resources receive from this one
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) from: Option<String>,
    /// Namespace of --from (default: that of the resources)
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) from_namespace: Option<String>,
    /// Time to look back, 1s to 5m
    #[arg(short, long, default_value = "1m", value_parser = window, value_name = "DURATION")]
    pub(crate) time_window: Duration,
    /// Show resources outside the mesh too
    #[arg(long)]
    pub(crate) unmeshed: bool,
    /// Draw again every 2 seconds
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `weir edges`.
#[derive(Debug, Args)]
pub(crate) struct EdgesArgs {
    /// Edges from or to these: KIND, KIND/NAME…, or KIND NAME… (default: all owners of pods)
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Time to look back, 1s to 5m
    #[arg(short, long, default_value = "1m", value_parser = window, value_name = "DURATION")]
    pub(crate) time_window: Duration,
}

/// `weir identity`.
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// Pods whose certificates are shown in full (default: an overview of all)
    #[arg(value_name = "POD")]
    pub(crate) pods: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `weir endpoints`.
#[derive(Debug, Args)]
pub(crate) struct EndpointsArgs {
    /// NAME.NAMESPACE[.svc.CLUSTER.DOMAIN]:PORT
    #[arg(required = true, value_name = "AUTHORITY")]
    pub(crate) authorities: Vec<String>,
}

/// `weir log-level`.
#[derive(Debug, Args)]
pub(crate) struct LogLevelArgs {
    /// Names of nodes (default: all of them)
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// The filter from now on, until the proxy restarts: as in `info,weir_node=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) set: Option<String>,
    /// File with a token for the API server, of an account that may update loglevels.weir.mesh; needed by --set on Kubernetes
    #[arg(long, value_name = "FILE", requires = "set")]
    pub(crate) kubernetes_token_file: Option<PathBuf>,
}

/// `weir check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Whether this cluster is fit for an installation, and its user may make one
    #[arg(long)]
    pub(crate) pre: bool,
    /// With --pre: what one stage of the installation needs
    #[arg(long, value_enum, requires = "pre")]
    pub(crate) stage: Option<Stage>,
    /// Try again for so long while there are errors (default: 5m for what comes by itself after an installation, else none)
    #[arg(long, value_parser = check_wait, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) render: RenderArgs,
}

/// `weir version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Only the numbers
    #[arg(long)]
    pub(crate) short: bool,
    /// Only this program: does not ask control
    #[arg(long)]
    pub(crate) client: bool,
}

fn window(text: &str) -> Result<Duration, String> {
    let (least, most) = limits::WINDOW_SECONDS;
    duration::parse_within(text, (Duration::from_secs(least), Duration::from_secs(most)))
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration::parse_within(text, limits::TIMEOUT)
}

fn check_wait(text: &str) -> Result<Duration, String> {
    duration::parse_within(text, limits::CHECK_WAIT)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn windows_are_bounded() {
        assert!(Arguments::try_parse_from(["weir", "stat", "-t", "300s"]).is_ok());
        for wrong in ["0s", "301s", "60", "x"] {
            assert!(Arguments::try_parse_from(["weir", "stat", "-t", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn to_and_from_exclude_each_other() {
        assert!(Arguments::try_parse_from(["weir", "stat", "--to", "deploy/a", "--from", "deploy/b"]).is_err());
        assert!(Arguments::try_parse_from(["weir", "stat", "--to-namespace", "a", "--from-namespace", "b"]).is_err());
    }
}
