//! Chooses one of many endpoints: the less loaded of two random ones ("power of two choices", Mitzenmacher 2001).
//!
//! Must never cost more for a large service than for a small one, as long as breakers leave most endpoints in.

use std::{sync::Arc, time::Duration};

use crate::{
    breaker::{Admission, Breaker},
    limits,
    snapshot::Endpoint,
};

/// Index of the endpoint to use; `None` when there is none. All of `ready` must be ready.
///
/// `random` decides: the same numbers give the same choice. `exclude` failed just now and is taken only when alone.
pub fn pick(
    ready: &[Arc<Endpoint>],
    now: Duration,
    mut random: impl FnMut() -> u64,
    exclude: Option<&Endpoint>,
) -> Option<usize> {
    let drawn = draw(ready, &mut random, |index| is(exclude, &ready[index]), |index| ready[index].load.score(now));
    // The excluded one is the only one.
    drawn.or_else(|| ready.len().checked_sub(1))
}

/// The same among those that `breaker` lets a request through to; `None` when it does so to none of them.
pub fn pick_admitted(
    ready: &[Arc<Endpoint>],
    breaker: &Breaker,
    now: Duration,
    mut random: impl FnMut() -> u64,
    exclude: Option<&Endpoint>,
) -> Option<(usize, Admission)> {
    if breaker.panics(ready, now) {
        let index = pick(ready, now, random, exclude)?;
        // Trials go on: how else would it end.
        let admission = ready[index].admit(breaker, now).unwrap_or(Admission::In);
        return Some((index, admission));
    }
    let admitted = |index: usize| ready[index].admit(breaker, now).map(|admission| (index, admission));
    let is_out = |index: usize| is(exclude, &ready[index]) || !ready[index].is_available(now);
    let is_in = |index: usize| ready[index].health.as_ref().is_none_or(|health| health.is_in());
    // A trial that is due is made however slow its failures were: nothing else would ever show that it is well again.
    let score = |index: usize| (is_in(index), ready[index].load.score(now));
    // Another one may have taken a trial meanwhile.
    for _ in 0..limits::DRAWS {
        let Some(index) = draw(ready, &mut random, is_out, score) else { break };
        if let Some(admitted) = admitted(index) {
            return Some(admitted);
        }
    }
    let mut all = from(below(random(), ready.len()), ready.len());
    let found = all.clone().filter(|index| !is(exclude, &ready[*index])).find_map(admitted);
    found.or_else(|| all.find(|index| is(exclude, &ready[*index])).and_then(admitted))
}

/// As [`pick`], of those that no breaker has taken out as long as there are any: for what breakers do not judge.
pub fn pick_in(
    ready: &[Arc<Endpoint>],
    now: Duration,
    mut random: impl FnMut() -> u64,
    exclude: Option<&Endpoint>,
) -> Option<usize> {
    let is_out = |index: usize| ready[index].health.as_ref().is_some_and(|health| !health.is_in());
    let is_out_or_tried = |index: usize| is(exclude, &ready[index]) || is_out(index);
    let drawn = draw(ready, &mut random, is_out_or_tried, |index| ready[index].load.score(now));
    drawn.or_else(|| pick(ready, now, random, exclude))
}

fn is(excluded: Option<&Endpoint>, endpoint: &Endpoint) -> bool {
    excluded.is_some_and(|excluded| std::ptr::eq(endpoint, excluded))
}

/// Multiply-shift maps 32 random bits to a range without division or visible bias.
fn below(bits: u64, bound: usize) -> usize {
    (((bits & 0xffff_ffff) * bound as u64) >> 32) as usize
}

/// All indices, in order from one of them.
fn from(first: usize, count: usize) -> impl Iterator<Item = usize> + Clone {
    (0..count).map(move |offset| (first + offset) % count)
}

