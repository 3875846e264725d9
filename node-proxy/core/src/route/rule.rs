//! Routes of one port of a Service, and the decision for one request. Must never fall back to the Service itself where a rule
//! names other backends.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use http::{HeaderValue, StatusCode};

use super::{
    Connections, Facts, Filter, Hostname, HttpMatch, Mirror, PathMatch, Table,
    cors::{self, Cors},
};
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

/// What decided about a request, and what it said.
#[derive(Clone, Debug)]
pub struct Decision {
    /// None where none of the routes is for the request.
    pub route: Option<Arc<ObjectRef>>,
    /// What it said.
    pub routed: Routed,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Routed {
    /// There are routes, and none is for it.
    NoRoute,
    /// Answered at once.
    Redirect(StatusCode, HeaderValue),
    /// A browser asks whether it may send another request: answered at once, with this header.
    Preflight(http::HeaderMap),
    /// It has a rule, which can be followed no further; for people.
    Broken(Arc<str>),
    /// To be sent on.
    Forward(Forward),
}

/// How a request goes on.
#[derive(Clone, Debug)]
pub struct Forward {
    /// What it falls under.
    rule: Arc<Rule>,
    /// Of the rule's matches the one that holds.
    matched: usize,
    /// Of the rule's backends; none for the dialled Service itself.
    backend: Option<usize>,
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

/// Decides about a request to `port`. `random` picks the backend; `is_ready` says which services have an endpoint at this moment.
pub fn decide(table: &Table, facts: &Facts<'_>, port: u16, random: u64, is_ready: impl Fn(usize) -> bool) -> Decision {
    let none = Decision { route: None, routed: Routed::NoRoute };
    let Some(selected) = table.select(facts) else { return none };
    let Some(route) = table.routes().get(selected.route) else { return none };
    let Some(rule) = route.rules.get(selected.rule) else { return none };
    let routed = followed(rule, selected.matched, facts, port, random, is_ready);
    Decision { route: Some(Arc::clone(rule.object.as_ref().unwrap_or(&route.object))), routed }
}

fn followed(
    rule: &Arc<Rule>,
    at: usize,
    facts: &Facts<'_>,
    port: u16,
    random: u64,
    is_ready: impl Fn(usize) -> bool,
) -> Routed {
    let Some(matched) = rule.matches.get(at) else { return Routed::NoRoute };
    if let Some(answered) = answered(&rule.filters, facts, port, &matched.path) {
        return answered;
    }
    let Some(backends) = &rule.backends else { return onward(rule, at, None, facts, port) };
    match backends.pick(random, is_ready) {
        None => unweighted(),
        Some(index) => onward(rule, at, Some(index), facts, port),
    }
}

/// Where backends are named and none of them has a weight.
pub(super) fn unweighted() -> Routed {
    Routed::Broken(unweighted_reason())
}

pub(super) fn unweighted_reason() -> Arc<str> {
    Arc::from("no backend of the rule has a weight")
}

/// To a backend of the rule; to the dialled Service itself where it has none.
pub(super) fn onward(rule: &Arc<Rule>, at: usize, backend: Option<usize>, facts: &Facts<'_>, port: u16) -> Routed {
    let Some(matched) = rule.matches.get(at) else { return Routed::NoRoute };
    if let Some(index) = backend {
        let chosen = rule.backends.as_ref().and_then(|backends| backends.all.get(index));
        match chosen.map(|backend| (&backend.target, &backend.filters)) {
            Some((Err(reason), _)) => return Routed::Broken(Arc::clone(reason)),
            Some((Ok(_), filters)) => {
                if let Some(answered) = answered(filters, facts, port, &matched.path) {
                    return answered;
                }
            }
            None => return Routed::NoRoute,
        }
    }
    Routed::Forward(Forward { rule: Arc::clone(rule), matched: at, backend })
}

/// By the first filter that does not let the request go on.
pub(super) fn answered(filters: &[Filter], facts: &Facts<'_>, port: u16, matched: &PathMatch) -> Option<Routed> {
    filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(match redirect.location(facts, port, matched) {
            Some(location) => Routed::Redirect(redirect.status, location),
            None => Routed::Broken(Arc::from("the request names no host to redirect it to")),
        }),
        Filter::Cors(cors) => cors.preflight(facts).map(Routed::Preflight),
        _other => None,
    })
}

impl Forward {
    /// Index of the service to balance over; none for the dialled one.
    pub fn service(&self) -> Option<usize> {
        self.of_backend().and_then(|backend| backend.target.as_ref().ok().copied())
    }

    /// Limits of its request.
    pub fn timeouts(&self) -> Timeouts {
        self.rule.timeouts
    }

