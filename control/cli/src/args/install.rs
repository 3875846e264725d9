//! Arguments of the commands that print manifests. Must never hold a value of the chart: `--set` has them all.

use std::path::PathBuf;

use clap::Args;

use crate::chart::Stage;

/// What is set.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Values")]
pub(crate) struct RenderArgs {
    /// Set a value of the chart (deploy/chart/values.yaml); may be given several times; `null` takes one back
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// File of values, as values.yaml; may be given several times, --set goes over all of them
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,
    /// Three replicas of control, as --set ha=true
    #[arg(long)]
    pub(crate) ha: bool,
}

/// `weir install`, `weir upgrade`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Only what has to be there before the rest: custom resource definitions
    #[arg(long, conflicts_with = "stage")]
    pub(crate) crds: bool,
    /// Only a part, for people with different rights
    #[arg(long, value_enum)]
    pub(crate) stage: Option<Stage>,
    #[command(flatten)]
    pub(crate) render: RenderArgs,
}

/// `weir uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Only a part, for people with different rights
    #[arg(long, value_enum)]
    pub(crate) stage: Option<Stage>,
}

/// `weir prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {}
