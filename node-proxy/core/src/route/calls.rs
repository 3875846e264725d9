//! gRPC calls by service and method. Must never take a request for a call whose path is not one service and one method.

use regex::bytes::RegexSet;

use super::{
    Facts, Invalid, PathMatch, Unmet, ValueMatch,
    pattern::anchored,
    rule::Route,
    table::{Candidate, Map, first, match_at, pattern_set},
};

/// Which calls: what is none may be any (Gateway API, GRPCMethodMatch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMatch {
    /// Of the service, with its package.
    pub service: Option<ValueMatch>,
    /// Of its method.
    pub method: Option<ValueMatch>,
}

/// Service and method of a path; none when it is not that of a call (gRPC over HTTP/2: `/` service `/` method).
pub(super) fn called(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some((service, method))
}

impl CallMatch {
    /// Whether it holds.
    pub fn holds(&self, service: &str, method: &str) -> bool {
        self.unmet(service, method).is_none()
    }

    /// What of it does not hold.
    pub(super) fn unmet(&self, service: &str, method: &str) -> Option<Unmet<'static>> {
        let holds = |one: &Option<ValueMatch>, name: &str| one.as_ref().is_none_or(|one| one.holds(name.as_bytes()));
        if !holds(&self.service, service) {
            return Some(Unmet::CallService);
        }
        (!holds(&self.method, method)).then_some(Unmet::CallMethod)
    }

    /// What the paths of its calls begin with, as far as its names are exact.
    pub(super) fn path(&self) -> String {
        match (&self.service, &self.method) {
            (Some(ValueMatch::Exact(service)), Some(ValueMatch::Exact(method))) => format!("/{service}/{method}"),
            (Some(ValueMatch::Exact(service)), _) => format!("/{service}"),
            _any => "/".to_owned(),
        }
    }

    /// Greater goes first. Gateway API counts the characters of the service, then those of the method: of exact names that hold for one call
    /// there is only one length. Patterns, which it leaves open, stand between those and none.
    pub(super) fn rank(&self) -> usize {
        let rank = |one: &Option<ValueMatch>| match one {
            Some(ValueMatch::Exact(_)) => 2,
            Some(ValueMatch::Pattern(_)) => 1,
            None => 0,
        };
        rank(&self.service) * 3 + rank(&self.method)
    }
}

/// Rules for calls, in order of precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    // Both names exact, by path.
    whole: Map<Box<str>, Vec<Candidate>>,
    // Of the exact names of services and methods alone.
    services: Map<Box<str>, Vec<Candidate>>,
    methods: Map<Box<str>, Vec<Candidate>>,
    any: Vec<Candidate>,
    patterns: NamePatterns,
}

/// Those with a regular expression. Each of the sets has a place for every one of them.
#[derive(Clone, Debug, Default)]
struct NamePatterns {
    candidates: Vec<Candidate>,
    services: Option<RegexSet>,
    methods: Option<RegexSet>,
}

impl NamePatterns {
    fn finish(&mut self, routes: &[Route]) -> Result<(), Invalid> {
        self.candidates.sort_by_key(Candidate::order);
        let texts = |of: fn(&CallMatch) -> &Option<ValueMatch>| {
            let calls = self.candidates.iter().filter_map(|candidate| match &match_at(routes, candidate.at)?.path {
                PathMatch::Call(call) => Some(pattern(of(call))),
                PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Pattern(_) => None,
            });
            pattern_set(calls.collect())
        };
        (self.services, self.methods) = (texts(|call| &call.service)?, texts(|call| &call.method)?);
        Ok(())
    }

    fn select(&self, service: &str, method: &str, facts: &Facts<'_>, routes: &[Route]) -> Option<Candidate> {
        let services = self.services.as_ref()?.matches(service.as_bytes());
        let methods = self.methods.as_ref()?.matches(method.as_bytes());
        let both = services.iter().filter(|index| methods.matched(*index));
        let mut candidates = both.filter_map(|index| self.candidates.get(index));
        candidates.find(|candidate| candidate.holds_beside_path(facts, routes)).copied()
    }
}

/// Of a whole name.
fn pattern(one: &Option<ValueMatch>) -> String {
    match one {
        Some(ValueMatch::Exact(name)) => anchored(&regex::escape(name)),
        Some(ValueMatch::Pattern(pattern)) => anchored(pattern.as_str()),
        None => String::new(),
    }
}

impl Calls {
    pub(super) fn add(&mut self, call: &CallMatch, candidate: Candidate) {
        use ValueMatch::Exact;
        let list = match (&call.service, &call.method) {
            (Some(Exact(service)), Some(Exact(method))) => {
                self.whole.entry(format!("/{service}/{method}").into()).or_default()
            }
            (Some(Exact(service)), None) => self.services.entry(service.clone()).or_default(),
            (None, Some(Exact(method))) => self.methods.entry(method.clone()).or_default(),
            (None, None) => &mut self.any,
            _pattern => &mut self.patterns.candidates,
        };
        list.push(candidate);
    }

    pub(super) fn finish(&mut self, routes: &[Route]) -> Result<(), Invalid> {
        let lists = self.whole.values_mut().chain(self.services.values_mut()).chain(self.methods.values_mut());
        lists.chain([&mut self.any]).for_each(|list| list.sort_by_key(Candidate::order));
        self.patterns.finish(routes)
    }

    pub(super) fn select(&self, facts: &Facts<'_>, routes: &[Route]) -> Option<Candidate> {
        let (service, method) = called(facts.path)?;
        let lists = [self.whole.get(facts.path), self.services.get(service), self.methods.get(method), Some(&self.any)];
        let named = lists.into_iter().flatten().filter_map(|list| first(list, facts, routes));
        named.chain(self.patterns.select(service, method, facts, routes)).min_by_key(Candidate::order)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Pattern, *};

    #[test]
    fn a_call_is_one_service_and_one_method() {
        assert_eq!(called("/shop.Cart/Add"), Some(("shop.Cart", "Add")));
        for path in ["/shop.Cart", "/shop.Cart/", "//Add", "/a/b/c", "/", "", "*", "a/b"] {
            assert_eq!(called(path), None, "{path}");
        }
    }

    #[test]
    fn patterns_are_for_whole_names() {
        let pattern = |text: &str| Some(ValueMatch::Pattern(Pattern::new("value", text).unwrap()));
        for (service, method, holds) in [
            (pattern("shop[.].*"), None, true),
            (pattern("^shop[.].*$"), pattern("^Add$"), true),
            (pattern(r"\Ashop[.].*\z"), pattern(r"(?-m)^(?P<x>A)dd$"), true),
            (pattern("(?P<x>shop).Cart"), pattern("(?P<x>A)dd"), true),
            (pattern("shop"), None, false),
            (None, pattern("A|Add"), true),
            (None, pattern("d*"), false),
            (Some(ValueMatch::Exact("shop.Cart".into())), pattern("A.*"), true),
            (Some(ValueMatch::Exact("shop.Car".into())), pattern("A.*"), false),
        ] {
            let call = CallMatch { service, method };
            let set = |one: &Option<ValueMatch>, name: &str| {
                pattern_set(vec![super::pattern(one)]).unwrap().unwrap().is_match(name.as_bytes())
            };
            let in_one_walk = set(&call.service, "shop.Cart") && set(&call.method, "Add");
            assert_eq!((call.holds("shop.Cart", "Add"), in_one_walk), (holds, holds), "{call:?}");
        }
    }
}
