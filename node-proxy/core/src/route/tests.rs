use std::{cmp::Reverse, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// A whole path, then a call, then a regular expression, then the longest prefix. Of calls the characters of the service, then those of the
/// method: those of a pattern are fewer than those of any name.
fn weight(path: &PathMatch) -> [usize; 3] {
    let characters = |one: &Option<ValueMatch>| match one {
        Some(ValueMatch::Exact(name)) => 1 + name.len(),
        Some(ValueMatch::Pattern(_)) => 1,
        None => 0,
    };
    match path {
        PathMatch::Exact(_) => [3, 0, 0],
        PathMatch::Call(call) => [2, characters(&call.service), characters(&call.method)],
        PathMatch::Pattern(_) => [1, 0, 0],
        PathMatch::Prefix(prefix) => [0, prefix.len(), 0],
    }
}

/// Method, then headers, then parameters.
fn beside(one: &HttpMatch) -> (bool, usize, usize) {
    (one.method.is_some(), one.headers.len(), one.query.len())
}

/// The specification's words, one after the other, over all matches of all routes.
fn naive(routes: &[Route], facts: &Facts<'_>) -> Option<Selected> {
    let host = hostname::of_authority(facts.authority);
    let mut best = None;
    for (route, of_route) in routes.iter().enumerate() {
        let names = of_route.hostnames.iter().filter(|name| host.as_ref().is_some_and(|host| name.matches(host)));
        let specificity = names.map(Hostname::specificity).max();
        if specificity.is_none() && !of_route.hostnames.is_empty() {
            continue;
        }
        for (rule, of_rule) in of_route.rules.iter().enumerate() {
            for (matched, one) in of_rule.matches.iter().enumerate() {
                if one.path.holds(facts.path) && one.holds_beside_path(facts) {
                    let at = Selected { route, rule, matched };
                    let key = (specificity, weight(&one.path), beside(one), Reverse(at));
                    best = best.max(Some(key));
                }
            }
        }
    }
    best.map(|(.., Reverse(at))| at)
}

// Few names, so that they collide.
const PATHS: [&str; 10] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/a//b", "/b/a", "*"];
const HOSTS: [&str; 6] = ["web", "web.shop", "a.web.shop", "WEB.shop:80", "other", ""];

fn a_path() -> impl Strategy<Value = PathMatch> {
    let pattern = |text: &&str| PathMatch::Pattern(Pattern::new("value", text).unwrap());
    prop_oneof![
        select(&PATHS[..]).prop_map(|path| PathMatch::Exact(path.into())),
        select(&PATHS[..9]).prop_map(PathMatch::prefix),
        (proptest::option::of(a_name()), proptest::option::of(a_name()))
            .prop_map(|(service, method)| PathMatch::Call(CallMatch { service, method })),
        select(&["/a.*", "/[ab]", "/a/b|/b", "/.*/b"][..]).prop_map(move |text| pattern(&text)),
    ]
}

fn a_name() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(&["a", "b", "ab"][..]).prop_map(|name| ValueMatch::Exact(name.into())),
        select(&["^a.*", r"\A[ab]\z", "(?-m)b$|(?P<x>c)", "(?P<x>a)|[^b]+"][..])
            .prop_map(|text| ValueMatch::Pattern(Pattern::new("value", text).unwrap())),
    ]
}

fn a_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(&["1", "2"][..]).prop_map(|value| ValueMatch::Exact(value.into())),
        Just(ValueMatch::Pattern(Pattern::new("value", "[12]").unwrap())),
    ]
}

fn a_match() -> impl Strategy<Value = HttpMatch> {
    let method = proptest::option::of(select(&[Method::GET, Method::POST][..]));
    let header = (select(&["x", "y"][..]), a_value())
        .prop_map(|(name, value)| HeaderMatch { name: HeaderName::from_static(name), value });
    let query = (select(&["p", "q"][..]), a_value()).prop_map(|(name, value)| QueryMatch { name: name.into(), value });
    (a_path(), method, vec(header, 0..2), vec(query, 0..2)).prop_map(|(path, method, headers, query)| HttpMatch {
        path,
        method,
        headers,
        query,
    })
}

fn route(hostnames: Vec<Hostname>, rules: Vec<Vec<HttpMatch>>) -> Route {
    let rule = |matches| Arc::new(Rule { matches, ..Rule::default() });
    Route { object: Arc::default(), hostnames, rules: rules.into_iter().map(rule).collect() }
}

fn a_route() -> impl Strategy<Value = Route> {
    let name = select(&["web", "web.shop", "*.shop", "*.web.shop", "a.web.shop"][..])
        .prop_map(|name| Hostname::new(name).unwrap());
    (vec(name, 0..3), vec(vec(a_match(), 1..3), 1..3)).prop_map(|(hostnames, rules)| route(hostnames, rules))
}

