//! Pods that the CNI plugin announces, met with what proxies ask for. Must never answer a pod's runtime twice.

use std::{path::PathBuf, time::Instant};

use super::Keeper;
use crate::{
    handover::{Arrival, PodSpec, Reply},
    holder::{
        arrivals::{Progress, Verdict},
        namespace::Namespace,
        pod::Phase,
    },
    limits,
};

impl Keeper {
    /// Where the pod's network is: said by who asks, by a file, by the CNI plugin, or found among the processes.
    pub(super) fn network(&mut self, spec: &PodSpec) -> Option<PathBuf> {
        if let Some(netns) = &spec.netns {
            return Some(netns.clone());
        }
        if let Some(file) = self.files.get(&spec.uid) {
            return Some(file.netns.clone());
        }
        let announced = self.arrivals.network(&spec.uid).filter(|netns| netns.exists());
        announced.map(PathBuf::from).or_else(|| self.processes.as_mut()?.network(&spec.uid))
    }

    /// A pod has its network, and no process of its own yet.
    pub(super) fn arrive(&mut self, client: u64, uid: &str, namespace: String, netns: PathBuf) {
        let netns = self.processes.as_ref().map_or(netns.clone(), |processes| processes.here(netns));
        let inode = Namespace::open(&netns).map(|namespace| namespace.inode()).ok();
        if !self.arrivals.arrive(client, uid, namespace, netns, Instant::now()) {
            let reason = format!("{} pods wait to be captured already", limits::CNI_WAITING);
            self.clients.answer(client, Reply::Arrived { arrival: Arrival::NotYet { reason } }, Vec::new());
            return;
        }
        // The same pod with a new sandbox: what was captured is no longer its own.
        if self.pods.get(uid).is_some_and(|pod| inode.is_some_and(|inode| pod.state.inode != inode)) {
            tracing::info!(uid, "the pod has a new network namespace");
            self.lose(uid);
        }
        if let Some((spec, _reason)) = self.waiting.get(uid) {
            self.enrol(spec.clone());
        }
    }

    /// A pod's network goes away: its namespace is looked at when the container runtime is through with it.
    pub(super) fn depart(&mut self, uid: &str) {
        self.arrivals.depart(uid);
        if self.pods.contains_key(uid) {
            self.changed.insert(uid.to_owned(), Instant::now() + limits::CNI_DEPART);
        }
    }

    /// Tells container runtimes what was decided.
    pub(super) fn answer_newcomers(&mut self) {
        let now = Instant::now();
        for uid in self.arrivals.uids() {
            let progress = match (self.pods.get(&uid), self.waiting.get(&uid)) {
                (Some(pod), _) if pod.phase == Phase::Enrolled => Progress::Captured,
                (Some(_leaving), _) => Progress::Refused("the pod is still leaving from before"),
                (None, Some((_, reason))) => Progress::Refused(reason),
                (None, None) => Progress::Unasked,
            };
            match self.arrivals.verdict(&uid, progress, now) {
                Verdict::Wait => {}
                Verdict::Capture => {
                    tracing::warn!(uid, "control is away and the namespace is meshed: captured with default settings");
                    self.enrol(PodSpec { uid, ..PodSpec::default() });
                }
                Verdict::Answer(arrival) => {
                    for client in self.arrivals.answered(&uid) {
                        let reply = Reply::Arrived { arrival: arrival.clone() };
                        self.clients.answer(client, reply, Vec::new());
                    }
                }
            }
        }
    }
}
