//! Chooses one of many endpoints, as the Service asks for. Unless it asks for anything: the less loaded of two random ones ("power of two
//! choices", Mitzenmacher 2001), by peak EWMA.
//!
//! Must never cost more for a large service than for a small one, as long as breakers leave most endpoints in.

mod key;
mod ramp;
mod ring;
mod settings;
#[cfg(test)]
mod tests;
mod turns;

use std::{sync::Arc, time::Duration};

pub(crate) use self::key::hash;
pub use self::{
    key::Key,
    settings::{HashBy, Kind, Settings},
};
use self::{ramp::Ramp, ring::Ring, turns::Turns};
use crate::{
    breaker::{Admission, Breaker},
    limits,
    snapshot::Endpoint,
};

/// What one endpoint is chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The endpoints that the balancer was made for. All of them must be ready.
    pub ready: &'a [Arc<Endpoint>],
    /// Time since the epoch of loads and breakers.
    pub now: Duration,
    /// What the request is hashed by; none where it lacks that, or nobody asks for it.
    pub key: Option<Key>,
    /// It failed just now and is taken only when alone.
    pub exclude: Option<&'a Endpoint>,
}

impl Choice<'_> {
    fn is_excluded(&self, index: usize) -> bool {
        self.exclude.is_some_and(|excluded| std::ptr::eq(&raw const *self.ready[index], excluded))
    }
}

/// How the endpoints of one service are chosen between.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    settings: Settings,
    way: Way,
    /// None where nobody is new.
    ramp: Option<Ramp>,
    /// None where zones make no difference.
    near: Option<Near>,
}

/// Endpoints of the node's own zone: the first ones.
#[derive(Clone, Copy, Debug)]
struct Near {
    count: usize,
    /// Open requests at the one that is chosen of them from which on all are asked.
    overflow: u32,
}

/// The kind, with what it needs to know.
#[derive(Clone, Debug, Default)]
enum Way {
    #[default]
    PeakEwma,
    LeastRequest,
    RoundRobin(Arc<Turns>),
    Random,
    ConsistentHash(Arc<Ring>),
}

impl Balancer {
    /// Over these endpoints, of which the first `near_count` are in the node's own zone. `before`: the same service's, with the endpoints that it was for;
    /// whose turn it was stays.
    pub fn new(
        settings: Settings,
        ready: &[Arc<Endpoint>],
        near_count: usize,
        before: Option<(&Balancer, &[Arc<Endpoint>])>,
    ) -> Balancer {
        let held = before.map(|(before, _ready)| &before.way);
        let way = match (&settings.kind, held) {
            (Kind::PeakEwma, _) => Way::PeakEwma,
            (Kind::LeastRequest, _) => Way::LeastRequest,
            (Kind::Random, _) => Way::Random,
            (Kind::RoundRobin, Some(Way::RoundRobin(turns))) => Way::RoundRobin(Arc::clone(turns)),
            (Kind::RoundRobin, _) => Way::RoundRobin(Arc::default()),
            (Kind::ConsistentHash(_), Some(Way::ConsistentHash(ring)))
                if before.is_some_and(|(_, of)| same(of, ready)) =>
            {
                Way::ConsistentHash(Arc::clone(ring))
            }
            (Kind::ConsistentHash(_), _) => Way::ConsistentHash(Arc::new(Ring::new(ready))),
        };
        let ramp = match &settings.kind {
            // A key belongs to its endpoint from the beginning.
            Kind::ConsistentHash(_) => None,
            _other => settings.slow_start.and_then(|window| Ramp::new(window, ready)),
        };
        let near = settings.zone_overflow.filter(|_| (1..ready.len()).contains(&near_count));
        let near = near.map(|overflow| Near { count: near_count, overflow: overflow.get() });
        Balancer { settings, way, ramp, near }
    }

    /// What it goes by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a connection of which no request is seen counts as one that is open, for as long as it is.
    pub fn counts_connections(&self) -> bool {
        // Else nobody would see that those nearby have enough.
        matches!(self.way, Way::LeastRequest) || self.settings.zone_overflow.is_some()
    }

    /// Index of the endpoint to use; `None` when there is none.
    ///
    /// `random` decides: the same numbers give the same choice.
    pub fn pick(&self, choice: &Choice<'_>, mut random: impl FnMut() -> u64) -> Option<usize> {
        let drawn = self.draw(choice, &mut random, |index| choice.is_excluded(index), |_index| true);
        // The excluded one is the only one.
        drawn.or_else(|| choice.ready.len().checked_sub(1))
    }

