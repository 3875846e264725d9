//! Routes of whole connections: Gateway API's TLSRoutes, by the name that a client asks for, and TCPRoutes. Must never let a connection past
//! them that they do not name.

use std::sync::Arc;

use super::{Hostname, Invalid, ObjectRef, decision::unweighted_reason, rule::Backends, table::Map};

/// What a connection's first bytes were, as far as routes ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting<'a> {
    /// No ClientHello.
    Other,
    /// One, and the name that it asks for, in lower case.
    Tls(Option<&'a str>),
}

/// What decided about a connection, and what it said.
#[derive(Clone, Debug)]
pub struct ConnectionDecision {
    /// None where none of the routes is for the connection.
    pub route: Option<Arc<ObjectRef>>,
    /// What it said.
    pub routed: RoutedConnection,
}

/// What to do with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutedConnection {
    /// There are routes, and none is for it.
    NoRoute,
    /// It has a route, which can be followed no further; for people.
    Broken(Arc<str>),
    /// To the service of this number among those that the routes of this port name; to the dialled Service itself without one.
    Forward(Option<usize>),
}

/// All routes of connections for the same clients.
#[derive(Clone, Debug)]
pub struct Connections {
    routes: Vec<ConnectionRoute>,
    /// None where all connections are the first route's.
    names: Option<Names>,
}

/// One route. It has a single rule.
#[derive(Clone, Debug)]
pub(super) struct ConnectionRoute {
    pub(super) object: Arc<ObjectRef>,
    pub(super) hostnames: Vec<Hostname>,
    pub(super) backends: Option<Backends>,
}

/// Places of routes by the name that clients ask for.
#[derive(Clone, Debug, Default)]
struct Names {
    exact: Map<Box<str>, usize>,
    suffixes: Map<Box<str>, usize>,
    any: Option<usize>,
}

impl Names {
    /// The oldest route of a name has it.
    fn of(routes: &[ConnectionRoute]) -> Names {
        let mut names = Names::default();
        for (at, route) in routes.iter().enumerate() {
            for name in &route.hostnames {
                match name {
                    Hostname::Exact(name) => names.exact.entry(name.clone()).or_insert(at),
                    Hostname::Suffix(suffix) => names.suffixes.entry(suffix.clone()).or_insert(at),
                };
            }
            if route.hostnames.is_empty() {
                names.any.get_or_insert(at);
            }
        }
        names
    }

    /// A whole name before a part of one, a longer part before a shorter one (Gateway API, TLSRoute `hostnames`).
    fn find(&self, name: Option<&str>) -> Option<usize> {
        let by_name = |name: &str| {
            // From the left: the longest suffix first; not the name itself.
            let mut dots = name.bytes().enumerate().filter(|(at, byte)| *at > 0 && *byte == b'.');
            let whole = self.exact.get(name);
            whole.or_else(|| dots.find_map(|(at, _dot)| self.suffixes.get(&name[at..]))).copied()
        };
        name.and_then(by_name).or(self.any)
    }
}

impl Connections {
    /// By the name that clients ask for. `routes` in the order that breaks ties: the oldest first.
    pub(super) fn by_name(routes: Vec<ConnectionRoute>) -> Connections {
        Connections { names: Some(Names::of(&routes)), routes }
    }

    /// All of them by the first route.
    ///
    /// # Errors
    /// One has names.
    pub(super) fn all(routes: Vec<ConnectionRoute>) -> Result<Connections, Invalid> {
        if routes.iter().any(|route| !route.hostnames.is_empty()) {
            return Err(Invalid::new("http_routes.hostnames", "of a route of all connections"));
        }
        Ok(Connections { names: None, routes })
    }

    /// Whether it takes a ClientHello to decide.
    pub fn asks_name(&self) -> bool {
        self.names.is_some()
    }

    /// Where they come from.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.routes.iter().map(|route| &*route.object)
    }

    /// Decides about a connection. `random` picks the backend; `is_ready` says which services have an endpoint at this moment.
    pub fn decide(&self, greeting: Greeting<'_>, random: u64, is_ready: impl Fn(usize) -> bool) -> ConnectionDecision {
        let found = match (&self.names, greeting) {
            (None, _any) => Some(0),
            (Some(names), Greeting::Tls(name)) => names.find(name),
            (Some(_), Greeting::Other) => None,
        };
        let Some(route) = found.and_then(|at| self.routes.get(at)) else {
            return ConnectionDecision { route: None, routed: RoutedConnection::NoRoute };
        };
        ConnectionDecision { route: Some(Arc::clone(&route.object)), routed: route.decide(random, is_ready) }
    }
}

