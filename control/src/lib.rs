//! The control plane: reads Kubernetes objects, tells each node what concerns it, signs workloads' certificates.
//!
//! Must never be needed for a request: nodes serve on without it.

pub mod admin;
pub mod allowance;
mod applying;
pub mod audit;
pub mod ca;
pub mod checks;
mod directory;
mod ejected;
pub mod explain;
pub mod index;
pub mod items;
pub mod kubernetes;
pub mod leaving;
pub mod limits;
pub mod manifests;
pub mod mesh;
pub mod metrics;
pub mod nodes;
pub mod notices;
pub mod objects;
pub mod parse;
pub mod plane;
pub mod policy;
pub mod replicas;
mod route_status;
pub mod serve;
mod service_port;
pub mod session;
pub mod snapshot;
pub mod tokens;
mod turns;
mod watching;
pub mod writes;

#[cfg(test)]
mod fixtures;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use weir_core::{identity::Identity, inbound::DefaultPolicy};

use crate::{admin::Health, ca::CaArgs, parse::Options, replicas::Replicas, writes::Writes};

/// Weir's control plane.
#[derive(Debug, Parser)]
#[command(name = "weir-control", version)]
pub struct Args {
    /// Read objects, tokens and the authority from the API server: by KUBECONFIG, else as the pod that this runs in
    #[arg(long, conflicts_with_all = ["manifests", "node_tokens", "api_token", "trust_anchors"])]
    pub kubernetes: bool,
    /// Where objects and tokens come from without an API server
    #[command(flatten)]
    pub directory: DirectoryArgs,
    /// Address of the gRPC server for nodes and for `weir`
    #[arg(long, default_value = "0.0.0.0:8086")]
    pub listen: SocketAddr,
    /// Address of health and metrics
    #[arg(long, default_value = "0.0.0.0:9990")]
    pub admin_listen: SocketAddr,
    /// Trust domain of the mesh's identities
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    /// Honour the annotation `linkerd.io/inject` where the label `weir.mesh/enabled` is not set
    #[arg(long)]
    pub linkerd_inject: bool,
    /// Honour `l5d-retry-*`, `l5d-timeout`, `l5d-request-timeout` and `l5d-response-timeout` of requests: not where clients are not trusted
    #[arg(long)]
    pub allow_l5d_request_headers: bool,
    /// Who may call pods for which neither they nor their namespaces say it: all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny or audit
    #[arg(long, default_value = "all-unauthenticated")]
    pub default_inbound_policy: DefaultPolicy,

    /// Namespace that this runs in, where it is a pod
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pub pod_namespace: Option<String>,
    /// Where anchors and issuer come from
    #[command(flatten)]
    pub ca: CaArgs,
    /// Log filter, as in `info,weir_control=debug`
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,
}

/// Where objects and tokens come from without an API server.
#[derive(Clone, Debug, clap::Args)]
pub struct DirectoryArgs {
    /// Folder of Kubernetes manifests (Namespace, Pod, Service, EndpointSlice, ServiceAccount), watched for change
    #[arg(long, required_unless_present = "kubernetes")]
    pub manifests: Option<PathBuf>,
    /// Folder with one token file for each node, named as the node
    #[arg(long, required_unless_present = "kubernetes")]
    pub node_tokens: Option<PathBuf>,
    /// File with the token of `weir` and other programs of people
    #[arg(long, required_unless_present = "kubernetes")]
    pub api_token: Option<PathBuf>,
    /// Folder for the self-made authority and what a restart must know
    #[arg(long, default_value = "/var/lib/weir-control")]
    pub state_dir: PathBuf,
}

impl Args {
    /// An error in the form of clap's own.
    pub fn command_error(message: &str) -> clap::Error {
        <Args as clap::CommandFactory>::command().error(clap::error::ErrorKind::InvalidValue, message)
    }
}

