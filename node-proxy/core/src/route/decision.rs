//! What becomes of one request, as the rule says that it falls under. Must never fall back to the Service itself where a rule names other backends.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};

use super::{
    Facts, Filter, Mirror, ObjectRef, PathMatch, Session, Table,
    cors::{self, Cors},
    rule::{Backend, Rule},
};
use crate::{classify::Classes, retry::Retry, timeouts::Timeouts};

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
    /// Of that backend, or the dialled Service.
    session: Option<Session>,
}

/// What is known of Services at this moment: of those that routes name by their numbers there, and of the dialled one (`None`).
///
/// A function that says which have a ready endpoint is enough where nobody brings a session.
pub trait Services {
    /// Whether it has a ready endpoint.
    fn is_ready(&self, service: usize) -> bool;

    /// Whether it has a ready endpoint of this [`super::number`].
    fn has(&self, service: Option<usize>, endpoint: u64) -> bool;

    /// The time since the Unix epoch.
    fn wall_clock(&self) -> Duration;
}

impl<F: Fn(usize) -> bool> Services for F {
    fn is_ready(&self, service: usize) -> bool {
        self(service)
    }

    fn has(&self, _service: Option<usize>, _endpoint: u64) -> bool {
        false
    }

    fn wall_clock(&self) -> Duration {
        Duration::ZERO
    }
}

/// Decides about a request to `port`. `random` picks the backend where the request goes on with no session.
pub fn decide(table: &Table, facts: &Facts<'_>, port: u16, random: u64, services: impl Services) -> Decision {
    let decided = decide_at(table, facts, port, random, services).map(|(_at, decision)| decision);
    decided.unwrap_or(Decision { route: None, routed: Routed::NoRoute })
}

/// The same, with the number of the route among the table's; none where none of them is for the request.
pub fn decide_at(
    table: &Table,
    facts: &Facts<'_>,
    port: u16,
    random: u64,
    services: impl Services,
) -> Option<(usize, Decision)> {
    let selected = table.select(facts)?;
    let route = table.routes().get(selected.route)?;
    let rule = route.rules.get(selected.rule)?;
    let routed = followed(rule, selected.matched, facts, port, random, &services);
    let decided = Arc::clone(rule.object.as_ref().unwrap_or(&route.object));
    Some((selected.route, Decision { route: Some(decided), routed }))
}

fn followed(
    rule: &Arc<Rule>,
    at: usize,
    facts: &Facts<'_>,
    port: u16,
    random: u64,
    services: &impl Services,
) -> Routed {
    let Some(matched) = rule.matches.get(at) else { return Routed::NoRoute };
    if let Some(answered) = answered(&rule.filters, facts, port, &matched.path) {
        return answered;
    }
    if let Some((session, backend)) = rule.session(facts, services) {
        return match onward(rule, at, backend, facts, port) {
            Routed::Forward(forward) => Routed::Forward(Forward { session: Some(session), ..forward }),
            other => other,
        };
    }
    let Some(backends) = &rule.backends else { return onward(rule, at, None, facts, port) };
    match backends.pick(random, |service| services.is_ready(service)) {
        None => unweighted(),
        Some(index) => onward(rule, at, Some(index), facts, port),
    }
}

impl Rule {
    /// The session that a request goes on with, and the backend that has its endpoint, whatever that one's weight is by now (GEP-1619).
    fn session(&self, facts: &Facts<'_>, services: &impl Services) -> Option<(Session, Option<usize>)> {
        let sessions = self.sessions.as_ref()?;
        sessions.find(facts.headers, services.wall_clock(), |endpoint| match &self.backends {
            None => services.has(None, endpoint).then_some(None),
            Some(backends) => {
                let has = |backend: &Backend| backend.target.as_ref().is_ok_and(|of| services.has(Some(*of), endpoint));
                backends.all.iter().position(has).map(Some)
            }
        })
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
    Routed::Forward(Forward { rule: Arc::clone(rule), matched: at, backend, session: None })
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

    /// Whether its response is to say how to come back.
    pub fn keeps_sessions(&self) -> bool {
        self.rule.sessions.is_some()
    }

    /// The session that it goes on with.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Says on the response of an endpoint how to come back to it; `now` is the time since the Unix epoch.
    pub fn mark_session(&self, endpoint: u64, now: Duration, headers: &mut http::HeaderMap) {
        if let Some(sessions) = &self.rule.sessions {
            let matched = self.rule.matches.get(self.matched).map(|matched| &matched.path);
            sessions.mark(self.session, endpoint, matched, now, headers);
        }
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};

    use super::{
        super::{HttpMatch, Route, rule::Backends},
        *,
    };

    fn backend(weight: u32, target: Result<usize, &str>) -> Backend {
        Backend { filters: Vec::new(), target: target.map_err(Arc::from), weight }
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
