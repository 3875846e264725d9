//! All that control knows at this moment, and who must hear when it changes. Must never hold a lock while it waits.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};
use weir_api::v1;

use crate::{
    ca::{self, Authority},
    index::{Changed, Index},
    limits,
    manifests::Scan,
    metrics::Metrics,
    notices::Notice,
    objects::Pod,
    parse::Finding,
    snapshot,
};

#[cfg(test)]
pub(crate) mod tests;

/// Shared by every part of control.
#[derive(Debug)]
pub struct Plane {
    /// `cluster.local`
    pub trust_domain: String,
    /// Signs.
    pub authority: Authority,
    /// Counts.
    pub metrics: Metrics,
    index: RwLock<Index>,
    findings: RwLock<Vec<Finding>>,
    nodes: Mutex<BTreeMap<Arc<str>, Arc<Node>>>,
    loaded: std::sync::atomic::AtomicBool,
    serving_file: Option<PathBuf>,
    // Why new anchors or a new issuer are not in use.
    authority_problem: RwLock<Option<String>>,
    queries: AtomicU64,
    answers: Mutex<HashMap<u64, mpsc::Sender<v1::Report>>>,
    changes: watch::Sender<u64>,
    // As `changes`, and also where only those who list items hear of it.
    items: watch::Sender<u64>,
    notices: OnceLock<mpsc::Sender<Notice>>,
}

/// One connected node.
#[derive(Debug)]
pub struct Node {
    /// As its token says.
    pub name: Arc<str>,
    /// As it says.
    pub version: String,
    /// When its stream opened.
    pub since: Instant,
    /// Distinguishes this connection from the node's next one.
    pub connection: u64,
    /// What changed since its stream looked last.
    pub changed: Mutex<Changed>,
    /// Wakes its stream.
    pub news: Notify,
    /// To its stream.
    pub asked: mpsc::Sender<v1::Query>,
    /// By uid, of pods that are in the mesh.
    pub statuses: Mutex<HashMap<String, v1::WorkloadStatus>>,
    /// Endpoints that its breakers have taken out; none until it has said so on this connection.
    pub out: Mutex<Option<Vec<v1::OutEndpoint>>>,
    /// What it refused, newest last.
    pub rejected: Mutex<Vec<v1::Rejection>>,
    // Version of the trust bundle that it took last.
    trust: AtomicU64,
}

impl Node {
    /// Version of the trust bundle that it took last; 0: none.
    pub fn trust_version(&self) -> u64 {
        self.trust.load(Ordering::Relaxed)
    }

    /// It took a trust bundle.
    pub fn set_trust_version(&self, version: u64) {
        self.trust.store(version, Ordering::Relaxed);
    }
}

impl Plane {
    /// Before the first scan. `serving_file`: remembers which pods speak mTLS, where nothing else does.
    pub fn new(trust_domain: String, authority: Authority, serving_file: Option<PathBuf>) -> Plane {
        let mut index = Index::default();
        let text = serving_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        index.restore_serving(text.lines().map(Arc::from));
        Plane {
            trust_domain,
            authority,
            metrics: Metrics::new(),
            index: RwLock::new(index),
            findings: RwLock::default(),
            nodes: Mutex::default(),
            loaded: false.into(),
            serving_file,
            authority_problem: RwLock::default(),
            queries: AtomicU64::new(1),
            answers: Mutex::default(),
            changes: watch::Sender::new(0),
            items: watch::Sender::new(0),
            notices: OnceLock::new(),
        }
    }

