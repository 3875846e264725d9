//! Inbound policy objects, findable by what they are about. Must never forget who depends on one: a grant that is taken back has to reach
//! every Server that it was for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use super::{Changed, Index, link, unlink};
use crate::objects::{
    Kind, Name, ObjectName, Pod,
    authorization::{AuthorizationPolicy, Policy, PolicyTarget, Server, ServerAuthorization},
};

/// All policy objects.
#[derive(Debug, Default)]
pub(super) struct Policies {
    servers: BTreeMap<Name, Arc<Policy>>,
    server_authorizations: BTreeMap<Name, Arc<Policy>>,
    authorization_policies: BTreeMap<Name, Arc<Policy>>,
    authentications: HashMap<ObjectName, Arc<Policy>>,
    /// AuthorizationPolicies by what they refer to.
    by_reference: HashMap<ObjectName, BTreeSet<Name>>,
}

/// Those of one namespace, in the order of their names.
fn within<'a>(
    all: &'a BTreeMap<Name, Arc<Policy>>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a Name, &'a Policy)> {
    let first = Name::new(namespace, "");
    let from = all.range((Bound::Included(first), Bound::Unbounded));
    from.take_while(move |(name, _)| *name.namespace == *namespace).map(|(name, policy)| (name, &**policy))
}

impl Policies {
    fn of_kind(&mut self, kind: Kind) -> Option<&mut BTreeMap<Name, Arc<Policy>>> {
        match kind {
            Kind::Server => Some(&mut self.servers),
            Kind::ServerAuthorization => Some(&mut self.server_authorizations),
            Kind::AuthorizationPolicy => Some(&mut self.authorization_policies),
            _other => None,
        }
    }

    /// What was there before.
    fn replace(&mut self, own: &ObjectName, policy: Option<Arc<Policy>>) -> Option<Arc<Policy>> {
        let before = match self.of_kind(own.kind) {
            Some(all) => match policy.clone() {
                Some(policy) => all.insert(own.name.clone(), policy),
                None => all.remove(&own.name),
            },
            None => match policy.clone() {
                Some(policy) => self.authentications.insert(own.clone(), policy),
                None => self.authentications.remove(own),
            },
        };
        if let Some(Policy::AuthorizationPolicy(before)) = before.as_deref() {
            for referred in before.refers_to() {
                unlink(&mut self.by_reference, referred, &own.name);
            }
        }
        if let Some(Policy::AuthorizationPolicy(policy)) = policy.as_deref() {
            for referred in policy.refers_to() {
                link(&mut self.by_reference, referred.clone(), &own.name);
            }
        }
        before
    }

    fn servers_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Name, &'a Server)> {
        within(&self.servers, namespace).filter_map(|(name, policy)| match policy {
            Policy::Server(server) => Some((name, server)),
            _other => None,
        })
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Server => self.servers.len(),
            Kind::ServerAuthorization => self.server_authorizations.len(),
            Kind::AuthorizationPolicy => self.authorization_policies.len(),
            kind => self.authentications.keys().filter(|own| own.kind == kind).count(),
        }
    }
}

impl Index {
    pub(super) fn set_policy(&mut self, own: &ObjectName, policy: Option<Arc<Policy>>, changed: &mut Changed) {
        let before = self.policies.replace(own, policy.clone());
        if before == policy {
            return;
        }
        for policy in before.iter().chain(&policy) {
            self.touch_policy(own, policy, changed);
        }
    }

    /// What shows a policy object: Servers that it lets clients into, and of a Server itself the pods that it is about.
    fn touch_policy(&self, own: &ObjectName, policy: &Policy, changed: &mut Changed) {
        let namespace = &own.name.namespace;
        match policy {
            Policy::Server(server) => {
                changed.servers.insert(own.name.clone());
                self.touch_pods_of(namespace, server, changed);
            }
            Policy::ServerAuthorization(authorization) => {
                let about = self.policies.servers_of(namespace);
                let about = about.filter(|(name, server)| authorization.is_about(name, server));
                changed.servers.extend(about.map(|(name, _)| name.clone()));
            }
            Policy::AuthorizationPolicy(policy) => self.touch_authorization(namespace, policy, changed),
            Policy::MeshTls(_) | Policy::Networks(_) => self.touch_referring(own, changed),
            // Was nobody's, and is nobody's.
            Policy::Broken => self.touch_referring(own, changed),
        }
    }

