//! GRPCRoutes, read as HTTPRoutes whose matches are of calls. Must never drop a condition or filter of a rule: a route that cannot be followed
//! as it is written is refused whole.

use std::sync::Arc;

use weir_api::v1::{self, grpc_method, http_match};
use weir_core::timeouts::Timeouts;

use super::{
    FieldError,
    annotations::understood,
    convert::Outcome,
    fields, quoted, retry,
    routes::{Own, backends, checked, filters, service_parents, values},
    server_routes::server_parents,
    sessions, timeouts,
};
use crate::objects::{HttpRoute, RouteRule, annotation};

/// What may be done to a call; the others are for requests that are not gRPC.
const FILTERS: [&str; 3] = ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"];

/// Reads a route that is ours.
pub(super) fn grpc_route(given: &fields::GrpcRoute) -> Outcome<FieldError> {
    let own = Own::of("GRPCRoute", &given.metadata);
    let (spec, annotations) = (&given.spec, given.metadata.annotations.as_ref());
    let mut errors = Vec::new();
    let parents = service_parents(own.namespace, spec.parent_refs.as_deref(), &mut errors);
    let none = [fields::GrpcRouteRule::default()];
    // Without rules it is for every call.
    let rules = spec.rules.as_deref().filter(|rules| !rules.is_empty()).unwrap_or(&none).iter().enumerate();
    let rules = rules.map(|(at, given)| rule(&own, at, given, &mut errors)).collect();
    let route = HttpRoute {
        created: Arc::from(given.metadata.creation_timestamp.as_deref().unwrap_or_default()),
        generation: given.metadata.generation.unwrap_or_default(),
        parents,
        servers: server_parents(own.namespace, spec.parent_refs.as_deref(), &mut errors),
        hostnames: spec.hostnames.clone().unwrap_or_default(),
        rules,
        level: v1::RouteLevel::Requests,
        timeouts: timeouts::annotated(annotations, &mut errors),
        retry: retry::annotated_of_calls(annotations, &mut errors),
        annotated: understood(annotations, &[]).into_iter().filter(|key| *key != annotation::retry::HTTP).collect(),
        profile: None,
    };
    checked(route, Vec::new(), errors)
}

fn rule(own: &Own<'_>, at: usize, given: &fields::GrpcRouteRule, errors: &mut Vec<FieldError>) -> RouteRule {
    let namespace = own.namespace;
    let field = format!("spec.rules[{at}]");
    let mut matches: Vec<v1::HttpMatch> = Vec::new();
    for (at, given) in given.matches.iter().flatten().enumerate() {
        matches.push(call(&format!("{field}.matches[{at}]"), given, errors));
    }
    if matches.is_empty() {
        matches.push(call(&field, &fields::GrpcRouteMatch::default(), errors));
    }
    let filters = filters(&field, given.filters.as_deref(), &FILTERS, false, errors);
    let backends = backends(namespace, &field, given.backend_refs.as_deref(), &FILTERS, false, errors);
    let named = sessions::Rule { route: &own.shown, name: given.name.as_deref(), at };
    let sessions = sessions::of_rule(&named, given.session_persistence.as_ref(), errors);
    RouteRule { matches, filters, backends, timeouts: Timeouts::default(), retry: None, sessions, of_profile: None }
}

/// Conditions on one call.
fn call(field: &str, given: &fields::GrpcRouteMatch, errors: &mut Vec<FieldError>) -> v1::HttpMatch {
    let named = given.method.as_ref().map(|given| method(&format!("{field}.method"), given));
    let named = named.transpose().unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let headers = values(&format!("{field}.headers"), given.headers.as_deref(), true, errors);
    v1::HttpMatch {
        path: Some(http_match::Path::GrpcMethod(named.unwrap_or_else(|| told(None, None)))),
        method: String::new(),
        headers,
        query_params: Vec::new(),
    }
}

fn method(field: &str, given: &fields::GrpcMethodMatch) -> Result<v1::GrpcMethod, FieldError> {
    let given_text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (given_text(&given.service), given_text(&given.method));
    if service.is_none() && method.is_none() {
        return Err(FieldError::new(field, "names neither a service nor a method"));
    }
    match given.kind.as_deref().unwrap_or("Exact") {
        "Exact" => {}
        "RegularExpression" => {
            let service = service.map(grpc_method::Service::ServicePattern);
            return Ok(told(service, method.map(grpc_method::Method::MethodPattern)));
        }
        other => {
            let reason = format!("{} is none of Exact, RegularExpression", quoted(other));
            return Err(FieldError::new(format!("{field}.type"), reason));
        }
    }
    for (name, text, is_dotted) in [("service", &service, true), ("method", &method, false)] {
        if let Some(text) = text.as_deref().filter(|text| !is_name(text, is_dotted)) {
            let reason = format!("{} is no name of a gRPC {name}", quoted(text));
            return Err(FieldError::new(format!("{field}.{name}"), reason));
        }
    }
    Ok(told(service.map(grpc_method::Service::ExactService), method.map(grpc_method::Method::ExactMethod)))
}