    /// The same among those that `breaker` lets a request through to; `None` when it does so to none of them.
    pub fn pick_admitted(
        &self,
        choice: &Choice<'_>,
        breaker: &Breaker,
        mut random: impl FnMut() -> u64,
    ) -> Option<(usize, Admission)> {
        let Choice { ready, now, .. } = *choice;
        if breaker.panics(ready, now) {
            let index = self.pick(choice, random)?;
            // Trials go on: how else would it end.
            let admission = ready[index].admit(breaker, now).unwrap_or(Admission::In);
            return Some((index, admission));
        }
        let admitted = |index: usize| ready[index].admit(breaker, now).map(|admission| (index, admission));
        let is_out = |index: usize| choice.is_excluded(index) || !ready[index].is_available(now);
        // A trial that is due is made however slow its failures were: nothing else would ever show that it is well again.
        let is_in = |index: usize| ready[index].health.as_ref().is_none_or(|health| health.is_in());
        // Another one may have taken a trial meanwhile.
        for _ in 0..limits::DRAWS {
            let Some(index) = self.draw(choice, &mut random, is_out, is_in) else { break };
            if let Some(admitted) = admitted(index) {
                return Some(admitted);
            }
        }
        let mut all = from(below(random(), ready.len()), ready.len());
        let found = all.clone().filter(|index| !choice.is_excluded(*index)).find_map(admitted);
        found.or_else(|| all.find(|index| choice.is_excluded(*index)).and_then(admitted))
    }

    /// As [`Balancer::pick`], of those that no breaker has taken out as long as there are any: for what breakers do not judge.
    pub fn pick_in(&self, choice: &Choice<'_>, mut random: impl FnMut() -> u64) -> Option<usize> {
        let is_out = |index: usize| choice.ready[index].health.as_ref().is_some_and(|health| !health.is_in());
        let is_out_or_tried = |index: usize| choice.is_excluded(index) || is_out(index);
        let drawn = self.draw(choice, &mut random, is_out_or_tried, |_index| true);
        drawn.or_else(|| self.pick(choice, random))
    }

    /// One that is not out: of the node's own zone as long as that one has room, else of the others as long as that one has; else of all, as if there were no
    /// zones.
    fn draw(
        &self,
        choice: &Choice<'_>,
        random: &mut impl FnMut() -> u64,
        is_out: impl Fn(usize) -> bool,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let Some(Near { count, overflow }) = self.near
            && let Some((near, far)) = choice.ready.split_at_checked(count)
        {
            let has_room = |index: &usize| choice.ready[*index].load.pending() < overflow;
            let drawn = self.draw_of(&Choice { ready: near, ..*choice }, random, &is_out, &is_in);
            if let Some(index) = drawn.filter(has_room) {
                return Some(index);
            }
            let (is_out, is_in) = (|index: usize| is_out(count + index), |index: usize| is_in(count + index));
            let drawn = self.draw_of(&Choice { ready: far, ..*choice }, random, is_out, is_in);
            if let Some(index) = drawn.map(|index| count + index).filter(has_room) {
                return Some(index);
            }
        }
        self.draw_of(choice, random, is_out, is_in)
    }

    /// One that is not out. `is_in` makes no difference but to the kinds that compare two: who is not in wins.
    fn draw_of(
        &self,
        choice: &Choice<'_>,
        random: &mut impl FnMut() -> u64,
        is_out: impl Fn(usize) -> bool,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let ramp = self.ramp.as_ref().filter(|ramp| ramp.is_on(choice.now));
        if let Some(ramp) = ramp {
            let toss = random();
            let is_passed = |index: usize| ramp.is_passed(&choice.ready[index], index, choice.now, toss);
            let drawn = self.way.draw(choice, random, |index| is_out(index) || is_passed(index), &is_in);
            if drawn.is_some() {
                return drawn;
            }
        }
        self.way.draw(choice, random, is_out, is_in)
    }
}

fn same(one: &[Arc<Endpoint>], other: &[Arc<Endpoint>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

impl Way {
    fn draw(
        &self,
        choice: &Choice<'_>,
        random: &mut impl FnMut() -> u64,
        is_out: impl Fn(usize) -> bool,
        is_in: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (ready, now) = (choice.ready, choice.now);
        match self {
            Way::PeakEwma => two(ready.len(), random, is_out, |index| (is_in(index), ready[index].load.score(now))),
            Way::LeastRequest => two(ready.len(), random, is_out, |index| (is_in(index), ready[index].load.pending())),
            Way::RoundRobin(turns) => turns.draw(ready.len(), random, is_out),
            Way::Random => one(ready.len(), random, is_out),
            Way::ConsistentHash(ring) => match choice.key {
                Some(key) => ring.draw(key, ready.len(), is_out),
                None => Way::PeakEwma.draw(choice, random, is_out, is_in),
            },
        }
    }
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
fn two<S: PartialOrd>(
    count: usize,
    random: &mut impl FnMut() -> u64,
    is_out: impl Fn(usize) -> bool,
    score: impl Fn(usize) -> S,
) -> Option<usize> {
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
    if count == 0 {
        return None;
    }
    for _ in 0..limits::DRAWS {
        let index = below(random(), count);
        if !is_out(index) {
            return Some(index);
        }
    }
    from(below(random(), count), count).find(|index| !is_out(*index))
}

/// SplitMix64's mixing (Steele, Lea and Flood 2014): each bit of the result depends on all of `bits`.
fn mix(bits: u64) -> u64 {
    let mixed = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
