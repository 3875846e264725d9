//! The control plane: reads Kubernetes objects, tells each node what concerns it, signs workloads' certificates.
//!
//! Must never be needed for a request: nodes serve on without it.

pub mod admin;
pub mod ca;
pub mod checks;
pub mod index;
pub mod limits;
pub mod manifests;
pub mod mesh;
pub mod metrics;
pub mod nodes;
pub mod objects;
pub mod parse;
pub mod plane;
pub mod serve;
pub mod session;
pub mod snapshot;
pub mod tokens;

#[cfg(test)]
mod fixtures;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weir_core::identity::Identity;

use crate::{
    ca::{Authority, CaArgs},
    manifests::Manifests,
    plane::Plane,
    tokens::Tokens,
};

/// Weir's control plane.
#[derive(Debug, Parser)]
#[command(name = "weir-control", version)]
pub struct Args {
    /// Folder of Kubernetes manifests (Namespace, Pod, Service, EndpointSlice, ServiceAccount), watched for change
    #[arg(long)]
    pub manifests: PathBuf,
    /// Address of the gRPC server for nodes and for `weir`
    #[arg(long, default_value = "0.0.0.0:8086")]
    pub listen: SocketAddr,
    /// Address of health and metrics
    #[arg(long, default_value = "0.0.0.0:9990")]
    pub admin_listen: SocketAddr,
    /// Folder for the self-made authority and what a restart must know
    #[arg(long, default_value = "/var/lib/weir-control")]
    pub state_dir: PathBuf,
    /// Folder with one token file for each node, named as the node
    #[arg(long)]
    pub node_tokens: PathBuf,
    /// File with the token of `weir` and other programs of people
    #[arg(long)]
    pub api_token: PathBuf,
    /// Trust domain of the mesh's identities
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    /// Honour the annotation `linkerd.io/inject` where the label `weir.mesh/enabled` is not set
    #[arg(long)]
    pub linkerd_inject: bool,
    /// Where anchors and issuer come from
    #[command(flatten)]
    pub ca: CaArgs,
    /// Log filter, as in `info,weir_control=debug`
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,
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
    let identity = Identity::of("weir", "weir-control", &args.trust_domain)?;
    std::fs::create_dir_all(&args.state_dir).map_err(setup(format!("--state-dir {}", args.state_dir.display())))?;
    let authority = Authority::open(&args.ca, &args.state_dir, &args.trust_domain)?;
    let tokens = Tokens::open(args.node_tokens.clone(), args.api_token.clone()).map_err(setup("tokens"))?;
    let plane = Arc::new(Plane::new(args.trust_domain.clone(), authority, args.state_dir.join("serving")));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(setup("starting the event loop"))?;
    let ended = runtime.block_on(control(args, plane, Arc::new(tokens), identity));
    runtime.shutdown_timeout(limits::SHUTDOWN);
    ended
}

async fn control(args: Args, plane: Arc<Plane>, tokens: Arc<Tokens>, identity: Identity) -> Result<(), ControlError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(setup("listening for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup("listening for SIGINT"))?;
    let listener = TcpListener::bind(args.listen).await.map_err(setup(format!("--listen {}", args.listen)))?;
    let admin =
        TcpListener::bind(args.admin_listen).await.map_err(setup(format!("--admin-listen {}", args.admin_listen)))?;
    let options = parse::Options { trust_domain: args.trust_domain.clone(), linkerd_inject: args.linkerd_inject };
    let manifests = Manifests::new(args.manifests, options);
    let (scans, mut found) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || manifests.follow(&scans))
        .map_err(setup("starting the watch of manifests"))?;
    let taker = Arc::clone(&plane);
    tokio::spawn(async move {
        while let Some(scan) = found.recv().await {
            taker.take(scan);
        }
    });
    let follower = Arc::clone(&plane);
    tokio::spawn(async move { follower.follow_authority().await });
    tokio::spawn(admin::serve(admin, Arc::clone(&plane)));
    tracing::info!(listen = %args.listen, admin = %args.admin_listen, %identity, "control ready");
    let stop = async move {
        tokio::select! {
            _signal = terminate.recv() => {}
            _signal = interrupt.recv() => {}
        }
    };
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let served = serve::serve(plane, tokens, identity, listener, async move {
        stop.await;
        let _gone = stopping.send(());
    });
    tokio::select! {
        ended = served => Ok(ended?),
        // Streams of nodes never end by themselves: nodes reconnect to a successor.
        () = async { let _stopped = stopped.await; tokio::time::sleep(limits::SHUTDOWN / 10).await } => Ok(()),
    }
}
