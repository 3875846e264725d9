//! All rules of one service, compiled. Must never walk all of them for one request.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::{
    Facts, Hostname, HttpMatch, Invalid, PathMatch, calls::Calls, hostname::of_authority, ordered::Ordered,
    pattern::anchored, prefixes::Prefixes, rule::Route,
};
use crate::limits;

pub(super) type Map<K, V> = HashMap<K, V, RandomState>;

/// The winner: indices into what the table was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selected {
    /// The route.
    pub route: usize,
    /// Its rule.
    pub rule: usize,
    /// The rule's match.
    pub matched: usize,
}

/// Rules, and how the one that counts is found.
#[derive(Clone, Debug)]
pub struct Table {
    routes: Vec<Route>,
    rules: Rules,
}

#[derive(Clone, Debug)]
enum Rules {
    /// Gateway API's.
    ByPrecedence(Box<Hosts>),
    /// A ServiceProfile's.
    Ordered(Box<Ordered>),
}

/// Rules by host, then by path, in order of precedence.
#[derive(Clone, Debug)]
struct Hosts {
    exact: Map<Box<str>, Paths>,
    suffixes: Map<Box<str>, Paths>,
    any: Paths,
}

/// Rules of one host name.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: Map<Box<str>, Vec<Candidate>>,
    patterns: Patterns,
    prefixes: Prefixes<Vec<Candidate>>,
    calls: Calls,
}

/// Regular expressions, all tried in one walk over the path.
#[derive(Clone, Debug, Default)]
struct Patterns {
    candidates: Vec<Candidate>,
    set: Option<RegexSet>,
}

/// One match, and what it has beside its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    weight: [usize; 4],
    pub(super) at: Selected,
}

impl Candidate {
    /// First is best.
    pub(super) fn order(&self) -> impl Ord + use<> {
        (std::cmp::Reverse(self.weight), self.at)
    }

    pub(super) fn holds_beside_path(&self, facts: &Facts<'_>, routes: &[Route]) -> bool {
        match_at(routes, self.at).is_some_and(|one| one.holds_beside_path(facts))
    }
}

impl Table {
    /// `routes` in the order that breaks ties: the oldest first, then by namespace and name.
    ///
    /// # Errors
    /// Too many regular expressions, or too large ones, to be tried in one walk.
    pub(super) fn new(routes: Vec<Route>) -> Result<Table, Invalid> {
        let (mut exact, mut suffixes): (Map<Box<str>, Paths>, Map<Box<str>, Paths>) = Default::default();
        let mut any = Paths::default();
        for (route_index, route) in routes.iter().enumerate() {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                for (matched, http_match) in rule.matches.iter().enumerate() {
                    let at = Selected { route: route_index, rule: rule_index, matched };
                    let candidate = Candidate { weight: http_match.weight(), at };
                    for name in &route.hostnames {
                        let paths: &mut Paths = match name {
                            Hostname::Exact(name) => exact.entry(name.clone()).or_default(),
                            Hostname::Suffix(suffix) => suffixes.entry(suffix.clone()).or_default(),
                        };
                        paths.add(&http_match.path, candidate);
                    }
                    if route.hostnames.is_empty() {
                        any.add(&http_match.path, candidate);
                    }
                }
            }
        }
        for paths in exact.values_mut().chain(suffixes.values_mut()).chain([&mut any]) {
            paths.finish(&routes)?;
        }
        Ok(Table { routes, rules: Rules::ByPrecedence(Box::new(Hosts { exact, suffixes, any })) })
    }

    /// The only route, of which the first rule that holds counts.
    pub(super) fn ordered(route: Route, rules: Ordered) -> Table {
        Table { routes: vec![route], rules: Rules::Ordered(Box::new(rules)) }
    }

    /// How its rules stand where the first one that holds counts.
    pub(super) fn in_order(&self) -> Option<&Ordered> {
        match &self.rules {
            Rules::Ordered(rules) => Some(rules),
            Rules::ByPrecedence(_) => None,
        }
    }

    /// The routes that it was built from.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The rule that a request falls under; `None`: none of them, which Gateway API answers with 404.
    pub fn select(&self, facts: &Facts<'_>) -> Option<Selected> {
        match &self.rules {
            Rules::ByPrecedence(hosts) => hosts.select(facts, &self.routes),
            Rules::Ordered(rules) => rules.select(facts),
        }
    }
}

