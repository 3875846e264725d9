//! Whether a destination that was built anew is the one before: then that stays, with all that is known of it. Must never take one for another.

use std::{collections::HashSet, sync::Arc};

use super::{Destination, ServiceTarget, Target};

/// Whether nothing differs that a request would notice.
pub(super) fn is_same(before: &Destination, after: &Destination) -> bool {
    match (&before.target, &after.target) {
        (Target::Unknown, Target::Unknown) => true,
        (Target::Pod(before), Target::Pod(after)) => Arc::ptr_eq(before, after),
        (Target::Service(before), Target::Service(after)) => is_same_service(before, after),
        _ => false,
    }
}

fn is_same_service(before: &ServiceTarget, after: &ServiceTarget) -> bool {
    before.is_named_like(after)
        && before.protocol == after.protocol
        && before.reach == after.reach
        && before.timeouts == after.timeouts
        && before.retry == after.retry
        && Arc::ptr_eq(&before.retry_budget, &after.retry_budget)
        && before.client_budgets.len() == after.client_budgets.len()
        && before.client_budgets.iter().zip(&after.client_budgets).all(|((_, one), (_, other))| Arc::ptr_eq(one, other))
        && before.breaker.as_ref().map(Arc::as_ptr) == after.breaker.as_ref().map(Arc::as_ptr)
        && before.balancer.settings() == after.balancer.settings()
        && before.load_bias == after.load_bias
        && before.allows_request_policy == after.allows_request_policy
        && before.endpoints.len() == after.endpoints.len()
        && before.endpoints.iter().zip(&after.endpoints).all(|(one, other)| Arc::ptr_eq(one, other))
        && before.routes.as_ref().map(Arc::as_ptr) == after.routes.as_ref().map(Arc::as_ptr)
        && before.backends.len() == after.backends.len()
        && are_same_backends(before, after)
}

/// Each pair once: the rules of a profile name the same few services thousands of times.
fn are_same_backends(before: &ServiceTarget, after: &ServiceTarget) -> bool {
    let mut seen = HashSet::new();
    let mut pairs = before.backends.iter().zip(&after.backends);
    pairs.all(|(one, other)| !seen.insert((Arc::as_ptr(one), Arc::as_ptr(other))) || is_same_service(one, other))
}
