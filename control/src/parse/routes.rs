//! HTTPRoutes. Must never drop a condition or filter of a rule: a route that cannot be followed as it is written is refused whole.

use std::sync::Arc;

use weir_api::v1::{self, http_filter::Filter, http_match, path_modifier, value_match};

use super::{
    FieldError, annotations,
    convert::Outcome,
    fields, mirrors, quoted, retry,
    server_routes::{closing, is_server, server_parents, unmirrored},
    sessions, timeouts,
};
use crate::objects::{HttpRoute, Invalid, Name, Object, ParentRef, RouteBackend, RouteFilter, RouteRule};

/// What may be done to requests of an HTTPRoute.
const FILTERS: [&str; 6] =
    ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "CORS"];

/// Seconds, where a CORS filter says nothing of it (Gateway API).
const CORS_MAX_AGE: i32 = 5;

/// Names of a route.
pub(super) struct Own<'a> {
    pub(super) namespace: &'a str,
    /// With kind and name.
    pub(super) shown: String,
}

impl<'a> Own<'a> {
    pub(super) fn of(kind: &str, metadata: &'a fields::Metadata) -> Own<'a> {
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        Own { namespace, shown: format!("{kind} {namespace}/{}", metadata.name.as_deref().unwrap_or_default()) }
    }
}

/// Whether a route has a Service as a parent, or a Server: all others are somebody else's.
pub(super) fn is_ours(route: &fields::RouteParents) -> bool {
    route.spec.parent_refs.iter().flatten().any(|parent| is_service(parent) || is_server(parent))
}

/// Of connections nothing but a Service can be the parent.
pub(super) fn is_of_service(route: &fields::RouteParents) -> bool {
    route.spec.parent_refs.iter().flatten().any(is_service)
}

/// Gateway API's defaults are a Gateway's; GAMMA's Service has the group of core.
fn is_service(parent: &fields::ParentRef) -> bool {
    matches!(parent.group.as_deref(), Some("" | "core")) && parent.kind.as_deref() == Some("Service")
}

/// Reads a route that is ours.
pub(super) fn http_route(given: &fields::HttpRoute) -> Outcome<FieldError> {
    let own = Own::of("HTTPRoute", &given.metadata);
    let spec = &given.spec;
    let mut errors = Vec::new();
    let parents = service_parents(own.namespace, spec.parent_refs.as_deref(), &mut errors);
    let rules = match spec.rules.as_ref().filter(|rules| !rules.is_empty()) {
        Some(rules) => rules.iter().enumerate().map(|(at, given)| rule(&own, at, given, &mut errors)).collect(),
        // Gateway API's default: everything, to the parent itself.
        None => vec![rule(&own, 0, &fields::HttpRouteRule::default(), &mut errors)],
    };
    let route = HttpRoute {
        created: Arc::from(given.metadata.creation_timestamp.as_deref().unwrap_or_default()),
        generation: given.metadata.generation.unwrap_or_default(),
        parents,
        servers: server_parents(own.namespace, spec.parent_refs.as_deref(), &mut errors),
        hostnames: spec.hostnames.clone().unwrap_or_default(),
        rules,
        level: v1::RouteLevel::Requests,
        timeouts: timeouts::annotated(given.metadata.annotations.as_ref(), &mut errors),
        retry: retry::annotated(given.metadata.annotations.as_ref(), &mut errors),
        annotated: annotations::understood(given.metadata.annotations.as_ref(), &[]),
        profile: None,
    };
    unmirrored(&route, &mut errors);
    checked(route, Vec::new(), errors)
}

/// A route without errors that nodes would take; `flaws` do not refuse it.
pub(super) fn checked(route: HttpRoute, flaws: Vec<FieldError>, mut errors: Vec<FieldError>) -> Outcome<FieldError> {
    if errors.is_empty() {
        errors.extend(refused_by_nodes(&route));
    }
    if errors.is_empty() {
        return Ok(Some((Object::HttpRoute(Arc::new(route)), flaws)));
    }
    if route.servers.is_empty() {
        return Err(errors);
    }
    Ok(Some(closing(route, flaws, errors)))
}

/// Parents that are Services.
pub(super) fn service_parents(
    namespace: &str,
    given: Option<&[fields::ParentRef]>,
    errors: &mut Vec<FieldError>,
) -> Vec<ParentRef> {
    let each = given.unwrap_or_default().iter().enumerate();
    each.filter_map(|(at, parent)| service_parent(namespace, &format!("spec.parentRefs[{at}]"), parent, errors))
        .collect()
}

fn service_parent(
    namespace: &str,
    field: &str,
    given: &fields::ParentRef,
    errors: &mut Vec<FieldError>,
) -> Option<ParentRef> {
    if !is_service(given) {
        return None;
    }
    let port = match given.port {
        None => None,
        Some(port) => match u16::try_from(port).ok().filter(|port| *port > 0) {
            Some(port) => Some(port),
            None => {
                errors.push(FieldError::new(format!("{field}.port"), format!("{port} is no port (1 to 65535)")));
                return None;
            }
        },
    };
    let section = given.section_name.as_deref().filter(|section| !section.is_empty()).map(Arc::from);
    Some(ParentRef { service: Name::new(given.namespace.as_deref().unwrap_or(namespace), &given.name), port, section })
}

fn rule(own: &Own<'_>, at: usize, given: &fields::HttpRouteRule, errors: &mut Vec<FieldError>) -> RouteRule {
    let namespace = own.namespace;
    let field = format!("spec.rules[{at}]");
    let mut matches: Vec<v1::HttpMatch> = Vec::new();
    for (at, given) in given.matches.iter().flatten().enumerate() {
        matches.push(http_match(&format!("{field}.matches[{at}]"), given, errors));
    }
    if matches.is_empty() {
        matches.push(http_match(&field, &fields::HttpRouteMatch::default(), errors));
    }
    let is_one_prefix = matches!(&*matches, [one] if matches!(one.path, Some(http_match::Path::PathPrefix(_))));
    let filters = filters(&field, given.filters.as_deref(), &FILTERS, is_one_prefix, errors);
    let backends = backends(namespace, &field, given.backend_refs.as_deref(), &FILTERS, is_one_prefix, errors);
    let timeouts = timeouts::of_rule(&field, given.timeouts.as_ref(), errors);
    let retry = retry::of_rule(&field, given.retry.as_ref(), errors);
    let named = sessions::Rule { route: &own.shown, name: given.name.as_deref(), at };
    let sessions = sessions::of_rule(&named, given.session_persistence.as_ref(), errors);
    RouteRule { matches, filters, backends, timeouts, retry, sessions, of_profile: None }
}

fn http_match(field: &str, given: &fields::HttpRouteMatch, errors: &mut Vec<FieldError>) -> v1::HttpMatch {
    let path = given.path.as_ref();
    let value = path.and_then(|path| path.value.clone()).unwrap_or_else(|| "/".to_owned());
    let path = match path.and_then(|path| path.kind.as_deref()).unwrap_or("PathPrefix") {
        "PathPrefix" => http_match::Path::PathPrefix(value),
        "Exact" => http_match::Path::ExactPath(value),
        "RegularExpression" => http_match::Path::PathPattern(value),
        other => {
            let reason = format!("{} is none of Exact, PathPrefix, RegularExpression", quoted(other));
            errors.push(FieldError::new(format!("{field}.path.type"), reason));
            http_match::Path::ExactPath(value)
        }
    };
    if let http_match::Path::PathPrefix(value) | http_match::Path::ExactPath(value) = &path
        && !value.starts_with('/')
    {
        let reason = format!("{} does not begin with a slash", quoted(value));
        errors.push(FieldError::new(format!("{field}.path.value"), reason));
    }
    let headers = values(&format!("{field}.headers"), given.headers.as_deref(), true, errors);
    let query_params = values(&format!("{field}.queryParams"), given.query_params.as_deref(), false, errors);
    v1::HttpMatch { path: Some(path), method: given.method.clone().unwrap_or_default(), headers, query_params }
}

/// Conditions on headers or query parameters.
pub(super) fn values(
    field: &str,
    given: Option<&[fields::ValueMatch]>,
    ignore_case: bool,
    errors: &mut Vec<FieldError>,
) -> Vec<v1::ValueMatch> {
    let mut values: Vec<v1::ValueMatch> = Vec::new();
    for (at, given) in given.unwrap_or_default().iter().enumerate() {
        let value = match given.kind.as_deref().unwrap_or("Exact") {
            "Exact" => value_match::Value::Exact(given.value.clone()),
            "RegularExpression" => value_match::Value::Pattern(given.value.clone()),
            other => {
                let reason = format!("{} is none of Exact, RegularExpression", quoted(other));
                errors.push(FieldError::new(format!("{field}[{at}].type"), reason));
                continue;
            }
        };
        let same = |one: &v1::ValueMatch| {
            if ignore_case { one.name.eq_ignore_ascii_case(&given.name) } else { one.name == given.name }
        };
        // Of equal names the first one counts (Gateway API).
        if !values.iter().any(same) {
            values.push(v1::ValueMatch { name: given.name.clone(), value: Some(value) });
        }
    }
    values
}

pub(super) fn filters(
    field: &str,
    given: Option<&[fields::HttpRouteFilter]>,
    allowed: &[&str],
    is_one_prefix: bool,
    errors: &mut Vec<FieldError>,
) -> Vec<RouteFilter> {
    let mut filters = Vec::new();
    for (at, given) in given.unwrap_or_default().iter().enumerate() {
        let field = format!("{field}.filters[{at}]");
        if !allowed.contains(&given.kind.as_str()) {
            let few = if allowed.is_empty() { "none is".to_owned() } else { format!("{} are", allowed.join(", ")) };
            let reason = format!("{} is not supported; {few}", quoted(&given.kind));
            errors.push(FieldError::new(format!("{field}.type"), reason));
            continue;
        }
        let filter = match given.kind.as_str() {
            "RequestMirror" => mirrors::mirror(&field, given.request_mirror.as_ref()).map(RouteFilter::Mirror),
            _other => filter(&field, given, is_one_prefix).map(|filter| RouteFilter::Plain(Box::new(filter))),
        };
        match filter {
            Ok(filter) => filters.push(filter),
            Err(error) => errors.push(error),
        }
    }
    filters
}

fn filter(field: &str, given: &fields::HttpRouteFilter, is_one_prefix: bool) -> Result<Filter, FieldError> {
    let missing = |name: &str| FieldError::new(format!("{field}.{name}"), "missing: `type` asks for it");
    match given.kind.as_str() {
        "RequestHeaderModifier" => {
            let given = given.request_header_modifier.as_ref().ok_or_else(|| missing("requestHeaderModifier"))?;
            Ok(Filter::RequestHeaders(modifier(given)))
        }
        "ResponseHeaderModifier" => {
            let given = given.response_header_modifier.as_ref().ok_or_else(|| missing("responseHeaderModifier"))?;
            Ok(Filter::ResponseHeaders(modifier(given)))
        }
        "RequestRedirect" => {
            let given = given.request_redirect.as_ref().ok_or_else(|| missing("requestRedirect"))?;
            let port = given.port.unwrap_or_default();
            let status = given.status_code.unwrap_or(302);
            let number = |name: &str, number: i32| {
                let reason = format!("{number} is out of range");
                u32::try_from(number).map_err(|_negative| FieldError::new(format!("{field}.{name}"), reason))
            };
            Ok(Filter::Redirect(v1::RequestRedirect {
                scheme: given.scheme.clone().unwrap_or_default(),
                hostname: given.hostname.clone().unwrap_or_default(),
                path: path(&format!("{field}.requestRedirect.path"), given.path.as_ref(), is_one_prefix)?,
                port: number("requestRedirect.port", port)?,
                status_code: number("requestRedirect.statusCode", status)?,
            }))
        }
        "URLRewrite" => {
            let given = given.url_rewrite.as_ref().ok_or_else(|| missing("urlRewrite"))?;
            Ok(Filter::Rewrite(v1::UrlRewrite {
                hostname: given.hostname.clone().unwrap_or_default(),
                path: path(&format!("{field}.urlRewrite.path"), given.path.as_ref(), is_one_prefix)?,
            }))
        }
        "CORS" => cors(field, given.cors.as_ref().ok_or_else(|| missing("cors"))?).map(Filter::Cors),
        _other => {
            let reason = format!("{} is not supported", quoted(&given.kind));
            Err(FieldError::new(format!("{field}.type"), reason))
        }
    }
}

fn cors(field: &str, given: &fields::Cors) -> Result<v1::Cors, FieldError> {
    let list = |items: &Option<Vec<String>>| items.clone().unwrap_or_default();
    let max_age = given.max_age.unwrap_or(CORS_MAX_AGE);
    let max_age_seconds = u32::try_from(max_age).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
        FieldError::new(format!("{field}.cors.maxAge"), format!("{max_age} is less than 1 (seconds)"))
    })?;
    Ok(v1::Cors {
        allow_origins: list(&given.allow_origins),
        allow_credentials: given.allow_credentials.unwrap_or_default(),
        allow_methods: list(&given.allow_methods),
        allow_headers: list(&given.allow_headers),
        expose_headers: list(&given.expose_headers),
        max_age_seconds,
    })
}