    /// When it is sent again.
    pub fn retry(&self) -> Option<&Retry> {
        self.rule.retry.as_ref()
    }

    /// What its responses count as, where the rule says so.
    pub fn classes(&self) -> Option<&Arc<Classes>> {
        self.rule.classes.as_ref()
    }

    fn of_backend(&self) -> Option<&Backend> {
        self.rule.backends.as_ref()?.all.get(self.backend?)
    }

    fn filters(&self) -> impl Iterator<Item = &Filter> {
        let of_backend = self.of_backend().map(|backend| &*backend.filters).unwrap_or_default();
        self.rule.filters.iter().chain(of_backend)
    }

    /// Does to the request what rule and backend say. `copy` gets it as it is at the place of each mirror.
    pub fn filter_request<B>(
        &self,
        request: &mut http::Request<B>,
        mut copy: impl FnMut(&Mirror, &mut http::Request<B>),
    ) {
        let Some(matched) = self.rule.matches.get(self.matched) else { return };
        for filter in self.filters() {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.apply_to_request(request),
                Filter::Rewrite(rewrite) => rewrite.apply(request, &matched.path),
                Filter::Mirror(mirror) => copy(mirror, request),
                Filter::ResponseHeaders(_) | Filter::Redirect(_) | Filter::Cors(_) => {}
            }
        }
    }

    /// Of rule and backend the rule's counts: it answers for preflight requests too.
    fn cors(&self) -> Option<&Cors> {
        self.filters().find_map(|filter| match filter {
            Filter::Cors(cors) => Some(&**cors),
            _other => None,
        })
    }

    /// What of the request its response is filtered by; nothing where no CORS filter asks. To be taken before the request is filtered.
    pub fn asking(&self, headers: &http::HeaderMap) -> Option<Asking> {
        self.cors().map(|_cors| Asking(cors::origin(headers)))
    }

    /// Does to the header of the response what rule and backend say; `asking` is the request's, as [`Forward::asking`] gave it.
    pub fn filter_response(&self, asking: Option<&Asking>, headers: &mut http::HeaderMap) {
        for filter in self.filters() {
            if let Filter::ResponseHeaders(modifier) = filter {
                modifier.apply(headers);
            }
        }
        self.mark(asking, headers);
    }

    /// Says on a response, whoever made it, what other origins may read.
    pub fn mark(&self, asking: Option<&Asking>, headers: &mut http::HeaderMap) {
        if let (Some(cors), Some(Asking(origin))) = (self.cors(), asking) {
            cors.mark(origin.as_ref(), headers);
        }
    }
}

/// The origin that a request says it comes from, or none, as CORS filters ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking(Option<HeaderValue>);

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
    use http::{HeaderMap, Method};

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

    #[test]
    fn decisions() {
        let rule = |path: &str, backends: Option<Vec<Backend>>, filters: Vec<Filter>| {
            let matches = vec![HttpMatch { path: PathMatch::prefix(path), ..HttpMatch::default() }];
            let backends = backends.map(Backends::new);
            Arc::new(Rule { filters, matches, backends, ..Rule::default() })
        };
        let to = super::super::filter::Redirect {
            scheme: None,
            hostname: Some("x".into()),
            path: None,
            port: None,
            status: StatusCode::FOUND,
        };
        let rules = vec![
            rule("/self", None, Vec::new()),
            rule("/two", Some(vec![backend(1, Ok(2))]), Vec::new()),
            rule("/none", Some(Vec::new()), Vec::new()),
            rule("/bad", Some(vec![backend(1, Err("gone"))]), Vec::new()),
            rule("/to", None, vec![Filter::Redirect(to)]),
        ];
        let table = Table::new(vec![Route { object: Arc::default(), hostnames: Vec::new(), rules }]).unwrap();
        let headers = HeaderMap::new();
        let decided = |path: &str| {
            let facts = Facts { authority: "web", method: &Method::GET, path, query: "", headers: &headers };
            match decide(&table, &facts, 80, 7, |_| true).routed {
                Routed::NoRoute => "none".to_owned(),
                Routed::Redirect(status, location) => format!("{} {}", status.as_u16(), location.to_str().unwrap()),
                Routed::Preflight(header) => format!("{header:?}"),
                Routed::Broken(reason) => reason.to_string(),
                Routed::Forward(forward) => format!("{:?}", forward.service()),
            }
        };
        assert_eq!(decided("/self"), "None");
        assert_eq!(decided("/two/x"), "Some(2)");
        assert_eq!(decided("/none"), "no backend of the rule has a weight");
        assert_eq!(decided("/bad"), "gone");
        assert_eq!(decided("/to"), "302 http://x/to");
        assert_eq!(decided("/"), "none");
    }
}