#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    path: &'static str,
    method: Method,
    query: &'static str,
    headers: HeaderMap,
}

impl Asked {
    fn facts(&self) -> Facts<'_> {
        Facts { authority: self.host, method: &self.method, path: self.path, query: self.query, headers: &self.headers }
    }
}

fn a_request() -> impl Strategy<Value = Asked> {
    let header = (select(&["x", "y"][..]), select(&["1", "2", "3"][..]));
    (
        select(&HOSTS[..]),
        select(&PATHS[..]),
        select(&[Method::GET, Method::POST, Method::PUT][..]),
        select(&["", "p=1", "q=2&p=2", "p=3&p=1"][..]),
        vec(header, 0..3),
    )
        .prop_map(|(host, path, method, query, fields)| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            Asked { host, path, method, query, headers }
        })
}

proptest! {
    // Each with 100 requests: two million in six seconds. Without optimization they would take minutes.
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 500 } else { 20_000 }, ..ProptestConfig::default() })]

    /// Seen to fail with prefixes before regular expressions, with a table that stops at the most specific host that has any rule, and
    /// with weights compared the other way round.
    #[test]
    fn the_compiled_table_agrees_with_the_specification(routes in vec(a_route(), 0..6), requests in vec(a_request(), 100)) {
        let table = Table::new(routes.clone()).unwrap();
        for asked in &requests {
            prop_assert_eq!(table.select(&asked.facts()), naive(&routes, &asked.facts()), "{:?}", asked);
        }
    }
}

/// The most that is said about one match, by the specification's words: none where it does not hold.
fn key(routes: &[Route], at: Selected, facts: &Facts<'_>) -> Option<[usize; 10]> {
    let (host, of_route) = (hostname::of_authority(facts.authority), &routes[at.route]);
    let one = &of_route.rules[at.rule].matches[at.matched];
    let names = of_route.hostnames.iter().filter(|name| host.as_ref().is_some_and(|host| name.matches(host)));
    let specificity = names.map(Hostname::specificity).max();
    let is_host = specificity.is_some() || of_route.hostnames.is_empty();
    if !is_host || !one.path.holds(facts.path) || !one.holds_beside_path(facts) {
        return None;
    }
    let name = specificity.map_or(0, |(whole, length)| 1 + usize::from(whole) * 1000 + length);
    let ([kind, first, second], (method, headers, query)) = (weight(&one.path), beside(one));
    let (length, call) = if let PathMatch::Call(_) = one.path { (0, first * 1000 + second) } else { (first, 0) };
    let last = |index: usize| usize::MAX - index;
    let place = [last(at.route), last(at.rule), last(at.matched)];
    Some([name, kind, length, call, usize::from(method), headers, query, place[0], place[1], place[2]])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 200 } else { 5_000 }, ..ProptestConfig::default() })]

    /// Seen to fail with the winner's header count compared before its method, with a header that is named although the method differs, and with
    /// `Won` for every match that holds.
    #[test]
    fn what_is_said_of_each_match_is_true(routes in vec(a_route(), 0..6), requests in vec(a_request(), 50)) {
        let table = Table::new(routes.clone()).unwrap();
        for asked in &requests {
            let facts = asked.facts();
            let selected = table.select(&facts);
            let standings = standings(&table, &facts);
            let winners: Vec<_> = standings.iter().filter(|(_, standing)| *standing == Standing::Won).collect();
            prop_assert_eq!(winners.first().map(|(at, _)| *at), selected);
            prop_assert!(winners.len() <= 1);
            let count: usize = routes.iter().flat_map(|route| &route.rules).map(|rule| rule.matches.len()).sum();
            prop_assert_eq!(standings.len(), count);
            for (at, standing) in standings {
                let own = key(&routes, at, &facts);
                let one = &routes[at.route].rules[at.rule].matches[at.matched];
                match standing {
                    Standing::Won => prop_assert!(own.is_some()),
                    Standing::Unmet(unmet) => {
                        prop_assert_eq!(own, None, "{:?}", unmet);
                        prop_assert!(is_unmet(&routes[at.route], one, &facts, unmet), "{:?} {:?} {:?}", unmet, one, asked);
                    }
                    Standing::Behind(by) => {
                        let (own, winner) = (own.unwrap(), key(&routes, selected.unwrap(), &facts).unwrap());
                        let differs = own.iter().zip(&winner).position(|(own, winner)| own != winner).unwrap();
                        prop_assert!(winner[differs] > own[differs]);
                        prop_assert_eq!(by as usize, differs);
                    }
                }
            }
            let decided = decide(&table, &facts, 80, 7, |_| true);
            let (at, ways) = ways(&table, &facts, 80, |_| true);
            prop_assert_eq!(at.is_some(), decided.route.is_some());
            prop_assert_eq!(std::mem::discriminant(&ways[0].routed), std::mem::discriminant(&decided.routed));
        }
    }
}

