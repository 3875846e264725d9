//! Pods that the CNI plugin announces, met with what proxies ask for. Must never answer a pod's runtime twice.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

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
        let announced = self.arrivals.network(&spec.uid).map(|netns| self.here(netns));
        announced.filter(|netns| netns.exists()).or_else(|| self.processes.as_mut()?.network(&spec.uid))
    }

    /// A container runtime's file as we see it.
    fn here(&self, netns: &Path) -> PathBuf {
        self.processes.as_ref().map_or_else(|| netns.to_owned(), |processes| processes.here(netns))
    }

    /// A pod has its network, and no process of its own yet.
    pub(super) fn arrive(&mut self, client: u64, uid: &str, namespace: String, netns: PathBuf) {
        let here = self.here(&netns);
        let known = self.pods.get(uid).map(|pod| pod.state.inode);
        let has_moved = match known.map(|inode| Namespace::open(&here).map(|found| found.inode() != inode)) {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => true,
            // Whether it is the one that is captured cannot be told.
            Some(Err(error)) => {
                return self.not_yet(client, format!("network namespace {}: {error}", here.display()));
            }
        };
        if !self.arrivals.arrive(client, uid, namespace, netns, Instant::now()) {
            return self.not_yet(client, format!("{} pods wait to be captured already", limits::CNI_WAITING));
        }
        // The same pod with a new sandbox: what was captured is no longer its own.
        if has_moved {
            tracing::info!(uid, "the pod has a new network namespace");
            self.lose(uid);
        }
        if let Some((spec, _reason)) = self.waiting.get(uid) {
            self.enrol(spec.clone());
        }
    }

    fn not_yet(&mut self, client: u64, reason: String) {
        self.clients.answer(client, Reply::Arrived { arrival: Arrival::NotYet { reason } }, Vec::new());
    }

    /// A pod's network goes away: its namespace is looked at when the container runtime is through with it.
    pub(super) fn depart(&mut self, uid: &str, netns: &Path) {
        // A runtime that knows no file any more: then ours is that one if it is gone.
        let gone = self.arrivals.network(uid).filter(|known| !self.here(known).exists()).map(Path::to_owned);
        let netns = gone.filter(|_| netns.as_os_str().is_empty()).unwrap_or_else(|| netns.to_owned());
        self.arrivals.depart(uid, &netns);
        if self.pods.contains_key(uid) {
            self.changed.insert(uid.to_owned(), Instant::now() + limits::CNI_DEPART);
        }
    }

    /// Tells container runtimes what was decided.
    pub(super) fn answer_newcomers(&mut self) {
        let now = Instant::now();
        self.arrivals.keep(|client| self.clients.is_connected(client));
        for uid in self.arrivals.uids() {
            let progress = match (self.pods.get(&uid), self.waiting.get(&uid)) {
                (Some(pod), _) if pod.phase == Phase::Enrolled => Progress::Captured,
                (Some(_leaving), _) => Progress::Refused("the pod is still leaving from before"),
                (None, Some((_, reason))) => Progress::Refused(reason),
                (None, None) => Progress::Unasked,
            };
            match self.arrivals.verdict(&uid, progress, now) {
                Verdict::Wait => {}
                // The node leaves the mesh.
                Verdict::Capture if self.closing => self.answer_newcomer(&uid, &Arrival::Plain),
                Verdict::Capture => {
                    tracing::warn!(uid, "control is away and the namespace is meshed: capturing with default settings");
                    // Not to be waited for: nobody would say when such a pod is gone. The runtime announces it again.
                    let arrival = match self.enrol_new(PodSpec { uid: uid.clone(), ..PodSpec::default() }) {
                        Ok(_captured) => Arrival::Captured,
                        Err(error) => Arrival::NotYet { reason: error.to_string() },
                    };
                    self.answer_newcomer(&uid, &arrival);
                }
                Verdict::Answer(arrival) => self.answer_newcomer(&uid, &arrival),
            }
        }
    }

    fn answer_newcomer(&mut self, uid: &str, arrival: &Arrival) {
        for client in self.arrivals.answered(uid) {
            self.clients.answer(client, Reply::Arrived { arrival: arrival.clone() }, Vec::new());
        }
    }
}
