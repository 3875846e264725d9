//! A ring of samples, each holding what grew during it. Must never hold what did not change.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{routes, traffic::Key};
use crate::{
    limits,
    telemetry::{BUCKETS, DURATION_BUCKETS, HttpCounts, RouteCounts, TcpCounts},
};

/// Growth of one key during one sample; most have a few latency buckets only.
#[derive(Debug, Default)]
struct Growth {
    success: u64,
    failure: u64,
    latency: Vec<(u8, u64)>,
    read: u64,
    written: u64,
}

/// The same of one line about a route.
#[derive(Debug, Default)]
struct RouteGrowth {
    success: u64,
    failure: u64,
    timeouts: u64,
    retries: u64,
    durations: Vec<(u8, u64)>,
}

struct Sample {
    began: Duration,
    ended: Duration,
    traffic: HashMap<Arc<Key>, Growth>,
    routes: HashMap<routes::Key, RouteGrowth>,
}

impl Sample {
    fn new(now: Duration) -> Sample {
        Sample { began: now, ended: now, traffic: HashMap::new(), routes: HashMap::new() }
    }
}

/// Sum of one key over a window, and its gauges.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) success: u64,
    pub(super) failure: u64,
    pub(super) latency: [u64; BUCKETS],
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) open: u64,
}

/// The last `limits::SAMPLES` samples and the one that is being filled.
pub(super) struct Window {
    closed: VecDeque<Sample>,
    filling: Sample,
    // One copy of each key, however many samples it is in.
    keys: HashSet<Arc<Key>>,
}

impl Window {
    pub(super) fn new(now: Duration) -> Window {
        Window { closed: VecDeque::new(), filling: Sample::new(now), keys: HashSet::new() }
    }

    /// Ends the sample that is being filled and begins the next.
    pub(super) fn close(&mut self, now: Duration) {
        self.filling.ended = now;
        if self.closed.len() >= limits::SAMPLES {
            self.closed.pop_front();
        }
        self.closed.push_back(std::mem::replace(&mut self.filling, Sample::new(now)));
        self.keys.retain(|key| Arc::strong_count(key) > 1);
    }

    pub(super) fn add_http(&mut self, key: Key, grew: &HttpCounts) {
        let growth = self.growth(key);
        growth.success += grew.success;
        growth.failure += grew.failure;
        add_buckets(&mut growth.latency, &grew.latency);
    }

    pub(super) fn add_route(&mut self, mut key: routes::Key, grew: &RouteCounts) {
        let routes = &mut self.filling.routes;
        if routes.len() >= limits::SAMPLE_ROUTES && !routes.contains_key(&key) {
            key = key.other();
        }
        let growth = routes.entry(key).or_default();
        growth.success += grew.success;
        growth.failure += grew.failure;
        growth.timeouts += grew.timeouts;
        growth.retries += grew.retries;
        add_buckets(&mut growth.durations, &grew.durations);
    }

    pub(super) fn add_tcp(&mut self, key: Key, grew: &TcpCounts) {
        let growth = self.growth(key);
        growth.read += grew.read;
        growth.written += grew.written;
    }

    /// Sums of the samples that reach into the last `wanted`, and how much time they cover.
    pub(super) fn sum(&self, now: Duration, wanted: Duration) -> (Duration, HashMap<Arc<Key>, Sum>) {
        let mut sums: HashMap<Arc<Key>, Sum> = HashMap::new();
        let mut began = self.filling.began;
        for sample in self.recent(now, wanted) {
            began = sample.began;
            for (key, growth) in &sample.traffic {
                let sum = sums.entry(Arc::clone(key)).or_default();
                sum.success += growth.success;
                sum.failure += growth.failure;
                sum.read += growth.read;
                sum.written += growth.written;
                for (bucket, count) in &growth.latency {
                    if let Some(total) = sum.latency.get_mut(usize::from(*bucket)) {
                        *total += count;
                    }
                }
            }
        }
        (now.saturating_sub(began), sums)
    }

    /// The same of the routes that are `wanted`.
    pub(super) fn sum_routes(
        &self,
        now: Duration,
        time: Duration,
        is_wanted: impl Fn(&routes::Key) -> bool,
    ) -> HashMap<&routes::Key, RouteCounts> {
        let mut sums: HashMap<&routes::Key, RouteCounts> = HashMap::new();
        let growths = self.recent(now, time).flat_map(|sample| &sample.routes);
        for (key, growth) in growths.filter(|(key, _)| is_wanted(key)) {
            let sum = sums.entry(key).or_default();
            sum.success += growth.success;
            sum.failure += growth.failure;
            sum.timeouts += growth.timeouts;
            sum.retries += growth.retries;
            let sum: &mut [u64; DURATION_BUCKETS] = &mut sum.durations;
            for (bucket, count) in &growth.durations {
                if let Some(total) = sum.get_mut(usize::from(*bucket)) {
                    *total += count;
                }
            }
        }
        sums
    }

    /// Samples that reach into the last `wanted`, the youngest first.
    fn recent(&self, now: Duration, wanted: Duration) -> impl Iterator<Item = &Sample> {
        let since = now.saturating_sub(wanted);
        let closed = self.closed.iter().rev().take_while(move |sample| sample.ended > since);
        std::iter::once(&self.filling).chain(closed)
    }

    /// Samples that were closed.
    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.closed.len()
    }

    fn growth(&mut self, mut key: Key) -> &mut Growth {
        if self.filling.traffic.len() >= limits::SAMPLE_KEYS && !self.filling.traffic.contains_key(&key) {
            key = Key::other(key.direction, key.workload);
        }
        let key = match self.keys.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let key = Arc::new(key);
                self.keys.insert(Arc::clone(&key));
                key
            }
        };
        self.filling.traffic.entry(key).or_default()
    }
}

fn add_buckets(held: &mut Vec<(u8, u64)>, grew: &[u64]) {
    for (bucket, count) in (0_u8..).zip(grew).filter(|(_, count)| **count > 0) {
        match held.iter_mut().find(|(known, _)| *known == bucket) {
            Some((_, sum)) => *sum += count,
            None => held.push((bucket, *count)),
        }
    }
}
