//! Which requests are copied, and where to. Must never copy more than the share that is asked for.

use std::sync::Arc;

use weir_api::v1::{self, http_backend, http_filter, http_rule, request_mirror};

use super::{Invalid, rule::below};
use crate::limits;

/// A copy of a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Index among the services that the routes of this port name; or why there is none.
    pub target: Result<usize, Arc<str>>,
    numerator: u32,
    denominator: u32,
}

impl Mirror {
    /// The next mirror; its service has the next number, if it has one.
    ///
    /// # Errors
    /// No share, or no target.
    pub(super) fn of_api(given: &v1::RequestMirror, next: &mut usize) -> Result<Mirror, Invalid> {
        let (numerator, denominator) = (given.numerator, given.denominator);
        if denominator == 0 || numerator > denominator {
            let reason = format!("{numerator} of {denominator} is no share");
            return Err(Invalid::new("requestMirror.fraction", reason));
        }
        let target = match &given.target {
            Some(request_mirror::Target::Service(_)) => {
                *next += 1;
                Ok(*next - 1)
            }
            Some(request_mirror::Target::Invalid(reason)) => Err(Arc::from(reason.as_str())),
            None => return Err(Invalid::new("requestMirror.target", "missing")),
        };
        Ok(Mirror { target, numerator, denominator })
    }

    /// The service that one request is copied to, if it is. `random`: 64 bits of its own.
    pub fn takes(&self, random: impl FnOnce() -> u64) -> Option<usize> {
        let service = *self.target.as_ref().ok()?;
        let is_taken = self.numerator == self.denominator
            || below(random(), u64::from(self.denominator)) < u64::from(self.numerator);
        is_taken.then_some(service)
    }
}

/// Those of one list of filters are few.
pub(super) fn within_limits(given: &[v1::HttpFilter]) -> Result<(), Invalid> {
    let count = given.iter().filter(|filter| matches!(filter.filter, Some(http_filter::Filter::Mirror(_)))).count();
    if count > limits::MIRRORS_PER_RULE {
        let reason = format!("{count} of type RequestMirror, at most {} are taken", limits::MIRRORS_PER_RULE);
        return Err(Invalid::new("filters", reason));
    }
    Ok(())
}

/// The services that the mirrors of a list of filters name.
fn mirrored(filters: &[v1::HttpFilter]) -> impl Iterator<Item = &v1::ServiceTarget> {
    filters.iter().filter_map(|filter| match &filter.filter {
        Some(http_filter::Filter::Mirror(v1::RequestMirror {
            target: Some(request_mirror::Target::Service(service)),
            ..
        })) => Some(service),
        _other => None,
    })
}

