//! What one node should have, what it has, and what to send next. Must never do I/O.
//!
//! Keys that may have changed are built anew; those whose content hash is what the node has are not sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use prost::Message as _;
use weir_api::v1::{self, resource::Body};

use crate::{
    index::{Changed, Index},
    limits,
    objects::Name,
    snapshot::{self, Key},
};

#[cfg(test)]
mod tests;

/// One node's session.
#[derive(Debug)]
pub struct Session {
    node: Arc<str>,
    trust_domain: String,
    /// Destinations in use by the node, and the slices that each refers to.
    subscribed: HashMap<SocketAddr, Vec<Name>>,
    referred: HashMap<Name, usize>,
    /// Workloads of the node, and the Servers that each refers to.
    workloads: HashMap<Arc<str>, Vec<Name>>,
    servers: HashMap<Name, usize>,
    /// What the node has, as far as we know.
    has: HashMap<Key, u64>,
    dirty: BTreeSet<Key>,
    /// Workloads to be taken away, later.
    leaving: BTreeMap<Key, Instant>,
    in_flight: VecDeque<(u64, Instant)>,
    nonce: u64,
    synced: bool,
    // Version of the trust bundle that the node took last, and the one that is on its way.
    trust: u64,
    trust_sent: Option<(u64, u64)>,
}

impl Session {
    /// Begins with what the node says that it knows and uses.
    pub fn new(node: Arc<str>, trust_domain: String, hello: &v1::Hello, index: &Index) -> Session {
        let mut session = Session {
            trust_domain,
            subscribed: HashMap::new(),
            referred: HashMap::new(),
            workloads: HashMap::new(),
            servers: HashMap::new(),
            has: HashMap::new(),
            dirty: BTreeSet::from([Key::TrustBundle]),
            leaving: BTreeMap::new(),
            in_flight: VecDeque::new(),
            nonce: 0,
            synced: false,
            trust: 0,
            trust_sent: None,
            node,
        };
        for known in hello.known.iter().take(limits::KNOWN_PER_NODE) {
            if let Some(key) = known.key.as_ref().and_then(Key::parse) {
                if key == Key::TrustBundle {
                    session.trust = known.version;
                }
                session.dirty.insert(key.clone());
                session.has.insert(key, known.version);
            }
        }
        session.dirty.extend(index.meshed_namespaces().cloned().map(Key::MeshedNamespace));
        for pod in index.pods_of_node(&session.node) {
            session.dirty.extend(keys_of_pod(&pod.uid));
            session.refer_workload(&pod.uid, index);
        }
        session.subscribe(&hello.destinations, index);
        session
    }

    /// The node began to use destinations. Texts that are no addresses are ignored: nothing could be said about them.
    pub fn subscribe(&mut self, destinations: &[String], index: &Index) {
        for address in destinations.iter().filter_map(|text| text.parse::<SocketAddr>().ok()) {
            if self.subscribed.contains_key(&address) {
                continue;
            }
            if self.subscribed.len() >= limits::DESTINATIONS_PER_NODE {
                tracing::warn!(node = %self.node, %address, limit = limits::DESTINATIONS_PER_NODE, "the node uses too many destinations");
                return;
            }
            self.subscribed.insert(address, Vec::new());
            self.refer(address, index);
            self.dirty.insert(Key::Destination(address));
        }
    }

    /// The node dropped destinations, and all that only they referred to.
    pub fn unsubscribe(&mut self, destinations: &[String]) {
        for address in destinations.iter().filter_map(|text| text.parse::<SocketAddr>().ok()) {
            if let Some(slices) = self.subscribed.remove(&address) {
                self.release(&slices);
                // The node dropped it by itself.
                self.has.remove(&Key::Destination(address));
                self.dirty.remove(&Key::Destination(address));
            }
        }
    }

    fn refer(&mut self, address: SocketAddr, index: &Index) {
        let (_destination, slices) = snapshot::destination(index, address);
        for slice in &slices {
            *self.referred.entry(slice.clone()).or_insert(0) += 1;
            self.dirty.insert(Key::Endpoints(slice.clone()));
        }
        if let Some(before) = self.subscribed.insert(address, slices) {
            self.release(&before);
        }
    }

    /// Counts the Servers of a workload, and no longer those that it had.
    fn refer_workload(&mut self, uid: &Arc<str>, index: &Index) {
        let servers = snapshot::workload(index, uid, &self.node).map(|(_workload, servers)| servers);
        for server in servers.iter().flatten() {
            *self.servers.entry(server.clone()).or_insert(0) += 1;
            self.dirty.insert(Key::InboundServer(server.clone()));
        }
        let before = match servers {
            Some(servers) => self.workloads.insert(Arc::clone(uid), servers),
            None => self.workloads.remove(uid),
        };
        for server in before.into_iter().flatten() {
            if let Some(count) = self.servers.get_mut(&server) {
                *count -= 1;
                if *count == 0 {
                    self.servers.remove(&server);
                    self.dirty.insert(Key::InboundServer(server));
                }
            }
        }
    }

