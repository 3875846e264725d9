//! Control's routes into tables. Must never take a part of a route: what is malformed rejects the destination that it belongs to, whose
//! last good version stays.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, Method, StatusCode, uri::Scheme};
use weir_api::v1::{self, grpc_method, http_backend, http_filter, http_match, http_rule, path_modifier, value_match};

use super::{
    CallMatch, Cors, Hostname, HttpMatch, Invalid, PathMatch, Pattern, QueryMatch, Selected, SessionPersistence, Table,
    ValueMatch,
    condition::{self, Condition},
    connections::{ConnectionRoute, Connections},
    filter::{self, Filter, HeaderModifier, PathModifier, Redirect, Rewrite},
    matches::HeaderMatch,
    mirror::{self, Mirror},
    ordered::Ordered,
    rule::{Backend, Backends, Deciding, ObjectRef, Route, Routes, Rule},
};
use crate::{classify::Classes, limits, retry::Retry, timeouts::Timeouts};

/// Compiles the routes of one port. Backends' services are numbered in the order of [`super::services`].
///
/// # Errors
/// The first field that cannot be used.
pub fn routes(given: &[v1::HttpRoute]) -> Result<Option<Routes>, Invalid> {
    if given.is_empty() {
        return Ok(None);
    }
    within_limits(given)?;
    let mut next = 0;
    let mut producer = SameClients::default();
    let mut consumers: BTreeMap<Arc<str>, SameClients> = BTreeMap::new();
    for given in given {
        let object = object(given)?;
        let held =
            if given.is_consumer { consumers.entry(Arc::clone(&object.namespace)).or_default() } else { &mut producer };
        held.add(object, given, &mut next)?;
    }
    let consumers =
        consumers.into_iter().filter_map(|(namespace, held)| Some((namespace, held.deciding().transpose()?)));
    let consumers = consumers.map(|(namespace, deciding)| deciding.map(|deciding| (namespace, deciding)));
    Ok(Some(Routes { producer: producer.deciding()?, consumers: consumers.collect::<Result<_, Invalid>>()? }))
}

fn object(given: &v1::HttpRoute) -> Result<Arc<ObjectRef>, Invalid> {
    let object = given.object.as_ref().ok_or_else(|| Invalid::new("http_routes.object", "missing"))?;
    Ok(Arc::new(ObjectRef::from(object)))
}

/// Routes that hold for the same clients.
#[derive(Default)]
struct SameClients {
    routes: Vec<Route>,
    /// Of the only one, where its first rule that holds counts.
    ordered: Option<Ordered>,
    /// By the name that clients ask for.
    by_name: Vec<ConnectionRoute>,
    of_all: Vec<ConnectionRoute>,
}

impl SameClients {
    fn add(&mut self, object: Arc<ObjectRef>, given: &v1::HttpRoute, next: &mut usize) -> Result<(), Invalid> {
        match v1::RouteLevel::try_from(given.level) {
            Ok(v1::RouteLevel::Requests) => {
                let (route, ordered) = route(object, given, next)?;
                self.routes.push(route);
                self.ordered = self.ordered.take().or(ordered);
            }
            Ok(v1::RouteLevel::Tls) => self.by_name.push(connections(object, given, next)?),
            Ok(v1::RouteLevel::Tcp) => self.of_all.push(connections(object, given, next)?),
            Err(_unknown) => return Err(unknown("http_routes.level")),
        }
        Ok(())
    }

    fn deciding(self) -> Result<Option<Deciding>, Invalid> {
        match (self.routes.is_empty(), self.by_name.is_empty(), self.of_all.is_empty()) {
            (_requests, true, true) => Ok(self.table()?.map(Deciding::Requests)),
            (true, false, true) => Ok(Some(Deciding::Connections(Box::new(Connections::by_name(self.by_name))))),
            (true, true, false) => Ok(Some(Deciding::Connections(Box::new(Connections::all(self.of_all)?)))),
            _several => Err(Invalid::new("http_routes.level", "of several kinds for the same clients")),
        }
    }

