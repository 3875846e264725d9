//! The proxies of this node and what they ask. Must never let one of them hold up the other, or the pods.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use super::Keeper;
use crate::{
    handover::{Arrival, Family, FeatureReport, Reply, Request, SocketKind, VERSION},
    holder::{
        pod::{Phase, Pod},
        server::Client,
    },
    limits,
};

/// Connected proxies, and what is kept for the next one.
pub(super) struct Clients {
    clients: HashMap<u64, Client>,
    vault: Option<Arc<OwnedFd>>,
    features: Vec<FeatureReport>,
}

impl Clients {
    pub(super) fn new(features: Vec<FeatureReport>) -> Clients {
        Clients { clients: HashMap::new(), vault: None, features }
    }

    pub(super) fn connected(&mut self, id: u64, client: Client) {
        // Plugins come and go in numbers; they must not take a proxy's place, nor it theirs.
        let limit = if client.is_root { limits::CNI_PLUGINS } else { limits::HANDOVER_PROXIES };
        if self.clients.values().filter(|other| other.is_root == client.is_root).count() >= limit {
            tracing::warn!(limit, plugins = client.is_root, "refused one client more");
            return;
        }
        self.clients.insert(id, client);
    }

    pub(super) fn gone(&mut self, id: u64) {
        self.clients.remove(&id);
    }

    /// To everyone who is ready.
    pub(super) fn tell(&mut self, reply: &Reply) {
        self.clients.retain(|id, client| !client.ready || sent(*id, client.send(reply.clone(), Vec::new())));
    }

    /// A pod's listeners, to everyone who is ready.
    pub(super) fn enrolled(&mut self, uid: &str, pod: &Pod) {
        self.clients.retain(|id, client| !client.ready || sent(*id, announce(client, uid, pod)));
    }

    /// A pod's listeners are closed here: to everyone who has them.
    pub(super) fn unenrolled(&mut self, uid: &str) {
        self.clients.retain(|id, client| {
            client.announced.remove(uid);
            !client.ready || sent(*id, client.send(Reply::Unenrolled { uid: uid.to_owned() }, Vec::new()))
        });
    }

    /// Whether a proxy accepts what pods bring.
    fn is_served(&self) -> bool {
        self.clients.values().any(|client| client.ready && !client.leaving)
    }

    pub(super) fn is_connected(&self, id: u64) -> bool {
        self.clients.contains_key(&id)
    }

    /// Whether this one may announce pods: the node's own root, never the proxy's user.
    fn is_root(&self, id: u64) -> bool {
        self.clients.get(&id).is_some_and(|client| client.is_root)
    }

    /// To one. One that does not read is cut off; it comes back and is told everything anew.
    pub(super) fn answer(&mut self, id: u64, reply: Reply, fds: Vec<Arc<OwnedFd>>) {
        if self.clients.get(&id).is_some_and(|client| !sent(id, client.send(reply, fds))) {
            self.clients.remove(&id);
        }
    }
}

fn sent(id: u64, sent: bool) -> bool {
    if !sent {
        tracing::warn!(client = id, "a proxy does not read its messages; cut off");
    }
    sent
}

fn announce(client: &mut Client, uid: &str, pod: &Pod) -> bool {
    let Some(listeners) = &pod.listeners else { return true };
    client.announced.insert(uid.to_owned());
    let fds = vec![Arc::clone(&listeners.outbound), Arc::clone(&listeners.inbound)];
    client.send(Reply::Enrolled { uid: uid.to_owned(), generation: pod.state.marks.capture }, fds)
}

impl Keeper {
    /// Whether a proxy accepts what pods bring.
    pub(in crate::holder) fn is_served(&self) -> bool {
        self.clients.is_served()
    }

