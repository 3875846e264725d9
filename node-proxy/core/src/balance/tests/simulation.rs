//! Shares of each balancer, slow start and the breaker's transitions, over minutes of virtual time.

use weir_api::v1::{
    self,
    BalancerKind::{ConsistentHash, LeastRequest, PeakEwma, Random, RoundRobin},
};

use super::{world::*, *};
use crate::breaker::Change;

const KINDS: [v1::BalancerKind; 5] = [PeakEwma, LeastRequest, RoundRobin, Random, ConsistentHash];

fn hits(got: &std::collections::BTreeMap<String, u32>, servers: u8) -> Vec<u32> {
    (0..servers).map(|id| got.get(&format!("u{id}")).copied().unwrap_or_default()).collect()
}

/// Of a thousand.
fn permille(got: &std::collections::BTreeMap<String, u32>, id: u8) -> u32 {
    got.get(&format!("u{id}")).copied().unwrap_or_default() * 1000 / got.values().sum::<u32>()
}

#[test]
fn servers_that_are_alike_get_alike() {
    for kind in KINDS {
        let mut world = World::new(7, balancer(kind), None).with((0..5).map(|id| (id, GOOD)));
        let hits = hits(&world.run(SECOND * 100, MS * 5), 5);
        let fair = hits.iter().sum::<u32>() / 5;
        assert!(fair > 3500, "{hits:?}");
        let off = match kind {
            RoundRobin => 1,
            // A slow answer, and a draw that was not even.
            PeakEwma => fair * 15 / 100,
            // Of rings: a sixteenth, as a rule.
            ConsistentHash => fair * 20 / 100,
            _other => fair * 5 / 100,
        };
        assert!(hits.iter().all(|hits| hits.abs_diff(fair) <= off), "{kind:?}: {hits:?}");
    }
}

/// One of five takes twenty times as long. What is compared decides who hears of it.
#[test]
fn who_is_slow_is_avoided_by_those_who_look() {
    for kind in KINDS {
        let mut world = World::new(7, balancer(kind), None).with((0..5).map(|id| (id, GOOD)));
        world.servers.get_mut(&0).unwrap().latency = MS * 200;
        world.run(SECOND * 10, MS * 2);
        let got = world.run(SECOND * 60, MS * 2);
        let of_slow = permille(&got, 0);
        let expected = match kind {
            PeakEwma => 0..30,
            LeastRequest => 20..120,
            RoundRobin => 199..202,
            Random => 185..215,
            _hash => 160..240,
        };
        assert!(expected.contains(&of_slow), "{kind:?}: {of_slow} of 1000: {got:?}");
    }
}

#[test]
fn turns_are_exact_while_endpoints_stay_and_skip_who_is_gone() {
    let mut world = World::new(7, balancer(RoundRobin), None).with((0..6).map(|id| (id, GOOD)));
    for gone in 0..5 {
        let got = world.run(SECOND * 20, MS * 7);
        let hits = &hits(&got, 6)[gone..];
        let fewest = hits.iter().min().unwrap();
        assert!(hits.iter().all(|hits| hits - fewest <= 1) && *fewest > 400, "{hits:?}");
        world.servers.remove(&(gone as u8));
        world.tell();
    }
}

/// Its keys come back with it, and no other key ever moves.
#[test]
fn keys_stay_with_who_stays() {
    let mut world = World::new(7, balancer(ConsistentHash), None).with((0..8).map(|id| (id, GOOD)));
    let owners = |world: &mut World| -> Vec<Arc<str>> {
        (0..5000).map(|key| Arc::clone(&world.pick(key, None).unwrap().0.uid)).collect()
    };
    let before = owners(&mut world);
    world.servers.get_mut(&3).unwrap().ready = false;
    world.tell();
    let meanwhile = owners(&mut world);
    let moved = before.iter().zip(&meanwhile).filter(|(one, other)| one != other).count();
    assert!((400..850).contains(&moved), "{moved} of 5000 with eight servers");
    assert!(before.iter().zip(&meanwhile).all(|(one, other)| one == other || **one == *"u3"));
    world.servers.get_mut(&3).unwrap().ready = true;
    world.tell();
    assert_eq!(owners(&mut world), before);
}