    fn table(mut self) -> Result<Option<Table>, Invalid> {
        match (self.ordered, self.routes.len()) {
            (_none, 0) => Ok(None),
            (None, _any) => Table::new(self.routes).map(Some),
            (Some(ordered), 1) => Ok(self.routes.pop().map(|route| Table::ordered(route, ordered))),
            (Some(_), count) => {
                Err(Invalid::new("http_routes.first_wins", format!("beside {} other routes", count - 1)))
            }
        }
    }
}

/// What routes cost those who compile them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Matches of all rules.
    pub matches: usize,
    /// Regular expressions in them.
    pub patterns: usize,
    /// Services that they name, each as often as it is named: backends and mirrors.
    pub targets: usize,
}

impl Size {
    /// Of some rules that name so many targets, for so many host names, each of which has its own regular expressions of paths.
    pub fn of<'a>(hostnames: usize, targets: usize, matches: impl IntoIterator<Item = &'a v1::HttpMatch>) -> Size {
        let none = Size { targets, ..Size::default() };
        matches.into_iter().fold(none, |size, one| {
            let values = one.headers.iter().chain(&one.query_params);
            let patterns = values.filter(|value| matches!(value.value, Some(value_match::Value::Pattern(_)))).count();
            let of_path = match &one.path {
                Some(http_match::Path::PathPattern(_)) => 1,
                Some(http_match::Path::GrpcMethod(call)) => {
                    usize::from(matches!(call.service, Some(grpc_method::Service::ServicePattern(_))))
                        + usize::from(matches!(call.method, Some(grpc_method::Method::MethodPattern(_))))
                }
                Some(http_match::Path::ExactPath(_) | http_match::Path::PathPrefix(_)) | None => 0,
            };
            let patterns = size.patterns + patterns + of_path * hostnames.max(1);
            Size { matches: size.matches + 1, patterns, ..size }
        })
    }

    /// Of a route of connections.
    pub fn of_connections(hostnames: usize, targets: usize) -> Size {
        Size { matches: hostnames.max(1), patterns: 0, targets }
    }

    /// Of the condition of a ServiceProfile's route.
    pub fn of_condition(given: &v1::Condition) -> Size {
        let (matches, patterns) = condition::terms(given);
        Size { matches, patterns, targets: 0 }
    }

    /// Of both.
    #[must_use]
    pub fn and(self, other: Size) -> Size {
        Size {
            matches: self.matches + other.matches,
            patterns: self.patterns + other.patterns,
            targets: self.targets + other.targets,
        }
    }

    /// Whether nodes compile as much for the clients of one namespace.
    pub fn fits(self) -> bool {
        self.matches <= limits::ROUTE_MATCHES
            && self.patterns <= limits::ROUTE_PATTERNS
            && self.targets <= limits::ROUTE_TARGETS
    }
}

/// Those for everybody, and those for each namespace of clients, have a bound of their own.
fn within_limits(given: &[v1::HttpRoute]) -> Result<(), Invalid> {
    let mut sizes: BTreeMap<Option<&str>, Size> = BTreeMap::new();
    for route in given {
        let own = route.object.as_ref().map(|object| object.namespace.as_str()).filter(|_| route.is_consumer);
        let size = sizes.entry(own).or_default();
        let (hostnames, targets) = (route.hostnames.len(), super::services(std::slice::from_ref(route)).count());
        *size = size.and(if route.level() == v1::RouteLevel::Requests {
            Size::of(hostnames, targets, route.rules.iter().flat_map(|rule| &rule.matches))
        } else {
            Size::of_connections(hostnames, targets)
        });
        let conditions = route.rules.iter().filter_map(|rule| rule.condition.as_ref());
        *size = conditions.map(Size::of_condition).fold(*size, Size::and);
        if !size.fits() {
            let Size { matches, patterns, targets } = *size;
            let reason = format!(
                "{matches} matches with {patterns} regular expressions, {targets} backends and mirrors; at most {}, {} and {} are taken",
                limits::ROUTE_MATCHES,
                limits::ROUTE_PATTERNS,
                limits::ROUTE_TARGETS
            );
            return Err(Invalid::new("http_routes.rules.matches", reason));
        }
    }
    Ok(())
}