    /// Takes one request in.
    pub(super) fn request(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Hello { version } => {
                // The proxy goes by our answer, and says which of the two to roll.
                tracing::debug!(client = id, version, "hello");
                self.clients.answer(id, Reply::Welcome { version: VERSION }, Vec::new());
            }
            Request::Return { uid } => self.returned(&uid, fds),
            Request::Ready => self.ready(id),
            Request::Leaving => {
                if let Some(client) = self.clients.clients.get_mut(&id) {
                    client.leaving = true;
                }
            }
            Request::Enrol { spec } => {
                let uid = spec.uid.clone();
                self.enrol(spec);
                if let (Some(pod), Some(client)) = (self.pods.get(&uid), self.clients.clients.get_mut(&id))
                    && pod.phase == Phase::Enrolled
                    && client.ready
                    && !client.announced.contains(&uid)
                    && !announce(client, &uid, pod)
                {
                    self.clients.gone(id);
                }
            }
            Request::Unenrol { uid } => self.unenrol(&uid),
            Request::Sockets { uid, kind, family, count } => self.sockets(id, uid, kind, family, count),
            Request::Keep => match fds.into_iter().next() {
                Some(memfd) => self.clients.vault = Some(Arc::new(memfd)),
                None => tracing::warn!(client = id, "asked to keep nothing"),
            },
            Request::Features => {
                let features = self.clients.features.clone();
                self.clients.answer(id, Reply::Features { features }, Vec::new());
            }
            Request::Expect { part, plain, meshed_namespaces } => {
                self.arrivals.expect(id, part, plain, meshed_namespaces);
            }
            Request::Arrive { uid, namespace, netns } if self.clients.is_root(id) => {
                self.arrive(id, &uid, namespace, netns);
            }
            Request::Depart { uid, netns } if self.clients.is_root(id) => {
                self.depart(&uid, &netns);
                self.clients.answer(id, Reply::Arrived { arrival: Arrival::Plain }, Vec::new());
            }
            // Gone before it was its turn: nobody waits for an answer, and pods that left are found by themselves.
            Request::Arrive { uid, .. } | Request::Depart { uid, .. } if !self.clients.is_connected(id) => {
                tracing::debug!(client = id, uid, "a plugin did not wait");
            }
            Request::Arrive { uid, .. } | Request::Depart { uid, .. } => {
                tracing::warn!(client = id, uid, "only the node's root may announce pods");
            }
        }
    }

    fn returned(&mut self, uid: &str, fds: Vec<OwnedFd>) {
        let Ok([outbound, inbound]) = <[OwnedFd; 2]>::try_from(fds) else {
            tracing::warn!(uid, "a pod was returned without its two listeners");
            return;
        };
        let Some(pod) = self.pods.get_mut(uid) else { return };
        match pod.adopt(&mut self.machine, outbound, inbound) {
            Ok(true) => {
                tracing::info!(uid, "a proxy gave the pod's listeners back");
                self.clients.enrolled(uid, pod);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(uid, %error, "returned listeners cannot be used"),
        }
    }

    fn ready(&mut self, id: u64) {
        let vault = self.clients.vault.clone();
        let Some(client) = self.clients.clients.get_mut(&id) else { return };
        client.ready = true;
        tracing::info!(client = id, "a proxy connected");
        let mut all = vault.is_none_or(|vault| client.send(Reply::Vault, vec![vault]));
        for (uid, pod) in self.pods.iter().filter(|(_, pod)| pod.phase == Phase::Enrolled) {
            all = all && announce(client, uid, pod);
        }
        all = all && client.send(Reply::Synced, Vec::new());
        if !sent(id, all) {
            self.clients.gone(id);
        }
    }

    fn sockets(&mut self, id: u64, uid: String, kind: SocketKind, family: Family, count: usize) {
        let made = match self.pods.get(&uid) {
            // Also on its way out: open connections may still have to dial.
            Some(pod) => pod
                .sockets(kind, family, count)
                .map(|fds| (pod.state.marks.capture, fds))
                .map_err(|error| error.to_string()),
            None => Err("the pod is not captured on this node".to_owned()),
        };
        match made {
            Ok((generation, fds)) => self.clients.answer(id, Reply::Sockets { uid, generation, kind, family }, fds),
            Err(reason) => self.clients.answer(id, Reply::NoSockets { uid, kind, family, reason }, Vec::new()),
        }
    }
}