impl ConnectionRoute {
    fn decide(&self, random: u64, is_ready: impl Fn(usize) -> bool) -> RoutedConnection {
        let Some(backends) = &self.backends else { return RoutedConnection::Forward(None) };
        let picked = backends.pick(random, is_ready).and_then(|index| backends.all.get(index));
        match picked.map(|backend| &backend.target) {
            None => RoutedConnection::Broken(unweighted_reason()),
            Some(Err(reason)) => RoutedConnection::Broken(Arc::clone(reason)),
            Some(Ok(service)) => RoutedConnection::Forward(Some(*service)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{super::rule::Backend, *};

    fn route(hostnames: &[&str], backends: Option<&[(u32, Result<usize, &str>)]>) -> ConnectionRoute {
        let backend = |(weight, target): &(u32, Result<usize, &str>)| Backend {
            filters: Vec::new(),
            target: target.map_err(Arc::from),
            weight: *weight,
        };
        ConnectionRoute {
            object: Arc::default(),
            hostnames: hostnames.iter().map(|name| Hostname::new(name).unwrap()).collect(),
            backends: backends.map(|all| Backends::new(all.iter().map(backend).collect())),
        }
    }

    fn to(service: usize, hostnames: &[&str]) -> ConnectionRoute {
        route(hostnames, Some(&[(1, Ok(service))]))
    }

    #[test]
    fn names_are_looked_for_from_the_longest() {
        let routes = vec![
            to(0, &["*.example.com"]),
            to(1, &["*.a.example.com", "b.org"]),
            to(2, &["x.a.example.com", "b.org"]),
            route(&[], None),
        ];
        let decided =
            |routes: &[ConnectionRoute], greeting| Connections::by_name(routes.to_vec()).decide(greeting, 0, |_| true);
        for (name, service) in [
            ("y.example.com", Some(0)),
            ("y.a.example.com", Some(1)),
            ("x.a.example.com", Some(2)),
            ("b.org", Some(1)),
            ("example.com", None),
            ("c.org", None),
        ] {
            let decision = decided(&routes, Greeting::Tls(Some(name)));
            assert_eq!(decision.routed, RoutedConnection::Forward(service), "{name}");
        }
        assert_eq!(decided(&routes, Greeting::Tls(None)).routed, RoutedConnection::Forward(None));
        assert_eq!(decided(&routes, Greeting::Other).routed, RoutedConnection::NoRoute, "it is not TLS");
        assert_eq!(decided(&routes[..3], Greeting::Tls(None)).routed, RoutedConnection::NoRoute);
        assert!(decided(&routes[..3], Greeting::Tls(Some("c.org"))).route.is_none());
    }

    #[test]
    fn all_connections_are_the_first_routes() {
        let connections = Connections::all(vec![to(4, &[]), to(5, &[])]).unwrap();
        for greeting in [Greeting::Other, Greeting::Tls(Some("a.org")), Greeting::Tls(None)] {
            assert_eq!(connections.decide(greeting, 9, |_| true).routed, RoutedConnection::Forward(Some(4)));
        }
        assert!(Connections::all(vec![to(0, &["a.org"])]).is_err());
    }

    #[test]
    fn who_is_no_backend_breaks_its_share() {
        let connections = |backends| Connections::all(vec![route(&[], Some(backends))]).unwrap();
        let routed = |connections: &Connections, random| connections.decide(Greeting::Other, random, |_| true).routed;
        let gone = RoutedConnection::Broken(Arc::from("gone"));
        assert_eq!(routed(&connections(&[(1, Err("gone"))]), 3), gone);
        assert!(matches!(routed(&connections(&[]), 3), RoutedConnection::Broken(_)));
        assert!(matches!(routed(&connections(&[(0, Ok(1))]), 3), RoutedConnection::Broken(_)));
        let half = connections(&[(1, Err("gone")), (1, Ok(7))]);
        let mut random = fastrand::Rng::with_seed(7);
        let hits = (0..10_000).filter(|_| routed(&half, random.u64(..)) == gone).count();
        assert!((4_800..5_200).contains(&hits), "{hits}");
    }

    const NAMES: [&str; 8] = ["a.org", "*.a.org", "b.a.org", "*.b.a.org", "c.b.a.org", "*.org", "a.net", "*.c.b.a.org"];
    const ASKED: [&str; 9] =
        ["a.org", "b.a.org", "c.b.a.org", "d.c.b.a.org", "x.a.org", "a.net", "x.net", "org", "e.d.c.b.a.org"];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]
        #[test]
        fn agrees_with_a_naive_reading(given in vec(vec(select(&NAMES[..]), 0..4), 0..6)) {
            let routes: Vec<_> = given.iter().enumerate().map(|(at, names)| to(at, names)).collect();
            let connections = Connections::by_name(routes.clone());
            for asked in ASKED {
                // Of all names that fit the most specific one, of those the oldest route's; a route without names is the least specific.
                let fits = routes.iter().enumerate().flat_map(|(at, route)| {
                    let named = route.hostnames.iter().filter(|name| name.matches(asked)).map(Hostname::specificity);
                    let any = route.hostnames.is_empty().then_some((false, 0));
                    named.chain(any).map(move |specificity| (specificity, std::cmp::Reverse(at)))
                });
                let expected = match fits.max() {
                    Some((_, std::cmp::Reverse(at))) => RoutedConnection::Forward(Some(at)),
                    None => RoutedConnection::NoRoute,
                };
                prop_assert_eq!(connections.decide(Greeting::Tls(Some(asked)), 0, |_| true).routed, expected);
            }
        }
    }
}
