//! Command line arguments. Must never hold a default that is not shown by `--help`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    client::Settings,
    duration, limits,
    output::{ColorChoice, Format},
};

/// See and check a Weir service mesh.
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
    /// URL of control: https://HOST:PORT, or http:// towards this machine
    #[arg(long, global = true, env = "WEIR_CONTROL", value_name = "URL")]
    pub(crate) control: Option<String>,
    /// PEM file with the trust anchors of the mesh
    #[arg(long, global = true, env = "WEIR_TRUST_ANCHORS", value_name = "FILE")]
    pub(crate) trust_anchors: Option<PathBuf>,
    /// Identity that control must prove
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local"
    )]
    pub(crate) control_identity: String,
    /// File with control's API token
    #[arg(long, global = true, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Colours; `auto` honours NO_COLOR
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    /// Time to connect, and for each answer
    #[arg(long, global = true, default_value = "10s", value_parser = timeout, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

impl Global {
    /// How to reach control.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            url: self.control.clone(),
            trust_anchors: self.trust_anchors.clone(),
            identity: self.control_identity.clone(),
            token_file: self.token_file.clone(),
            within: self.timeout,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Success rate, request rate, latencies and connections of resources
    Stat(StatArgs),
    /// Who talks to whom, with which identities, and whether it is secured
    Edges(EdgesArgs),
    /// Certificates of pods
    Identity(IdentityArgs),
    /// Endpoints of a service, as nodes get to know them
    Endpoints(EndpointsArgs),
    /// Look for problems; exit code 1 when there are errors
    Check(CheckArgs),
    /// Versions of this program, control and nodes
    Version(VersionArgs),
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Which namespaces.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Namespace
    #[arg(short, long, env = "WEIR_NAMESPACE", default_value = "default")]
    namespace: String,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Place {
    /// The namespace; `None` for all.
    pub(crate) fn namespace(&self) -> Option<String> {
        (!self.all_namespaces).then(|| self.namespace.clone())
    }
}

/// `weir stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// KIND, KIND/NAME…, or KIND NAME…; kinds: deploy sts ds job cj rs pod ns svc all (default: all owners of pods)
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

/// `weir check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Try again for so long while there are errors
    #[arg(long, default_value = "0s", value_parser = check_wait, value_name = "DURATION")]
    pub(crate) wait: Duration,
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
