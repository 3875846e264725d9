//! Decisions of policy about one series: fixed counters, so that counting costs one addition.
//!
//! Must never allocate, nor need a label that the series does not have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use weir_core::inbound::{Authorization, InboundPlan};

/// What became of requests or connections.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_default: AtomicU64,
    by_probe: AtomicU64,
    denied: AtomicU64,
}

impl Decisions {
    pub(super) fn count(&self, plan: &InboundPlan) {
        let counter = match plan {
            InboundPlan::Allow(Authorization::Default) | InboundPlan::Audit => &self.by_default,
            InboundPlan::Allow(Authorization::Probe) => &self.by_probe,
            InboundPlan::Deny(_) => &self.denied,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// What was allowed, by whom.
    pub(super) fn allowed(&self) -> [(Authorization, u64); 2] {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        [(Authorization::Default, load(&self.by_default)), (Authorization::Probe, load(&self.by_probe))]
    }

    pub(super) fn denied(&self) -> u64 {
        self.denied.load(Relaxed)
    }
}