/// A route of connections has one rule, of which backends alone count.
fn connections(object: Arc<ObjectRef>, given: &v1::HttpRoute, next: &mut usize) -> Result<ConnectionRoute, Invalid> {
    let hostnames = given.hostnames.iter().map(|name| Hostname::new(name)).collect::<Result<_, _>>()?;
    let [rule] = &*given.rules else {
        return Err(Invalid::new(
            "rules",
            format!("{} of them, and a route of connections has one", given.rules.len()),
        ));
    };
    let backends = converted_rule(rule, next)?.backends;
    Ok(ConnectionRoute { object, hostnames, backends })
}

fn route(object: Arc<ObjectRef>, given: &v1::HttpRoute, next: &mut usize) -> Result<(Route, Option<Ordered>), Invalid> {
    let hostnames = given.hostnames.iter().map(|name| Hostname::new(name)).collect::<Result<_, _>>()?;
    if given.first_wins {
        return in_order(object, hostnames, &given.rules, next).map(|(route, ordered)| (route, Some(ordered)));
    }
    let rules = given.rules.iter().map(|rule| {
        if rule.matches.is_empty() {
            return Err(Invalid::new("rules.matches", "missing"));
        }
        let matches = rule.matches.iter().map(converted_match).collect::<Result<_, _>>()?;
        Ok(Arc::new(Rule { matches, ..converted_rule(rule, next)? }))
    });
    let rules = rules.collect::<Result<_, Invalid>>()?;
    Ok((Route { object, hostnames, rules }, None))
}

fn in_order(
    object: Arc<ObjectRef>,
    hostnames: Vec<Hostname>,
    given: &[v1::HttpRule],
    next: &mut usize,
) -> Result<(Route, Ordered), Invalid> {
    if !hostnames.is_empty() {
        return Err(Invalid::new("http_routes.hostnames", "of a route whose first rule counts"));
    }
    let (mut rules, mut conditions, mut patterns) = (Vec::new(), Vec::new(), Vec::new());
    for (rule, given) in given.iter().enumerate() {
        let missing = || Invalid::new("rules.condition", "missing");
        let condition = Condition::of_api(given.condition.as_ref().ok_or_else(missing)?, &mut patterns)?;
        conditions.push((Selected { route: 0, rule, matched: 0 }, condition));
        let named = ObjectRef { rule: Arc::from(given.name.as_str()), ..ObjectRef::clone(&object) };
        let matches = vec![HttpMatch::default()];
        rules.push(Arc::new(Rule { matches, object: Some(Arc::new(named)), ..converted_rule(given, next)? }));
    }
    Ok((Route { object, hostnames, rules }, Ordered::new(conditions, &patterns)?))
}

/// All but when it holds.
fn converted_rule(given: &v1::HttpRule, next: &mut usize) -> Result<Rule, Invalid> {
    let filters = filters(&given.filters, next)?;
    let backends = match &given.destination {
        Some(http_rule::Destination::Itself(_)) => None,
        Some(http_rule::Destination::Backends(backends)) => {
            let all = backends.backends.iter().map(|given| backend(given, next)).collect::<Result<_, _>>()?;
            Some(Backends::new(all))
        }
        // Not the Service itself: what is missing must not turn into where the traffic was to be taken from.
        None => return Err(Invalid::new("rules.destination", "missing")),
    };
    let classes = given.classes.as_ref().map(Classes::of_api).transpose();
    Ok(Rule {
        filters,
        backends,
        classes: classes.map_err(|reason| Invalid::new("rules.classes", reason))?.map(Arc::new),
        timeouts: Timeouts::of_api(given.timeouts.as_ref()),
        retry: Retry::of_api(given.retry.as_ref()).map_err(|reason| Invalid::new("rules", reason))?,
        sessions: given
            .session_persistence
            .as_ref()
            .map(|own| SessionPersistence::of_api(own).map(Box::new))
            .transpose()?,
        ..Rule::default()
    })
}

