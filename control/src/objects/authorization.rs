//! Who may call whom, as Linkerd's policy objects say it: Servers name ports, the others let clients in. Must never mean more than was
//! written: what is not understood lets nobody in.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use weir_api::v1;
use weir_core::inbound::{Clients, DefaultPolicy, Network};

use super::{Kind, Name, ObjectName};

/// Labels of an object.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// A label selector (`metav1.LabelSelector`): all of its requirements hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Of the label.
    pub key: Arc<str>,
    /// What is asked of it.
    pub operator: Operator,
}

/// What a requirement asks of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of these values.
    In(Vec<Arc<str>>),
    /// None of these values, or no such label.
    NotIn(Vec<Arc<str>>),
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
}

impl Selector {
    /// Whether labels are meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement { key, operator }| {
            let value = labels.get(key);
            match operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// Which port of its pods a Server is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPort {
    /// By number.
    Number(u16),
    /// By name of containers' ports; a name can be that of several.
    Named(Arc<str>),
    /// Not understood: any may be meant.
    Any,
}

/// `policy.linkerd.io/Server`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `metadata.creationTimestamp`: of two that name a port the older one decides.
    pub created: Arc<str>,
    /// Its own, which ServerAuthorizations select by.
    pub labels: Labels,
    /// Pods of its namespace; none where it is about something else than pods.
    pub pods: Option<Selector>,
    /// Which port of them.
    pub port: ServerPort,
    /// `proxyProtocol`.
    pub protocol: v1::Protocol,
    /// `accessPolicy`: whom it lets in by itself.
    pub access: DefaultPolicy,
}

/// Which Servers of its namespace a ServerAuthorization is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTarget {
    /// One.
    Name(Arc<str>),
    /// By their labels.
    Selector(Selector),
}

/// `policy.linkerd.io/ServerAuthorization`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAuthorization {
    /// Which Servers.
    pub servers: ServerTarget,
    /// Where clients connect from; none: the networks of the cluster.
    pub networks: Option<Vec<Network>>,
    /// Who they have to be.
    pub clients: Clients,
}

/// What an AuthorizationPolicy is about, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// One Server.
    Server(Arc<str>),
    /// All of them.
    Namespace,
    /// Requests that fall under one route of Servers.
    Route(ObjectName),
}

/// `policy.linkerd.io/AuthorizationPolicy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// What it is about.
    pub target: PolicyTarget,
    /// Who clients have to be.
    pub clients: Required<Clients>,
    /// Where they connect from.
    pub networks: Required<Vec<Network>>,
}

/// What an AuthorizationPolicy asks of one side of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Required<T> {
    /// Nothing.
    Nothing,
    /// This.
    These(T),
    /// What this object says. Nobody is let in while it is not there.
    Object(ObjectName),
}

impl<T> Required<T> {
    fn object(&self) -> Option<&ObjectName> {
        match self {
            Required::Object(object) => Some(object),
            Required::Nothing | Required::These(_) => None,
        }
    }
}

/// A policy object, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Names ports.
    Server(Server),
    /// Lets clients in.
    ServerAuthorization(ServerAuthorization),
    /// Lets clients in.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `policy.linkerd.io/MeshTLSAuthentication`
    MeshTls(Clients),
    /// `policy.linkerd.io/NetworkAuthentication`
    Networks(Vec<Network>),
    /// Not understood. It is there, and lets nobody in.
    Broken,
}

impl Server {
    /// Of a Server that is not understood: closes whatever it may have meant.
    pub fn strictest(created: Arc<str>, labels: Labels) -> Server {
        Server {
            created,
            labels,
            pods: Some(Selector::default()),
            port: ServerPort::Any,
            protocol: v1::Protocol::Detect,
            access: DefaultPolicy::Deny,
        }
    }

    /// Ports of a pod, whose containers name some.
    pub fn ports<'a>(&'a self, named: &'a [(Arc<str>, u16)]) -> Vec<(u16, u16)> {
        match &self.port {
            ServerPort::Number(port) => vec![(*port, *port)],
            ServerPort::Any => vec![(1, u16::MAX)],
            ServerPort::Named(name) => {
                named.iter().filter(|(known, _)| known == name).map(|(_, port)| (*port, *port)).collect()
            }
        }
    }
}

impl ServerAuthorization {
    /// Whether it is about a Server of its own namespace.
    pub fn is_about(&self, name: &Name, server: &Server) -> bool {
        match &self.servers {
            ServerTarget::Name(meant) => *meant == name.name,
            ServerTarget::Selector(selector) => selector.matches(&server.labels),
        }
    }
}

impl AuthorizationPolicy {
    /// Objects that it refers to.
    pub fn refers_to(&self) -> impl Iterator<Item = &ObjectName> {
        self.clients.object().into_iter().chain(self.networks.object())
    }

    /// Whether it is about a Server of its own namespace.
    pub fn is_about(&self, name: &Name) -> bool {
        match &self.target {
            PolicyTarget::Server(meant) => *meant == name.name,
            PolicyTarget::Namespace => true,
            PolicyTarget::Route(_) => false,
        }
    }
}

/// Everywhere.
pub fn everywhere() -> Vec<Network> {
    let whole = |cidr: IpNet| Network { cidr, except: Vec::new() };
    vec![whole(ipnet::Ipv4Net::default().into()), whole(ipnet::Ipv6Net::default().into())]
}

/// Lower-case, as Linkerd's metrics have them.
pub fn label_of(kind: Kind) -> String {
    kind.as_str().to_ascii_lowercase()
}