    fn touch_authorization(&self, namespace: &str, policy: &AuthorizationPolicy, changed: &mut Changed) {
        if let PolicyTarget::Route(own) = &policy.target {
            changed.servers.extend(self.route(own).into_iter().flat_map(|route| &route.servers).cloned());
            return;
        }
        let about = self.policies.servers_of(namespace).map(|(name, _)| name);
        changed.servers.extend(about.filter(|name| policy.is_about(name)).cloned());
    }

    fn touch_referring(&self, own: &ObjectName, changed: &mut Changed) {
        for name in self.policies.by_reference.get(own).into_iter().flatten() {
            if let Some(Policy::AuthorizationPolicy(policy)) =
                self.policies.authorization_policies.get(name).map(AsRef::as_ref)
            {
                self.touch_authorization(&name.namespace, policy, changed);
            }
        }
    }

    fn touch_pods_of(&self, namespace: &str, server: &Server, changed: &mut Changed) {
        let Some(selector) = &server.pods else { return };
        let pods =
            self.pods.iter().filter(|(name, pod)| *name.namespace == *namespace && selector.matches(&pod.labels));
        for (name, pod) in pods {
            self.touch_pod(name, pod, changed);
        }
    }

    /// Servers that are about a pod, in the order in which they decide: of two that name a port the older one, then by name.
    pub fn servers_of_pod<'a>(&'a self, pod: &'a Pod) -> Vec<(&'a Name, &'a Server)> {
        let of_namespace = self.policies.servers_of(&pod.reference.namespace);
        let is_about = |server: &Server| server.pods.as_ref().is_some_and(|selector| selector.matches(&pod.labels));
        let mut servers: Vec<_> = of_namespace.filter(|(_, server)| is_about(server)).collect();
        servers.sort_by(|(one, first), (other, second)| (&first.created, one).cmp(&(&second.created, other)));
        servers
    }

    /// A Server by namespace and name.
    pub fn server(&self, name: &Name) -> Option<&Server> {
        match self.policies.servers.get(name).map(AsRef::as_ref) {
            Some(Policy::Server(server)) => Some(server),
            _other => None,
        }
    }

    /// ServerAuthorizations of a Server, by name.
    pub fn server_authorizations<'a>(
        &'a self,
        name: &'a Name,
        server: &'a Server,
    ) -> impl Iterator<Item = (&'a Name, &'a ServerAuthorization)> {
        within(&self.policies.server_authorizations, &name.namespace).filter_map(move |(own, policy)| match policy {
            Policy::ServerAuthorization(given) if given.is_about(name, server) => Some((own, given)),
            _other => None,
        })
    }

    /// AuthorizationPolicies of a Server, by name.
    pub fn authorization_policies<'a>(
        &'a self,
        name: &'a Name,
    ) -> impl Iterator<Item = (&'a Name, &'a AuthorizationPolicy)> {
        within(&self.policies.authorization_policies, &name.namespace).filter_map(move |(own, policy)| match policy {
            Policy::AuthorizationPolicy(given) if given.is_about(name) => Some((own, given)),
            _other => None,
        })
    }

    /// AuthorizationPolicies of one route, by name.
    pub fn policies_of_route<'a>(
        &'a self,
        route: &'a ObjectName,
    ) -> impl Iterator<Item = (&'a Name, &'a AuthorizationPolicy)> {
        within(&self.policies.authorization_policies, &route.name.namespace).filter_map(move |(own, policy)| {
            match policy {
                Policy::AuthorizationPolicy(given) if given.target == PolicyTarget::Route(route.clone()) => {
                    Some((own, given))
                }
                _other => None,
            }
        })
    }

    /// What an AuthorizationPolicy refers to.
    pub fn authentication(&self, own: &ObjectName) -> Option<&Policy> {
        self.policies.authentications.get(own).map(AsRef::as_ref)
    }
}
