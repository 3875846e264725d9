//! Which time limits are in force for a request. Must never take a limit that was lifted (zero) for one that was not named.

use std::time::Duration;

use weir_api::v1;
use weir_core::timeouts::Timeouts;

/// Whose word it is that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nobody's.
    Default,
    /// An annotation of the Service.
    Service,
    /// An annotation of the route.
    Route,
    /// A field of the rule.
    Rule,
}

/// A limit, and whose word it is.
pub(crate) type Decided = (Option<Duration>, Said);

/// For a rule: of the request, of each of its attempts, of the response, of silence. A route's annotations stand above its rules (Linkerd) and
/// replace all of the Service's; what neither says is the Service's.
pub(crate) fn decided(service: Option<Timeouts>, route: Option<Timeouts>, rule: Timeouts) -> [Decided; 4] {
    let said = |limit: Option<Duration>, who: Said| limit.map(|limit| (Some(limit), who));
    let holder = if route.is_some() { Said::Route } else { Said::Service };
    let annotated = route.or(service).unwrap_or_default();
    let request = said(route.and_then(|route| route.request), Said::Route)
        .or_else(|| said(rule.request, Said::Rule))
        .or_else(|| said(annotated.request, holder));
    let all = [
        request,
        said(rule.backend_request, Said::Rule),
        said(annotated.response, holder),
        said(annotated.idle, holder),
    ];
    all.map(|limit| limit.unwrap_or((None, Said::Default)))
}

/// The same as nodes are told; `None` for no limit.
pub(super) fn in_force(service: Option<Timeouts>, route: Option<Timeouts>, rule: Timeouts) -> Option<v1::Timeouts> {
    let millis = |(limit, _who): Decided| limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let [request_ms, backend_request_ms, response_ms, idle_ms] = decided(service, route, rule).map(millis);
    let told = v1::Timeouts { request_ms, backend_request_ms, response_ms, idle_ms };
    (told != v1::Timeouts::default()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_in_force() {
        let second = |count| Some(Duration::from_secs(count));
        let service =
            Some(Timeouts { request: second(1), response: second(2), idle: second(3), ..Timeouts::default() });
        let route = Some(Timeouts { request: second(4), ..Timeouts::default() });
        let idle = Some(Timeouts { idle: second(7), ..Timeouts::default() });
        let rule = Timeouts { request: second(5), backend_request: second(6), ..Timeouts::default() };
        let none = Timeouts::default();
        for (service, route, rule, request, backend_request, response, idle) in [
            (service, None, none, 1, 0, 2, 3),
            (service, None, rule, 5, 6, 2, 3),
            (service, route, rule, 4, 6, 0, 0),
            (service, idle, rule, 5, 6, 0, 7),
            (service, idle, none, 0, 0, 0, 7),
            (service, None, Timeouts { request: second(0), ..none }, 0, 0, 2, 3),
            (None, None, none, 0, 0, 0, 0),
        ] {
            let told = in_force(service, route, rule).unwrap_or_default();
            let seconds =
                [told.request_ms, told.backend_request_ms, told.response_ms, told.idle_ms].map(|ms| ms / 1000);
            assert_eq!(seconds, [request, backend_request, response, idle], "{service:?} {route:?} {rule:?}");
        }
    }
}
