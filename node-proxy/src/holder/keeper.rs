//! All that the holder holds: pods, proxies, the vault. One loop calls it, one event at a time.
//!
//! Must never wait: what takes time is a later step with its own time.

mod clients;
mod newcomers;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    time::Instant,
};

use weir_ebpf_common::MAX_PODS;

use self::clients::Clients;
use super::{
    Event, HolderError,
    arrivals::Arrivals,
    directory::PodFile,
    error::PodError,
    pod::{self, Left, Machine, Phase, Pod},
    processes::Processes,
    state::{Marks, key},
};
use crate::{
    handover::{FeatureReport, PodSpec, Reply},
    limits,
};

/// Everything held.
pub(super) struct Keeper {
    machine: Machine,
    clients: Clients,
    pods: HashMap<String, Pod>,
    /// Asked for, but not captured: no namespace yet, refused, or still on its way out. With the reason that was told.
    waiting: HashMap<String, (PodSpec, String)>,
    free: BTreeSet<u32>,
    files: HashMap<String, PodFile>,
    /// New pods that the CNI plugin announces.
    arrivals: Arrivals,
    /// Where pods are found that run already; none where there is no kubelet.
    processes: Option<Processes>,
    /// Uids enrolled because of a file.
    by_file: HashSet<String>,
    /// Changed namespaces, and when to look at them.
    changed: HashMap<String, Instant>,
    /// When listeners that were not returned are opened anew.
    give_up: Option<Instant>,
    retry: Instant,
    /// The node leaves the mesh.
    closing: bool,
    /// The kernel would not load a program ahead of need.
    is_stock_denied: bool,
}

impl Keeper {
    pub(super) fn new(machine: Machine, features: Vec<FeatureReport>, processes: Option<Processes>) -> Keeper {
        Keeper {
            machine,
            clients: Clients::new(features),
            pods: HashMap::new(),
            waiting: HashMap::new(),
            free: (0..MAX_PODS).collect(),
            files: HashMap::new(),
            arrivals: Arrivals::default(),
            processes,
            by_file: HashSet::new(),
            changed: HashMap::new(),
            give_up: None,
            retry: Instant::now() + limits::RECHECK,
            closing: false,
            is_stock_denied: false,
        }
    }

