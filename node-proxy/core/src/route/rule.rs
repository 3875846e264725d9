//! Routes of one port of a Service: their rules and backends. Must never leave a share to a backend that has no weight.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{Connections, Filter, Hostname, HttpMatch, SessionPersistence, Table};
use crate::{classify::Classes, proxy_error::ProxyError, retry::Retry, timeouts::Timeouts};

/// The object that something came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Empty: core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Name of one of its rules, where they have names (ServiceProfile); else empty.
    pub rule: Arc<str>,
}

impl ObjectRef {
    /// Whether it is about calls: a GRPCRoute.
    pub fn is_of_calls(&self) -> bool {
        &*self.kind == "GRPCRoute"
    }

    /// Whether it is a rule of a ServiceProfile or TrafficSplit, whose requests share one budget of retries wherever they go: that of what was dialled.
    pub fn is_of_profile(&self) -> bool {
        !self.rule.is_empty()
    }

    /// What a request gets that this route leaves without a backend.
    pub fn broken(&self) -> ProxyError {
        if self.is_of_calls() { ProxyError::CallBackendInvalid } else { ProxyError::BackendInvalid }
    }
}

impl From<&weir_api::v1::ObjectRef> for ObjectRef {
    fn from(given: &weir_api::v1::ObjectRef) -> ObjectRef {
        ObjectRef {
            group: Arc::from(given.group.as_str()),
            kind: Arc::from(given.kind.as_str()),
            namespace: Arc::from(given.namespace.as_str()),
            name: Arc::from(given.name.as_str()),
            rule: Arc::default(),
        }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// An HTTPRoute, a GRPCRoute, or a ServiceProfile.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which.
    pub object: Arc<ObjectRef>,
    pub(super) hostnames: Vec<Hostname>,
    pub(super) rules: Vec<Arc<Rule>>,
}

/// One rule of a route.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// What is done to its requests and responses, in this order.
    pub filters: Vec<Filter>,
    pub(super) matches: Vec<HttpMatch>,
    pub(super) backends: Option<Backends>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    /// Of a rule that has a name: what its requests are counted by.
    pub(super) object: Option<Arc<ObjectRef>>,
    /// What its responses count as, where it says so.
    pub(super) classes: Option<Arc<Classes>>,
    /// How its requests find their endpoint again, where they do.
    pub(super) sessions: Option<Box<SessionPersistence>>,
}

/// Backends by weight.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) all: Vec<Backend>,
    /// Sum of the weights.
    pub(super) total: u64,
}

/// Where a share of a rule's requests goes.
#[derive(Clone, Debug)]
pub struct Backend {
    /// What is done to its requests and responses, after what the rule does.
    pub filters: Vec<Filter>,
    /// Index among the services that the routes of this port name; or why there is none.
    pub target: Result<usize, Arc<str>>,
    pub(super) weight: u32,
}

/// All routes of one port of a Service.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Of the Service's own namespace.
    pub(super) producer: Option<Deciding>,
    /// By namespace of their clients.
    pub(super) consumers: HashMap<Arc<str>, Deciding, RandomState>,
}

/// What decides for the same clients: about each of their requests, or about their connections.
#[derive(Clone, Debug)]
pub(super) enum Deciding {
    Requests(Table),
    Connections(Box<Connections>),
}

impl Routes {
    fn of(&self, namespace: &str) -> Option<&Deciding> {
        self.consumers.get(namespace).or(self.producer.as_ref())
    }

    /// The routes that hold for requests of clients of a namespace; none when there are none for them.
    pub fn of_client(&self, namespace: &str) -> Option<&Table> {
        match self.of(namespace)? {
            Deciding::Requests(table) => Some(table),
            Deciding::Connections(_) => None,
        }
    }

    /// What decides about requests where all clients are alike.
    pub fn into_requests(self) -> Option<Table> {
        match self.producer? {
            Deciding::Requests(table) => Some(table),
            Deciding::Connections(_) => None,
        }
    }

    /// Those that hold for their connections instead; none when there are none for them.
    pub fn of_connections(&self, namespace: &str) -> Option<&Connections> {
        match self.of(namespace)? {
            Deciding::Connections(connections) => Some(connections),
            Deciding::Requests(_) => None,
        }
    }

    /// Where they come from.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.producer.iter().chain(self.consumers.values()).flat_map(|deciding| {
            let (requests, connections) = match deciding {
                Deciding::Requests(table) => (table.routes(), None),
                Deciding::Connections(connections) => (&[][..], Some(connections.objects())),
            };
            requests.iter().map(|route| &*route.object).chain(connections.into_iter().flatten())
        })
    }
}

