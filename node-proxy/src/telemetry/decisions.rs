//! Decisions of policy about one series: fixed counters, so that counting costs one addition.
//!
//! Must never allocate, nor need a label that the series does not have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use weir_core::{
    inbound::{Authorization, InboundPlan},
    proxy_error::ProxyError,
};

/// What became of requests or connections.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_policy: AtomicU64,
    by_probe: AtomicU64,
    denied: AtomicU64,
    terminated: AtomicU64,
    unrouted: AtomicU64,
}

impl Decisions {
    pub(super) fn count(&self, plan: &InboundPlan) {
        let counter = match plan {
            InboundPlan::Allow(Authorization::Policy) | InboundPlan::Audit => &self.by_policy,
            InboundPlan::Allow(Authorization::Probe) => &self.by_probe,
            InboundPlan::Deny(ProxyError::NoRoute) => &self.unrouted,
            InboundPlan::Deny(_) => &self.denied,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// What was allowed, by whom.
    pub(super) fn allowed(&self) -> [(Authorization, u64); 2] {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        [(Authorization::Policy, load(&self.by_policy)), (Authorization::Probe, load(&self.by_probe))]
    }

    /// A connection was ended by a policy that came after it.
    pub(super) fn terminate(&self) {
        self.terminated.fetch_add(1, Relaxed);
    }

    pub(super) fn terminated(&self) -> u64 {
        self.terminated.load(Relaxed)
    }

    /// Fell under none of the Server's routes.
    pub(super) fn unrouted(&self) -> u64 {
        self.unrouted.load(Relaxed)
    }

    pub(super) fn denied(&self) -> u64 {
        self.denied.load(Relaxed)
    }
}
