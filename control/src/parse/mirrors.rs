//! Filter RequestMirror of Gateway API. Must never make a larger share of what is written.

use std::sync::Arc;

use super::{FieldError, fields, quoted};
use crate::objects::{Invalid, MirrorTarget, RouteMirror};

/// Of a fraction without one (Gateway API).
const DENOMINATOR: i32 = 100;

/// Reads one; `field` is the filter's.
pub(super) fn mirror(field: &str, given: Option<&fields::RequestMirror>) -> Result<RouteMirror, FieldError> {
    let field = format!("{field}.requestMirror");
    let given = given.ok_or_else(|| FieldError::new(&field, "missing: `type` asks for it"))?;
    let backend = given.backend_ref.as_ref().filter(|backend| !backend.name.is_empty());
    let backend =
        backend.ok_or_else(|| FieldError::new(format!("{field}.backendRef"), "missing, or without a name"))?;
    let (numerator, denominator) = share(&field, given)?;
    Ok(RouteMirror { numerator, denominator, target: target(backend) })
}

fn share(field: &str, given: &fields::RequestMirror) -> Result<(u32, u32), FieldError> {
    match (given.percent, &given.fraction) {
        (None, None) => Ok((1, 1)),
        (Some(_), Some(_)) => {
            Err(FieldError::new(field, "percent and fraction exclude each other: leave one of them out"))
        }
        (Some(percent), None) => match u32::try_from(percent).ok().filter(|percent| *percent <= 100) {
            Some(percent) => Ok((percent, 100)),
            None => Err(FieldError::new(format!("{field}.percent"), format!("{percent} is no percentage (0 to 100)"))),
        },
        (None, Some(given)) => fraction(&format!("{field}.fraction"), given),
    }
}

fn fraction(field: &str, given: &fields::Fraction) -> Result<(u32, u32), FieldError> {
    let wrong = |name: &str, reason: String| Err(FieldError::new(format!("{field}.{name}"), reason));
    let denominator = given.denominator.unwrap_or(DENOMINATOR);
    let Some(numerator) = given.numerator else { return wrong("numerator", "missing".to_owned()) };
    match (u32::try_from(numerator), u32::try_from(denominator)) {
        (_, Err(_) | Ok(0)) => wrong("denominator", format!("{denominator} is less than 1")),
        (Err(_), _) => wrong("numerator", format!("{numerator} is less than 0")),
        (Ok(part), Ok(whole)) if part > whole => {
            wrong("numerator", format!("{numerator} is more than the denominator, {denominator}"))
        }
        (Ok(part), Ok(whole)) => Ok((part, whole)),
    }
}