fn modifier(given: &fields::HeaderModifier) -> v1::HeaderModifier {
    let all = |headers: Option<&Vec<fields::Header>>| {
        let headers = headers.into_iter().flatten();
        headers.map(|header| v1::Header { name: header.name.clone(), value: header.value.clone() }).collect()
    };
    v1::HeaderModifier {
        set: all(given.set.as_ref()),
        add: all(given.add.as_ref()),
        remove: given.remove.clone().unwrap_or_default(),
    }
}

fn path(
    field: &str,
    given: Option<&fields::PathModifier>,
    is_one_prefix: bool,
) -> Result<Option<v1::PathModifier>, FieldError> {
    let Some(given) = given else { return Ok(None) };
    let path = match (given.kind.as_str(), &given.replace_full_path, &given.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), None) => path_modifier::Path::ReplaceFullPath(path.clone()),
        ("ReplacePrefixMatch", None, Some(path)) if is_one_prefix => {
            path_modifier::Path::ReplacePrefixMatch(path.clone())
        }
        ("ReplacePrefixMatch", None, Some(_)) => {
            return Err(FieldError::new(field, "replacePrefixMatch needs a rule with one match, of type PathPrefix"));
        }
        (kind, ..) => {
            let reason = format!("type {} does not fit the value beside it", quoted(kind));
            return Err(FieldError::new(field, reason));
        }
    };
    Ok(Some(v1::PathModifier { path: Some(path) }))
}