/// Why control does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Something on this machine is not as it must be.
    #[error("{what}: {source}")]
    Setup {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// No source of objects.
    #[error("either --kubernetes, or --manifests with --node-tokens and --api-token")]
    NoSource,
    /// Another namespace than the mesh's.
    #[error(
        "this pod runs in namespace {0}, but this version works in namespace {namespace} alone: its Secrets, ConfigMaps, lease and identities are there; install it there, as `weir install` does and `helm install --namespace {namespace}`",
        namespace = kubernetes::NAMESPACE
    )]
    Namespace(String),
    /// No API server.
    #[error("--kubernetes: {0}; outside a pod, set KUBECONFIG")]
    Kubernetes(#[from] kubernetes::Failure),
    /// No valid domain.
    #[error("--trust-domain: {0}")]
    TrustDomain(#[from] weir_core::identity::InvalidIdentity),
    /// The authority.
    #[error(transparent)]
    Ca(#[from] ca::CaError),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
}

fn setup(what: impl Into<String>) -> impl FnOnce(io::Error) -> ControlError {
    move |source| ControlError::Setup { what: what.into(), source }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ControlError`].
pub fn run(args: Args) -> Result<(), ControlError> {
    if let Some(other) = args.pod_namespace.as_ref().filter(|found| args.kubernetes && *found != kubernetes::NAMESPACE)
    {
        return Err(ControlError::Namespace(other.clone()));
    }
    let identity = Identity::of(kubernetes::NAMESPACE, kubernetes::CONTROL, &args.trust_domain)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(setup("starting the event loop"))?;
    let ended = runtime.block_on(control(args, identity));
    runtime.shutdown_timeout(limits::SHUTDOWN);
    ended
}

async fn control(args: Args, identity: Identity) -> Result<(), ControlError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(setup("listening for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup("listening for SIGINT"))?;
    let mut stop = async || {
        tokio::select! {
            _signal = terminate.recv() => {}
            _signal = interrupt.recv() => {}
        }
    };
    let listener = TcpListener::bind(args.listen).await.map_err(setup(format!("--listen {}", args.listen)))?;
    let admin =
        TcpListener::bind(args.admin_listen).await.map_err(setup(format!("--admin-listen {}", args.admin_listen)))?;
    let health = Arc::new(Health::default());
    tokio::spawn(admin::serve(admin, Arc::clone(&health)));
    let options = Options {
        trust_domain: args.trust_domain.clone(),
        linkerd_inject: args.linkerd_inject,
        l5d_request_headers: args.allow_l5d_request_headers,
        default_policy: args.default_inbound_policy,
    };
    let (plane, tokens, replicas, running) = if args.kubernetes {
        let started = tokio::select! {
            started = kubernetes::start(options.clone(), args.ca.life(), &identity, &health) => started?,
            () = stop() => return Ok(()),
        };
        (Arc::clone(&started.plane), Arc::clone(&started.tokens), Arc::clone(&started.replicas), Some(started))
    } else {
        let (plane, tokens) = directory::start(args.directory, &args.ca, options.clone())?;
        let replicas = Arc::new(Replicas::alone(Arc::clone(&plane), identity.clone()));
        (plane, tokens, replicas, None)
    };
    let writer = running.as_ref().map(|running| Arc::clone(&running.writer));
    let writes = Writes::new(writer, options, Arc::clone(&replicas));
    health.set_plane(Arc::clone(&plane));
    tracing::info!(listen = %args.listen, admin = %args.admin_listen, %identity, "control ready");
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let (kept, known) = (Arc::clone(&plane), Arc::clone(&replicas));
    let served = serve::serve(plane, tokens, replicas, writes, identity, listener, async move { drop(stopped.await) });
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = &mut served => return Ok(ended?),
        () = stop() => {}
    }
    if running.is_some() {
        tracing::info!("told to end; serving until nodes have another replica");
        tokio::select! {
            ended = &mut served => return Ok(ended?),
            reason = leaving::may_end(&kept, &known) => tracing::info!(?reason, "ending"),
            () = stop() => tracing::warn!("told to end again"),
        }
    }
    drop(stopping);
    if let Some(running) = running {
        running.release().await;
    }
    // Streams of nodes never end by themselves: nodes reconnect to a successor.
    let _cut = tokio::time::timeout(limits::SHUTDOWN / 10, served).await;
    Ok(())
}