fn target(given: &fields::MirrorRef) -> Result<MirrorTarget, Invalid> {
    let (group, kind) = (given.group.as_deref().unwrap_or_default(), given.kind.as_deref().unwrap_or("Service"));
    let name = &given.name;
    if !matches!(group, "" | "core") || kind != "Service" {
        let message =
            format!("{}/{} {} is no backend of a mirror; Services are", quoted(group), quoted(kind), quoted(name));
        return Err(Invalid { reason: "InvalidKind", message });
    }
    match given.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
        Some(port) => {
            let namespace = given.namespace.as_deref().filter(|namespace| !namespace.is_empty()).map(Arc::from);
            Ok(MirrorTarget { namespace, name: Arc::from(name.as_str()), port })
        }
        None => {
            let message = format!("Service {name} is named for a mirror without a port");
            Err(Invalid { reason: "BackendNotFound", message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures,
        objects::{HttpRoute, Object, RouteFilter},
        parse::{self, Finding},
    };

    /// On the rule, and on its backend.
    fn texts(filter: &str) -> [String; 2] {
        let filter = format!("filters: [{{type: RequestMirror, requestMirror: {filter}}}]");
        [format!("  rules: [{{{filter}}}]"), format!("  rules: [{{backendRefs: [{{name: web, port: 80, {filter}}}]}}]")]
    }

    fn read(rules: &str) -> Arc<HttpRoute> {
        let (_, object) = fixtures::objects(&fixtures::route("web", "demo", rules)).pop().unwrap();
        let Object::HttpRoute(route) = object else { panic!("{object:?}") };
        route
    }

    fn mirrors(route: &HttpRoute) -> Vec<&RouteMirror> {
        let rules = route.rules.iter().flat_map(|rule| {
            let of_backends = rule.backends.iter().flatten().flat_map(|backend| &backend.filters);
            rule.filters.iter().chain(of_backends)
        });
        let mirrors = rules.filter_map(|filter| match filter {
            RouteFilter::Mirror(mirror) => Some(mirror),
            RouteFilter::Plain(_) => None,
        });
        mirrors.collect()
    }

    #[test]
    fn shares_are_percentages_fractions_or_all() {
        for (share, expected) in [
            ("", (1, 1)),
            (", percent: 0", (0, 100)),
            (", percent: 42", (42, 100)),
            (", percent: 100", (100, 100)),
            (", fraction: {numerator: 3}", (3, 100)),
            (", fraction: {numerator: 0, denominator: 1}", (0, 1)),
            (", fraction: {numerator: 5, denominator: 1000}", (5, 1000)),
            (", fraction: {numerator: 2147483647, denominator: 2147483647}", (2_147_483_647, 2_147_483_647)),
        ] {
            for rules in texts(&format!("{{backendRef: {{name: copy, port: 80}}{share}}}")) {
                let route = read(&rules);
                let found = mirrors(&route);
                let [mirror] = &*found else { panic!("{found:?}") };
                assert_eq!((mirror.numerator, mirror.denominator), expected, "{share}");
            }
        }
    }

    #[test]
    fn a_mirror_without_a_namespace_is_in_the_routes_own_and_one_that_is_no_service_is_invalid() {
        let own = Arc::from("demo");
        for (backend, expected) in [
            ("name: copy, port: 80", Ok("demo/copy")),
            ("name: copy, port: 80, namespace: other, kind: Service, group: ''", Ok("other/copy")),
            ("name: copy", Err("BackendNotFound")),
            ("name: copy, port: 70000", Err("BackendNotFound")),
            ("name: copy, port: 80, kind: Pod", Err("InvalidKind")),
            ("name: copy, port: 80, group: example.org", Err("InvalidKind")),
        ] {
            for rules in texts(&format!("{{backendRef: {{{backend}}}}}")) {
                let route = read(&rules);
                let target = mirrors(&route)[0].target(&own);
                let said = target.map(|(name, port)| (name.to_string(), port)).map_err(|invalid| invalid.reason);
                assert_eq!(said, expected.map(|name| (name.to_owned(), 80)), "{backend}");
                let is_a_target = route.services(&own).any(|name| name.name.as_ref() == "copy");
                assert_eq!(is_a_target, expected.is_ok(), "{backend}");
            }
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_field() {
        let copy = "backendRef: {name: copy, port: 80}";
        for (given, field) in [
            ("{}".to_owned(), ".backendRef"),
            ("{backendRef: {port: 80}}".to_owned(), ".backendRef"),
            (format!("{{{copy}, percent: 101}}"), ".percent"),
            (format!("{{{copy}, percent: -1}}"), ".percent"),
            (format!("{{{copy}, percent: 1, fraction: {{numerator: 1}}}}"), ""),
            (format!("{{{copy}, fraction: {{numerator: 101}}}}"), ".fraction.numerator"),
            (format!("{{{copy}, fraction: {{numerator: 3, denominator: 2}}}}"), ".fraction.numerator"),
            (format!("{{{copy}, fraction: {{numerator: -1}}}}"), ".fraction.numerator"),
            (format!("{{{copy}, fraction: {{denominator: 2}}}}"), ".fraction.numerator"),
            (format!("{{{copy}, fraction: {{numerator: 0, denominator: 0}}}}"), ".fraction.denominator"),
            (format!("{{{copy}, fraction: {{numerator: 0, denominator: -5}}}}"), ".fraction.denominator"),
            (format!("{{{copy}, perzent: 5}}"), ".perzent"),
        ] {
            for (rules, at) in texts(&given).iter().zip(["spec.rules[0]", "spec.rules[0].backendRefs[0]"]) {
                let text = fixtures::route("web", "demo", rules);
                let parsed = parse::manifest("test.yaml", &text, &fixtures::options());
                assert_eq!(parsed.objects, [], "{given}");
                let fields: Vec<&str> = parsed.findings.iter().map(|Finding { field, .. }| field.as_str()).collect();
                assert_eq!(fields, [format!("{at}.filters[0].requestMirror{field}")], "{:?}", parsed.findings);
            }
        }
        let many = vec![format!("{{type: RequestMirror, requestMirror: {{{copy}}}}}"); 17].join(", ");
        let text = fixtures::route("web", "demo", &format!("  rules: [{{filters: [{many}]}}]"));
        let parsed = parse::manifest("test.yaml", &text, &fixtures::options());
        assert!(parsed.findings[0].reason.contains("17 of type RequestMirror, at most 16"), "{:?}", parsed.findings);
    }
}
