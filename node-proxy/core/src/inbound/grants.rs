//! Whom authorizations let in, compiled. Must never let in whom none of them names: each of them only adds, and one that says nothing adds
//! nothing.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::{Client, Denial};
use crate::route::ObjectRef;

type Map<K, V> = HashMap<K, V, RandomState>;

/// A network without parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The whole.
    pub cidr: IpNet,
    /// The parts.
    pub except: Vec<IpNet>,
}

impl Network {
    /// Whether an address, in its canonical form, is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|except| except.contains(&address))
    }
}

/// What clients have to have proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Nothing.
    Anyone,
    /// That they speak TLS to the mesh, whoever they are.
    Tls,
    /// Some identity of the mesh.
    Authenticated,
    /// One of these.
    Identities {
        /// Whole names, compared byte by byte.
        exact: Vec<Arc<str>>,
        /// What names end with after a dot; without that dot.
        suffixes: Vec<Arc<str>>,
    },
}

/// Whom one object lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which object.
    pub object: Arc<ObjectRef>,
    /// The networks of the cluster, beside `networks`.
    pub cluster_networks: bool,
    /// Where clients connect from.
    pub networks: Vec<Network>,
    /// Who they have to be.
    pub clients: Clients,
    /// Each one that it lets in is logged.
    pub audit: bool,
}

impl Grant {
    fn is_from_there(&self, cluster: &[IpNet], address: IpAddr) -> bool {
        (self.cluster_networks && cluster.iter().any(|network| network.contains(&address)))
            || self.networks.iter().any(|network| network.contains(address))
    }
}

/// Grants, each of which is enough.
#[derive(Clone, Debug)]
pub struct Grants {
    grants: Vec<Grant>,
    // Numbers of grants, ascending: what a client asks for costs the same however many there are for others.
    by_identity: Map<Arc<str>, Vec<usize>>,
    by_suffix: Map<Arc<str>, Vec<usize>>,
    authenticated: Vec<usize>,
    tls: Vec<usize>,
    anyone: Vec<usize>,
}

impl Grants {
    /// Compiles it.
    pub fn new(grants: Vec<Grant>) -> Grants {
        let mut policy = Grants {
            grants,
            by_identity: Map::default(),
            by_suffix: Map::default(),
            authenticated: Vec::new(),
            tls: Vec::new(),
            anyone: Vec::new(),
        };
        for (number, grant) in policy.grants.iter().enumerate() {
            match &grant.clients {
                Clients::Anyone => policy.anyone.push(number),
                Clients::Tls => policy.tls.push(number),
                Clients::Authenticated => policy.authenticated.push(number),
                Clients::Identities { exact, suffixes } => {
                    for name in exact {
                        policy.by_identity.entry(Arc::clone(name)).or_default().push(number);
                    }
                    for suffix in suffixes {
                        policy.by_suffix.entry(Arc::clone(suffix)).or_default().push(number);
                    }
                }
            }
        }
        policy
    }

    /// All of them, in the order in which they are asked.
    pub fn all(&self) -> &[Grant] {
        &self.grants
    }

    /// The first grant that lets a client in. `cluster` are the networks of the cluster.
    ///
    /// # Errors
    /// None does.
    pub fn decide(&self, cluster: &[IpNet], client: Client<'_>) -> Result<&Grant, Denial> {
        let address = client.address.to_canonical();
        let mut best: Option<usize> = None;
        let mut is_named = false;
        let mut look = |numbers: &[usize]| {
            is_named |= !numbers.is_empty();
            let before = best.unwrap_or(usize::MAX);
            let earlier = numbers.iter().take_while(|number| **number < before);
            let mut fitting = earlier.filter(|number| self.grant(**number).is_from_there(cluster, address));
            best = fitting.next().copied().or(best);
        };
        look(&self.anyone);
        if client.is_tls || client.identity.is_some() {
            look(&self.tls);
        }
        if let Some(identity) = client.identity {
            look(&self.authenticated);
            let name = identity.as_str();
            look(self.by_identity.get(name).map_or(&[], Vec::as_slice));
            for (dot, _) in name.match_indices('.') {
                look(self.by_suffix.get(&name[dot + 1..]).map_or(&[], Vec::as_slice));
            }
        }
        match best {
            Some(number) => Ok(self.grant(number)),
            None if self.grants.is_empty() => Err(Denial::Server),
            None if is_named => Err(Denial::ServerNetworks),
            None if client.identity.is_none() => Err(Denial::ServerUnauthenticated),
            None => Err(Denial::ServerIdentities),
        }
    }

    fn grant(&self, number: usize) -> &Grant {
        // Only `new` makes numbers.
        &self.grants[number]
    }
}
