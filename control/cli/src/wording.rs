//! Parts of routes in words: conditions, filters, and who says what. Must never leave a part of one out.

use serde::Serialize;
use weir_api::v1::{
    self, condition::Is, grpc_method, http_filter::Filter, http_match::Path, path_modifier, request_mirror,
    value_match::Value,
};

/// An object; field names are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Object {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Object {
    pub(crate) fn of(given: Option<v1::ObjectRef>) -> Object {
        let v1::ObjectRef { group, kind, namespace, name } = given.unwrap_or_default();
        Object { group, kind, namespace, name }
    }
}

/// `HTTPRoute demo/main`; with the group where two kinds have one name.
impl std::fmt::Display for Object {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Object { group, kind, namespace, name } = self;
        let group = if group == "policy.linkerd.io" { ".policy.linkerd.io" } else { "" };
        match namespace.as_str() {
            "" => write!(formatter, "{kind}{group} {name}"),
            namespace => write!(formatter, "{kind}{group} {namespace}/{name}"),
        }
    }
}

/// A port of a Service; field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Port {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u32,
    pub(crate) port_name: String,
}

impl Port {
    pub(crate) fn of(given: Option<v1::ServicePortRef>) -> Port {
        let v1::ServicePortRef { namespace, name, port, port_name } = given.unwrap_or_default();
        Port { namespace, name, port, port_name }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Service {}/{} port {}", self.namespace, self.name, self.port)
    }
}

/// One value in force; field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Null: the default.
    pub(crate) source: Option<Source>,
}

/// Who says so; field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Source {
    /// Null: no object.
    pub(crate) object: Option<Object>,
    pub(crate) field: String,
}

impl Setting {
    pub(crate) fn of(given: v1::Setting) -> Setting {
        let source = given
            .source
            .map(|source| Source { object: source.object.map(|object| Object::of(Some(object))), field: source.field });
        Setting { name: given.name, value: given.value, source }
    }

    /// `default`, or the object and its field.
    pub(crate) fn from(&self) -> String {
        match &self.source {
            None => "default".to_owned(),
            Some(Source { object: None, field }) => field.clone(),
            Some(Source { object: Some(object), field }) => {
                format!("{object} {}", field.strip_prefix("metadata.annotations.").unwrap_or(field))
            }
        }
    }
}

/// `PathPrefix /a, POST, header x=1`.
pub(crate) fn condition(given: &v1::HttpMatch) -> String {
    let path = match &given.path {
        Some(Path::ExactPath(path)) => format!("Exact {path}"),
        Some(Path::PathPrefix(path)) => format!("PathPrefix {path}"),
        Some(Path::PathPattern(pattern)) => format!("RegularExpression {pattern}"),
        Some(Path::GrpcMethod(call)) => self::call(call),
        None => "a condition that this program does not know".to_owned(),
    };
    let method = Some(&given.method).filter(|method| !method.is_empty()).cloned();
    let values = |kind: &'static str, all: &[v1::ValueMatch]| -> Vec<String> {
        all.iter().map(|one| format!("{kind} {}{}", one.name, value(one.value.as_ref()))).collect()
    };
    let headers = values("header", &given.headers);
    let query = values("query parameter", &given.query_params);
    std::iter::once(path).chain(method).chain(headers).chain(query).collect::<Vec<_>>().join(", ")
}

/// `GET and path ~/books/[^/]*`.
pub(crate) fn profile_condition(given: &v1::Condition) -> String {
    let all = |list: &v1::ConditionList, word: &str| {
        let each: Vec<String> = list.conditions.iter().map(|one| in_brackets(one, profile_condition(one))).collect();
        each.join(word)
    };
    match &given.is {
        Some(Is::All(list)) if list.conditions.is_empty() => "any request".to_owned(),
        Some(Is::Any(list)) if list.conditions.is_empty() => "no request".to_owned(),
        Some(Is::All(list)) => all(list, " and "),
        Some(Is::Any(list)) => all(list, " or "),
        Some(Is::Not(one)) => format!("not {}", in_brackets(one, profile_condition(one))),
        Some(Is::Method(method)) => method.clone(),
        Some(Is::PathPattern(pattern)) => format!("path ~{pattern}"),
        None => "a condition that this program does not know".to_owned(),
    }
}

