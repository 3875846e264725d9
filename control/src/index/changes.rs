//! What one event changes in the index, and which resources depend on it. Must never miss a dependent: too many cost a hash each.

use std::sync::Arc;

use super::{Changed, Index, link, unlink};
use crate::{
    limits,
    objects::{HttpRoute, Kind, Name, Namespace, Object, ObjectName, Pod, Service, Slice, SliceEndpoint},
};

impl Index {
    pub(super) fn upsert(&mut self, own: ObjectName, object: Object, changed: &mut Changed) {
        let name = &own.name;
        match object {
            Object::Namespace(namespace) => self.set_namespace(&name.name, Some(namespace), changed),
            Object::Pod(pod) => self.set_pod(name, Some(pod), changed),
            Object::Service(service) => self.set_service(name, Some(service), changed),
            Object::Slice(slice) => self.set_slice(name, Some(slice), changed),
            Object::HttpRoute(route) => self.set_route(&own, Some(route), changed),
            Object::Policy(policy) => self.set_policy(&own, Some(policy), changed),
            Object::ServiceAccount => {}
        }
    }

    pub(super) fn remove(&mut self, object: &ObjectName, changed: &mut Changed) {
        let name = &object.name;
        match object.kind {
            Kind::Namespace => self.set_namespace(&name.name, None, changed),
            Kind::Pod => self.set_pod(name, None, changed),
            Kind::Service => self.set_service(name, None, changed),
            Kind::EndpointSlice => self.set_slice(name, None, changed),
            Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::PolicyHttpRoute
            | Kind::ServiceProfile
            | Kind::TrafficSplit => self.set_route(object, None, changed),
            Kind::Server
            | Kind::ServerAuthorization
            | Kind::AuthorizationPolicy
            | Kind::MeshTlsAuthentication
            | Kind::NetworkAuthentication => self.set_policy(object, None, changed),
            Kind::ServiceAccount => {}
        }
    }

    /// Everything that shows this pod: its workload, its own addresses, the slices it is in.
    pub(super) fn touch_pod(&self, name: &Name, pod: &Pod, changed: &mut Changed) {
        changed.workloads.insert((Arc::from(pod.reference.node_name.as_str()), Arc::clone(&pod.uid)));
        changed.addresses.extend(&pod.addresses);
        changed.endpoints.extend(self.slices_by_pod.get(name).into_iter().flatten().cloned());
        for address in &pod.addresses {
            changed.endpoints.extend(self.slices_by_address.get(address).into_iter().flatten().cloned());
        }
    }

    fn set_namespace(&mut self, name: &Arc<str>, namespace: Option<Arc<Namespace>>, changed: &mut Changed) {
        let before = match namespace {
            Some(namespace) => self.namespaces.insert(Arc::clone(name), namespace),
            None => self.namespaces.remove(name),
        };
        if before.as_ref() == self.namespaces.get(name) {
            return;
        }
        changed.namespaces.insert(Arc::clone(name));
        let pods = self.pods.iter().filter(|(pod, _)| pod.namespace == *name);
        let pods: Vec<(Name, Arc<Pod>)> = pods.map(|(name, pod)| (name.clone(), Arc::clone(pod))).collect();
        for (name, pod) in pods {
            self.settle_serving(&pod);
            self.touch_pod(&name, &pod, changed);
        }
        for service in self.services.keys().filter(|service| service.namespace == *name) {
            self.touch_service(service, changed);
        }
    }

    /// A mark says what another run or replica of control heard. An opt-out is the only way back to plaintext.
    fn settle_serving(&mut self, pod: &Pod) {
        if self.is_enabled(pod) {
            if self.has_valid_mark(pod) {
                self.serving.insert(Arc::clone(&pod.uid));
            }
            return;
        }
        if self.serving.remove(&pod.uid)
            && let Some(mark) = &pod.mark
        {
            self.spent.insert(Arc::clone(&pod.uid), Arc::clone(mark));
        }
    }

    fn set_pod(&mut self, name: &Name, pod: Option<Arc<Pod>>, changed: &mut Changed) {
        let before = self.pods.get(name).cloned();
        if before == pod {
            return;
        }
        // Of several replicas one may see the mark go before it sees the label go. To mark the pod again would make all of them
        // believe it ready when it is opted in again; its node is asked instead.
        if let Some(pod) = pod.as_ref().filter(|pod| pod.is_unmarked)
            && before.as_ref().is_some_and(|before| before.uid == pod.uid && self.has_valid_mark(before))
        {
            self.serving.remove(&pod.uid);
        }
        if let Some(before) = before {
            self.touch_pod(name, &before, changed);
            if self.pods_by_uid.get(&before.uid) == Some(name) {
                self.pods_by_uid.remove(&before.uid);
            }
            unlink(&mut self.pods_by_node, &Arc::from(before.reference.node_name.as_str()), name);
            for address in &before.addresses {
                unlink(&mut self.pods_by_address, address, name);
            }
            if pod.as_ref().is_none_or(|pod| pod.uid != before.uid) {
                self.serving.remove(&before.uid);
                self.spent.remove(&before.uid);
            }
            self.pods.remove(name);
        }
        let Some(pod) = pod else { return };
        self.pods_by_uid.insert(Arc::clone(&pod.uid), name.clone());
        link(&mut self.pods_by_node, Arc::from(pod.reference.node_name.as_str()), name);
        for address in &pod.addresses {
            link(&mut self.pods_by_address, *address, name);
        }
        self.pods.insert(name.clone(), Arc::clone(&pod));
        if self.spent.get(&pod.uid).is_some_and(|spent| pod.mark.as_ref() != Some(spent)) {
            self.spent.remove(&pod.uid);
        }
        self.settle_serving(&pod);
        self.touch_pod(name, &pod, changed);
    }