    /// Reads the index.
    pub fn index(&self) -> parking_lot::RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// Whether all objects were read once: before that, nodes would be told that everything is gone.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// What is refused at this moment.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.read().clone()
    }

    /// Takes what a scan found.
    pub fn take(&self, scan: Scan) {
        let has_events = !scan.events.is_empty();
        let (changed, is_first) = {
            let mut index = self.index.write();
            let before = index.serving().count();
            let changed = index.apply(scan.events);
            let is_first = !self.loaded.swap(true, Ordering::AcqRel);
            if is_first {
                index.retain_serving();
            }
            self.forget_statuses(&index, &changed);
            if index.serving().count() != before {
                self.save_serving(&index);
            }
            self.metrics.objects(&index);
            (changed, is_first)
        };
        self.metrics.findings(scan.findings.len());
        let has_news = {
            let mut findings = self.findings.write();
            let differs = *findings != scan.findings;
            *findings = scan.findings;
            // What a destination and a Server mean is also what the status of a route says.
            differs || !changed.workloads.is_empty() || !changed.addresses.is_empty() || !changed.servers.is_empty()
        };
        self.tell(&changed);
        if is_first || has_news {
            self.changed();
        } else if has_events {
            self.items_changed();
        }
    }

    // Of pods that are gone or opted out nobody wants to know; a pod that is opted in again is reported again.
    fn forget_statuses(&self, index: &Index, changed: &Changed) {
        let is_enabled = |uid: &str| index.pod_by_uid(uid).is_some_and(|pod| index.is_enabled(pod));
        let nodes = self.nodes.lock();
        for (node, uid) in changed.workloads.iter().filter(|(_, uid)| !is_enabled(uid)) {
            if let Some(node) = nodes.get(node) {
                node.statuses.lock().remove(&**uid);
            }
        }
    }

    /// Counts up when pods, their statuses, nodes or the authority may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.items_changed();
    }

    /// Something that is listed may have changed, and nothing that anybody acts on.
    pub fn items_changed(&self) {
        self.items.send_modify(|count| *count += 1);
    }

    /// Counts up when anything that is listed may have changed.
    pub fn item_changes(&self) -> watch::Receiver<u64> {
        self.items.subscribe()
    }

    /// Where notices go from now on; before that, nobody hears them.
    pub fn set_notices(&self, notices: mpsc::Sender<Notice>) {
        if self.notices.set(notices).is_err() {
            tracing::error!("notices of pods go somewhere already");
        }
    }

    /// People should hear this.
    pub fn notify(&self, notice: Notice) {
        let Some(notices) = self.notices.get() else { return };
        if let Err(mpsc::error::TrySendError::Full(notice)) = notices.try_send(notice) {
            tracing::warn!(?notice, "too many events at a time; this one is only in the log");
        }
    }

    /// Anchors or issuer were looked at: why what was found is not in use, if it is not.
    pub fn set_authority_problem(&self, problem: Option<String>) {
        let mut known = self.authority_problem.write();
        if *known == problem {
            return;
        }
        if let Some(problem) = &problem {
            tracing::error!(problem, "new trust anchors or issuer cannot be used; the old ones stay");
        }
        *known = problem;
        drop(known);
        self.changed();
    }

    /// Why new anchors or a new issuer are not in use.
    pub fn authority_problem(&self) -> Option<String> {
        self.authority_problem.read().clone()
    }

    /// A node says what became of a pod.
    pub fn status(&self, node: &Node, status: v1::WorkloadStatus) {
        let is_ready = status.captured && status.certificate_not_after > 0;
        let changed = {
            let mut index = self.index.write();
            let is_own = |pod: &Arc<Pod>| *pod.reference.node_name == *node.name && index.is_enabled(pod);
            if !index.pod_by_uid(&status.uid).is_some_and(is_own) {
                return;
            }
            let changed = if is_ready { index.mark_serving(&status.uid) } else { Changed::default() };
            if !changed.is_empty() {
                self.save_serving(&index);
            }
            // With the index held: a pod that goes meanwhile takes its status with it.
            let mut statuses = node.statuses.lock();
            if statuses.len() < limits::STATUSES_PER_NODE || statuses.contains_key(&status.uid) {
                statuses.insert(status.uid.clone(), status);
            }
            changed
        };
        self.tell(&changed);
        self.changed();
    }

    /// What nodes are told to trust now.
    pub fn trust_bundle(&self) -> v1::TrustBundle {
        let current = self.authority.current();
        v1::TrustBundle {
            trust_domain: self.trust_domain.clone(),
            anchors: current.anchors.clone(),
            issuer: current.issuer.certificate().to_vec(),
        }
    }

    /// Its version, as nodes acknowledge it.
    pub fn trust_version(&self) -> u64 {
        let body = v1::resource::Body::TrustBundle(self.trust_bundle());
        snapshot::resource(&snapshot::Key::TrustBundle, &self.trust_domain, body).version
    }

    /// Anchors changed.
    pub fn trust_changed(&self) {
        tracing::info!(anchors = self.authority.current().anchors.len(), "trust anchors or issuer changed");
        self.tell(&Changed { trust: true, ..Changed::default() });
        self.changed();
    }

    fn tell(&self, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        for node in self.nodes.lock().values() {
            node.changed.lock().merge(changed);
            node.news.notify_one();
        }
    }

    // A restart of control must not turn the traffic of meshed pods to plaintext until their nodes are back.
    fn save_serving(&self, index: &Index) {
        let Some(file) = &self.serving_file else { return };
        let text: String = index.serving().flat_map(|uid| [uid, "\n"]).collect();
        if let Err(error) = ca::write_private(file, text.as_bytes()) {
            tracing::warn!(%error, "which pods are in the mesh could not be written down");
        }
    }

    /// Lets a node in; a former connection of the same node is replaced.
    ///
    /// # Errors
    /// Too many nodes.
    pub fn join(
        &self,
        name: Arc<str>,
        version: String,
        asked: mpsc::Sender<v1::Query>,
    ) -> Result<Arc<Node>, tonic::Status> {
        let mut nodes = self.nodes.lock();
        if nodes.len() >= limits::NODES && !nodes.contains_key(&name) {
            return Err(tonic::Status::resource_exhausted(format!("{} nodes are connected already", limits::NODES)));
        }
        let node = Arc::new(Node {
            name: Arc::clone(&name),
            version,
            since: Instant::now(),
            connection: self.queries.fetch_add(1, Ordering::Relaxed),
            changed: Mutex::default(),
            news: Notify::new(),
            asked,
            statuses: Mutex::default(),
            out: Mutex::default(),
            rejected: Mutex::default(),
            trust: AtomicU64::new(0),
        });
        nodes.insert(name, Arc::clone(&node));
        self.metrics.nodes(nodes.len());
        self.changed();
        Ok(node)
    }

    /// A stream ended.
    pub fn leave(&self, node: &Node) {
        let mut nodes = self.nodes.lock();
        if nodes.get(&node.name).is_some_and(|current| current.connection == node.connection) {
            nodes.remove(&node.name);
            self.metrics.nodes(nodes.len());
            self.changed();
        }
    }

    /// Whether `node` has not been replaced by a later connection.
    pub fn is_current(&self, node: &Node) -> bool {
        self.nodes.lock().get(&node.name).is_some_and(|current| current.connection == node.connection)
    }

    /// Connected nodes, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().map(Arc::clone).collect()
    }

    /// What nodes said about pods, where `wanted`.
    pub fn statuses(&self, wanted: impl Fn(&v1::WorkloadStatus) -> bool) -> Vec<v1::WorkloadStatus> {
        let nodes = self.nodes();
        let of = |node: &Arc<Node>| -> Vec<_> {
            node.statuses.lock().values().filter(|said| wanted(said)).cloned().collect()
        };
        nodes.iter().flat_map(of).collect()
    }

    /// Asks all nodes for reports, or those that are meant. Also returns the names of those that did not answer in time.
    pub async fn observe(&self, asked: v1::ShareRequest) -> (Vec<v1::Report>, Vec<String>) {
        let v1::ShareRequest { window_seconds, endpoints, routes, log_level } = asked;
        let mut nodes = self.nodes();
        if let Some(meant) = log_level.as_ref().map(|asked| &asked.nodes).filter(|meant| !meant.is_empty()) {
            nodes.retain(|node| meant.iter().any(|name| **name == *node.name));
        }
        let id = self.queries.fetch_add(1, Ordering::Relaxed);
        let (send, mut answers) = mpsc::channel(limits::NODES);
        self.answers.lock().insert(id, send);
        let mut missing: BTreeMap<Arc<str>, ()> = BTreeMap::new();
        for node in &nodes {
            missing.insert(Arc::clone(&node.name), ());
            // One whose queue is full does not answer in time either.
            let _full = node.asked.try_send(v1::Query {
                id,
                window_seconds,
                endpoints: endpoints.clone(),
                routes: routes.clone(),
                log_level: log_level.clone(),
            });
        }
        let mut reports: Vec<v1::Report> = Vec::with_capacity(nodes.len());
        let deadline = tokio::time::Instant::now() + limits::QUERY_WITHIN;
        while !missing.is_empty() {
            let Ok(Some(report)) = tokio::time::timeout_at(deadline, answers.recv()).await else { break };
            if missing.remove(report.node_name.as_str()).is_some() {
                reports.push(report);
            }
        }
        self.answers.lock().remove(&id);
        reports.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        (reports, missing.into_keys().map(|name| name.to_string()).collect())
    }

    /// A node's answer. Its name is what its token says, not what the report says.
    pub fn answer(&self, node: &Node, report: v1::Report) {
        let waiting = self.answers.lock().get(&report.query_id).cloned();
        if let Some(waiting) = waiting {
            // Who asked may have stopped waiting.
            let _late = waiting.try_send(v1::Report { node_name: node.name.to_string(), ..report });
        }
    }

    /// Looks at the authority's files until control ends.
    pub async fn follow_authority(&self) {
        loop {
            tokio::time::sleep(limits::CA_RESCAN).await;
            let reloaded = self.authority.reload();
            self.set_authority_problem(reloaded.as_ref().err().map(ToString::to_string));
            if matches!(reloaded, Ok(true)) {
                self.trust_changed();
            }
        }
    }

    /// Seconds until a self-made or given issuer ends.
    pub fn issuer_left(&self) -> Duration {
        let left = self.authority.current().issuer.not_after() - ca::unix_now();
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }
}
