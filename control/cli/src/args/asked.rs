//! Arguments of the commands that ask what is in force. Must never hold a default that only control knows.

use clap::{Args, Subcommand};

/// `weir explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Client: deploy/NAME, sts/NAME, ds/NAME, job/NAME, cj/NAME, rs/NAME or pod/NAME of --namespace, or ns/NAME
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// Service: svc/NAME[.NAMESPACE][:PORT], or NAME.NAMESPACE[:PORT]; the port may be left out where there is one
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// HTTP's method (default: GET)
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Path, with the query (default: /)
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Header field; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Host and port that the client asks for (default: header Host, else the Service's name)
    #[arg(long, value_name = "HOST")]
    pub(crate) authority: Option<String>,
    /// A gRPC call instead
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with_all = ["method", "path"])]
    pub(crate) grpc: Option<String>,
}

/// `weir policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Service: svc/NAME[.NAMESPACE][:PORT], or NAME.NAMESPACE[:PORT]
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// Namespace of the clients (default: the Service's own)
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) from: Option<String>,
}

/// `weir diagnostics`.
#[derive(Debug, Subcommand)]
pub(crate) enum Diagnostics {
    /// What nodes are told of a port of a Service, as they are told it
    Policy(DiagnosticsPolicyArgs),
}

/// `weir diagnostics policy`.
#[derive(Debug, Args)]
pub(crate) struct DiagnosticsPolicyArgs {
    /// Service: svc/NAME[.NAMESPACE], or NAME.NAMESPACE
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// Port of the Service; may be left out where there is one
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
}