impl Hosts {
    fn select(&self, facts: &Facts<'_>, routes: &[Route]) -> Option<Selected> {
        let by_name = || {
            if self.exact.is_empty() && self.suffixes.is_empty() {
                return None;
            }
            let host = of_authority(facts.authority)?;
            let whole = self.exact.get(host.as_str()).and_then(|paths| paths.select(facts, routes));
            // From the left: the longest suffix first; not the host itself.
            let mut dots = host.bytes().enumerate().filter(|(at, byte)| *at > 0 && *byte == b'.');
            whole.or_else(|| dots.find_map(|(at, _dot)| self.suffixes.get(&host[at..])?.select(facts, routes)))
        };
        by_name().or_else(|| self.any.select(facts, routes))
    }
}

pub(super) fn match_at(routes: &[Route], at: Selected) -> Option<&HttpMatch> {
    routes.get(at.route)?.rules.get(at.rule)?.matches.get(at.matched)
}

/// The best one whose conditions beside the path hold.
pub(super) fn first(candidates: &[Candidate], facts: &Facts<'_>, routes: &[Route]) -> Option<Candidate> {
    candidates.iter().find(|candidate| candidate.holds_beside_path(facts, routes)).copied()
}

impl Paths {
    fn add(&mut self, path: &PathMatch, candidate: Candidate) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(candidate),
            PathMatch::Pattern(_) => self.patterns.candidates.push(candidate),
            PathMatch::Prefix(prefix) => self.prefixes.entry(prefix).push(candidate),
            PathMatch::Call(call) => self.calls.add(call, candidate),
        }
    }

    fn finish(&mut self, routes: &[Route]) -> Result<(), Invalid> {
        for candidates in self.exact.values_mut() {
            candidates.sort_by_key(Candidate::order);
        }
        self.prefixes.for_each(|candidates| candidates.sort_by_key(Candidate::order));
        self.calls.finish(routes)?;
        self.patterns.finish(routes)
    }

    fn select(&self, facts: &Facts<'_>, routes: &[Route]) -> Option<Selected> {
        let first = |candidates: &Vec<Candidate>| first(candidates, facts, routes);
        let exact = self.exact.get(facts.path).and_then(first);
        let best = exact
            .or_else(|| self.calls.select(facts, routes))
            .or_else(|| self.patterns.select(facts, routes))
            .or_else(|| self.prefixes.longest(facts.path, first))?;
        Some(best.at)
    }
}

impl Patterns {
    fn finish(&mut self, routes: &[Route]) -> Result<(), Invalid> {
        self.candidates.sort_by_key(Candidate::order);
        let texts = self.candidates.iter().filter_map(|candidate| match &match_at(routes, candidate.at)?.path {
            PathMatch::Pattern(pattern) => Some(anchored(pattern.as_str())),
            PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Call(_) => None,
        });
        self.set = pattern_set(texts.collect())?;
        Ok(())
    }

    fn select(&self, facts: &Facts<'_>, routes: &[Route]) -> Option<Candidate> {
        let matched = self.set.as_ref()?.matches(facts.path.as_bytes());
        let mut candidates = matched.iter().filter_map(|index| self.candidates.get(index));
        candidates.find(|candidate| candidate.holds_beside_path(facts, routes)).copied()
    }
}

/// All of them in one walk over a text; none where there are none.
pub(super) fn pattern_set(texts: Vec<String>) -> Result<Option<RegexSet>, Invalid> {
    if texts.is_empty() {
        return Ok(None);
    }
    let built = RegexSetBuilder::new(&texts)
        .unicode(false)
        .size_limit(limits::PATTERN_SET_BYTES)
        .dfa_size_limit(limits::PATTERN_CACHE_BYTES)
        .build();
    let too_large = || format!("{} regular expressions are too large together", texts.len());
    built.map(Some).map_err(|_too_large| Invalid::new("matches.path", too_large()))
}
