//! The proxy's worker process: joins holder, control, identities, telemetry and the data threads.
//!
//! Must never need a privilege, and never serve a pod whose policy it does not have.

mod pods;
mod state;
mod worker;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use weir_core::snapshot::ServiceTarget;

pub use self::worker::Worker;
use self::{pods::Pods, state::State, worker::Handle};
use crate::{
    access_log::AccessLogger,
    admin::{self, AdminState, LogLevel},
    args::ProxyArgs,
    config::{self, Store},
    drain::{self, Drain},
    handover::{HolderClient, HolderEvent},
    identities::Identities,
    inbound::Redirects,
    limits,
    queues::Queues,
    report::Reporter,
    telemetry::{NodeState, Telemetry},
    vault::Vault,
};

/// Why the worker process could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A runtime, a thread or a signal handler could not be made.
    #[error("could not set up the process: {0}; check its memory and thread limits")]
    Runtime(#[source] io::Error),
    /// The admin port is taken or not allowed.
    #[error("admin server on {address}: {source}; check --admin-addr")]
    Admin {
        /// Address asked for.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The log filter does not parse.
    #[error("--log {filter:?}: {reason}")]
    LogFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client of control could not be made.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
}

/// What all data threads share.
pub struct Shared {
    /// The configuration.
    pub store: Store,
    /// Certificates of the local workloads.
    pub identities: Identities,
    /// Metrics.
    pub telemetry: Arc<Telemetry>,
    /// The holder's client: sockets in pods' namespaces.
    pub holder: HolderClient,
    /// Requests that wait for an endpoint.
    pub queues: Queues,
    /// Lines for workloads that want an access log.
    pub access_log: AccessLogger,
    /// Says when the proxy leaves.
    pub drain: Drain,
    /// Networks of the cluster, for the default policies that ask.
    pub networks: Vec<IpNet>,
    /// Where probes were sent on to.
    pub redirects: Redirects,
    /// Zero of `now`.
    pub epoch: Instant,
}

impl Shared {
    /// Time since the process began: what `weir_core` calls `now`.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn sweep_queues(&self) {
        let snapshot = self.store.snapshot();
        self.queues.retain(|goal| {
            let dialled = snapshot.destination(&goal.dialled).and_then(|known| known.service());
            let service = match &goal.backend {
                None => dialled,
                Some((namespace, name, port)) => dialled.and_then(|dialled| {
                    let is_meant =
                        |one: &&Arc<ServiceTarget>| (&one.namespace, &one.name, one.port) == (namespace, name, *port);
                    dialled.backends.iter().find(is_meant).map(AsRef::as_ref)
                }),
            };
            let now = self.now();
            service.is_some_and(|service| !service.is_available(now))
        });
    }
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// See [`ProxyError`].
pub fn run(args: ProxyArgs) -> Result<(), ProxyError> {
    // A worker without its supervisor would keep accepting beside its successor.
    let _only_on_linux = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let log_level = init_logging(&args.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProxyError::Runtime)?;
    runtime.block_on(serve(args, log_level))
}

fn init_logging(filter: &str) -> Result<LogLevel, ProxyError> {
    use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| ProxyError::LogFilter { filter: filter.to_owned(), reason: error.to_string() })?;
    let (layer, handle) = reload::Layer::new(parsed);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry().with(layer).with(lines).init();
    Ok(LogLevel::new(handle, filter))
}

async fn serve(args: ProxyArgs, log_level: LogLevel) -> Result<(), ProxyError> {
    let admin_listener = tokio::net::TcpListener::bind(args.admin_addr)
        .await
        .map_err(|source| ProxyError::Admin { address: args.admin_addr, source })?;
    let (holder, mut events) = HolderClient::start(args.holder_socket.clone()).await;
    let mut early = Vec::new();
    let vault = first_vault(&mut events, &mut early).await;

    let epoch = Instant::now();
    let telemetry = Arc::new(Telemetry::new());
    let state = State::new(&args, epoch);
    let node_state: Arc<dyn NodeState> = Arc::<State>::clone(&state);
    let reporter = Arc::new(Reporter::new(args.node_name.clone(), Arc::clone(&telemetry), Arc::clone(&node_state)));
    let answering = Arc::clone(&reporter);
    let levels = log_level.clone();
    let answer: config::ReportFn = Arc::new(move |query| match &query.log_level {
        Some(asked) => answering.of_log_level(levels.answer(asked)),
        None => answering.report(query),
    });
    let (store, identities) = config::start(config_args(&args), epoch, vault, answer)?;
    state.attach(store.clone(), identities.clone(), holder.clone());
    let (looking, told) = (Arc::clone(&reporter), store.clone());
    tokio::spawn(async move { looking.follow_out(|out| told.report_out(out)).await });
    tokio::spawn(async move { reporter.run().await });
    let admin = AdminState { telemetry: Arc::clone(&telemetry), state: node_state, log_level };
    tokio::spawn(admin::serve(admin_listener, admin));

    let (drainer, drain) = drain::channel();
    let access_log = AccessLogger::start(io::stderr(), Arc::clone(&telemetry)).map_err(ProxyError::Runtime)?;
    let queues = Queues::default();
    let networks = args.cluster_networks.clone();
    let redirects = Redirects::default();
    let shared = Shared { store, identities, telemetry, holder, queues, access_log, drain, networks, redirects, epoch };
    let shared = Arc::new(shared);
    let count = worker::count(args.workers);
    let workers: Vec<_> =
        (0..count).map(|index| Handle::start(index, Arc::clone(&shared))).collect::<Result<_, _>>()?;
    tracing::info!(node = %args.node_name, workers = count, "proxy is up");

    let mut pods = Pods::new(Arc::clone(&shared), state, workers);
    let mut terminate = signal(SignalKind::terminate()).map_err(ProxyError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProxyError::Runtime)?;
    tokio::select! {
        () = pods.run(early, &mut events) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(within = ?limits::DRAIN, "leaving: no new connections, open ones may finish");
    pods.stop();
    pods.leave().await;
    drainer.begin();
    if !worker::drained(&pods.connections(), limits::DRAIN).await {
        tracing::warn!("connections were still open when the time to drain was over");
    }
    shared.access_log.flush(limits::DRAIN_GRACE);
    Ok(())
}

/// What the holder kept for us, if it answers in time: without it we start from the disk and from control.
async fn first_vault(
    events: &mut tokio::sync::mpsc::Receiver<HolderEvent>,
    early: &mut Vec<HolderEvent>,
) -> Option<crate::vault::VaultContents> {
    let deadline = tokio::time::Instant::now() + limits::VAULT_WAIT;
    let mut contents = None;
    while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.recv()).await {
        match event {
            HolderEvent::Vault(fd) => match Vault::open(fd) {
                Ok(opened) => contents = Some(opened),
                Err(error) => tracing::warn!(%error, "what the holder kept for us is of no use; starting without it"),
            },
            HolderEvent::Synced => {
                early.push(HolderEvent::Synced);
                break;
            }
            other => early.push(other),
        }
    }
    contents
}

fn config_args(args: &ProxyArgs) -> config::ConfigArgs {
    config::ConfigArgs {
        control: args.control.clone(),
        server_identity: args.control_identity.clone(),
        trust_anchors: args.trust_anchors.clone(),
        token_file: args.token_file.clone(),
        node_name: args.node_name.clone(),
        state_dir: args.state_dir.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
