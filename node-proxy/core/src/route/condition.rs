//! Conditions of a ServiceProfile's routes on one request, as deep as they are nested. Must never hold where one of its parts is not understood:
//! there is no such value.
//!
//! Linkerd: `RequestMatch` of `linkerd.io/ServiceProfile` (`all`, `any`, `not`, `method`, `pathRegex`).

use http::Method;
use weir_api::v1;

use super::{Facts, Invalid, Pattern};
use crate::limits;

/// One condition. Patterns are numbered: those of all conditions are tried in one walk over a path.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// Each of them holds; also where there are none.
    All(Box<[Condition]>),
    /// One of them holds.
    Any(Box<[Condition]>),
    /// It does not hold.
    Not(Box<Condition>),
    /// The method.
    Method(Method),
    /// The whole path matches; number of the pattern.
    Path(usize),
}

impl Condition {
    /// What control says. Its patterns are added to `patterns`.
    ///
    /// # Errors
    /// What this node does not know, what is no method or pattern, and what is nested too deep.
    pub(super) fn of_api(given: &v1::Condition, patterns: &mut Vec<String>) -> Result<Condition, Invalid> {
        Condition::nested(given, patterns, limits::CONDITION_DEPTH)
    }

    fn nested(given: &v1::Condition, patterns: &mut Vec<String>, depth: usize) -> Result<Condition, Invalid> {
        let Some(below) = depth.checked_sub(1) else {
            let reason = format!("nested more than {} deep", limits::CONDITION_DEPTH);
            return Err(Invalid::new("condition", reason));
        };
        let mut all = |list: &v1::ConditionList| {
            list.conditions.iter().map(|one| Condition::nested(one, patterns, below)).collect::<Result<Box<[_]>, _>>()
        };
        Ok(match &given.is {
            Some(v1::condition::Is::All(list)) => Condition::All(all(list)?),
            Some(v1::condition::Is::Any(list)) => Condition::Any(all(list)?),
            Some(v1::condition::Is::Not(one)) => Condition::Not(Box::new(Condition::nested(one, patterns, below)?)),
            Some(v1::condition::Is::Method(method)) => {
                let no_method = |_not| Invalid::new("condition.method", format!("{method:?} is no method"));
                Condition::Method(Method::from_bytes(method.as_bytes()).map_err(no_method)?)
            }
            Some(v1::condition::Is::PathPattern(text)) => {
                // Alone, for an error that names it: the set of all would name none.
                let pattern = Pattern::new("condition.pathRegex", text)?;
                patterns.push(pattern.as_str().to_owned());
                Condition::Path(patterns.len() - 1)
            }
            None => return Err(Invalid::new("condition", "not known here; is this node older than control?")),
        })
    }

    /// Whether it holds; `matched` says which patterns match the path.
    pub(super) fn holds(&self, facts: &Facts<'_>, matched: &impl Fn(usize) -> bool) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|one| one.holds(facts, matched)),
            Condition::Any(any) => any.iter().any(|one| one.holds(facts, matched)),
            Condition::Not(one) => !one.holds(facts, matched),
            Condition::Method(method) => method == facts.method,
            Condition::Path(number) => matched(*number),
        }
    }

    /// Patterns of which one has to match, or it does not hold; none where it may hold without.
    pub(super) fn needs(&self) -> Option<Vec<usize>> {
        match self {
            Condition::Path(number) => Some(vec![*number]),
            Condition::All(all) => all.iter().filter_map(Condition::needs).min_by_key(Vec::len),
            Condition::Any(any) => {
                let each: Option<Vec<Vec<usize>>> = any.iter().map(Condition::needs).collect();
                each.map(|each| each.concat())
            }
            Condition::Not(_) | Condition::Method(_) => None,
        }
    }
}

/// How many terms a condition has, and how many of them are patterns.
pub(super) fn terms(given: &v1::Condition) -> (usize, usize) {
    let sum = |list: &v1::ConditionList| {
        list.conditions.iter().map(terms).fold((1, 0), |(all, of), (one, its)| (all + one, of + its))
    };
    match &given.is {
        Some(v1::condition::Is::All(list) | v1::condition::Is::Any(list)) => sum(list),
        Some(v1::condition::Is::Not(one)) => {
            let (all, patterns) = terms(one);
            (all + 1, patterns)
        }
        Some(v1::condition::Is::PathPattern(_)) => (1, 1),
        Some(v1::condition::Is::Method(_)) | None => (1, 0),
    }
}
