//! TLSRoutes and TCPRoutes. Must never drop a condition of a rule: a route that cannot be followed as it is written is refused whole.

use std::sync::Arc;

use weir_api::v1::RouteLevel;
use weir_core::timeouts::Timeouts;

use super::{
    FieldError,
    convert::Outcome,
    fields,
    routes::{backends, checked, service_parents},
};
use crate::objects::{HttpRoute, RouteRule};

/// Reads a TLSRoute that is ours.
pub(super) fn tls_route(given: &fields::ConnectionRoute) -> Outcome<FieldError> {
    route(given, RouteLevel::Tls)
}

/// Reads a TCPRoute that is ours.
pub(super) fn tcp_route(given: &fields::ConnectionRoute) -> Outcome<FieldError> {
    route(given, RouteLevel::Tcp)
}

fn route(given: &fields::ConnectionRoute, level: RouteLevel) -> Outcome<FieldError> {
    let namespace = given.metadata.namespace.as_deref().unwrap_or("default");
    let spec = &given.spec;
    let mut errors = Vec::new();
    let parents = service_parents(namespace, spec.parent_refs.as_deref(), &mut errors);
    let hostnames = spec.hostnames.clone().unwrap_or_default();
    if level == RouteLevel::Tcp && !hostnames.is_empty() {
        errors.push(FieldError::new("spec.hostnames", "a TCPRoute has none: a TLSRoute can ask for names"));
    }
    let given_rules = spec.rules.as_deref().unwrap_or_default();
    if given_rules.len() != 1 {
        errors.push(FieldError::new("spec.rules", format!("{} of them: exactly one is taken", given_rules.len())));
    }
    let rules = given_rules.iter().enumerate().map(|(at, given)| {
        let field = format!("spec.rules[{at}]");
        RouteRule {
            matches: Vec::new(),
            filters: Vec::new(),
            backends: backends(namespace, &field, given.backend_refs.as_deref(), &[], false, &mut errors),
            timeouts: Timeouts::default(),
            retry: None,
            sessions: None,
            of_profile: None,
        }
    });
    let rules = rules.collect();
    let route = HttpRoute {
        created: Arc::from(given.metadata.creation_timestamp.as_deref().unwrap_or_default()),
        generation: given.metadata.generation.unwrap_or_default(),
        parents,
        servers: Vec::new(),
        hostnames,
        rules,
        level,
        timeouts: None,
        retry: None,
        annotated: Vec::new(),
        profile: None,
    };
    checked(route, Vec::new(), errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures,
        objects::{Kind, Name, Object},
        parse::{self, Finding},
    };

    fn text(kind: &str, version: &str, spec: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: some, namespace: demo}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: web, port: 443}}]\n{spec}\n"
        )
    }

    #[test]
    fn routes_have_one_rule_with_backends() {
        let spec = "  hostnames: [a.example.com, '*.b.example.com']\n  rules: [{name: x, backendRefs: [{name: v1, port: 1, weight: 9}, {name: v2, namespace: other, port: 2}, {kind: Pod, name: p}]}]";
        for version in ["v1", "v1alpha3", "v1alpha2"] {
            let (name, object) = fixtures::objects(&text("TLSRoute", version, spec)).pop().unwrap();
            assert_eq!(name.kind, Kind::TlsRoute);
            let Object::HttpRoute(route) = object else { panic!("{object:?}") };
            assert_eq!((route.level, route.hostnames.len(), route.parents[0].port), (RouteLevel::Tls, 2, Some(443)));
            let backends = route.rules[0].backends.as_ref().unwrap();
            let targets: Vec<_> = backends.iter().map(|one| (one.weight, one.target.clone().ok())).collect();
            let [v1, v2] = [("demo", "v1", 1), ("other", "v2", 2)].map(|(ns, name, port)| (Name::new(ns, name), port));
            assert_eq!(targets, [(9, Some(v1)), (1, Some(v2)), (1, None)]);
        }
        let (name, object) = fixtures::objects(&text("TCPRoute", "v1alpha2", "  rules: [{}]")).pop().unwrap();
        let Object::HttpRoute(route) = object else { panic!("{object:?}") };
        assert_eq!((name.kind, route.level, &route.rules[0].backends), (Kind::TcpRoute, RouteLevel::Tcp, &None));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_field() {
        for (kind, spec, field) in [
            ("TLSRoute", "  rules: [{}, {}]", "spec.rules"),
            ("TLSRoute", "  rules: []", "spec.rules"),
            ("TCPRoute", "  hostnames: [a.org]\n  rules: [{}]", "spec.hostnames"),
            ("TLSRoute", "  hostnames: [10.0.0.1]\n  rules: [{}]", "spec.hostnames"),
            ("TCPRoute", "  rules: [{matches: []}]", "spec.rules[0].matches"),
            (
                "TCPRoute",
                "  rules: [{backendRefs: [{name: a, port: 1, weight: -1}]}]",
                "spec.rules[0].backendRefs[0].weight",
            ),
            (
                "TLSRoute",
                "  rules: [{backendRefs: [{name: a, port: 1, filters: [{type: RequestMirror}]}]}]",
                "spec.rules[0].backendRefs[0].filters[0].type",
            ),
        ] {
            let parsed = parse::manifest("test.yaml", &text(kind, "v1", spec), &fixtures::options());
            assert_eq!(parsed.objects, [], "{spec}");
            let fields: Vec<&str> = parsed.findings.iter().map(|Finding { field, .. }| field.as_str()).collect();
            assert_eq!(fields, [field], "{spec}: {:?}", parsed.findings);
        }
    }
}
