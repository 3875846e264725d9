//! Whose turn it is: one after the other, in the order of addresses. Must never lock: all workers of a node take turns from one counter.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::from;
use crate::limits;

/// Turns taken so far, by all workers; survives changes of endpoints.
#[derive(Debug, Default)]
pub(super) struct Turns(AtomicU64);

impl Turns {
    /// The next one that is not out. Who is passed over loses that turn, so that its neighbour gets no more than others.
    pub(super) fn draw(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        is_out: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if count == 0 {
            return None;
        }
        let mut index = 0;
        for _ in 0..limits::DRAWS {
            index = (self.next(random) % count as u64) as usize;
            if !is_out(index) {
                return Some(index);
            }
        }
        from(index, count).find(|index| !is_out(*index))
    }

    fn next(&self, random: &mut impl FnMut() -> u64) -> u64 {
        if self.0.load(Relaxed) == 0 {
            // Else the first request of each node would go to the same endpoint. Another worker may have begun.
            let _begun = self.0.compare_exchange(0, (random() >> 1).max(1), Relaxed, Relaxed);
        }
        self.0.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with a load and a store instead of one addition: workers then take the same turns.
    #[test]
    fn workers_share_one_counter() {
        let turns = Turns::default();
        let begin = std::sync::Barrier::new(4);
        let work = |seed: u64| {
            let mut hits = [0_u64; 7];
            begin.wait();
            for _ in 0..3_500_000 {
                hits[turns.draw(hits.len(), &mut || 1_234_567 + seed, |_index| false).unwrap()] += 1;
            }
            hits
        };
        let all: Vec<[u64; 7]> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|seed| {
                    let work = &work;
                    scope.spawn(move || work(seed))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let hits: Vec<u64> = (0..7).map(|index| all.iter().map(|hits| hits[index]).sum()).collect();
        assert_eq!(hits, [2_000_000; 7]);
    }

    #[test]
    fn nodes_begin_at_different_endpoints() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut first = || Turns::default().draw(10, &mut || random.u64(..), |_index| false).unwrap();
        let hits: std::collections::HashSet<usize> = (0..200).map(|_| first()).collect();
        assert_eq!(hits.len(), 10);
    }
}