/// Of a rule; none for the parent itself.
pub(super) fn backends(
    namespace: &str,
    field: &str,
    given: Option<&[fields::BackendRef]>,
    allowed: &[&str],
    is_one_prefix: bool,
    errors: &mut Vec<FieldError>,
) -> Option<Vec<RouteBackend>> {
    let each = given.filter(|given| !given.is_empty())?.iter().enumerate();
    let each = each.map(|(at, given)| {
        backend(namespace, &format!("{field}.backendRefs[{at}]"), given, allowed, is_one_prefix, errors)
    });
    Some(each.collect())
}

fn backend(
    namespace: &str,
    field: &str,
    given: &fields::BackendRef,
    allowed: &[&str],
    is_one_prefix: bool,
    errors: &mut Vec<FieldError>,
) -> RouteBackend {
    let weight = given.weight.unwrap_or(1);
    let weight = u32::try_from(weight).ok().filter(|weight| *weight <= 1_000_000).unwrap_or_else(|| {
        errors.push(FieldError::new(format!("{field}.weight"), format!("{weight} is no weight (0 to 1000000)")));
        0
    });
    let (group, kind) = (given.group.as_deref().unwrap_or_default(), given.kind.as_deref().unwrap_or("Service"));
    let name = Name::new(given.namespace.as_deref().unwrap_or(namespace), &given.name);
    let target = if !matches!(group, "" | "core") || kind != "Service" {
        Err(Invalid { reason: "InvalidKind", message: format!("{group}/{kind} {name} is no backend; Services are") })
    } else {
        match given.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
            Some(port) => Ok((name, port)),
            None => {
                Err(Invalid { reason: "BackendNotFound", message: format!("Service {name} is named without a port") })
            }
        }
    };
    RouteBackend { weight, filters: filters(field, given.filters.as_deref(), allowed, is_one_prefix, errors), target }
}