/// The services that rules send requests or copies of them to, each as often as it is named: of each rule first those of its own mirrors, then of each
/// backend itself and those of its mirrors.
pub fn services(given: &[v1::HttpRoute]) -> impl Iterator<Item = &v1::ServiceTarget> {
    given.iter().flat_map(|route| &route.rules).flat_map(|rule| {
        let backends = match &rule.destination {
            Some(http_rule::Destination::Backends(backends)) => &*backends.backends,
            Some(http_rule::Destination::Itself(_)) | None => &[],
        };
        let backends = backends.iter().flat_map(|backend| {
            let own = match &backend.target {
                Some(http_backend::Target::Service(service)) => Some(service),
                Some(http_backend::Target::Invalid(_)) | None => None,
            };
            own.into_iter().chain(mirrored(&backend.filters))
        });
        mirrored(&rule.filters).chain(backends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> v1::ServiceTarget {
        v1::ServiceTarget { name: name.to_owned(), ..v1::ServiceTarget::default() }
    }

    fn mirror(numerator: u32, denominator: u32, name: &str) -> v1::RequestMirror {
        let target = Some(match name {
            "" => request_mirror::Target::Invalid("gone".to_owned()),
            name => request_mirror::Target::Service(service(name)),
        });
        v1::RequestMirror { numerator, denominator, target }
    }

    fn filter(name: &str) -> v1::HttpFilter {
        v1::HttpFilter { filter: Some(http_filter::Filter::Mirror(mirror(1, 1, name))) }
    }

    #[test]
    fn shares_are_what_is_asked_for() {
        for (numerator, denominator, expected) in [
            (0, 1, 0..=0),
            (1, 1, 100_000..=100_000),
            (7, 7, 100_000..=100_000),
            (10, 100, 9_500..=10_500),
            (1, 3, 32_700..=34_000),
            (999, 1_000, 99_850..=99_950),
            (u32::MAX - 1, u32::MAX, 99_990..=100_000),
        ] {
            let mirror = Mirror::of_api(&mirror(numerator, denominator, "copy"), &mut 5).unwrap();
            let mut random = 1_u64;
            let mut next = || {
                // A linear congruential generator's upper bits are good enough (Knuth, MMIX).
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                random
            };
            let taken = (0..100_000).filter(|_| mirror.takes(&mut next) == Some(5)).count();
            assert!(expected.contains(&taken), "{numerator}/{denominator}: {taken}");
        }
    }

    #[test]
    fn what_is_no_share_or_has_no_target_is_refused_and_what_is_invalid_copies_nothing() {
        for (given, field) in [
            (mirror(1, 0, "copy"), "requestMirror.fraction"),
            (mirror(3, 2, "copy"), "requestMirror.fraction"),
            (v1::RequestMirror { target: None, ..mirror(1, 1, "") }, "requestMirror.target"),
        ] {
            assert_eq!(Mirror::of_api(&given, &mut 0).unwrap_err().field, field);
        }
        let mut next = 3;
        assert_eq!(Mirror::of_api(&mirror(1, 1, ""), &mut next).unwrap().takes(|| 0), None);
        assert_eq!(next, 3, "it has no number");
        let many = vec![filter("copy"); limits::MIRRORS_PER_RULE + 1];
        assert!(within_limits(&many[1..]).is_ok());
        assert_eq!(within_limits(&many).unwrap_err().field, "filters");
    }

    /// Numbers in the compiled rules are places in this list: seen to fail with the mirrors of rules after the backends here.
    #[test]
    fn services_stand_in_the_order_of_their_numbers() {
        let backend = |name: &str, filters| v1::HttpBackend {
            weight: 1,
            filters,
            target: Some(match name {
                "" => http_backend::Target::Invalid("gone".to_owned()),
                name => http_backend::Target::Service(service(name)),
            }),
        };
        let rule = |filters, backends| v1::HttpRule {
            matches: vec![v1::HttpMatch {
                path: Some(v1::http_match::Path::PathPrefix("/".to_owned())),
                ..v1::HttpMatch::default()
            }],
            filters,
            destination: Some(http_rule::Destination::Backends(v1::HttpBackends { backends })),
            ..v1::HttpRule::default()
        };
        let rules = vec![
            rule(
                vec![filter("a"), filter(""), filter("b")],
                vec![backend("c", vec![filter("d")]), backend("", vec![filter("e")]), backend("f", Vec::new())],
            ),
            rule(vec![filter("g")], vec![backend("h", Vec::new())]),
        ];
        let given = [v1::HttpRoute { object: Some(v1::ObjectRef::default()), rules, ..v1::HttpRoute::default() }];
        let names: String = services(&given).map(|service| service.name.as_str()).collect();
        assert_eq!(names, "abcdefgh");
        let routes = super::super::routes(&given).unwrap().unwrap();
        let table = routes.of_client("").unwrap();
        let mut numbered = String::new();
        for rule in &table.routes()[0].rules {
            let all = rule.backends.iter().flat_map(|backends| &backends.all);
            let of_backends = all.flat_map(|backend| {
                let own = backend.target.as_ref().ok().copied();
                own.into_iter().chain(backend.filters.iter().filter_map(number))
            });
            for number in rule.filters.iter().filter_map(number).chain(of_backends) {
                numbered.push_str(&names[number..=number]);
            }
        }
        assert_eq!(numbered, "abcdefgh");
    }

    fn number(filter: &super::super::Filter) -> Option<usize> {
        match filter {
            super::super::Filter::Mirror(mirror) => mirror.takes(|| 0),
            _other => None,
        }
    }
}
