//! Arguments of the commands that show requests by route. Must never hold a default that is not shown by `--help`.

use std::time::Duration;

use clap::Args;

use super::{Place, window};

/// `weir routes`.
#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    /// Services that requests are sent to: svc, svc/NAME… (default: all); with --to the clients: deploy, deploy/NAME…
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only what the resources send to this Service
    #[arg(long, value_name = "SERVICE")]
    pub(crate) to: Option<String>,
    /// Namespace of --to (default: that of the resources)
    #[arg(long, value_name = "NAMESPACE", requires = "to")]
    pub(crate) to_namespace: Option<String>,
    /// Time to look back, 1s to 5m
    #[arg(short, long, default_value = "1m", value_parser = window, value_name = "DURATION")]
    pub(crate) time_window: Duration,
}

/// `weir stat-outbound`.
#[derive(Debug, Args)]
pub(crate) struct StatOutboundArgs {
    /// Clients: KIND, KIND/NAME…, or KIND NAME…; kinds: deploy sts ds job cj rs pod ns all (default: all owners of pods)
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Time to look back, 1s to 5m
    #[arg(short, long, default_value = "1m", value_parser = window, value_name = "DURATION")]
    pub(crate) time_window: Duration,
}