/// By itself, and everything that is asked before it holds.
fn is_unmet(route: &Route, one: &HttpMatch, facts: &Facts<'_>, unmet: Unmet<'_>) -> bool {
    let host = hostname::of_authority(facts.authority);
    let is_host = route.hostnames.is_empty()
        || route.hostnames.iter().any(|name| host.as_ref().is_some_and(|host| name.matches(host)));
    let path = one.path.holds(facts.path);
    let of_method = HttpMatch { method: one.method.clone(), ..HttpMatch::default() }.holds_beside_path(facts);
    let of_headers = HttpMatch { headers: one.headers.clone(), ..HttpMatch::default() }.holds_beside_path(facts);
    match unmet {
        Unmet::Hostname => !is_host,
        Unmet::Path => is_host && !path,
        Unmet::CallService | Unmet::CallMethod => is_host && !path && calls::called(facts.path).is_some(),
        Unmet::Method => is_host && path && !of_method,
        Unmet::Header(name) => {
            let named = one.headers.iter().filter(|header| header.name == *name).cloned().collect();
            is_host
                && path
                && of_method
                && !HttpMatch { headers: named, ..HttpMatch::default() }.holds_beside_path(facts)
        }
        Unmet::QueryParam(name) => {
            let named = one.query.iter().filter(|query| *query.name == *name).cloned().collect();
            let of_query = HttpMatch { query: named, ..HttpMatch::default() }.holds_beside_path(facts);
            is_host && path && of_method && of_headers && !of_query
        }
        Unmet::Condition => false,
    }
}

#[test]
fn ties_go_to_the_older_route_then_to_the_first_rule() {
    let same = |rules: usize| route(Vec::new(), vec![vec![HttpMatch::default()]; rules]);
    let table = Table::new(vec![same(2), same(1)]).unwrap();
    let headers = HeaderMap::new();
    let facts = Facts { authority: "web", method: &Method::GET, path: "/x", query: "", headers: &headers };
    assert_eq!(table.select(&facts), Some(Selected { route: 0, rule: 0, matched: 0 }));
    assert_eq!(Table::new(Vec::new()).unwrap().select(&facts), None);
}

#[test]
fn one_namespaces_routes_have_a_bound_and_take_nothing_from_anothers() {
    use weir_api::v1;
    let of = |namespace: &str, is_consumer: bool, patterns: usize| v1::HttpRoute {
        object: Some(v1::ObjectRef { namespace: namespace.into(), ..v1::ObjectRef::default() }),
        is_consumer,
        rules: vec![v1::HttpRule {
            matches: (0..patterns)
                .map(|index| v1::HttpMatch {
                    path: Some(v1::http_match::Path::PathPattern(format!("/{index}"))),
                    ..v1::HttpMatch::default()
                })
                .collect(),
            destination: Some(v1::http_rule::Destination::Itself(v1::Itself {})),
            ..v1::HttpRule::default()
        }],
        ..v1::HttpRoute::default()
    };
    let most = crate::limits::ROUTE_PATTERNS;
    assert!(routes(&[of("shop", false, most), of("a", true, most), of("b", true, most)]).is_ok());
    let error = routes(&[of("a", true, most), of("a", true, 1)]).unwrap_err();
    assert!(error.reason.contains("513 regular expressions"), "{error}");
}

/// Else a route would be accepted, and then refused together with all of its Service. Seen to fail with `PATTERN_SET_BYTES` of 8 MiB.
#[test]
fn as_many_patterns_as_are_taken_fit_however_large_they_are() {
    let largest = |repeated: &dyn Fn(usize) -> String| {
        let fits = |count: &usize| Pattern::new("value", &repeated(*count)).is_ok();
        (1..2_000).take_while(fits).last().map(repeated).unwrap()
    };
    let text = largest(&|count| format!("/(?:[a-z0-9]x){{{count}}}"));
    let name = largest(&|count| format!("(?:[a-z0-9]x){{{count}}}"));
    let pattern = |text: &str| Pattern::new("value", text).unwrap();
    let path = HttpMatch { path: PathMatch::Pattern(pattern(&text)), ..HttpMatch::default() };
    assert!(Table::new(vec![route(Vec::new(), vec![vec![path; crate::limits::ROUTE_PATTERNS]])]).is_ok());
    let name = || Some(ValueMatch::Pattern(pattern(&name)));
    let call = PathMatch::Call(CallMatch { service: name(), method: name() });
    let call = HttpMatch { path: call, ..HttpMatch::default() };
    assert!(Table::new(vec![route(Vec::new(), vec![vec![call; crate::limits::ROUTE_PATTERNS / 2]])]).is_ok());
}
