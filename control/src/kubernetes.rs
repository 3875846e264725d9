//! Control on an API server: watches instead of files, tokens that the API server vouches for, an authority in a Secret.
//!
//! Must never forget what it knows because the API server is away, and never tell nodes of a list that is not complete.

mod collect;
mod election;
mod events;
mod identity;
mod pods;
mod routes;
mod status;
mod watch;
pub mod writer;

use std::{fmt, sync::Arc, time::Duration};

use kube::{Config, client::ClientBuilder};
use tokio::sync::{mpsc, oneshot};
use weir_core::identity::Identity;

use self::writer::Writer;
use crate::{
    admin::Health,
    limits,
    parse::Options,
    plane::Plane,
    replicas::Replicas,
    tokens::{Reviews, Tokens},
};

/// Namespace of the mesh's own objects.
pub const NAMESPACE: &str = "weir";
/// Name of control: of its account, Service and Lease, in events, and as owner of fields.
pub const CONTROL: &str = "weir-control";

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such object.
    #[error("not found")]
    NotFound,
    /// Somebody else was first.
    #[error("somebody else changed it at the same time")]
    Conflict,
    /// Control has not the right to do it.
    #[error("{0}; do weir-control's Role and ClusterRole and their bindings exist as `weir install` prints them?")]
    Forbidden(String),
    /// No answer.
    #[error("no answer within {:?}; is the API server reachable?", limits::API_WITHIN)]
    Late,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Failure {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Failure::NotFound,
            kube::Error::Api(status) if status.code == 409 => Failure::Conflict,
            kube::Error::Api(status) if status.code == 403 => Failure::Forbidden(status.message.clone()),
            kube::Error::Api(status) => Failure::Other(format!("{} ({})", status.message, status.code)),
            other => Failure::Other(chain(other)),
        }
    }
}

/// An error with all that caused it: the outermost of a client says only that there was one.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// One call, bounded in time.
async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(limits::API_WITHIN, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Failure::Late),
    }
}

/// Pauses that grow while something fails.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    failed: Option<tokio::time::Instant>,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next: limits::API_PAUSE_FIRST, failed: None }
    }

    /// The pause after a failure, with jitter: replicas must not ask in step.
    fn pause(&mut self) -> Duration {
        let now = tokio::time::Instant::now();
        let calm = self.failed.replace(now).is_none_or(|failed| now.duration_since(failed) > limits::API_CALM);
        if calm {
            self.next = limits::API_PAUSE_FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(limits::API_PAUSE_LONGEST);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

/// What runs on an API server, for as long as control does.
pub struct Running {
    /// Shared state.
    pub plane: Arc<Plane>,
    /// Judges of callers.
    pub tokens: Arc<Tokens>,
    /// This replica among the others.
    pub replicas: Arc<Replicas>,
    /// For those who write with rights of their own.
    pub writer: Arc<Writer>,
    release: oneshot::Sender<()>,
    election: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running {
    /// Lets another replica lead at once.
    pub async fn release(self) {
        if self.release.send(()).is_ok() {
            let _late = tokio::time::timeout(limits::SHUTDOWN / 2, self.election).await;
        }
    }
}

/// How the API server is reached, by the environment: a kubeconfig, else the pod's own service account.
async fn config() -> Result<Config, Failure> {
    Config::infer().await.map_err(|error| Failure::Other(chain(&error)))
}

/// Lists and the beginning of a watch have no bound of their own: a server that took the question and then lost its power would
/// be waited for without end.
fn bounded(mut config: Config) -> Config {
    config.connect_timeout = Some(limits::API_WITHIN);
    config.read_timeout = Some(limits::API_SILENCE);
    // Counted from the question, not from when its connection was used before.
    config.reset_reader_on_write = true;
    config
}

/// Waits for an authority, then watches everything.
///
/// # Errors
/// There is no way to reach an API server at all; everything else is waited for.
pub async fn start(options: Options, life: Duration, identity: &Identity, health: &Health) -> Result<Running, Failure> {
    health.wait_for("the API server was not asked for the authority yet".to_owned());
    let config = config().await?;
    let writer = Arc::new(Writer::new(&config));
    let client = ClientBuilder::try_from(bounded(config))?.build();
    let (authority, known) = identity::first(&client, &options.trust_domain, life, health).await;
    let plane = Arc::new(Plane::new(options.trust_domain.clone(), authority, None));
    let (items, collected) = mpsc::channel(limits::WATCHED_QUEUE);
    let served = watch::all(&client, &options, &items);
    tokio::spawn(collect::follow(collected, Arc::clone(&plane)));
    let (notices, noticed) = mpsc::channel(limits::NOTICES_QUEUE);
    plane.set_notices(notices);
    let me = instance();
    let replicas = Arc::new(Replicas::of_service(Arc::clone(&plane), identity.clone(), me.clone()));
    tokio::spawn(events::publish(client.clone(), noticed, me.clone()));
    let (release, released) = oneshot::channel();
    let (election, leadership) = election::Election::new(&client, me);
    let election = tokio::spawn(election.run(released));
    tokio::spawn(identity::follow(client.clone(), known, Arc::clone(&plane), leadership.clone()));
    tokio::spawn(pods::Pods::new(client.clone(), Arc::clone(&plane), leadership.clone()).follow());
    tokio::spawn(routes::follow(client.clone(), served.clone(), Arc::clone(&plane), leadership.clone()));
    tokio::spawn(status::follow(client.clone(), Arc::clone(&plane), Arc::clone(&replicas), leadership));
    let tokens = Arc::new(Tokens::Reviews(Box::new(Reviews::new(client))));
    Ok(Running { plane, tokens, replicas, writer, release, election })
}

/// Distinguishes this replica: a pod that restarts is the same one, and leads on at once.
fn instance() -> String {
    let named = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}-{}", host.trim(), std::process::id())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_api_server_is_given_up_and_a_quiet_watch_is_not() {
        let config = bounded(Config::new(http::Uri::from_static("https://192.0.2.1")));
        assert!(config.reset_reader_on_write);
        assert_eq!(config.connect_timeout, Some(limits::API_WITHIN));
        // The watcher's own margin is five seconds.
        let watch = Duration::from_secs(u64::from(limits::WATCH_SECONDS) + 5);
        assert!(config.read_timeout.is_some_and(|silence| silence > watch && silence < watch * 2));
    }
}