    fn set_service(&mut self, name: &Name, service: Option<Arc<Service>>, changed: &mut Changed) {
        let before = self.services.get(name).cloned();
        if before == service {
            return;
        }
        if let Some(before) = before {
            self.touch_service(name, changed);
            for address in &before.addresses {
                unlink(&mut self.services_by_address, address, name);
            }
            self.services.remove(name);
        }
        let Some(service) = service else { return };
        for address in &service.addresses {
            link(&mut self.services_by_address, *address, name);
        }
        self.services.insert(name.clone(), service);
        self.touch_service(name, changed);
    }

    fn set_route(&mut self, name: &ObjectName, route: Option<Arc<HttpRoute>>, changed: &mut Changed) {
        let before = self.routes.get(name).cloned();
        if before == route {
            return;
        }
        for parent in before.iter().chain(&route).flat_map(|route| &route.parents) {
            // What a profile says of ports and budgets holds for a Service also where it is a backend of others.
            if name.kind.is_profile() {
                self.touch_service(&parent.service, changed);
            } else {
                self.touch_addresses(&parent.service, changed);
            }
        }
        changed.servers.extend(before.iter().chain(&route).flat_map(|route| &route.servers).cloned());
        if let Some(before) = before {
            for server in &before.servers {
                unlink(&mut self.routes_by_server, server, name);
            }
            for parent in &before.parents {
                unlink(&mut self.routes_by_parent, &parent.service, name);
            }
            for backend in before.services(&name.name.namespace) {
                unlink(&mut self.routes_by_backend, &backend, name);
            }
            self.routes.remove(name);
        }
        let Some(route) = route else { return };
        for server in &route.servers {
            link(&mut self.routes_by_server, server.clone(), name);
        }
        for parent in &route.parents {
            link(&mut self.routes_by_parent, parent.service.clone(), name);
        }
        for backend in route.services(&name.name.namespace) {
            link(&mut self.routes_by_backend, backend, name);
        }
        self.routes.insert(name.clone(), route);
    }

    fn set_slice(&mut self, name: &Name, slice: Option<Arc<Slice>>, changed: &mut Changed) {
        let before = self.slices.get(name).cloned();
        if before == slice {
            return;
        }
        changed.endpoints.insert(name.clone());
        let moved = before.as_ref().map(|slice| &slice.service) != slice.as_ref().map(|slice| &slice.service);
        if let Some(before) = before {
            if moved {
                self.touch_service(&before.service, changed);
            }
            unlink(&mut self.slices_by_service, &before.service, name);
            for endpoint in &before.endpoints {
                unlink(&mut self.slices_by_address, &endpoint.address, name);
                if let Some(pod) = &endpoint.pod {
                    unlink(&mut self.slices_by_pod, pod, name);
                }
            }
            self.slices.remove(name);
        }
        let Some(slice) = slice else { return };
        if moved {
            self.touch_service(&slice.service, changed);
        }
        link(&mut self.slices_by_service, slice.service.clone(), name);
        for endpoint in &slice.endpoints {
            link(&mut self.slices_by_address, endpoint.address, name);
            if let Some(pod) = &endpoint.pod {
                link(&mut self.slices_by_pod, pod.clone(), name);
            }
        }
        self.learn_zones(&slice, changed);
        self.slices.insert(name.clone(), slice);
    }

    /// A node stays in its zone for as long as it lives: what was learnt is kept when its endpoints go.
    fn learn_zones(&mut self, slice: &Slice, changed: &mut Changed) {
        for SliceEndpoint { node, zone, .. } in slice.endpoints.iter().filter(|one| !one.node.is_empty()) {
            let known = self.zones.get(node);
            if zone.is_empty() || known == Some(zone) || (known.is_none() && self.zones.len() >= limits::NODES) {
                continue;
            }
            self.zones.insert(Arc::clone(node), Arc::clone(zone));
            let pods = self.pods_by_node.get(node).into_iter().flatten().filter_map(|name| self.pods.get(name));
            changed.workloads.extend(pods.map(|pod| (Arc::clone(node), Arc::clone(&pod.uid))));
        }
    }

    /// What shows a service: its own addresses, and those of the services whose routes lead to it.
    fn touch_service(&self, name: &Name, changed: &mut Changed) {
        self.touch_addresses(name, changed);
        let routes = self.routes_by_backend.get(name).into_iter().flatten().filter_map(|route| self.routes.get(route));
        for parent in routes.flat_map(|route| &route.parents) {
            self.touch_addresses(&parent.service, changed);
        }
    }

    fn touch_addresses(&self, name: &Name, changed: &mut Changed) {
        if let Some(service) = self.services.get(name) {
            changed.addresses.extend(&service.addresses);
        }
    }
}

impl Index {
    /// Restores what a former run of control knew, before the first events.
    pub fn restore_serving(&mut self, uids: impl IntoIterator<Item = Arc<str>>) {
        self.serving.extend(uids);
    }

    /// Drops restored uids of pods that are gone or opted out. To be called once the first scan is in.
    pub fn retain_serving(&mut self) {
        let live: Vec<Arc<str>> = self
            .serving
            .iter()
            .filter(|uid| self.pod_by_uid(uid).is_some_and(|pod| self.is_enabled(pod)))
            .cloned()
            .collect();
        self.serving = live.into_iter().collect();
    }
}
