//! This node's configuration: what control streams, kept as a snapshot that is swapped whole.
//!
//! `start` joins store, stream, disk and identities. Must never answer "plain" for a destination that control did not name.

mod channel;
mod disk;
mod store;
mod stream;

use std::{path::PathBuf, sync::Arc, time::Instant};

use weir_api::v1;

pub use self::{
    channel::{ConnectError, Control},
    store::{ResolveError, Store},
};
use crate::{identities::Identities, vault::VaultContents};

/// Where control is and who we are.
#[derive(Clone, Debug)]
pub struct ConfigArgs {
    /// URL of control.
    pub control: String,
    /// Identity that control must prove.
    pub server_identity: String,
    /// PEM file with trust anchors; read at each connect.
    pub trust_anchors: PathBuf,
    /// File with this node's token; read at each connect.
    pub token_file: PathBuf,
    /// This node.
    pub node_name: String,
    /// Folder of the last good configuration.
    pub state_dir: PathBuf,
    /// Version of this program.
    pub version: String,
}

/// Why the configuration cannot even be waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a URL.
    #[error("--control {url:?}: {reason}; expected https://host:port")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state folder cannot be used.
    #[error("--state-dir {path}: {source}; it must exist or be creatable, and be writable")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Answers control's queries.
pub type ReportFn = Arc<dyn Fn(&v1::Query) -> v1::Report + Send + Sync>;

/// Starts to follow control, from what the vault or the disk remembers. `epoch`: of the clock of loads and breakers. Must be called on the admin runtime.
///
/// # Errors
/// Arguments that cannot work; that control is away is no error.
pub fn start(
    args: ConfigArgs,
    epoch: Instant,
    vault: Option<VaultContents>,
    report: ReportFn,
) -> Result<(Store, Identities), ConfigError> {
    let control = Arc::new(Control::new(&args)?);
    let disk = disk::Disk::open(&args.state_dir)?;
    let (store, requests) = Store::new(epoch, &args.node_name);
    let (resources, keys) = match vault {
        Some(contents) => (contents.resources, contents.keys),
        None => (disk.load(), Vec::new()),
    };
    store.restore(resources);
    let identities = Identities::start(store.clone(), Arc::clone(&control), keys);
    store.attach_identities(identities.clone());
    tokio::spawn(disk.follow(store.clone()));
    tokio::spawn(stream::Stream { args, control, store: store.clone(), requests, report }.run());
    Ok((store, identities))
}
