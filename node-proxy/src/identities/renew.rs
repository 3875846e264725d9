//! Gets certificates from control and renews them. Must never drop a valid certificate because a new one is late.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use weir_api::v1;
use weir_core::identity::Identity;

use super::{
    Entry, Identities,
    certified::{CertificateError, Certified, Request, unix_now},
};
use crate::{
    config::{Control, Store},
    limits,
};

/// Keeps one certificate for each identity of a local workload.
pub(super) struct Follower {
    pub(super) identities: Identities,
    pub(super) store: Store,
    pub(super) authority: Arc<Control>,
    /// Those that sign now: renewals hear of another one.
    pub(super) issuers: watch::Sender<Vec<Vec<u8>>>,
}

impl Follower {
    pub(super) async fn run(self, mut anchors: Vec<Vec<u8>>) {
        let mut changes = self.store.subscribe();
        loop {
            let snapshot = self.store.snapshot();
            let issuers = snapshot.issuers();
            self.issuers.send_if_modified(|known| {
                *known != issuers && {
                    *known = issuers;
                    true
                }
            });
            let now = snapshot.trust_anchors();
            if now != anchors {
                anchors = now;
                self.trust(&anchors);
            }
            let leaving = self.reconcile(snapshot.workloads().map(|workload| workload.identity.clone()).collect());
            let changed = changes.changed();
            let changed = if leaving {
                tokio::time::timeout(limits::IDENTITY_GRACE, changed).await.unwrap_or(Ok(()))
            } else {
                changed.await
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// New anchors for what is held: handshakes from now on use them.
    fn trust(&self, anchors: &[Vec<u8>]) {
        let entries = self.identities.0.entries.read();
        for (identity, entry) in entries.iter() {
            let Some(current) = entry.current.borrow().clone() else { continue };
            match current.with_anchors(identity, anchors) {
                Ok(certified) => drop(entry.current.send_replace(Some(Arc::new(certified)))),
                Err(error) => {
                    tracing::warn!(%error, %identity, "certificate does not fit the new anchors; kept until it is renewed")
                }
            }
        }
    }

    /// Whether some are kept that nobody wants: a pod that leaves the mesh has connections for a moment more.
    fn reconcile(&self, wanted: HashSet<Identity>) -> bool {
        let mut entries = self.identities.0.entries.write();
        // Dropping an entry ends its renewal and forgets its key.
        entries.retain(|identity, entry| {
            if wanted.contains(identity) {
                entry.unwanted = None;
            } else {
                entry.unwanted.get_or_insert_with(Instant::now);
            }
            entry.unwanted.is_none_or(|since| since.elapsed() < limits::IDENTITY_GRACE)
        });
        let leaving = entries.len() > entries.keys().filter(|identity| wanted.contains(*identity)).count();
        for identity in wanted {
            let entry = entries.entry(identity.clone()).or_insert_with(|| Entry {
                current: watch::channel(None).0,
                renewal: None,
                unwanted: None,
            });
            if entry.renewal.is_none() {
                let renewal = Renewal {
                    identity,
                    store: self.store.clone(),
                    authority: Arc::clone(&self.authority),
                    current: entry.current.clone(),
                    issuers: self.issuers.subscribe(),
                };
                entry.renewal = Some(tokio::spawn(renewal.run()));
            }
        }
        leaving
    }
}

struct Renewal {
    identity: Identity,
    store: Store,
    authority: Arc<Control>,
    current: watch::Sender<Option<Arc<Certified>>>,
    issuers: watch::Receiver<Vec<Vec<u8>>>,
}

impl Renewal {
    async fn run(mut self) {
        let mut pause = limits::CERTIFY_PAUSE_MIN;
        loop {
            let due = self.due();
            tokio::select! {
                () = tokio::time::sleep(due) => {}
                Ok(()) = self.issuers.changed() => continue,
            }
            match self.certify().await {
                Ok(certified) => {
                    tracing::info!(identity = %self.identity, not_after = certified.not_after, "certificate issued");
                    self.current.send_replace(Some(Arc::new(certified)));
                    self.store.secrets_changed();
                    pause = limits::CERTIFY_PAUSE_MIN;
                    // A certificate that is due at once would make this a busy loop.
                    tokio::time::sleep(limits::CERTIFY_PAUSE_MIN).await;
                }
                Err(error) => {
                    tracing::warn!(%error, identity = %self.identity, again_in = ?pause, "no certificate");
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(limits::CERTIFY_PAUSE_MAX);
                }
            }
        }
    }

    /// At part of its life; soon, at a moment of its own, when another issuer signs by now.
    fn due(&mut self) -> Duration {
        let Some(held) = self.current.borrow().clone() else { return Duration::ZERO };
        let due = Duration::from_secs(held.renew_in(unix_now(), fastrand::f64()));
        let issuers = self.issuers.borrow_and_update();
        if issuers.is_empty() || issuers.iter().any(|issuer| held.is_signed_by(&self.identity, issuer)) {
            return due;
        }
        due.min(limits::RENEW_ISSUER_WITHIN.mul_f64(fastrand::f64()))
    }

    async fn certify(&self) -> Result<Certified, CertificateError> {
        let request = Request::new(&self.identity)?;
        let ask = v1::CertifyRequest {
            identity: self.identity.as_str().to_owned(),
            certificate_signing_request: request.der.clone(),
        };
        let refused = |reason: String| CertificateError::Refused(reason);
        let answer = async {
            let mut client = self
                .authority
                .connect(&self.store.snapshot().trust_anchors())
                .await
                .map_err(|error| refused(error.to_string()))?;
            client.certify(ask).await.map_err(|status| refused(format!("{:?}: {}", status.code(), status.message())))
        };
        let answer = tokio::time::timeout(limits::CERTIFY_TIMEOUT, answer)
            .await
            .map_err(|_elapsed| refused(format!("no answer within {:?}", limits::CERTIFY_TIMEOUT)))??;
        let anchors = self.store.snapshot().trust_anchors();
        request.certified(&self.identity, answer.into_inner().chain, &anchors)
    }
}