    fn release(&mut self, slices: &[Name]) {
        for slice in slices {
            if let Some(count) = self.referred.get_mut(slice) {
                *count -= 1;
                if *count == 0 {
                    self.referred.remove(slice);
                    self.dirty.insert(Key::Endpoints(slice.clone()));
                }
            }
        }
    }

    /// Something may have changed.
    pub fn touch(&mut self, changed: &Changed, index: &Index) {
        if changed.trust {
            self.dirty.insert(Key::TrustBundle);
        }
        self.dirty.extend(changed.namespaces.iter().cloned().map(Key::MeshedNamespace));
        for (node, uid) in &changed.workloads {
            // What moved away is asked for by the key that the node has.
            let own = *node == self.node;
            let concerned = keys_of_pod(uid).into_iter().filter(|key| own || self.has.contains_key(key));
            self.dirty.extend(concerned);
            if own || self.workloads.contains_key(uid) {
                self.refer_workload(uid, index);
            }
            // Its node answers each workload that it is sent with what became of it: after an opt-out that is to be said anew,
            // also when the node never heard of it.
            if index.pod_by_uid(uid).is_some_and(|pod| !index.is_serving(pod))
                && let Some(version) = self.has.get_mut(&Key::Workload(Arc::clone(uid)))
            {
                *version = 0;
            }
        }
        let servers = changed.servers.iter().filter(|name| self.servers.contains_key(*name));
        self.dirty.extend(servers.cloned().map(Key::InboundServer));
        self.dirty.extend(
            changed.endpoints.iter().filter(|name| self.referred.contains_key(*name)).cloned().map(Key::Endpoints),
        );
        if !changed.addresses.is_empty() {
            let touched = |address: &&SocketAddr| changed.addresses.contains(&address.ip().to_canonical());
            let touched: Vec<SocketAddr> = self.subscribed.keys().filter(touched).copied().collect();
            for address in touched {
                self.refer(address, index);
                self.dirty.insert(Key::Destination(address));
            }
        }
    }

    /// Names a workload to the node once more, if it has it: the node answers with what became of it.
    pub fn ask_anew(&mut self, uid: &Arc<str>) {
        let key = Key::Workload(Arc::clone(uid));
        if let Some(version) = self.has.get_mut(&key) {
            *version = 0;
            self.dirty.insert(key);
        }
    }

    /// The node answered an update.
    ///
    /// # Errors
    /// An answer to nothing.
    pub fn acknowledge(&mut self, acknowledge: &v1::Acknowledge) -> Result<(), tonic::Status> {
        match self.in_flight.front() {
            Some((nonce, _)) if *nonce == acknowledge.nonce => {
                self.in_flight.pop_front();
                self.take_trust(acknowledge);
                Ok(())
            }
            _other => Err(tonic::Status::invalid_argument(format!("nonce {} was not expected", acknowledge.nonce))),
        }
    }

    fn take_trust(&mut self, acknowledge: &v1::Acknowledge) {
        let Some((_, version)) = self.trust_sent.take_if(|(nonce, _)| *nonce == acknowledge.nonce) else { return };
        let kind = |rejected: &v1::Rejection| rejected.key.as_ref().map(v1::ResourceKey::kind);
        if !acknowledge.rejected.iter().any(|rejected| kind(rejected) == Some(v1::ResourceKind::TrustBundle)) {
            self.trust = version;
        }
    }

    /// Version of the trust bundle that the node took last; 0: none.
    pub fn trust_version(&self) -> u64 {
        self.trust
    }

    /// When an answer is overdue.
    pub fn overdue(&self) -> Option<Instant> {
        self.in_flight.front().map(|(_, sent)| *sent + limits::ACKNOWLEDGE_WITHIN)
    }

    /// When a workload is to be taken away; not before the node has acknowledged enough to be told.
    pub fn due(&self) -> Option<Instant> {
        let next = self.leaving.values().min().copied();
        next.filter(|_| self.in_flight.len() < limits::UPDATES_IN_FLIGHT)
    }

