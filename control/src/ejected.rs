//! Pods that breakers of nodes have taken out, as news for people. Must never tell of one pod more often than its allowance, nor call one
//! back that a replica which did not answer may still have out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{
    allowance::Allowance,
    index::Index,
    limits,
    notices::{Notice, Reason},
    replicas::Gathered,
};

#[cfg(test)]
mod tests;

/// A port of a Service, `namespace/name`.
type Port = (String, u32);
/// By how many nodes a pod is out, for each port of a Service.
type Out = BTreeMap<Port, usize>;

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Ejected {
    /// By uid.
    pods: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    /// As out.
    out: BTreeSet<Port>,
    allowance: Allowance,
    at: Instant,
}

impl Ejected {
    /// What is news since the last look, as far as it may be told now. `occasion` distinguishes it from the same news of another time.
    pub(crate) fn look(&mut self, gathered: &Gathered, index: &Index, now: Instant, occasion: &str) -> Vec<Notice> {
        self.forget(index, now);
        let current = current(gathered);
        let is_whole = gathered.missing_replicas().is_empty();
        let known: BTreeSet<String> = self.pods.keys().chain(current.keys()).cloned().collect();
        let mut news = Vec::new();
        let none = Out::new();
        for uid in known {
            let Some(pod) = index.pod_by_uid(&uid) else { continue };
            let out = current.get(&uid).unwrap_or(&none);
            let room = limits::EJECTIONS_PER_LOOK.saturating_sub(news.len());
            let told = self.tell(uid, out, is_whole, room, now).into_iter();
            news.extend(told.map(|(reason, note)| Notice::of(pod, reason, note).on(occasion)));
        }
        news
    }

    /// Of one pod: at most one that it is out, and one that it is back.
    fn tell(&mut self, uid: String, out: &Out, is_whole: bool, room: usize, now: Instant) -> Vec<(Reason, String)> {
        if !self.pods.contains_key(&uid) && self.pods.len() >= limits::EJECTED_PODS {
            return Vec::new();
        }
        let told = self.pods.entry(uid).or_insert_with(|| Told {
            out: BTreeSet::new(),
            allowance: Allowance::full(limits::EJECTIONS_BURST, limits::EJECTIONS_PER_SECOND, now),
            at: now,
        });
        let newly: Out =
            out.iter().filter(|(port, _)| !told.out.contains(port)).map(|(p, n)| (p.clone(), *n)).collect();
        let back: BTreeSet<Port> =
            told.out.iter().filter(|port| is_whole && !out.contains_key(port)).cloned().collect();
        let mut news = Vec::new();
        if !newly.is_empty() && news.len() < room && told.allowance.take_now(now) {
            news.push((Reason::EndpointEjected, ejected_note(&newly)));
            told.out.extend(newly.into_keys());
        }
        if !back.is_empty() && news.len() < room && told.allowance.take_now(now) {
            news.push((Reason::EndpointReinstated, reinstated_note(&back)));
            told.out.retain(|port| !back.contains(port));
        }
        if !news.is_empty() {
            told.at = now;
        }
        news
    }

    /// Those that are gone, and those of whom nothing was told for so long that their allowance is whole again.
    fn forget(&mut self, index: &Index, now: Instant) {
        let calm = Duration::from_secs_f64(limits::EJECTIONS_BURST / limits::EJECTIONS_PER_SECOND);
        self.pods.retain(|uid, told| {
            let is_over = told.out.is_empty() && now.duration_since(told.at) >= calm;
            !is_over && index.pod_by_uid(uid).is_some()
        });
    }
}

/// By uid.
fn current(gathered: &Gathered) -> BTreeMap<String, Out> {
    let mut all: BTreeMap<String, Out> = BTreeMap::new();
    for out in gathered.nodes.values().flat_map(|node| &node.out) {
        *all.entry(out.uid.clone()).or_default().entry((out.service.clone(), out.port)).or_default() += 1;
    }
    all
}

fn ejected_note(out: &Out) -> String {
    let ports = out.iter().map(|((service, port), nodes)| {
        let plural = if *nodes == 1 { "" } else { "s" };
        format!("{service} port {port} (at {nodes} node{plural})")
    });
    format!(
        "requests to it keep failing: circuit breakers keep those of Service {} from it, but for a trial now and then; see `weir stat endpoints -A`",
        ports.collect::<Vec<_>>().join(", ")
    )
}

fn reinstated_note(back: &BTreeSet<Port>) -> String {
    let ports: Vec<String> = back.iter().map(|(service, port)| format!("{service} port {port}")).collect();
    format!("requests of Service {} are sent to it again", ports.join(", "))
}
