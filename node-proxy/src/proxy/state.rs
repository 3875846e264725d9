//! The process as its admin server, its reports and control see it. Must never wait, and never show a key.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_api::v1;
use weir_core::snapshot::Snapshot;

use crate::{
    args::ProxyArgs,
    config::Store,
    handover::{FeatureReport, HolderClient},
    identities::Identities,
    telemetry::{Capture, Certificate, NodeState},
};

struct Parts {
    store: Store,
    identities: Identities,
    holder: HolderClient,
}

/// What is known of this process; complete once [`State::attach`] was called.
pub(crate) struct State {
    epoch: Instant,
    arguments: serde_json::Value,
    parts: OnceLock<Parts>,
    captures: Mutex<HashMap<Arc<str>, Capture>>,
    features: Mutex<Option<Vec<FeatureReport>>>,
}

impl State {
    /// Before anything is connected.
    pub(super) fn new(args: &ProxyArgs, epoch: Instant) -> Arc<State> {
        Arc::new(State {
            epoch,
            arguments: serde_json::json!({
                "node_name": args.node_name,
                "holder_socket": args.holder_socket,
                "control": args.control,
                "control_identity": args.control_identity,
                "trust_anchors": args.trust_anchors,
                "token_file": args.token_file,
                "state_dir": args.state_dir,
                "admin_addr": args.admin_addr,
                "cluster_networks": args.cluster_networks,
                "workers": super::worker::count(args.workers),
            }),
            parts: OnceLock::new(),
            captures: Mutex::default(),
            features: Mutex::default(),
        })
    }

    pub(super) fn attach(&self, store: Store, identities: Identities, holder: HolderClient) {
        let set = self.parts.set(Parts { store, identities, holder });
        debug_assert!(set.is_ok(), "attached once, at the start");
    }

    /// What became of the capture of one pod.
    pub(super) fn captured(&self, uid: &str, captured: bool, reason: &str) {
        let uid = Arc::<str>::from(uid);
        let capture = Capture { uid: Arc::clone(&uid), captured, reason: reason.to_owned() };
        self.captures.lock().insert(uid, capture);
    }

    /// The pod is no longer to be captured.
    pub(super) fn forget(&self, uid: &str) {
        self.captures.lock().remove(uid);
    }

    /// What the holder found that this kernel can do.
    pub(super) fn features(&self, features: Option<Vec<FeatureReport>>) {
        *self.features.lock() = features;
    }
}

impl NodeState for State {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.parts.get().map(|parts| parts.store.snapshot()).unwrap_or_default()
    }

    fn synced(&self) -> bool {
        self.parts.get().is_some_and(|parts| parts.store.synced())
    }

    fn control_connected(&self) -> bool {
        self.parts.get().is_some_and(|parts| parts.store.connected())
    }

    fn captures(&self) -> Vec<Capture> {
        self.captures.lock().values().cloned().collect()
    }

    fn certificates(&self) -> Vec<Certificate> {
        let status = self.parts.get().map(|parts| parts.identities.status()).unwrap_or_default();
        status
            .into_iter()
            .map(|(identity, status)| Certificate { identity, not_after: status.not_after, chain: status.chain })
            .collect()
    }

    fn sockets_in_stock(&self) -> usize {
        self.parts.get().map_or(0, |parts| parts.holder.in_stock())
    }

    fn checks(&self) -> Vec<v1::CheckResult> {
        let Some(features) = self.features.lock().clone() else {
            let hint = "the holder does not answer: check that weir-holder runs on this node".to_owned();
            return vec![check("holder answers", v1::CheckOutcome::Error, hint)];
        };
        let of = |feature: FeatureReport| match (feature.present, feature.required) {
            (true, _) => check(&feature.name, v1::CheckOutcome::Success, String::new()),
            (false, true) => check(&feature.name, v1::CheckOutcome::Error, feature.detail),
            (false, false) => check(&feature.name, v1::CheckOutcome::Warning, feature.detail),
        };
        features.into_iter().map(of).collect()
    }

    fn arguments(&self) -> serde_json::Value {
        self.arguments.clone()
    }
}

fn check(description: &str, outcome: v1::CheckOutcome, hint: String) -> v1::CheckResult {
    v1::CheckResult {
        category: "weir-node-kernel".to_owned(),
        description: description.to_owned(),
        outcome: outcome.into(),
        hint,
    }
}