fn backend(given: &v1::HttpBackend, next: &mut usize) -> Result<Backend, Invalid> {
    let target = match &given.target {
        Some(http_backend::Target::Service(_)) => {
            *next += 1;
            Ok(*next - 1)
        }
        Some(http_backend::Target::Invalid(reason)) => Err(Arc::from(reason.as_str())),
        None => return Err(Invalid::new("rules.backends.target", "missing")),
    };
    Ok(Backend { filters: filters(&given.filters, next)?, target, weight: given.weight })
}

fn converted_match(given: &v1::HttpMatch) -> Result<HttpMatch, Invalid> {
    let path = match &given.path {
        Some(http_match::Path::ExactPath(path)) => PathMatch::Exact(path.as_str().into()),
        Some(http_match::Path::PathPrefix(path)) => PathMatch::prefix(path),
        Some(http_match::Path::PathPattern(pattern)) => {
            PathMatch::Pattern(Pattern::new("matches.path.value", pattern)?)
        }
        Some(http_match::Path::GrpcMethod(given)) => PathMatch::Call(call(given)?),
        None => return Err(unknown("matches.path")),
    };
    let method = match given.method.as_str() {
        // A call is a POST (gRPC over HTTP/2).
        "" => matches!(path, PathMatch::Call(_)).then_some(Method::POST),
        method => Some(
            Method::from_bytes(method.as_bytes())
                .map_err(|_not| Invalid::new("matches.method", format!("{method:?} is no method")))?,
        ),
    };
    let headers = given.headers.iter().map(|given| {
        let name = HeaderName::try_from(given.name.as_str()).map_err(|_not| {
            Invalid::new("matches.headers.name", format!("{:?} is no name of a header field", given.name))
        })?;
        Ok(HeaderMatch { name, value: value("matches.headers.value", given)? })
    });
    let query = given.query_params.iter().map(|given| {
        Ok(QueryMatch { name: given.name.as_str().into(), value: value("matches.queryParams.value", given)? })
    });
    Ok(HttpMatch {
        path,
        method,
        headers: headers.collect::<Result<_, Invalid>>()?,
        query: query.collect::<Result<_, Invalid>>()?,
    })
}

fn unknown(field: &'static str) -> Invalid {
    Invalid::new(field, "not known here; is this node older than control?")
}

fn call(given: &v1::GrpcMethod) -> Result<CallMatch, Invalid> {
    let pattern = |field, text: &str| Pattern::new(field, text).map(ValueMatch::Pattern).map(Some);
    Ok(CallMatch {
        service: match &given.service {
            None => return Err(unknown("matches.method.service")),
            Some(grpc_method::Service::AnyService(_)) => None,
            Some(grpc_method::Service::ExactService(name)) => Some(ValueMatch::Exact(name.as_str().into())),
            Some(grpc_method::Service::ServicePattern(text)) => pattern("matches.method.service", text)?,
        },
        method: match &given.method {
            None => return Err(unknown("matches.method.method")),
            Some(grpc_method::Method::AnyMethod(_)) => None,
            Some(grpc_method::Method::ExactMethod(name)) => Some(ValueMatch::Exact(name.as_str().into())),
            Some(grpc_method::Method::MethodPattern(text)) => pattern("matches.method.method", text)?,
        },
    })
}

fn value(field: &'static str, given: &v1::ValueMatch) -> Result<ValueMatch, Invalid> {
    match &given.value {
        Some(value_match::Value::Exact(exact)) => Ok(ValueMatch::Exact(exact.as_str().into())),
        Some(value_match::Value::Pattern(pattern)) => Ok(ValueMatch::Pattern(Pattern::new(field, pattern)?)),
        None => Err(Invalid::new(field, "missing")),
    }
}

fn filters(given: &[v1::HttpFilter], next: &mut usize) -> Result<Vec<Filter>, Invalid> {
    mirror::within_limits(given)?;
    given.iter().map(|filter| converted_filter(filter, next)).collect()
}