    /// What to send now, if anything.
    pub fn next(&mut self, index: &Index, trust: &v1::TrustBundle, now: Instant) -> Option<v1::Update> {
        let due: Vec<Key> = self.leaving.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        self.dirty.extend(due);
        if self.in_flight.len() >= limits::UPDATES_IN_FLIGHT || (self.dirty.is_empty() && self.synced) {
            return None;
        }
        let mut update = v1::Update::default();
        let (mut bytes, mut freed) = (0, Vec::new());
        while update.upserts.len() + update.removals.len() < limits::RESOURCES_PER_UPDATE
            && bytes < limits::UPDATE_BYTES
        {
            let Some(key) = self.dirty.pop_first().or_else(|| freed.pop()) else { break };
            match self.body(&key, index, trust) {
                // Workloads that refer to it no more are told first: without it their ports are closed.
                None if matches!(key, Key::InboundServer(_)) && self.has_dirty_workload() => freed.push(key),
                Some(body) => {
                    self.leaving.remove(&key);
                    let resource = snapshot::resource(&key, &self.trust_domain, body);
                    if resource.encoded_len() > limits::RESOURCE_BYTES {
                        // Sent, it would end the stream, and with it all that the node is still to be told.
                        let bytes = resource.encoded_len();
                        tracing::error!(
                            ?key,
                            bytes,
                            most = limits::RESOURCE_BYTES,
                            "too large for nodes: the last good version stays; name fewer backends in its routes"
                        );
                        continue;
                    }
                    if self.has.get(&key) != Some(&resource.version) {
                        bytes += resource.encoded_len();
                        if key == Key::TrustBundle {
                            self.trust_sent = Some((self.nonce + 1, resource.version));
                        }
                        self.has.insert(key, resource.version);
                        update.upserts.push(resource);
                    }
                }
                None => self.take_away(key, index, now, &mut update),
            }
        }
        self.dirty.extend(freed);
        let done = self.dirty.is_empty();
        if update.upserts.is_empty() && update.removals.is_empty() && (self.synced || !done) {
            return None;
        }
        update.synced = done && !self.synced;
        self.synced |= done;
        self.nonce += 1;
        update.nonce = self.nonce;
        self.in_flight.push_back((self.nonce, now));
        Some(update)
    }

    fn has_dirty_workload(&self) -> bool {
        let first = Key::Workload(Arc::from(""));
        self.dirty.range(first..).next().is_some_and(|key| matches!(key, Key::Workload(_)))
    }

    fn take_away(&mut self, key: Key, index: &Index, now: Instant, update: &mut v1::Update) {
        if !self.has.contains_key(&key) {
            return;
        }
        // A pod that lives on, opted out: its peers hear first, or their mTLS would meet the bare application.
        let lives =
            matches!(&key, Key::Workload(uid) if index.pod_by_uid(uid).is_some_and(|pod| !pod.addresses.is_empty()));
        if lives {
            let at = *self.leaving.entry(key.clone()).or_insert(now + limits::UNMESH_GRACE);
            if at > now {
                return;
            }
        }
        self.leaving.remove(&key);
        self.has.remove(&key);
        if let Key::Workload(uid) = &key {
            self.dirty.insert(Key::PlainPod(Arc::clone(uid)));
        }
        update.removals.push(key.to_api(&self.trust_domain));
    }

    fn body(&self, key: &Key, index: &Index, trust: &v1::TrustBundle) -> Option<Body> {
        match key {
            Key::TrustBundle => Some(Body::TrustBundle(trust.clone())),
            Key::MeshedNamespace(name) => snapshot::meshed_namespace(index, name).map(Body::MeshedNamespace),
            Key::Workload(uid) => {
                snapshot::workload(index, uid, &self.node).map(|(workload, _servers)| Body::Workload(workload))
            }
            Key::InboundServer(name) => {
                let wanted = self.servers.contains_key(name);
                wanted.then(|| snapshot::inbound_server(index, name)).flatten().map(Body::InboundServer)
            }
            // Not before it was taken away as a workload: it would be both.
            Key::PlainPod(uid) if self.has.contains_key(&Key::Workload(Arc::clone(uid))) => None,
            Key::PlainPod(uid) => snapshot::plain_pod(index, uid, &self.node).map(Body::PlainPod),
            Key::Endpoints(name) => {
                let wanted = self.referred.contains_key(name);
                wanted.then(|| snapshot::endpoints(index, name)).flatten().map(Body::Endpoints)
            }
            Key::Destination(address) => {
                let wanted = self.subscribed.contains_key(address);
                wanted.then(|| Body::Destination(snapshot::destination(index, *address).0))
            }
        }
    }
}

/// A pod is the one or the other.
fn keys_of_pod(uid: &Arc<str>) -> [Key; 2] {
    [Key::Workload(Arc::clone(uid)), Key::PlainPod(Arc::clone(uid))]
}
