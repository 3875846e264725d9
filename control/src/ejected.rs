//! Pods that breakers of nodes have taken out, as news for people. Must never tell of one pod more often than its allowance, nor call one
//! back that a node which is silent may still have out, nor write what a node says of pods that are none of the Service's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{
    allowance::Allowance,
    index::Index,
    limits,
    notices::{Notice, Reason},
    objects::Name,
    replicas::Gathered,
};

#[cfg(test)]
mod tests;

/// A port of a Service, `namespace/name`.
type Port = (String, u32);
/// The nodes at which a pod is out, for each port of a Service.
type Out = BTreeMap<Port, BTreeSet<String>>;

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Ejected {
    /// By uid.
    pods: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    /// As out: the nodes that had it so, and when each was seen to.
    out: BTreeMap<Port, BTreeMap<String, Instant>>,
    allowance: Allowance,
    at: Instant,
}

impl Ejected {
    /// What is news since the last look, as far as it may be told now. `occasion` distinguishes it from the same news of another time.
    pub(crate) fn look(&mut self, gathered: &Gathered, index: &Index, now: Instant, occasion: &str) -> Vec<Notice> {
        self.forget(index, now);
        let current = current(gathered, index);
        let known: BTreeSet<String> = self.pods.keys().chain(current.keys()).cloned().collect();
        let mut news = Vec::new();
        let none = Out::new();
        for uid in known {
            let Some(pod) = index.pod_by_uid(&uid) else { continue };
            let out = current.get(&uid).unwrap_or(&none);
            let room = limits::EJECTIONS_PER_LOOK.saturating_sub(news.len());
            let told = self.tell(uid, out, gathered, room, now).into_iter();
            news.extend(told.map(|(reason, note)| Notice::of(pod, reason, note).on(occasion)));
        }
        news
    }

    /// Of one pod: at most one that it is out, and one that it is back.
    fn tell(
        &mut self,
        uid: String,
        out: &Out,
        gathered: &Gathered,
        room: usize,
        now: Instant,
    ) -> Vec<(Reason, String)> {
        if !self.pods.contains_key(&uid) && self.pods.len() >= limits::EJECTED_PODS {
            return Vec::new();
        }
        let told = self.pods.entry(uid).or_insert_with(|| Told {
            out: BTreeMap::new(),
            allowance: Allowance::full(limits::EJECTIONS_BURST, limits::EJECTIONS_PER_SECOND, now),
            at: now,
        });
        told.look(out, gathered, now);
        let newly: Out =
            out.iter().filter(|(port, _)| !told.out.contains_key(port)).map(|(p, n)| (p.clone(), n.clone())).collect();
        let back: BTreeSet<Port> =
            told.out.iter().filter(|(_, nodes)| nodes.is_empty()).map(|(port, _)| port.clone()).collect();
        let mut news = Vec::new();
        if !newly.is_empty() && news.len() < room && told.allowance.take_now(now) {
            news.push((Reason::EndpointEjected, ejected_note(&newly)));
            let seen = |nodes: BTreeSet<String>| nodes.into_iter().map(|node| (node, now)).collect();
            told.out.extend(newly.into_iter().map(|(port, nodes)| (port, seen(nodes))));
        }
        if !back.is_empty() && news.len() < room && told.allowance.take_now(now) {
            news.push((Reason::EndpointReinstated, reinstated_note(&back)));
            told.out.retain(|port, _| !back.contains(port));
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

impl Told {
    /// Which nodes still have it out. One that is silent, for a moment, or whose list is full may as well.
    fn look(&mut self, out: &Out, gathered: &Gathered, now: Instant) {
        let is_whole = gathered.missing_replicas().is_empty();
        for (port, nodes) in &mut self.out {
            let current = out.get(port);
            nodes.extend(current.into_iter().flatten().map(|node| (node.clone(), now)));
            nodes.retain(|node, seen| {
                let is_out = current.is_some_and(|current| current.contains(node));
                is_out
                    || match gathered.nodes.get(node) {
                        Some(node) if node.has_said_out => node.out.len() >= limits::OUT_PER_NODE,
                        _silent if !is_whole => {
                            *seen = now;
                            true
                        }
                        _silent => now.duration_since(*seen) < limits::OUT_NODE_GONE,
                    }
            });
        }
    }
}

/// By uid. Of what nodes say only what may be: a Service's port with the pod behind it.
fn current(gathered: &Gathered, index: &Index) -> BTreeMap<String, Out> {
    let mut all: BTreeMap<String, Out> = BTreeMap::new();
    let mut behind: HashMap<Port, BTreeSet<String>> = HashMap::new();
    for (name, out) in gathered.nodes.iter().flat_map(|(name, node)| node.out.iter().map(move |out| (name, out))) {
        let port = (out.service.clone(), out.port);
        let uids = behind.entry(port).or_insert_with_key(|(service, port)| pods_behind(index, service, *port));
        if uids.contains(&out.uid) {
            let ports = all.entry(out.uid.clone()).or_default();
            ports.entry((out.service.clone(), out.port)).or_default().insert(name.clone());
        }
    }
    all
}

/// Uids of the pods behind a port of a Service, `namespace/name`; none where there is no such port.
fn pods_behind(index: &Index, service: &str, port: u32) -> BTreeSet<String> {
    let name = service.split_once('/').map(|(namespace, name)| Name::new(namespace, name));
    let has_port = |name: &Name| {
        index.service(name).is_some_and(|service| service.ports.iter().any(|one| u32::from(one.port) == port))
    };
    let Some(name) = name.filter(has_port) else { return BTreeSet::new() };
    let slices = index.slices_of(&name).filter_map(|slice| index.slice(slice));
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let pods = endpoints.filter_map(|one| {
        // As nodes are told: whoever has the address now is who answers there.
        let named = one.pod.as_ref().and_then(|name| index.pod(name));
        let here = named.filter(|pod| pod.addresses.contains(&one.address));
        here.or_else(|| index.pod_by_address(&one.address)).or(named)
    });
    pods.map(|pod| pod.uid.to_string()).collect()
}

fn ejected_note(out: &Out) -> String {
    let ports = out.iter().map(|((service, port), nodes)| {
        let plural = if nodes.len() == 1 { "" } else { "s" };
        format!("{service} port {port} (at {} node{plural})", nodes.len())
    });
    format!(
        "requests to it keep failing: circuit breakers keep those of Service {} from it, but for a trial now and then; see `weir stat endpoints -A`",
        ports.collect::<Vec<_>>().join(", ")
    )
}

fn reinstated_note(back: &BTreeSet<Port>) -> String {
    let ports: Vec<String> = back.iter().map(|(service, port)| format!("{service} port {port}")).collect();
    format!("no node keeps requests of Service {} from it any more", ports.join(", "))
}