/// What nodes would say: regular expressions, names, statuses.
pub(super) fn refused_by_nodes(route: &HttpRoute) -> Option<FieldError> {
    let rules = route.rules.iter().map(|rule| {
        let backends = rule.backends.iter().flatten().map(|backend| v1::HttpBackend {
            weight: backend.weight,
            filters: unresolved(&backend.filters),
            target: Some(v1::http_backend::Target::Invalid(String::new())),
        });
        v1::HttpRule {
            matches: rule.matches.clone(),
            filters: unresolved(&rule.filters),
            destination: Some(v1::http_rule::Destination::Backends(v1::HttpBackends { backends: backends.collect() })),
            timeouts: None,
            retry: route.retry.clone().or_else(|| rule.retry.clone()),
            condition: rule.of_profile.as_ref().map(|own| own.condition.clone()),
            name: rule.of_profile.as_ref().map(|own| own.name.to_string()).unwrap_or_default(),
            classes: rule.of_profile.as_ref().and_then(|own| own.classes.clone()),
            session_persistence: rule.sessions.clone(),
        }
    });
    let given = v1::HttpRoute {
        object: Some(v1::ObjectRef::default()),
        is_consumer: false,
        hostnames: route.hostnames.clone(),
        rules: rules.collect(),
        first_wins: route.profile.is_some(),
        level: route.level.into(),
    };
    let invalid = weir_core::route::routes(&[given]).err()?;
    let field = match (invalid.field, &route.profile) {
        ("hostnames", _) => "spec.hostnames",
        (_, Some(_)) => "spec.routes",
        (_, None) => "spec.rules",
    };
    Some(FieldError::new(field, invalid.to_string()))
}

/// As nodes would be told them, were there none of the Services.
fn unresolved(filters: &[RouteFilter]) -> Vec<v1::HttpFilter> {
    let filters = filters.iter().map(|filter| match filter {
        RouteFilter::Plain(filter) => Filter::clone(filter),
        RouteFilter::Mirror(mirror) => Filter::Mirror(v1::RequestMirror {
            numerator: mirror.numerator,
            denominator: mirror.denominator,
            target: Some(v1::request_mirror::Target::Invalid(String::new())),
        }),
    });
    filters.map(|filter| v1::HttpFilter { filter: Some(filter) }).collect()
}