    /// Takes over what an earlier holder left, and removes what nobody knows any more.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        for state in self.machine.state.load()? {
            let (uid, slot) = (state.spec.uid.clone(), state.slot);
            if let Some(pod) = Pod::resume(&mut self.machine, state) {
                tracing::info!(uid, "took over a captured pod");
                self.free.remove(&slot);
                self.pods.insert(uid, pod);
            }
        }
        if self.pods.values().any(|pod| pod.listeners.is_none() && pod.phase == Phase::Enrolled) {
            self.give_up = Some(Instant::now() + limits::LISTENER_RETURN);
        }
        self.sweep();
        Ok(())
    }

    // Pins and map entries without a state file: their writer died in between.
    fn sweep(&mut self) {
        let known: HashSet<(u64, u32)> = self.pods.values().map(|pod| (pod.state.cookie, pod.state.slot)).collect();
        for (cookie, slot) in self.machine.programs.captured() {
            if !known.contains(&(cookie, slot)) {
                pod::forget(&mut self.machine, "unknown", cookie, slot);
            }
        }
        let keys: HashSet<String> = self.pods.keys().map(|uid| key(uid)).collect();
        for pinned in self.machine.programs.place().pinned_pods().unwrap_or_default() {
            if !keys.contains(&pinned)
                && let Err(error) = self.machine.programs.detach_pod(&pinned)
            {
                tracing::warn!(pinned, %error, "a forgotten program could not be detached");
            }
        }
        let slots: HashSet<u32> = self.pods.values().map(|pod| pod.state.slot).collect();
        for slot in self.machine.programs.configured() {
            if !slots.contains(&slot)
                && let Err(error) = self.machine.programs.remove_settings(slot)
            {
                tracing::warn!(slot, %error, "forgotten settings could not be removed");
            }
        }
    }

    /// Takes one event in.
    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::Connected { id, client } => self.clients.connected(id, client),
            Event::Gone { id } => self.clients.gone(id),
            Event::Request { id, request, fds } => self.request(id, request, fds),
            Event::Changed { uid } => {
                self.changed.entry(uid).or_insert_with(|| Instant::now() + limits::REPAIR_DELAY);
            }
            Event::Files { files } => self.take_files(files),
        }
        self.answer_newcomers();
    }

    /// When [`Keeper::tick`] has something to do.
    pub(super) fn due(&self) -> Instant {
        let pods = self.pods.values().map(Pod::due);
        let all = pods.chain(self.changed.values().copied()).chain(self.give_up).chain([self.retry]);
        let newcomers = self.arrivals.is_waiting().then(|| Instant::now() + limits::CNI_LOOK);
        all.chain(newcomers).min().unwrap_or(self.retry)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.give_up.is_some_and(|at| at <= now) {
            self.give_up = None;
            self.replace_lost_listeners();
        }
        let changed: Vec<String> =
            self.changed.iter().filter(|(_, at)| **at <= now).map(|(uid, _)| uid.clone()).collect();
        for uid in &changed {
            self.changed.remove(uid);
            self.look_after(uid);
        }
        let due: Vec<String> =
            self.pods.iter().filter(|(_, pod)| pod.due() <= now).map(|(uid, _)| uid.clone()).collect();
        for uid in &due {
            self.step(uid);
        }
        if self.retry <= now {
            self.retry = now + limits::RECHECK;
            self.try_waiting();
        }
        self.answer_newcomers();
    }

    /// Whether a pod that is enrolled next might wait for its program to be verified.
    pub(super) fn lacks_stock(&self) -> bool {
        !self.is_stock_denied && self.next_to_prepare().is_some()
    }

    /// Loads one program for the stock. Only when nobody waits for anything else.
    pub(super) fn stock(&mut self) {
        let Some(slot) = self.next_to_prepare() else { return };
        if let Err(error) = self.machine.programs.prepare(slot) {
            tracing::warn!(slot, %error, "no programs are loaded ahead; enrolling a pod will say more");
            self.is_stock_denied = true;
        }
    }

    fn next_to_prepare(&self) -> Option<u32> {
        let next = self.free.iter().take(limits::PROGRAM_STOCK);
        next.copied().find(|slot| !self.machine.programs.is_prepared(*slot))
    }

    fn step(&mut self, uid: &str) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        if pod.phase == Phase::Enrolled {
            self.look_after(uid);
            return;
        }
        match pod.step_out(&mut self.machine) {
            Ok(Left::Later) => {}
            Ok(Left::Listeners) => {
                self.clients.unenrolled(uid);
                match self.waiting.remove(uid) {
                    // Asked for again while it was leaving.
                    Some((spec, _reason)) => self.enrol(spec),
                    // The next step follows at once when nothing is open.
                    None => self.step(uid),
                }
            }
            Ok(Left::Everything) => self.gone(uid),
            Err(error) => {
                tracing::warn!(uid, %error, "a pod cannot leave in order; it is dropped");
                pod.undo(&mut self.machine);
                self.clients.unenrolled(uid);
                self.gone(uid);
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.free.insert(pod.state.slot);
            // Slots are given from the lowest on: what the stock holds beyond its size is the one that comes last.
            if let Some(last) = self.free.iter().nth(limits::PROGRAM_STOCK) {
                self.machine.programs.discard(*last);
            }
            self.changed.remove(uid);
            tracing::info!(uid, "pod released");
        }
        // Asked for again while it was leaving.
        if let Some((spec, _reason)) = self.waiting.remove(uid) {
            self.enrol(spec);
        }
    }

    fn look_after(&mut self, uid: &str) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        if pod.phase != Phase::Enrolled {
            return;
        }
        if !pod.is_alive() {
            tracing::info!(uid, "the pod's network namespace is gone");
            self.lose(uid);
            return;
        }
        match pod.repair(&mut self.machine) {
            Ok(0) => {}
            Ok(changes) => tracing::warn!(uid, changes, "rules or routes of a pod had been changed; repaired"),
            Err(error) => tracing::error!(uid, %error, "rules or routes of a pod cannot be repaired"),
        }
    }

    /// A pod's namespace is gone. Kubelet may give the pod another one: who was asked for is still wanted until somebody says otherwise.
    fn lose(&mut self, uid: &str) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        pod.undo(&mut self.machine);
        let wanted = (pod.phase == Phase::Enrolled && pod.is_declared).then(|| pod.state.spec.clone());
        let by_file = self.by_file.remove(uid);
        self.clients.unenrolled(uid);
        self.gone(uid);
        if let Some(spec) = wanted.filter(|_| !by_file && self.processes.is_some()) {
            self.wait(spec, PodError::NamespaceUnknown.to_string());
        }
    }

    /// Captures a pod, or applies its changed specification.
    fn enrol(&mut self, spec: PodSpec) {
        if self.closing {
            return;
        }
        let uid = spec.uid.clone();
        if let Some(pod) = self.pods.get_mut(&uid) {
            pod.is_declared = true;
            if matches!(pod.phase, Phase::Draining(_)) {
                self.recapture(spec);
            } else if pod.phase != Phase::Enrolled {
                self.wait(spec, "the pod is still leaving from before".to_owned());
            } else if pod.state.spec != spec
                && let Err(error) = pod.update(&mut self.machine, spec)
            {
                self.refuse(&uid, &error);
            }
            return;
        }
        match self.enrol_new(spec.clone()) {
            Ok(pod) => pod.is_declared = true,
            Err(error) => {
                self.refuse(&uid, &error);
                self.wait(spec, error.to_string());
            }
        }
    }

    /// Captures a pod that has only open connections left from before, and tells everyone.
    fn recapture(&mut self, spec: PodSpec) {
        let uid = spec.uid.clone();
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        match pod.come_back(&mut self.machine, spec.clone()) {
            Ok(()) => {
                tracing::info!(
                    uid,
                    slot = pod.state.slot,
                    "pod captured again; connections from before are still open"
                );
                self.waiting.remove(&uid);
                self.clients.enrolled(&uid, pod);
            }
            Err(error) => {
                self.refuse(&uid, &error);
                self.wait(spec, error.to_string());
            }
        }
    }

    /// Captures a pod and tells everyone.
    fn enrol_new(&mut self, spec: PodSpec) -> Result<&mut Pod, PodError> {
        let uid = spec.uid.clone();
        let pod = self.capture(spec)?;
        tracing::info!(uid, slot = pod.state.slot, addresses = ?pod.state.addresses, "pod captured");
        self.waiting.remove(&uid);
        self.clients.enrolled(&uid, &pod);
        Ok(self.pods.entry(uid).insert_entry(pod).into_mut())
    }

    fn capture(&mut self, spec: PodSpec) -> Result<Pod, PodError> {
        let netns = self.network(&spec).ok_or(PodError::NamespaceUnknown)?;
        if let Ok(inode) = std::fs::metadata(&netns).map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
            && let Some(other) = self.pods.values().find(|pod| pod.state.inode == inode)
        {
            return Err(PodError::SameNamespace(other.state.spec.uid.clone()));
        }
        let limit = MAX_PODS as usize;
        let slot = *self.free.first().ok_or(PodError::TooMany { what: "pods of one node", found: limit + 1, limit })?;
        let marks = self.marks();
        let pod = Pod::enrol(&mut self.machine, spec, &netns, slot, marks)?;
        self.free.remove(&slot);
        Ok(pod)
    }

    // Two pods with one mark would not disturb each other, but be hard to tell apart in `ss` and traces.
    fn marks(&self) -> Marks {
        loop {
            let marks = Marks::random();
            let taken = [marks.capture, marks.own];
            if !self
                .pods
                .values()
                .any(|pod| taken.contains(&pod.state.marks.capture) || taken.contains(&pod.state.marks.own))
            {
                return marks;
            }
        }
    }

    fn refuse(&mut self, uid: &str, error: &PodError) {
        let reason = error.to_string();
        if self.waiting.get(uid).is_some_and(|(_, told)| *told == reason) {
            return;
        }
        tracing::warn!(uid, reason, "pod not captured");
        self.clients.tell(&Reply::Refused { uid: uid.to_owned(), reason });
    }

    fn wait(&mut self, spec: PodSpec, reason: String) {
        if self.closing {
            return;
        }
        if self.waiting.len() >= MAX_PODS as usize && !self.waiting.contains_key(&spec.uid) {
            tracing::error!(
                uid = spec.uid,
                reason,
                limit = MAX_PODS,
                "too many pods wait to be captured; this one is not tried again"
            );
            return;
        }
        self.waiting.insert(spec.uid.clone(), (spec, reason));
    }

    fn try_waiting(&mut self) {
        let waiting: Vec<PodSpec> = self.waiting.values().map(|(spec, _)| spec.clone()).collect();
        for spec in waiting {
            if self.pods.get(&spec.uid).is_none_or(|pod| matches!(pod.phase, Phase::Draining(_))) {
                self.enrol(spec);
            }
        }
    }

    /// Lets a pod go.
    fn unenrol(&mut self, uid: &str) {
        self.waiting.remove(uid);
        self.by_file.remove(uid);
        let Some(pod) = self.pods.get_mut(uid) else {
            self.clients.unenrolled(uid);
            return;
        };
        if let Err(error) = pod.leave(&mut self.machine) {
            tracing::error!(uid, %error, "cannot release a pod; trying again");
        }
    }

    /// Begins to let all pods go, and takes no more.
    pub(super) fn release_all(&mut self) {
        self.closing = true;
        self.waiting.clear();
        for uid in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.unenrol(&uid);
        }
    }

    /// Nothing is captured, or still on its way out.
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Removes what is left in the kernel and on disk.
    pub(super) fn destroy(mut self) -> Result<(), HolderError> {
        for (uid, mut pod) in std::mem::take(&mut self.pods) {
            tracing::warn!(uid, "connections of the pod were still open; they break");
            pod.undo(&mut self.machine);
        }
        self.machine.programs.place().remove()?;
        self.machine.state.destroy().map_err(HolderError::setup("removing the state directory"))
    }

    fn take_files(&mut self, files: Vec<PodFile>) {
        self.files = files.into_iter().map(|file| (file.uid.clone(), file)).collect();
        let wanted: Vec<PodSpec> = self.files.values().filter(|file| file.enrol).map(PodFile::spec).collect();
        let gone: Vec<String> =
            self.by_file.iter().filter(|uid| !self.files.get(*uid).is_some_and(|file| file.enrol)).cloned().collect();
        for uid in gone {
            self.unenrol(&uid);
        }
        for spec in wanted {
            self.by_file.insert(spec.uid.clone());
            self.enrol(spec);
        }
        self.try_waiting();
    }

    fn replace_lost_listeners(&mut self) {
        for (uid, pod) in &mut self.pods {
            if pod.listeners.is_some() || pod.phase != Phase::Enrolled {
                continue;
            }
            match pod.listen_anew(&mut self.machine) {
                Ok(()) => {
                    tracing::warn!(uid, "no proxy gave the pod's listeners back; opened new ones");
                    self.clients.enrolled(uid, pod);
                }
                Err(error) => {
                    tracing::error!(uid, %error, "no listeners for a captured pod; it is refused or passed by its fail mode")
                }
            }
        }
    }
}