/// Of two that are not out the one with the lower score: two of these, however many are out, or what is slow would win against what must not be
/// taken.
fn draw<S: PartialOrd>(
    ready: &[Arc<Endpoint>],
    random: &mut impl FnMut() -> u64,
    is_out: impl Fn(usize) -> bool,
    score: impl Fn(usize) -> S,
) -> Option<usize> {
    let count = ready.len();
    if count < 2 {
        return count.checked_sub(1).filter(|index| !is_out(*index));
    }
    let bits = random();
    let first = below(bits, count);
    let mut second = below(bits >> 32, count - 1);
    if second >= first {
        second += 1;
    }
    let better = |first: usize, second: usize| if score(second) < score(first) { second } else { first };
    let first = match (is_out(first), is_out(second)) {
        (false, false) => return Some(better(first, second)),
        (false, true) => first,
        (true, false) => second,
        (true, true) => one(count, random, &is_out)?,
    };
    let second = one(count, random, |index| index == first || is_out(index));
    Some(second.map_or(first, |second| better(first, second)))
}

/// One of `count` at random that is not out.
fn one(count: usize, random: &mut impl FnMut() -> u64, is_out: impl Fn(usize) -> bool) -> Option<usize> {
    for _ in 0..limits::DRAWS {
        let index = below(random(), count);
        if !is_out(index) {
            return Some(index);
        }
    }
    from(below(random(), count), count).find(|index| !is_out(*index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::endpoint;

    /// A small generator, so that the tests are the same each time (SplitMix64).
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 7_u64;
        std::iter::from_fn(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            Some(mixed ^ mixed >> 31)
        })
    }

    fn endpoints(count: u8) -> Vec<Arc<Endpoint>> {
        (0..count).map(|last| Arc::new(endpoint(&format!("10.0.0.{last}:80"), "u"))).collect()
    }

    #[test]
    fn equal_loads_share_equally() {
        let endpoints = endpoints(10);
        let mut hits = [0_u32; 10];
        for random in numbers().take(100_000) {
            hits[pick(&endpoints, Duration::ZERO, || random, None).unwrap()] += 1;
        }
        assert!(hits.iter().all(|hit| (9_000..11_000).contains(hit)), "{hits:?}");
    }

    #[test]
    fn the_slow_one_is_avoided_but_not_forgotten() {
        let endpoints = endpoints(3);
        let now = Duration::from_secs(1);
        endpoints[1].load.finish(now, Duration::from_secs(1));
        let slow = numbers().take(1000).filter(|random| pick(&endpoints, now, || *random, None) == Some(1)).count();
        assert_eq!(slow, 0);
        let later = Duration::from_secs(120);
        for fast in [0, 2] {
            endpoints[fast].load.finish(later, Duration::from_millis(5));
        }
        assert!(numbers().take(1000).any(|random| pick(&endpoints, later, || random, None) == Some(1)));
    }

    #[test]
    fn what_failed_is_taken_only_when_alone() {
        let mut random = numbers();
        let mut random = || random.next().unwrap();
        let two = endpoints(2);
        assert!((0..100).all(|_| pick(&two, Duration::ZERO, &mut random, Some(&two[0])) == Some(1)));
        let one = endpoints(1);
        assert_eq!(pick(&one, Duration::ZERO, || 0, Some(&one[0])), Some(0));
        assert_eq!(pick(&[], Duration::ZERO, || 0, None), None);
    }

    /// Seen to fail when the other one of the two that were drawn is taken: a third of what failed went to the slow one.
    #[test]
    fn without_what_failed_there_are_still_two_to_choose_from() {
        let mut random = numbers();
        let mut random = || random.next().unwrap();
        let now = Duration::from_secs(1);
        for count in 4..12 {
            let endpoints = endpoints(count);
            endpoints[1].load.finish(now, Duration::from_secs(1));
            let mut hits = vec![0_u32; count.into()];
            for _ in 0..10_000 {
                hits[pick(&endpoints, now, &mut random, Some(&endpoints[0])).unwrap()] += 1;
            }
            assert_eq!(hits[..2], [0, 0], "{hits:?}");
            let fair = 10_000 / (u32::from(count) - 2);
            assert!(hits[2..].iter().all(|hit| (fair * 8 / 10..fair * 12 / 10).contains(hit)), "{hits:?}");
        }
    }
}