impl Backends {
    pub(super) fn new(all: Vec<Backend>) -> Backends {
        let total = all.iter().map(|backend| u64::from(backend.weight)).sum();
        Backends { all, total }
    }

    /// By weight. A service that has no ready endpoint leaves its share to those that have one; an invalid backend keeps its own.
    pub(super) fn pick(&self, random: u64, is_ready: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.at(below(random, self.total), |_backend| true)?;
        let serves = |backend: &Backend| backend.target.as_ref().is_ok_and(|service| is_ready(*service));
        let chosen = self.all.get(first)?;
        if chosen.target.is_err() || serves(chosen) {
            return Some(first);
        }
        let total: u64 =
            self.all.iter().filter(|backend| serves(backend)).map(|backend| u64::from(backend.weight)).sum();
        self.at(below(random.rotate_left(32), total), serves).or(Some(first))
    }

    /// Which part of the requests each of them gets by [`Backends::pick`]; nothing where none has a weight.
    pub(super) fn shares(&self, is_ready: impl Fn(usize) -> bool) -> Vec<f64> {
        let serves = |backend: &Backend| backend.target.as_ref().is_ok_and(|service| is_ready(*service));
        let sum = |counted: &dyn Fn(&Backend) -> bool| -> f64 {
            self.all.iter().filter(|backend| counted(backend)).map(|backend| f64::from(backend.weight)).sum()
        };
        let (total, serving) = (sum(&|_backend| true), sum(&serves));
        let leaves = |backend: &Backend| backend.target.is_ok() && !serves(backend) && serving > 0.0;
        let left = sum(&leaves);
        let share = |backend: &Backend| {
            let own = f64::from(backend.weight);
            match (total > 0.0, leaves(backend), serves(backend)) {
                (false, ..) | (true, true, _) => 0.0,
                (true, false, true) => (own + left * own / serving.max(f64::MIN_POSITIVE)) / total,
                (true, false, false) => own / total,
            }
        };
        self.all.iter().map(share).collect()
    }

    /// The one that holds the given share of those that are `counted`.
    fn at(&self, mut share: u64, counted: impl Fn(&Backend) -> bool) -> Option<usize> {
        self.all.iter().position(|backend| {
            if !counted(backend) {
                return false;
            }
            match share.checked_sub(backend.weight.into()) {
                Some(left) => {
                    share = left;
                    false
                }
                None => true,
            }
        })
    }
}

/// A number below `bound` from 64 random bits, by multiplication (Lemire 2016); 0 for 0.
pub(super) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(weight: u32, target: Result<usize, &str>) -> Backend {
        Backend { filters: Vec::new(), target: target.map_err(Arc::from), weight }
    }

    fn shares(backends: Vec<Backend>, ready: &[usize]) -> Vec<u32> {
        let count = backends.len();
        let backends = Backends::new(backends);
        let said = backends.shares(|service| ready.contains(&service));
        let mut hits = vec![0; count];
        let mut random = 1_u64;
        for _ in 0..100_000 {
            // A linear congruential generator's upper bits are good enough (Knuth, MMIX).
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if let Some(index) = backends.pick(random, |service| ready.contains(&service)) {
                hits[index] += 1;
            }
        }
        for (said, hits) in said.iter().zip(&hits) {
            assert!((said * 100_000.0 - f64::from(*hits)).abs() < 1_000.0, "{said} {hits}");
        }
        hits
    }

    #[test]
    fn shares_are_the_weights() {
        let hits = shares(vec![backend(1, Ok(0)), backend(0, Ok(1)), backend(9, Ok(2))], &[0, 1, 2]);
        assert!((9_500..10_500).contains(&hits[0]) && hits[1] == 0 && hits[0] + hits[2] == 100_000, "{hits:?}");
        assert_eq!(shares(vec![backend(0, Ok(0))], &[0]), [0]);
        assert_eq!(shares(Vec::new(), &[]), Vec::<u32>::new());
    }

    #[test]
    fn who_cannot_serve_leaves_its_share_and_who_is_invalid_keeps_it() {
        let hits = shares(vec![backend(1, Ok(0)), backend(1, Ok(1)), backend(2, Ok(2))], &[1, 2]);
        assert!(hits[0] == 0 && (32_000..34_700).contains(&hits[1]), "{hits:?}");
        let hits = shares(vec![backend(1, Err("gone")), backend(1, Ok(1))], &[1]);
        assert!((49_000..51_000).contains(&hits[0]), "{hits:?}");
        assert_eq!(shares(vec![backend(1, Ok(0))], &[]), [100_000], "it waits there, as without routes");
    }
}
