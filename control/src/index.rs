//! All objects, findable in the ways that snapshots need. Must never do I/O and never know about nodes' streams.
//!
//! An event goes in; out comes which resources may have changed. Whether they did, the content hash says later.

mod authorizations;
mod changes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use crate::{
    kubernetes::NAMESPACE,
    objects::{Event, HttpRoute, Kind, Name, Namespace, ObjectName, Pod, Profile, Service, Slice, Unfit},
};

/// Resources that events may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Workloads and plain pods: node and pod uid.
    pub workloads: HashSet<(Arc<str>, Arc<str>)>,
    /// Namespaces whose opting in may have changed.
    pub namespaces: HashSet<Arc<str>>,
    /// Destinations at any port of these addresses.
    pub addresses: HashSet<IpAddr>,
    /// Endpoints, by name of their slice.
    pub endpoints: HashSet<Name>,
    /// Who may call ports of Servers, by name of the Server.
    pub servers: HashSet<Name>,
    /// The trust bundle.
    pub trust: bool,
}

impl Changed {
    /// Adds what `other` names.
    pub fn merge(&mut self, other: &Changed) {
        self.workloads.extend(other.workloads.iter().cloned());
        self.namespaces.extend(other.namespaces.iter().cloned());
        self.addresses.extend(other.addresses.iter().copied());
        self.endpoints.extend(other.endpoints.iter().cloned());
        self.servers.extend(other.servers.iter().cloned());
        self.trust |= other.trust;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
            && self.namespaces.is_empty()
            && self.addresses.is_empty()
            && self.endpoints.is_empty()
            && self.servers.is_empty()
            && !self.trust
    }
}

/// All objects. One writer; readers hold it only to build single resources.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    pods: HashMap<Name, Arc<Pod>>,
    pods_by_uid: HashMap<Arc<str>, Name>,
    pods_by_node: HashMap<Arc<str>, BTreeSet<Name>>,
    pods_by_address: HashMap<IpAddr, BTreeSet<Name>>,
    services: HashMap<Name, Arc<Service>>,
    services_by_address: HashMap<IpAddr, BTreeSet<Name>>,
    slices: HashMap<Name, Arc<Slice>>,
    slices_by_service: HashMap<Name, BTreeSet<Name>>,
    slices_by_pod: HashMap<Name, BTreeSet<Name>>,
    slices_by_address: HashMap<IpAddr, BTreeSet<Name>>,
    // By kind as well: an HTTPRoute and a GRPCRoute may have one name.
    routes: HashMap<ObjectName, Arc<HttpRoute>>,
    routes_by_parent: HashMap<Name, BTreeSet<ObjectName>>,
    routes_by_backend: HashMap<Name, BTreeSet<ObjectName>>,
    routes_by_server: HashMap<Name, BTreeSet<ObjectName>>,
    policies: authorizations::Policies,
    // Peers send mTLS to these pods: their nodes said once that they are captured and have a certificate.
    serving: HashSet<Arc<str>>,
    // Of nodes, as their endpoints in slices say: pods have it on their labels only since Kubernetes 1.33.
    zones: HashMap<Arc<str>, Arc<str>>,
    // Marks of pods that were opted out after they had been set: they say nothing about the time after.
    spent: HashMap<Arc<str>, Arc<str>>,
}

impl Index {
    /// Takes events in order.
    pub fn apply(&mut self, events: Vec<Event>) -> Changed {
        let mut changed = Changed::default();
        for event in events {
            match event {
                Event::Upsert(name, object) => self.upsert(name, object, &mut changed),
                Event::Remove(name) => self.remove(&name, &mut changed),
            }
        }
        changed
    }