fn in_brackets(given: &v1::Condition, text: String) -> String {
    let is_list = matches!(&given.is, Some(Is::All(list) | Is::Any(list)) if list.conditions.len() > 1);
    if is_list { format!("({text})") } else { text }
}

/// `failures 404,500-599; successes 503`.
pub(crate) fn classes(given: &v1::ResponseClasses) -> String {
    let ranges = |name: &str, all: &[v1::StatusRange]| {
        let each = all.iter().map(|range| match (range.first, range.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        (!all.is_empty()).then(|| format!("{name} {}", each.collect::<Vec<_>>().join(",")))
    };
    let both = [ranges("failures", &given.failures), ranges("successes", &given.successes)];
    both.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn value(given: Option<&Value>) -> String {
    match given {
        Some(Value::Exact(text)) => format!("={text}"),
        Some(Value::Pattern(text)) => format!("~{text}"),
        None => "?".to_owned(),
    }
}

fn call(given: &v1::GrpcMethod) -> String {
    let service = match &given.service {
        Some(grpc_method::Service::ExactService(name)) => name.clone(),
        Some(grpc_method::Service::ServicePattern(text)) => format!("~{text}"),
        Some(grpc_method::Service::AnyService(_)) => "*".to_owned(),
        None => "?".to_owned(),
    };
    let method = match &given.method {
        Some(grpc_method::Method::ExactMethod(name)) => name.clone(),
        Some(grpc_method::Method::MethodPattern(text)) => format!("~{text}"),
        Some(grpc_method::Method::AnyMethod(_)) => "*".to_owned(),
        None => "?".to_owned(),
    };
    format!("gRPC {service}/{method}")
}

/// `RequestHeaderModifier: set x=1; remove y`.
pub(crate) fn filter(given: &v1::HttpFilter) -> String {
    match &given.filter {
        Some(Filter::RequestHeaders(modifier)) => format!("RequestHeaderModifier: {}", self::modifier(modifier)),
        Some(Filter::ResponseHeaders(modifier)) => format!("ResponseHeaderModifier: {}", self::modifier(modifier)),
        Some(Filter::Redirect(redirect)) => {
            let port = if redirect.port == 0 { String::new() } else { redirect.port.to_string() };
            let parts = [("scheme", &redirect.scheme), ("hostname", &redirect.hostname), ("port", &port)];
            format!("RequestRedirect: status {}{}", redirect.status_code, self::parts(&parts, redirect.path.as_ref()))
        }
        Some(Filter::Rewrite(rewrite)) => {
            let parts = parts(&[("hostname", &rewrite.hostname)], rewrite.path.as_ref());
            format!("URLRewrite: {}", parts.trim_start_matches(", "))
        }
        Some(Filter::Mirror(mirror)) => self::mirror(mirror),
        Some(Filter::Cors(cors)) => {
            let credentials = if cors.allow_credentials { ", with credentials" } else { "" };
            let lists = [
                ("methods", &cors.allow_methods),
                ("headers", &cors.allow_headers),
                ("exposed headers", &cors.expose_headers),
            ];
            let lists: String = lists
                .into_iter()
                .filter(|(_, list)| !list.is_empty())
                .map(|(name, list)| format!(", {name} {}", list.join(" ")))
                .collect();
            format!(
                "CORS: origins {}{credentials}{lists}, max age {}s",
                cors.allow_origins.join(" "),
                cors.max_age_seconds
            )
        }
        None => "a filter that this program does not know".to_owned(),
    }
}

fn modifier(given: &v1::HeaderModifier) -> String {
    let pairs = |word: &str, all: &[v1::Header]| -> Vec<String> {
        all.iter().map(|header| format!("{word} {}={}", header.name, header.value)).collect()
    };
    let removed = given.remove.iter().map(|name| format!("remove {name}"));
    let all = pairs("set", &given.set).into_iter().chain(pairs("add", &given.add)).chain(removed);
    all.collect::<Vec<_>>().join("; ")
}

fn parts(given: &[(&str, &String)], path: Option<&v1::PathModifier>) -> String {
    let path = path.and_then(|path| path.path.as_ref()).map(|path| match path {
        path_modifier::Path::ReplaceFullPath(path) => format!(", path {path}"),
        path_modifier::Path::ReplacePrefixMatch(path) => format!(", prefix {path}"),
    });
    let named = given.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!(", {name} {text}"));
    named.chain(path).collect()
}

fn mirror(given: &v1::RequestMirror) -> String {
    let share = match (given.numerator, given.denominator) {
        (all, of) if all == of => String::new(),
        (part, of) => format!(" {part}/{of} of the requests"),
    };
    match &given.target {
        Some(request_mirror::Target::Service(service)) => {
            format!("RequestMirror:{share} to Service {}/{} port {}", service.namespace, service.name, service.port)
        }
        Some(request_mirror::Target::Invalid(reason)) => format!("RequestMirror: to nobody: {reason}"),
        None => "RequestMirror: to what this program does not know".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_filters_are_said_whole() {
        let of = |name: &str, value| v1::ValueMatch { name: name.into(), value: Some(value) };
        let given = v1::HttpMatch {
            path: Some(Path::PathPrefix("/a".into())),
            method: "POST".into(),
            headers: vec![of("x", Value::Exact("1".into()))],
            query_params: vec![of("p", Value::Pattern("[12]".into()))],
        };
        assert_eq!(condition(&given), "PathPrefix /a, POST, header x=1, query parameter p~[12]");
        let call = v1::GrpcMethod {
            service: Some(grpc_method::Service::ExactService("shop.Cart".into())),
            method: Some(grpc_method::Method::AnyMethod(v1::Any {})),
        };
        let call = v1::HttpMatch { path: Some(Path::GrpcMethod(call)), ..v1::HttpMatch::default() };
        assert_eq!(condition(&call), "gRPC shop.Cart/*");
        let redirect = v1::RequestRedirect {
            hostname: "other".into(),
            path: Some(v1::PathModifier { path: Some(path_modifier::Path::ReplacePrefixMatch("/b".into())) }),
            status_code: 301,
            ..v1::RequestRedirect::default()
        };
        let redirect = v1::HttpFilter { filter: Some(Filter::Redirect(redirect)) };
        assert_eq!(filter(&redirect), "RequestRedirect: status 301, hostname other, prefix /b");
        let header = |name: &str| v1::Header { name: name.into(), value: "1".into() };
        let modifier = v1::HeaderModifier { set: vec![header("x")], add: vec![header("y")], remove: vec!["z".into()] };
        let modifier = v1::HttpFilter { filter: Some(Filter::RequestHeaders(modifier)) };
        assert_eq!(filter(&modifier), "RequestHeaderModifier: set x=1; add y=1; remove z");
    }

    #[test]
    fn where_a_value_comes_from() {
        let object = v1::ObjectRef {
            kind: "Service".into(),
            namespace: "shop".into(),
            name: "web".into(),
            ..v1::ObjectRef::default()
        };
        let field = "metadata.annotations.timeout.linkerd.io/request".to_owned();
        let source = |object| Some(v1::Source { object, field: field.clone() });
        let of = |source| Setting::of(v1::Setting { name: "a".into(), value: "b".into(), source }).from();
        assert_eq!(of(None), "default");
        assert_eq!(of(source(Some(object))), "Service shop/web timeout.linkerd.io/request");
    }
}
