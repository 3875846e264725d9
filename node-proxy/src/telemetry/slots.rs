//! A small, bounded, append-only set of counters: found without a lock, never moved, never removed.
//!
//! Must never allocate once its kinds are known.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Kinds that most series get along with; room for more is made when the first one more appears.
const INLINE: usize = 4;

#[derive(Debug)]
struct Slot<K> {
    kind: OnceLock<K>,
    count: AtomicU64,
}

impl<K> Default for Slot<K> {
    fn default() -> Slot<K> {
        Slot { kind: OnceLock::new(), count: AtomicU64::new(0) }
    }
}

/// Counters by kind.
#[derive(Debug)]
pub(super) struct Slots<K> {
    first: [Slot<K>; INLINE],
    more: OnceLock<Box<[Slot<K>]>>,
    bound: usize,
}

impl<K: Eq + Copy> Slots<K> {
    /// No kinds yet; `bound` at most.
    pub(super) fn new(bound: usize) -> Slots<K> {
        Slots { first: std::array::from_fn(|_| Slot::default()), more: OnceLock::new(), bound }
    }

    /// Counts one. False when the bound is reached and `kind` is not among those known: nothing was counted.
    pub(super) fn add(&self, kind: K) -> bool {
        if count_in(&self.first, kind) {
            return true;
        }
        let more = self
            .more
            .get_or_init(|| std::iter::repeat_with(Slot::default).take(self.bound.saturating_sub(INLINE)).collect());
        count_in(more, kind)
    }

    /// All kinds seen so far with their counts, in order of first appearance.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> + '_ {
        let more = self.more.get().map_or(&[][..], |more| more);
        let slots = self.first.iter().chain(more);
        slots.filter_map(|slot| slot.kind.get().map(|kind| (*kind, slot.count.load(Relaxed))))
    }
}

/// Counts `kind` in the slot that is its own, or in the first free one.
fn count_in<K: Eq + Copy>(slots: &[Slot<K>], kind: K) -> bool {
    for slot in slots {
        // Of two that race for a free slot one wins; the other looks whether it wanted the same.
        if *slot.kind.get_or_init(|| kind) == kind {
            slot.count.fetch_add(1, Relaxed);
            return true;
        }
    }
    false
}
