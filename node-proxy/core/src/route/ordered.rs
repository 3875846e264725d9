//! Rules of which the first one that holds counts (ServiceProfile). Must never walk all of them for one request, where their patterns tell them
//! apart.

use regex::bytes::RegexSet;

use super::{Facts, Invalid, Selected, condition::Condition, table::Map, table::pattern_set};

/// Rules in their order, and the patterns of all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ordered {
    rules: Vec<(Selected, Condition)>,
    patterns: Option<RegexSet>,
    /// Rules that may hold where a pattern matches, by its number; ascending.
    by_pattern: Map<usize, Vec<usize>>,
    /// Those that may hold where none does; ascending.
    always: Vec<usize>,
}

impl Ordered {
    /// # Errors
    /// Too large patterns to be tried in one walk.
    pub(super) fn new(rules: Vec<(Selected, Condition)>, patterns: &[String]) -> Result<Ordered, Invalid> {
        let anchored = patterns.iter().map(|text| super::pattern::anchored(text)).collect();
        let mut ordered = Ordered { patterns: pattern_set(anchored)?, ..Ordered::default() };
        for (at, (_selected, condition)) in rules.iter().enumerate() {
            match condition.needs() {
                None => ordered.always.push(at),
                Some(needs) => needs.into_iter().for_each(|number| {
                    ordered.by_pattern.entry(number).or_default().push(at);
                }),
            }
        }
        ordered.rules = rules;
        Ok(ordered)
    }

    pub(super) fn select(&self, facts: &Facts<'_>) -> Option<Selected> {
        let matched = self.patterns.as_ref().map(|set| set.matches(facts.path.as_bytes()));
        let is_matched = |number: usize| matched.as_ref().is_some_and(|matched| matched.matched(number));
        let holds = |at: &usize| self.rules.get(*at).is_some_and(|(_at, rule)| rule.holds(facts, &is_matched));
        let first = |candidates: &[usize]| candidates.iter().copied().find(|at| holds(at));
        let numbers = matched.iter().flat_map(regex::bytes::SetMatches::iter);
        let mut candidates = numbers.filter_map(|number| self.by_pattern.get(&number));
        let by_pattern = match (candidates.next(), candidates.next()) {
            (None, _none) => None,
            (Some(only), None) => first(only),
            (Some(one), Some(other)) => {
                // Each rule once, however many of its patterns match: else one request would cost patterns times terms.
                let mut all = [&one[..], other].concat();
                all.extend(candidates.flatten());
                all.sort_unstable();
                all.dedup();
                first(&all)
            }
        };
        let always = first(&self.always);
        let best = by_pattern.into_iter().chain(always).min()?;
        self.rules.get(best).map(|(selected, _condition)| *selected)
    }

