//! gRPC calls by service and method. Must never take a request for a call whose path is not one service and one method.

use super::{
    Facts, Invalid, ValueMatch,
    rule::Route,
    table::{Candidate, Map, Patterns, first},
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
        let holds = |one: &Option<ValueMatch>, name: &str| one.as_ref().is_none_or(|one| one.holds(name.as_bytes()));
        holds(&self.service, service) && holds(&self.method, method)
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

    /// The regular expression for a whole path. The slash ends a line, so that `^`, `$` and `.` of a name's pattern end where the name does.
    pub(super) fn pattern(&self) -> String {
        let of = |one: &Option<ValueMatch>| match one {
            Some(ValueMatch::Exact(name)) => regex::escape(name),
            Some(ValueMatch::Pattern(pattern)) => pattern.as_str().to_owned(),
            None => "[^/]+".to_owned(),
        };
        format!(r"\A/(?m:{})/(?m:{})\z", of(&self.service), of(&self.method))
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
    patterns: Patterns,
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
        self.patterns.finish(routes, b'/')
    }

    pub(super) fn select(&self, facts: &Facts<'_>, routes: &[Route]) -> Option<Candidate> {
        let (service, method) = called(facts.path)?;
        let lists = [self.whole.get(facts.path), self.services.get(service), self.methods.get(method), Some(&self.any)];
        let named = lists.into_iter().flatten().filter_map(|list| first(list, facts, routes));
        named.chain(self.patterns.select(facts, routes)).min_by_key(Candidate::order)
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

    /// One by one and all in one walk.
    #[test]
    fn patterns_end_where_names_do() {
        let pattern = |text: &str| Some(ValueMatch::Pattern(Pattern::new("value", text).unwrap()));
        for (service, method, path, holds) in [
            (pattern("shop[.].*"), None, "/shop.Cart/Add", true),
            (pattern("^shop[.].*$"), pattern("^Add$"), "/shop.Cart/Add", true),
            (pattern("^shop$|^a$"), None, "/a/Add", true),
            (pattern("shop"), None, "/shop.Cart/Add", false),
            (None, pattern("A|Add"), "/shop.Cart/Add", true),
            (None, pattern("d*"), "/shop.Cart/Add", false),
            (pattern(".*"), pattern(".*"), "/a/b/c", false),
            (Some(ValueMatch::Exact("shop.Cart".into())), pattern("A.*"), "/shopxCart/Add", false),
        ] {
            let call = CallMatch { service, method };
            let by_parts = called(path).is_some_and(|(service, method)| call.holds(service, method));
            let set = regex::bytes::RegexSetBuilder::new([call.pattern()]).unicode(false).line_terminator(b'/').build();
            assert_eq!(
                (by_parts, called(path).is_some() && set.unwrap().is_match(path.as_bytes())),
                (holds, holds),
                "{call:?} {path}"
            );
        }
    }
}