/// What is not named may be any.
fn told(service: Option<grpc_method::Service>, method: Option<grpc_method::Method>) -> v1::GrpcMethod {
    v1::GrpcMethod {
        service: service.or(Some(grpc_method::Service::AnyService(v1::Any {}))),
        method: method.or(Some(grpc_method::Method::AnyMethod(v1::Any {}))),
    }
}

/// Names of Protocol Buffers: letters, digits and underscores, with dots between those of packages.
fn is_name(text: &str, is_dotted: bool) -> bool {
    text.chars().all(|one| one.is_ascii_alphanumeric() || one == '_' || (is_dotted && one == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures,
        objects::{Kind, Object},
        parse::{self, Finding},
    };

    fn text(rules: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: calls, namespace: demo}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  rules:\n{rules}\n"
        )
    }

    #[test]
    fn calls_have_names_patterns_and_headers() {
        let rules = "  - matches:
    - {method: {service: shop.Cart, method: Add}}
    - {method: {service: shop.Cart}, headers: [{name: X-Who, value: me}]}
    - {method: {method: Add}}
    - {method: {type: RegularExpression, service: 'shop[.].*'}}
    - {headers: [{name: x-a, type: RegularExpression, value: b+}]}
  - {}
";
        let (name, object) = fixtures::objects(&text(rules)).pop().unwrap();
        assert_eq!(name.kind, Kind::GrpcRoute);
        let Object::HttpRoute(route) = object else { panic!("{object:?}") };
        let named: Vec<_> = route.rules.iter().flat_map(|rule| &rule.matches).map(|one| one.path.clone()).collect();
        let expected = |service, method| Some(http_match::Path::GrpcMethod(told(service, method)));
        let cart = || Some(grpc_method::Service::ExactService("shop.Cart".to_owned()));
        let add = || Some(grpc_method::Method::ExactMethod("Add".to_owned()));
        let pattern = Some(grpc_method::Service::ServicePattern("shop[.].*".to_owned()));
        let [both, service, method] = [(cart(), add()), (cart(), None), (None, add())].map(|(s, m)| expected(s, m));
        assert_eq!(named, [both, service, method, expected(pattern, None), expected(None, None), expected(None, None)]);
        assert_eq!(route.rules[0].matches[1].headers.len(), 1);
    }

    #[test]
    fn what_is_sent_again_is_said_by_codes() {
        let annotated = |annotation: &str| {
            let text =
                text("  - {}").replace("namespace: demo", &format!("namespace: demo, annotations: {{{annotation}}}"));
            let (_, object) = fixtures::objects(&text).pop().unwrap();
            let Object::HttpRoute(route) = object else { panic!("{object:?}") };
            route.retry.clone()
        };
        assert_eq!(annotated("retry.linkerd.io/http: 5xx"), None);
        assert_eq!(annotated("retry.linkerd.io/grpc: internal").unwrap().codes, [13]);
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_field() {
        for (rule, field) in [
            ("matches: [{method: {}}]", "spec.rules[0].matches[0].method"),
            ("matches: [{method: {service: a/b}}]", "spec.rules[0].matches[0].method.service"),
            ("matches: [{method: {method: 'a.b'}}]", "spec.rules[0].matches[0].method.method"),
            ("matches: [{method: {type: Prefix, service: a}}]", "spec.rules[0].matches[0].method.type"),
            ("matches: [{method: {type: RegularExpression, service: '('}}]", "spec.rules"),
            ("matches: [{method: {type: RegularExpression, service: 'a)', method: '(b'}}]", "spec.rules"),
            ("mathces: []", "spec.rules[0].mathces"),
            ("filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]", "spec.rules[0].filters[0].type"),
            ("filters: [{type: ExtensionRef}]", "spec.rules[0].filters[0].type"),
            ("backendRefs: [{name: web, port: 80, weight: -1}]", "spec.rules[0].backendRefs[0].weight"),
        ] {
            let parsed = parse::manifest("test.yaml", &text(&format!("  - {{{rule}}}")), &fixtures::options());
            assert_eq!(parsed.objects, [], "{rule}");
            let fields: Vec<&str> = parsed.findings.iter().map(|Finding { field, .. }| field.as_str()).collect();
            assert_eq!(fields, [field], "{rule}: {:?}", parsed.findings);
        }
    }
}