    /// Each rule, and whether it holds: to explain, never to decide.
    pub(super) fn standings(&self, facts: &Facts<'_>) -> impl Iterator<Item = (Selected, bool)> {
        let matched = self.patterns.as_ref().map(|set| set.matches(facts.path.as_bytes()));
        self.rules.iter().map(move |(selected, rule)| {
            let is_matched = |number: usize| matched.as_ref().is_some_and(|matched| matched.matched(number));
            (*selected, rule.holds(facts, &is_matched))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use proptest::{collection::vec, prelude::*, sample::select};
    use weir_api::v1::{self, condition::Is};

    use super::{super::routes, *};

    const PATTERNS: [&str; 6] = ["/a", "/a/.*", "/[ab]", "/b|/c", ".*", "/a/b/[^/]*"];
    const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/b", "/c", "/a/b/c"];

    fn condition(is: Is) -> v1::Condition {
        v1::Condition { is: Some(is) }
    }

    fn a_condition() -> impl Strategy<Value = v1::Condition> {
        let leaf = prop_oneof![
            3 => select(&PATTERNS[..]).prop_map(|text| condition(Is::PathPattern(text.to_owned()))),
            1 => select(&["GET", "POST"][..]).prop_map(|method| condition(Is::Method(method.to_owned()))),
        ];
        leaf.prop_recursive(4, 12, 3, |inner| {
            let list = || vec(inner.clone(), 0..3).prop_map(|conditions| v1::ConditionList { conditions });
            prop_oneof![
                list().prop_map(|list| condition(Is::All(list))),
                list().prop_map(|list| condition(Is::Any(list))),
                inner.clone().prop_map(|one| condition(Is::Not(Box::new(one)))),
            ]
        })
    }

    /// Linkerd's words, one after the other.
    fn naive(given: &v1::Condition, method: &Method, path: &str) -> bool {
        match given.is.as_ref().unwrap() {
            Is::All(list) => list.conditions.iter().all(|one| naive(one, method, path)),
            Is::Any(list) => list.conditions.iter().any(|one| naive(one, method, path)),
            Is::Not(one) => !naive(one, method, path),
            Is::Method(name) => name == method.as_str(),
            Is::PathPattern(text) => {
                let found = regex::Regex::new(&format!("^(?:{text})$")).unwrap();
                found.is_match(path)
            }
        }
    }

    fn profile(conditions: &[v1::Condition]) -> v1::HttpRoute {
        let itself = v1::http_rule::Destination::Itself(v1::Itself {});
        let rule = |(number, one): (usize, &v1::Condition)| v1::HttpRule {
            condition: Some(one.clone()),
            name: format!("rule {number}"),
            destination: Some(itself.clone()),
            ..v1::HttpRule::default()
        };
        v1::HttpRoute {
            object: Some(v1::ObjectRef { kind: "ServiceProfile".to_owned(), ..v1::ObjectRef::default() }),
            rules: conditions.iter().enumerate().map(rule).collect(),
            first_wins: true,
            ..v1::HttpRoute::default()
        }
    }

    fn table(conditions: &[v1::Condition]) -> Result<super::super::Table, Invalid> {
        routes(&[profile(conditions)]).map(|routes| routes.unwrap().of_client("shop").unwrap().clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// Seen to fail where rules that need no pattern are asked after those that do.
        #[test]
        fn the_first_rule_that_holds_counts(conditions in vec(a_condition(), 0..8)) {
            let table = table(&conditions).unwrap();
            let headers = HeaderMap::new();
            for method in [Method::GET, Method::POST, Method::PUT] {
                for path in PATHS {
                    let facts = Facts { authority: "web", method: &method, path, query: "", headers: &headers };
                    let expected = conditions.iter().position(|one| naive(one, &method, path));
                    prop_assert_eq!(table.select(&facts).map(|at| at.rule), expected);
                    let standings = super::super::standings(&table, &facts);
                    prop_assert_eq!(standings.len(), conditions.len());
                    for (at, standing) in standings {
                        let holds = naive(&conditions[at.rule], &method, path);
                        prop_assert_eq!(holds, !matches!(standing, super::super::Standing::Unmet(_)));
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_followed_refuses_all_of_it() {
        let path = |text: &str| condition(Is::PathPattern(text.to_owned()));
        let deep = (0..20).fold(path("/"), |inner, _| condition(Is::Not(Box::new(inner))));
        for (wrong, field) in [
            (v1::Condition { is: None }, "condition"),
            (path("("), "condition.pathRegex"),
            (condition(Is::Method("no method".to_owned())), "condition.method"),
            (deep, "condition"),
        ] {
            let error = table(&[path("/"), wrong]).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
        let mut unconditional = profile(&[path("/")]);
        unconditional.rules[0].condition = None;
        assert_eq!(routes(&[unconditional]).unwrap_err().field, "rules.condition");
        let beside = v1::HttpRoute { object: Some(v1::ObjectRef::default()), ..v1::HttpRoute::default() };
        assert_eq!(routes(&[profile(&[]), beside]).unwrap_err().field, "http_routes.first_wins");
    }

    #[test]
    fn as_many_patterns_as_are_taken_have_a_bound() {
        let path = |number: usize| condition(Is::PathPattern(format!("/{number}")));
        let most = crate::limits::ROUTE_PATTERNS;
        assert!(table(&(0..most).map(path).collect::<Vec<_>>()).is_ok());
        let error = table(&(0..=most).map(path).collect::<Vec<_>>()).unwrap_err();
        assert!(error.reason.contains("513 regular expressions"), "{error}");
    }

    /// Requests of different rules are counted apart, and each rule has one name for all of its requests.
    #[test]
    fn each_rule_is_told_by_its_name() {
        let path = |text: &str| condition(Is::PathPattern(text.to_owned()));
        let table = table(&[path("/a"), condition(Is::All(v1::ConditionList::default()))]).unwrap();
        let headers = HeaderMap::new();
        let of = |path: &str| {
            let facts = Facts { authority: "web", method: &Method::GET, path, query: "", headers: &headers };
            super::super::decide(&table, &facts, 80, 0, |_| true).route.unwrap().rule.to_string()
        };
        assert_eq!([of("/a"), of("/b")], ["rule 0", "rule 1"]);
    }
}
