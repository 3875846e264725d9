//! Bounded maps from labels to series. Looked up once per connection and endpoint, never per request.
//!
//! Must never grow past its bounds, and never forget a series that somebody holds.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::quality::RandomState;
use parking_lot::RwLock;
use weir_core::snapshot::PodRef;

use super::{
    labels::{Direction, Labels},
    series::{Series, Subject},
};
use crate::limits;

/// Bounds of one registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Series of one workload.
    pub(crate) per_workload: usize,
    /// Series in all, overflow series apart.
    pub(crate) per_node: usize,
}

type OverflowKey = (Direction, Option<Arc<PodRef>>);

struct Held<S> {
    series: Arc<S>,
    // Since when nothing changed, as time since the process's epoch in milliseconds.
    unchanged_since_ms: AtomicU64,
}

struct Maps<L, S> {
    exact: HashMap<Arc<L>, Held<S>, RandomState>,
    overflow: HashMap<OverflowKey, Held<S>, RandomState>,
    per_workload: HashMap<Arc<PodRef>, usize, RandomState>,
}

/// Series of one kind.
pub(crate) struct Registry<L, S> {
    bounds: Bounds,
    maps: RwLock<Maps<L, S>>,
    overflowed: AtomicU64,
}

impl<L: Labels, S: Series<Labels = L>> Registry<L, S> {
    pub(crate) fn new(bounds: Bounds) -> Registry<L, S> {
        let maps = Maps { exact: HashMap::default(), overflow: HashMap::default(), per_workload: HashMap::default() };
        Registry { bounds, maps: RwLock::new(maps), overflowed: AtomicU64::new(0) }
    }

    /// The series of these labels, or the overflow series that stands for them.
    pub(crate) fn get(&self, labels: &L, now: Duration) -> Arc<S> {
        if let Some(held) = self.maps.read().exact.get(labels) {
            return Arc::clone(&held.series);
        }
        let mut maps = self.maps.write();
        if let Some(held) = maps.exact.get(labels) {
            return Arc::clone(&held.series);
        }
        let of_workload = maps.per_workload.get(labels.workload()).copied().unwrap_or(0);
        let node_full = maps.exact.len() >= self.bounds.per_node;
        if node_full || of_workload >= self.bounds.per_workload {
            self.overflowed.fetch_add(1, Relaxed);
            return maps.overflow(labels, node_full, now);
        }
        *maps.per_workload.entry(Arc::clone(labels.workload())).or_default() += 1;
        let labels = Arc::new(labels.clone());
        let held = Held::new(Subject::Exact(Arc::clone(&labels)), now);
        let series = Arc::clone(&held.series);
        maps.exact.insert(labels, held);
        series
    }

    /// Lookups that were answered with an overflow series.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// All series of this moment.
    pub(crate) fn all(&self) -> Vec<Arc<S>> {
        let maps = self.maps.read();
        maps.exact.values().chain(maps.overflow.values()).map(|held| Arc::clone(&held.series)).collect()
    }

    /// Hands over what every series grew by since the last call, and drops those that nobody needs any more: unchanged
    /// for `limits::SERIES_IDLE`, or for `limits::SERIES_LEFT` when `live` says that their workload has left.
    pub(crate) fn advance(&self, now: Duration, live: impl Fn(&PodRef) -> bool, mut grew: impl FnMut(&S, S::Growth)) {
        let now_ms = milliseconds(now);
        let mut stale = false;
        let over = |held: &Held<S>, workload: Option<&PodRef>| {
            let left = workload.is_some_and(|workload| !live(workload));
            let keep = milliseconds(if left { limits::SERIES_LEFT } else { limits::SERIES_IDLE });
            now_ms.saturating_sub(held.unchanged_since_ms.load(Relaxed)) >= keep && held.free()
        };
        {
            let maps = self.maps.read();
            for held in maps.exact.values().chain(maps.overflow.values()) {
                if let Some(growth) = held.series.advance() {
                    held.unchanged_since_ms.store(now_ms, Relaxed);
                    grew(&held.series, growth);
                } else {
                    stale |= over(held, held.workload().map(|workload| &**workload));
                }
            }
        }
        if !stale {
            return;
        }
        let mut maps = self.maps.write();
        let Maps { exact, overflow, per_workload } = &mut *maps;
        exact.retain(|labels, held| {
            let drop = over(held, Some(labels.workload()));
            if drop {
                forget(per_workload, labels.workload());
            }
            !drop
        });
        overflow.retain(|(_, workload), held| !over(held, workload.as_deref()));
    }
}

fn forget(per_workload: &mut HashMap<Arc<PodRef>, usize, RandomState>, workload: &Arc<PodRef>) {
    if let Some(count) = per_workload.get_mut(workload) {
        *count -= 1;
        if *count == 0 {
            per_workload.remove(workload);
        }
    }
}

impl<L: Labels, S: Series<Labels = L>> Maps<L, S> {
    fn overflow(&mut self, labels: &L, node_full: bool, now: Duration) -> Arc<S> {
        let own: OverflowKey = (labels.direction(), Some(Arc::clone(labels.workload())));
        // A workload that is within its own bound has no overflow series of its own: it shares the node's.
        let crowded = self.overflow.len() >= limits::OVERFLOW_SERIES && !self.overflow.contains_key(&own);
        let key = if node_full || crowded { (labels.direction(), None) } else { own };
        let held = self.overflow.entry(key).or_insert_with_key(|(direction, workload)| {
            Held::new(Subject::Overflow { direction: *direction, workload: workload.clone() }, now)
        });
        Arc::clone(&held.series)
    }
}

impl<L: Labels, S: Series<Labels = L>> Held<S> {
    fn new(subject: Subject<L>, now: Duration) -> Held<S> {
        Held { series: Arc::new(S::create(subject)), unchanged_since_ms: AtomicU64::new(milliseconds(now)) }
    }

    /// Nobody else holds the series. True under the write lock stays true: only the maps hand it out.
    fn free(&self) -> bool {
        Arc::strong_count(&self.series) == 1 && !self.series.busy()
    }

    fn workload(&self) -> Option<&Arc<PodRef>> {
        match self.series.subject() {
            Subject::Exact(labels) => Some(labels.workload()),
            Subject::Overflow { workload, .. } => workload.as_ref(),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
