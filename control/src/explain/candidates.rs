//! What became of each match, as the contract says it. Must never leave the winner out.

use std::collections::HashMap;

use weir_api::v1;
use weir_core::route::{self, Facts, ObjectRef, Precedence, Selected, Standing, Table, Unmet};

use super::{Gathered, count};
use crate::limits;

/// Whether both name one object.
pub(super) fn is(reference: &v1::ObjectRef, object: &ObjectRef) -> bool {
    key(reference) == (&*object.group, &*object.kind, &*object.namespace, &*object.name)
}

type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

fn key(reference: &v1::ObjectRef) -> Key<'_> {
    (&reference.group, &reference.kind, &reference.namespace, &reference.name)
}

impl Gathered {
    /// The winner, those that hold as well, the others; and how many more there are.
    pub(super) fn candidates(
        &self,
        table: &Table,
        facts: &Facts<'_>,
        selected: Option<Selected>,
    ) -> (Vec<v1::Candidate>, u32) {
        let mut all = route::standings(table, facts);
        all.sort_by_key(|(_at, standing)| match standing {
            Standing::Won => 0,
            Standing::Behind(_) => 1,
            Standing::Unmet(_) => 2,
        });
        let left_out = all.len().saturating_sub(limits::EXPLAINED_MATCHES);
        let named = self.told.http_routes.iter().filter_map(|route| Some((key(route.object.as_ref()?), route)));
        let told: HashMap<Key<'_>, &v1::HttpRoute> = named.collect();
        let shown = all.into_iter().take(limits::EXPLAINED_MATCHES).filter_map(|(at, standing)| {
            let object = &table.routes().get(at.route)?.object;
            let route = told.get(&(&*object.group, &*object.kind, &*object.namespace, &*object.name))?;
            let rule = route.rules.get(at.rule)?;
            let (verdict, criterion, name) = self.said(table, selected, at, standing);
            Some(v1::Candidate {
                route: route.object.clone(),
                hostnames: route.hostnames.clone(),
                rule: count(at.rule),
                r#match: count(at.matched),
                condition: rule.matches.get(at.matched).cloned(),
                profile_condition: rule.condition.clone(),
                rule_name: rule.name.clone(),
                verdict: verdict.into(),
                criterion: criterion.into(),
                name,
            })
        });
        (shown.collect(), count(left_out))
    }

    fn said(
        &self,
        table: &Table,
        selected: Option<Selected>,
        at: Selected,
        standing: Standing<'_>,
    ) -> (v1::Verdict, v1::Criterion, String) {
        use v1::Criterion;
        let (criterion, name) = match standing {
            Standing::Won => return (v1::Verdict::Won, Criterion::Unspecified, String::new()),
            Standing::Unmet(unmet) => match unmet {
                Unmet::Hostname => (Criterion::Hostname, ""),
                Unmet::Path => (Criterion::Path, ""),
                Unmet::CallService => (Criterion::GrpcService, ""),
                Unmet::CallMethod => (Criterion::GrpcMethod, ""),
                Unmet::Method => (Criterion::Method, ""),
                Unmet::Header(name) => (Criterion::Header, name.as_str()),
                Unmet::QueryParam(name) => (Criterion::QueryParam, name),
                Unmet::Condition => (Criterion::Condition, ""),
            },
            Standing::Behind(by) => {
                let criterion = match by {
                    Precedence::Hostname => Criterion::Hostname,
                    Precedence::PathKind => Criterion::PathKind,
                    Precedence::PathLength => Criterion::PathLength,
                    Precedence::Call => Criterion::GrpcCall,
                    Precedence::Method => Criterion::Method,
                    Precedence::Headers => Criterion::Headers,
                    Precedence::QueryParams => Criterion::QueryParams,
                    Precedence::Route if self.is_younger(table, selected, at) => Criterion::RouteAge,
                    Precedence::Route => Criterion::RouteName,
                    Precedence::Rule => Criterion::RuleOrder,
                    Precedence::Match => Criterion::MatchOrder,
                };
                return (v1::Verdict::Behind, criterion, String::new());
            }
        };
        (v1::Verdict::Unmet, criterion, name.to_owned())
    }

    /// Than the winner's route; else its name came later.
    fn is_younger(&self, table: &Table, selected: Option<Selected>, at: Selected) -> bool {
        let created = |at: Selected| self.place(table, at).map(|place| &place.route.created);
        selected.and_then(created) != created(at)
    }
}
