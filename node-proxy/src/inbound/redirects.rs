//! Where applications sent kubelet's probes on to, for as long as following takes. Must never grow past what pods of one node can hold.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_core::inbound::Probe;

use crate::limits;

/// What may be asked next, and since when.
type Learned = Vec<(Probe, Instant)>;

/// By pod uid.
#[derive(Debug, Default)]
pub struct Redirects(Mutex<HashMap<Arc<str>, Learned>>);

impl Redirects {
    /// A probe of this pod was sent on to `next`.
    pub(super) fn learn(&self, uid: &Arc<str>, next: Probe) {
        let now = Instant::now();
        let mut pods = self.0.lock();
        let fresh = |learned: &Instant| now.duration_since(*learned) < limits::REDIRECT_FOLLOWED;
        pods.retain(|_uid, probes| {
            probes.retain(|(_, learned)| fresh(learned));
            !probes.is_empty()
        });
        let probes = pods.entry(Arc::clone(uid)).or_default();
        probes.retain(|(known, _)| *known != next);
        if probes.len() >= limits::REDIRECTS_PER_POD {
            probes.remove(0);
        }
        probes.push((next, now));
    }

    /// What may be asked of this pod because of that.
    pub(super) fn of(&self, uid: &str) -> Vec<Probe> {
        self.within(uid, Instant::now(), limits::REDIRECT_FOLLOWED)
    }

    fn within(&self, uid: &str, now: Instant, time: Duration) -> Vec<Probe> {
        let pods = self.0.lock();
        let fresh = pods.get(uid).into_iter().flatten().filter(|(_, learned)| now.duration_since(*learned) < time);
        fresh.map(|(probe, _)| probe.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use weir_core::inbound::ProbeKind;

    use super::*;

    #[test]
    fn a_redirect_is_known_for_its_pod_for_a_while_and_within_a_bound() {
        let redirects = Redirects::default();
        let (pod, other) = (Arc::<str>::from("pod"), Arc::<str>::from("other"));
        let get = |path: usize| Probe { port: 80, kind: ProbeKind::Get(Arc::from(format!("/{path}"))) };
        redirects.learn(&pod, get(0));
        redirects.learn(&pod, get(0));
        assert_eq!((redirects.of(&pod), redirects.of(&other)), (vec![get(0)], vec![]));
        assert_eq!(redirects.within(&pod, Instant::now() + Duration::from_secs(5), Duration::from_secs(5)), []);
        for path in 0..100 {
            redirects.learn(&pod, get(path));
        }
        let known = redirects.of(&pod);
        assert_eq!((known.len(), known.last()), (limits::REDIRECTS_PER_POD, Some(&get(99))));
    }
}
