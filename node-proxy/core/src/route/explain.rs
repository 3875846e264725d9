//! Why a request falls under one match and not under the others. Must never decide: the winner is [`Table::select`]'s, and every condition is
//! asked by the function that it asks.

use super::{
    Facts, Hostname, HttpMatch, PathMatch, Routed, Selected, Table, Unmet,
    decision::{answered, onward, unweighted},
    hostname::of_authority,
    rule::Route,
};

/// What became of one match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'t> {
    /// The request falls under it.
    Won,
    /// It is not for the request.
    Unmet(Unmet<'t>),
    /// It is for the request, and the winner stands before it for this reason.
    Behind(Precedence),
}

/// What puts one match before another that holds as well: the first that tells them apart, in this order (Gateway API, HTTPRouteRule and
/// GRPCRouteRule `matches`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// A more specific host name.
    Hostname,
    /// The kind of its condition on the path.
    PathKind,
    /// A longer prefix.
    PathLength,
    /// More said about the gRPC service, or then its method.
    Call,
    /// A method.
    Method,
    /// More headers.
    Headers,
    /// More query parameters.
    QueryParams,
    /// An older route, or one before it by namespace and name.
    Route,
    /// An earlier rule of its route.
    Rule,
    /// An earlier match of its rule.
    Match,
}

/// One of the ways that a request may go.
#[derive(Clone, Debug)]
pub struct Way {
    /// Part of such requests, 0 to 1.
    pub share: f64,
    /// Of the rule's backends; none where what follows is not one backend's.
    pub backend: Option<usize>,
    /// What becomes of the request.
    pub routed: Routed,
}

/// What became of each match of all routes, in the order of routes, rules and matches.
pub fn standings<'t>(table: &'t Table, facts: &Facts<'_>) -> Vec<(Selected, Standing<'t>)> {
    let selected = table.select(facts);
    if let Some(rules) = table.in_order() {
        let standings = rules.standings(facts).map(|(at, holds)| match holds {
            _it if selected == Some(at) => (at, Standing::Won),
            true => (at, Standing::Behind(Precedence::Rule)),
            false => (at, Standing::Unmet(Unmet::Condition)),
        });
        return standings.collect();
    }
    let host = of_authority(facts.authority);
    let winner = selected.and_then(|at| held(table.routes(), at, host.as_deref()));
    let mut all = Vec::new();
    for (route, of_route) in table.routes().iter().enumerate() {
        let name = specificity(of_route, host.as_deref());
        for (rule, of_rule) in of_route.rules.iter().enumerate() {
            for (matched, one) in of_rule.matches.iter().enumerate() {
                let at = Selected { route, rule, matched };
                let standing = match (unmet(name, one, facts), name, &winner) {
                    _it if selected == Some(at) => Standing::Won,
                    (None, Some(specificity), Some(winner)) => {
                        Standing::Behind(winner.before(&Held { specificity, one, at }))
                    }
                    // Where one holds there is a winner: the table would have selected this one itself.
                    (unmet, ..) => Standing::Unmet(unmet.unwrap_or(Unmet::Hostname)),
                };
                all.push((at, standing));
            }
        }
    }
    all
}

/// All ways that the request may go, with the share of each; always one at least.
pub fn ways(
    table: &Table,
    facts: &Facts<'_>,
    port: u16,
    is_ready: impl Fn(usize) -> bool,
) -> (Option<Selected>, Vec<Way>) {
    let only = |routed| vec![Way { share: 1.0, backend: None, routed }];
    let Some(at) = table.select(facts) else { return (None, only(Routed::NoRoute)) };
    let Some(rule) = table.routes().get(at.route).and_then(|route| route.rules.get(at.rule)) else {
        return (None, only(Routed::NoRoute));
    };
    let matched = rule.matches.get(at.matched).map(|matched| &matched.path);
    if let Some(answer) = matched.and_then(|path| answered(&rule.filters, facts, port, path)) {
        return (Some(at), only(answer));
    }
    let Some(backends) = &rule.backends else {
        return (Some(at), only(onward(rule, at.matched, None, facts, port)));
    };
    let shares = backends.shares(is_ready).into_iter().enumerate().filter(|(_index, share)| *share > 0.0);
    let way = |(index, share)| {
        let routed = onward(rule, at.matched, Some(index), facts, port);
        Way { share, backend: Some(index), routed }
    };
    let ways: Vec<Way> = shares.map(way).collect();
    (Some(at), if ways.is_empty() { only(unweighted()) } else { ways })
}

/// Greater is more specific; a route without names is for every host.
type Specificity = Option<(bool, usize)>;

/// Of the most specific of the route's names that is the host's; `None` where none is.
fn specificity(route: &Route, host: Option<&str>) -> Option<Specificity> {
    if route.hostnames.is_empty() {
        return Some(None);
    }
    let names = route.hostnames.iter().filter(|name| host.is_some_and(|host| name.matches(host)));
    names.map(Hostname::specificity).max().map(Some)
}

fn unmet<'t>(name: Option<Specificity>, one: &'t HttpMatch, facts: &Facts<'_>) -> Option<Unmet<'t>> {
    if name.is_none() {
        return Some(Unmet::Hostname);
    }
    one.path.unmet(facts.path).or_else(|| one.unmet_beside_path(facts))
}

/// A match that holds.
struct Held<'t> {
    specificity: Specificity,
    one: &'t HttpMatch,
    at: Selected,
}

fn held<'t>(routes: &'t [Route], at: Selected, host: Option<&str>) -> Option<Held<'t>> {
    let route = routes.get(at.route)?;
    let one = super::table::match_at(routes, at)?;
    Some(Held { specificity: specificity(route, host)?, one, at })
}

impl Held<'_> {
    /// Why it goes before another one.
    fn before(&self, other: &Held<'_>) -> Precedence {
        let length = |held: &Held<'_>| match &held.one.path {
            PathMatch::Prefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Pattern(_) | PathMatch::Call(_) => 0,
        };
        let ([call, method, headers, query], [other_call, other_method, other_headers, other_query]) =
            (self.one.weight(), other.one.weight());
        let differ = [
            (self.specificity != other.specificity, Precedence::Hostname),
            (self.one.path.kind() != other.one.path.kind(), Precedence::PathKind),
            (length(self) != length(other), Precedence::PathLength),
            (call != other_call, Precedence::Call),
            (method != other_method, Precedence::Method),
            (headers != other_headers, Precedence::Headers),
            (query != other_query, Precedence::QueryParams),
            (self.at.route != other.at.route, Precedence::Route),
            (self.at.rule != other.at.rule, Precedence::Rule),
        ];
        differ.into_iter().find_map(|(differs, by)| differs.then_some(by)).unwrap_or(Precedence::Match)
    }
}