/// One server more comes: a tenth of its share at first, then more, all of it in the end. Seen to fail where nobody is passed over, and, with
/// two servers, where who was passed over is looked at anew in the same request.
#[test]
fn a_new_server_gets_a_share_that_grows() {
    for kind in [PeakEwma, LeastRequest, RoundRobin, Random] {
        for old in [1, 4] {
            let slow = v1::Balancer { slow_start_ms: 100_000, ..balancer(kind) };
            let mut world = World::new(7, slow, None).with((0..old).map(|id| (id, GOOD)));
            world.run(SECOND * 100, MS * 2);
            let hits = hits(&world.run(SECOND * 20, MS * 2), old);
            assert!(hits.iter().all(|hits| *hits > 2000), "nobody was new");
            world.servers.insert(old, GOOD);
            world.tell();
            let shares: Vec<u32> = (0..12).map(|_| permille(&world.run(SECOND * 10, MS), old)).collect();
            for (at, share) in (0..).zip(&shares) {
                // On average over ten seconds: 10 %, 15 %, 25 % of what the others have, and so on.
                let part = (at * 10 + 5_u32).clamp(10, 100) * 10;
                let fair = 1000 * part / (1000 * u32::from(old) + part);
                // Of two it may win more often than every other time: it has less to do.
                let is_compared = matches!(kind, PeakEwma | LeastRequest);
                let most = if is_compared { fair * 2 + 10 } else { fair * 13 / 10 + 8 };
                let expected = fair * 5 / 10..=most;
                assert!(expected.contains(share), "{kind:?} after {} s: {share}, not {fair}: {shares:?}", at * 10);
            }
        }
    }
}

/// All of a new Service's endpoints are new, and one more that comes a moment later is as good as they are.
#[test]
fn a_service_that_is_new_is_not_slowed() {
    for kind in [PeakEwma, LeastRequest, RoundRobin, Random] {
        let slow = v1::Balancer { slow_start_ms: 60_000, ..balancer(kind) };
        // The Service is known before it has endpoints.
        let mut world = World::new(7, slow, None).with([]);
        for id in 0..5 {
            world.now += MS * 500;
            world.servers.insert(id, GOOD);
            world.tell();
        }
        let hits = hits(&world.run(SECOND * 10, MS), 5);
        let fair = hits.iter().sum::<u32>() / 5;
        assert!(
            fair > 1900 && hits.iter().all(|hits| (fair * 7 / 10..fair * 13 / 10).contains(hits)),
            "{kind:?}: {hits:?}"
        );
    }
}

fn breaker() -> v1::CircuitBreaker {
    v1::CircuitBreaker { max_failures: 5, min_penalty_ms: 1000, max_penalty_ms: 8000, ..Default::default() }
}

/// Out, a trial each 1, 2, 4, 8, 8… seconds, in again with the first that succeeds: whoever balances.
#[test]
fn every_balancer_makes_the_trials_that_bring_a_server_back() {
    for kind in KINDS {
        let mut world = World::new(7, balancer(kind), Some(breaker())).with((0..4).map(|id| (id, GOOD)));
        world.run(SECOND * 10, MS * 5);
        assert_eq!(world.changes, []);
        world.servers.get_mut(&2).unwrap().failing = 1000;
        let got = world.run(SECOND * 31, MS * 5);
        let times: Vec<Change> = world.changes.iter().map(|(_at, _uid, change)| *change).collect();
        let out = |seconds| Change::Ejected(SECOND * seconds);
        assert_eq!(times, [out(1), out(2), out(4), out(8), out(8), out(8)], "{kind:?}");
        assert!(world.changes.iter().all(|(_at, uid, _change)| uid == "u2"));
        // Those that were under way when it went out, too.
        assert!((10..=10 + 12).contains(&got["u2"]), "{kind:?}: five, five trials, and a few: {got:?}");
        for (before, after) in world.changes.iter().zip(&world.changes[1..]) {
            let Change::Ejected(penalty) = before.2 else { unreachable!() };
            let late = after.0 - before.0 - penalty;
            assert!(late < SECOND, "{kind:?}: {late:?} after it was due");
        }
        world.servers.get_mut(&2).unwrap().failing = 0;
        world.changes.clear();
        world.run(SECOND * 9, MS * 5);
        assert_eq!(world.changes.iter().map(|(_at, _uid, change)| *change).collect::<Vec<_>>(), [Change::Reinstated]);
        let share = permille(&world.run(SECOND * 30, MS * 5), 2);
        assert!((150..350).contains(&share), "{kind:?}: {share} of 1000 in the end");
    }
}

/// With three of four out all are asked as if they were in, until two are well again.
#[test]
fn in_a_panic_every_balancer_asks_all() {
    for kind in KINDS {
        let panicking = v1::CircuitBreaker { panic_permille: 500, max_penalty_ms: 1000, ..breaker() };
        let mut world = World::new(7, balancer(kind), Some(panicking)).with((0..4).map(|id| (id, GOOD)));
        for broken in 0..3 {
            world.servers.get_mut(&broken).unwrap().failing = 1000;
        }
        world.run(SECOND * 10, MS * 5);
        let got = world.run(SECOND * 10, MS * 5);
        assert!((0..3).all(|id| permille(&got, id) > 100), "{kind:?}: {got:?}");
        for well in 0..2 {
            world.servers.get_mut(&well).unwrap().failing = 0;
        }
        world.run(SECOND * 5, MS * 5);
        let got = world.run(SECOND * 10, MS * 5);
        assert!(permille(&got, 2) < 10, "{kind:?}: the third is out: {got:?}");
        assert!(permille(&got, 0) > 150 && permille(&got, 1) > 150, "{kind:?}: {got:?}");
    }
}
