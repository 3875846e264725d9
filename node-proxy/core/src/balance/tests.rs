//! Shares, and what is never chosen. What follows from days of requests is in `simulation` and `scenarios`.

mod scenarios;
mod simulation;
mod world;
mod zones;

use super::*;
use crate::snapshot::{PodRef, tests::endpoint};

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

pub(super) fn endpoints(count: u8) -> Vec<Arc<Endpoint>> {
    (0..count).map(|last| Arc::new(endpoint(&format!("10.0.0.{last}:80"), &format!("u{last}")))).collect()
}

/// Pods, named after their numbers.
pub(super) fn named(count: usize) -> Vec<Arc<Endpoint>> {
    let named = |number: usize| {
        let [.., high, low] = number.to_be_bytes();
        let pod = PodRef { namespace: "shop".into(), name: format!("web-{number}").into(), ..PodRef::default() };
        Endpoint { pod: Arc::new(pod), ..endpoint(&format!("10.1.{high}.{low}:80"), &format!("u{number}")) }
    };
    (0..count).map(|number| Arc::new(named(number))).collect()
}

fn choice(ready: &[Arc<Endpoint>], now: Duration) -> Choice<'_> {
    Choice { ready, now, key: None, exclude: None }
}

/// By default.
fn pick(
    ready: &[Arc<Endpoint>],
    now: Duration,
    random: impl FnMut() -> u64,
    exclude: Option<&Endpoint>,
) -> Option<usize> {
    Balancer::default().pick(&Choice { exclude, ..choice(ready, now) }, random)
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

/// Seen to fail where turns begin anew: at random, then.
#[test]
fn whose_turn_it_is_outlives_changes_of_endpoints() {
    let settings = Settings { kind: Kind::RoundRobin, ..Settings::default() };
    let mut random = fastrand::Rng::with_seed(7);
    let all = endpoints(5);
    let mut balancer = Balancer::new(settings.clone(), &all, 0, None);
    let mut last = None;
    for _ in 0..50 {
        let picked = balancer.pick(&choice(&all, Duration::ZERO), || random.u64(..)).unwrap();
        assert!(last.is_none_or(|last| picked == (last + 1) % 5), "{picked} after {last:?}");
        last = Some(picked);
        balancer = Balancer::new(settings.clone(), &all, 0, Some((&balancer, &all)));
    }
}