    /// A node said that a pod is captured and has a certificate: from now on peers speak mTLS to it.
    ///
    /// It stays so until the pod goes or is opted out: a node that fails must not turn its traffic to plaintext.
    pub fn mark_serving(&mut self, uid: &str) -> Changed {
        let mut changed = Changed::default();
        if !self.serving.contains(uid)
            && let Some(name) = self.pods_by_uid.get(uid).cloned()
            && let Some(pod) = self.pods.get(&name).cloned()
            && self.is_enabled(&pod)
        {
            self.serving.insert(Arc::clone(&pod.uid));
            self.touch_pod(&name, &pod, &mut changed);
        }
        changed
    }

    /// Uids of pods that peers speak mTLS to.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<str>> {
        self.serving.iter()
    }

    /// Opted in, by its own label or its namespace's, and able to be a workload.
    pub fn is_enabled(&self, pod: &Pod) -> bool {
        pod.unfit.is_none() && self.is_opted_in(pod)
    }

    /// Opted in, by its own label or its namespace's; it may still be unfit.
    pub fn is_opted_in(&self, pod: &Pod) -> bool {
        let namespace =
            || self.namespaces.get(pod.reference.namespace.as_str()).and_then(|namespace| namespace.enabled);
        pod.enabled.or_else(namespace).unwrap_or(false)
    }

    /// Opted in, running, and unable to be a workload.
    pub fn is_refused(&self, pod: &Pod) -> bool {
        pod.unfit.is_some_and(|unfit| unfit != Unfit::Ended) && self.is_opted_in(pod)
    }

    /// Has a network namespace of its own and is not in the mesh: nothing is done to it.
    pub fn is_plain(&self, pod: &Pod) -> bool {
        pod.unfit.is_none_or(Unfit::has_network) && !self.is_enabled(pod)
    }

    /// Namespaces whose pods are opted in unless they say otherwise.
    pub fn meshed_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.iter().filter(|(_, namespace)| namespace.enabled == Some(true)).map(|(name, _)| name)
    }

    /// Pods that serve mTLS and do not carry a mark that says so.
    pub fn unmarked(&self) -> impl Iterator<Item = (&Name, &Arc<Pod>)> {
        let names = self.serving.iter().filter_map(|uid| self.pods_by_uid.get(uid));
        names.filter_map(|name| Some((name, self.pods.get(name)?))).filter(|(_, pod)| !self.has_valid_mark(pod))
    }

    /// Pods that carry a mark and were opted out.
    pub fn wrongly_marked(&self) -> impl Iterator<Item = (&Name, &Arc<Pod>)> {
        let ended = |pod: &Pod| pod.unfit == Some(Unfit::Ended);
        self.pods.iter().filter(move |(_, pod)| pod.mark.is_some() && !ended(pod) && !self.is_enabled(pod))
    }

    // One of an installation that was removed says nothing about the nodes of this one.
    fn has_valid_mark(&self, pod: &Pod) -> bool {
        pod.mark.as_ref().is_some_and(|mark| mark.ends_with(self.installation()))
            && self.spent.get(&pod.uid) != pod.mark.as_ref()
    }

    /// What marks of this installation end with; empty where the mesh has no namespace of its own.
    pub fn installation(&self) -> &str {
        self.namespaces.get(NAMESPACE).map_or("", |namespace| &namespace.uid)
    }

    /// Opted in, and its node has said that it is ready for mTLS.
    pub fn is_serving(&self, pod: &Pod) -> bool {
        self.is_enabled(pod) && self.serving.contains(&pod.uid)
    }

    /// Defaults of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// A pod by uid.
    pub fn pod_by_uid(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(self.pods_by_uid.get(uid)?)
    }

    /// A pod by namespace and name.
    pub fn pod(&self, name: &Name) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    /// The pod that has an address now.
    pub fn pod_by_address(&self, address: &IpAddr) -> Option<&Arc<Pod>> {
        self.pods.get(self.pods_by_address.get(address)?.last()?)
    }

    /// Pods of a node.
    pub fn pods_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.pods_by_node.get(node).into_iter().flatten().filter_map(|name| self.pods.get(name))
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// A service by namespace and name.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &Arc<Service>)> {
        self.services.iter()
    }

    /// The service that has a ClusterIP.
    pub fn service_by_address(&self, address: &IpAddr) -> Option<(&Name, &Arc<Service>)> {
        let name = self.services_by_address.get(address)?.last()?;
        Some((name, self.services.get(name)?))
    }

    /// A slice by namespace and name.
    pub fn slice(&self, name: &Name) -> Option<&Arc<Slice>> {
        self.slices.get(name)
    }

    /// The zone of a node, where some endpoint there says it.
    pub fn zone_of(&self, node: &str) -> Option<&Arc<str>> {
        self.zones.get(node)
    }

    /// Names of a service's slices, in order.
    pub fn slices_of(&self, service: &Name) -> impl Iterator<Item = &Name> {
        self.slices_by_service.get(service).into_iter().flatten()
    }

    /// Routes that have a service as a parent, in the order that breaks ties: the oldest first, then by namespace and name.
    pub fn routes_of(&self, service: &Name) -> Vec<(&ObjectName, &Arc<HttpRoute>)> {
        self.ranked(self.routes_by_parent.get(service))
    }

    /// Routes that have a Server as a parent, in the same order.
    pub fn routes_of_server(&self, server: &Name) -> Vec<(&ObjectName, &Arc<HttpRoute>)> {
        self.ranked(self.routes_by_server.get(server))
    }

    fn ranked(&self, names: Option<&BTreeSet<ObjectName>>) -> Vec<(&ObjectName, &Arc<HttpRoute>)> {
        fn rank<'a>((own, route): &(&'a ObjectName, &'a Arc<HttpRoute>)) -> (&'a str, &'a Name, Kind) {
            (&route.created, &own.name, own.kind)
        }
        let names = names.into_iter().flatten();
        let mut routes: Vec<_> = names.filter_map(|name| self.routes.get_key_value(name)).collect();
        routes.sort_by(|one, other| rank(one).cmp(&rank(other)));
        routes
    }

    /// The ServiceProfile in its own namespace that a Service has; of several the oldest, whose routes hold too.
    pub fn profile_of(&self, service: &Name) -> Option<(&ObjectName, &Profile)> {
        let names = self.routes_by_parent.get(service)?;
        let is_it = |own: &&ObjectName| own.kind == Kind::ServiceProfile && own.name.namespace == service.namespace;
        // Kinds that are profiles are the last ones: a Service may have a thousand routes.
        let own = names.iter().rev().take_while(|own| own.kind.is_profile()).filter(is_it);
        let own = own.filter_map(|own| self.routes.get_key_value(own));
        let (name, route) =
            own.min_by(|(one, route), (other, its)| (&route.created, &one.name).cmp(&(&its.created, &other.name)))?;
        Some((name, route.profile.as_deref()?))
    }

    /// A route by kind and name.
    pub fn route(&self, own: &ObjectName) -> Option<&Arc<HttpRoute>> {
        self.routes.get(own)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&ObjectName, &Arc<HttpRoute>)> {
        self.routes.iter()
    }

    /// How many objects of a kind there are; service accounts are not kept.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.len(),
            Kind::Pod => self.pods.len(),
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::PolicyHttpRoute
            | Kind::ServiceProfile
            | Kind::TrafficSplit => self.routes.keys().filter(|name| name.kind == kind).count(),
            Kind::Server
            | Kind::ServerAuthorization
            | Kind::AuthorizationPolicy
            | Kind::MeshTlsAuthentication
            | Kind::NetworkAuthentication => self.policies.count(kind),
            Kind::ServiceAccount => 0,
        }
    }
}

fn link<K: Hash + Eq, N: Ord + Clone>(map: &mut HashMap<K, BTreeSet<N>>, key: K, name: &N) {
    map.entry(key).or_default().insert(name.clone());
}

fn unlink<K: Hash + Eq, N: Ord>(map: &mut HashMap<K, BTreeSet<N>>, key: &K, name: &N) {
    if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}
