//! Certificates of the workloads of this node: made, renewed, forgotten.
//!
//! A key is made here and leaves memory only into the vault. Must never be logged, nor written to a disk.

mod certified;
mod peer;
mod renew;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::{sync::watch, task::JoinHandle};
use weir_core::identity::Identity;

use self::certified::Certified;
pub use self::certified::{CertificateError, provider};
use crate::{config::Store, vault::KeyRecord};

/// A certificate as people and metrics see it.
#[derive(Clone, Debug)]
pub struct CertStatus {
    /// Unix seconds.
    pub not_after: i64,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

struct Entry {
    current: watch::Sender<Option<Arc<Certified>>>,
    renewal: Option<JoinHandle<()>>,
    /// Since when no workload has it any more.
    unwanted: Option<Instant>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

#[derive(Default)]
struct Inner {
    entries: RwLock<HashMap<Identity, Entry>>,
}

/// The identities of this node; clones share them.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

impl Identities {
    /// Follows the snapshot: one certificate for each identity of a local workload. `keys` were kept from before.
    pub(crate) fn start(store: Store, authority: Arc<crate::config::Control>, keys: Vec<KeyRecord>) -> Identities {
        let identities = Identities(Arc::default());
        let anchors = store.snapshot().trust_anchors();
        for record in keys {
            match Certified::from_record(&record, &anchors) {
                Ok((identity, certified)) => identities.adopt(identity, certified),
                Err(error) => tracing::warn!(%error, identity = record.identity, "a kept key is of no use any more"),
            }
        }
        let follower =
            renew::Follower { identities: identities.clone(), store, authority, issuers: watch::channel(Vec::new()).0 };
        tokio::spawn(follower.run(anchors));
        identities
    }

    fn adopt(&self, identity: Identity, certified: Certified) {
        let entry = Entry { current: watch::channel(Some(Arc::new(certified))).0, renewal: None, unwanted: None };
        self.0.entries.write().insert(identity, entry);
    }

    fn current(&self, identity: &Identity) -> Option<Arc<Certified>> {
        self.0.entries.read().get(identity).and_then(|entry| entry.current.borrow().clone())
    }

    /// Presents `identity`'s certificate and trusts the mesh's anchors.
    pub fn client_config(&self, identity: &Identity) -> Option<Arc<ClientConfig>> {
        self.current(identity).map(|certified| Arc::clone(&certified.client))
    }

    /// Presents `identity`'s certificate; a client's is verified when it has one.
    pub fn server_config(&self, identity: &Identity) -> Option<Arc<ServerConfig>> {
        self.current(identity).map(|certified| Arc::clone(&certified.server))
    }

    /// Waits for `identity`'s first certificate; false when it did not come in time.
    pub async fn ready(&self, identity: &Identity, wait: Duration) -> bool {
        if self.current(identity).is_some() {
            return true;
        }
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let receiver = self.0.entries.read().get(identity).map(|entry| entry.current.subscribe());
            let Some(mut receiver) = receiver else {
                // The follower has not seen the workload yet.
                if tokio::time::Instant::now() >= deadline {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            return match tokio::time::timeout_at(deadline, receiver.wait_for(Option::is_some)).await {
                Ok(Ok(_certified)) => true,
                Ok(Err(_)) | Err(_) => self.current(identity).is_some(),
            };
        }
    }

    /// Expiry of `identity`'s certificate, Unix seconds; 0 without one.
    pub fn not_after(&self, identity: &Identity) -> i64 {
        self.current(identity).map_or(0, |certified| certified.not_after)
    }

    /// All certificates held.
    pub fn status(&self) -> Vec<(Identity, CertStatus)> {
        let entries = self.0.entries.read();
        let status = |certified: &Certified| CertStatus { not_after: certified.not_after, chain: certified.chain() };
        entries
            .iter()
            .filter_map(|(identity, entry)| Some((identity.clone(), status(entry.current.borrow().as_deref()?))))
            .collect()
    }

    /// Keys with their certificates, for the vault.
    pub(crate) fn keys(&self) -> Vec<KeyRecord> {
        let entries = self.0.entries.read();
        entries
            .iter()
            .filter_map(|(identity, entry)| Some(entry.current.borrow().as_deref()?.record(identity)))
            .collect()
    }

    /// Who a verified certificate belongs to: its one DNS SAN, with which a URI SAN must agree.
    pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<Identity> {
        peer::identity(chain.first()?)
    }
}