fn converted_filter(given: &v1::HttpFilter, next: &mut usize) -> Result<Filter, Invalid> {
    Ok(match &given.filter {
        Some(http_filter::Filter::RequestHeaders(given)) => Filter::RequestHeaders(modifier(given)?),
        Some(http_filter::Filter::ResponseHeaders(given)) => Filter::ResponseHeaders(modifier(given)?),
        Some(http_filter::Filter::Redirect(given)) => Filter::Redirect(redirect(given)?),
        Some(http_filter::Filter::Rewrite(given)) => Filter::Rewrite(rewrite(given)?),
        Some(http_filter::Filter::Mirror(given)) => Filter::Mirror(Mirror::of_api(given, next)?),
        Some(http_filter::Filter::Cors(given)) => Filter::Cors(Box::new(Cors::of_api(given)?)),
        // One that this node does not know: to leave it out could open what it was to close.
        None => return Err(unknown("filters")),
    })
}

fn modifier(given: &v1::HeaderModifier) -> Result<HeaderModifier, Invalid> {
    let pair = |header: &v1::Header| {
        let name = filter::header_name("headerModifier.name", &header.name)?;
        Ok((name, filter::header_value("headerModifier.value", &header.value)?))
    };
    Ok(HeaderModifier {
        set: given.set.iter().map(pair).collect::<Result<_, Invalid>>()?,
        add: given.add.iter().map(pair).collect::<Result<_, Invalid>>()?,
        remove: given
            .remove
            .iter()
            .map(|name| filter::header_name("headerModifier.remove", name))
            .collect::<Result<_, _>>()?,
    })
}

fn path(field: &'static str, given: Option<&v1::PathModifier>) -> Result<Option<PathModifier>, Invalid> {
    let Some(given) = given else { return Ok(None) };
    let modifier = match &given.path {
        Some(path_modifier::Path::ReplaceFullPath(path)) => PathModifier::Full(path.as_str().into()),
        Some(path_modifier::Path::ReplacePrefixMatch(path)) => PathModifier::Prefix(path.as_str().into()),
        None => return Err(Invalid::new(field, "missing")),
    };
    modifier.checked(field).map(Some)
}

fn redirect(given: &v1::RequestRedirect) -> Result<Redirect, Invalid> {
    let status = u16::try_from(given.status_code).ok().filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(|| {
        Invalid::new("requestRedirect.statusCode", format!("{} is none of 301, 302, 303, 307, 308", given.status_code))
    })?;
    let port = match given.port {
        0 => None,
        port => Some(
            u16::try_from(port).map_err(|_large| Invalid::new("requestRedirect.port", format!("{port} is no port")))?,
        ),
    };
    let scheme = match given.scheme.as_str() {
        "" => None,
        "http" => Some(Scheme::HTTP),
        "https" => Some(Scheme::HTTPS),
        other => return Err(Invalid::new("requestRedirect.scheme", format!("{other:?} is neither http nor https"))),
    };
    let hostname = exact("requestRedirect.hostname", &given.hostname)?;
    Ok(Redirect { scheme, hostname, path: path("requestRedirect.path", given.path.as_ref())?, port, status })
}

fn rewrite(given: &v1::UrlRewrite) -> Result<Rewrite, Invalid> {
    let hostname = exact("urlRewrite.hostname", &given.hostname)?;
    let hostname = hostname.map(|name| {
        let no_name = |_not| Invalid::new("urlRewrite.hostname", format!("{name:?} is no host name"));
        name.parse().map_err(no_name)
    });
    Ok(Rewrite { hostname: hostname.transpose()?, path: path("urlRewrite.path", given.path.as_ref())? })
}

/// A name without a wildcard; none when it is empty.
fn exact(field: &'static str, name: &str) -> Result<Option<Box<str>>, Invalid> {
    if name.is_empty() {
        return Ok(None);
    }
    match Hostname::new(name) {
        Ok(Hostname::Exact(name)) => Ok(Some(name)),
        Ok(Hostname::Suffix(_)) => Err(Invalid::new(field, format!("{name:?} is no whole host name"))),
        Err(Invalid { reason, .. }) => Err(Invalid { field, reason }),
    }
}
