//! Conditions on one request (HTTPRouteMatch). Must never match when a condition is not understood: there is no such value.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use super::{CallMatch, Facts, Pattern, calls::called};

/// The first condition of a match that a request does not fulfil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// None of the route's names is the host's.
    Hostname,
    /// The path, also one that is no call's.
    Path,
    /// The gRPC service.
    CallService,
    /// The gRPC method.
    CallMethod,
    /// HTTP's method.
    Method,
    /// This header.
    Header(&'a HeaderName),
    /// This query parameter.
    QueryParam(&'a str),
    /// The condition of a ServiceProfile's route.
    Condition,
}

/// All of these hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatch {
    /// Of the path.
    pub path: PathMatch,
    /// Any when there is none.
    pub method: Option<Method>,
    /// Each of them; one for each name.
    pub headers: Vec<HeaderMatch>,
    /// Each of them; one for each name.
    pub query: Vec<QueryMatch>,
}

impl Default for HttpMatch {
    fn default() -> HttpMatch {
        HttpMatch { path: PathMatch::prefix("/"), method: None, headers: Vec::new(), query: Vec::new() }
    }
}

impl HttpMatch {
    /// All conditions but the path's.
    pub(super) fn holds_beside_path(&self, facts: &Facts<'_>) -> bool {
        self.unmet_beside_path(facts).is_none()
    }

    /// Of these the first that does not hold.
    pub(super) fn unmet_beside_path(&self, facts: &Facts<'_>) -> Option<Unmet<'_>> {
        if self.method.as_ref().is_some_and(|method| method != facts.method) {
            return Some(Unmet::Method);
        }
        let header = self.headers.iter().find(|header| !header.holds(facts.headers));
        header.map(|header| Unmet::Header(&header.name)).or_else(|| {
            let query = self.query.iter().find(|query| !query.holds(facts.query));
            query.map(|query| Unmet::QueryParam(&query.name))
        })
    }

    /// Greater goes first among matches of the same path, and among those of calls (Gateway API, `matches` of HTTPRouteRule and GRPCRouteRule).
    pub(super) fn weight(&self) -> [usize; 4] {
        let of_call = if let PathMatch::Call(call) = &self.path { call.rank() } else { 0 };
        [of_call, usize::from(self.method.is_some()), self.headers.len(), self.query.len()]
    }
}

/// Condition on the path. The first kind goes first: where the second stands Gateway API leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This very path.
    Exact(Box<str>),
    /// All of the path.
    Pattern(Pattern),
    /// Whole segments from the start; without the slash at its end, so that everything's is empty.
    Prefix(Box<str>),
    /// Service and method of a gRPC call. Control never puts calls beside the others.
    Call(CallMatch),
}

impl PathMatch {
    /// `PathPrefix`: a slash at the end is ignored.
    pub fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix(text.strip_suffix('/').unwrap_or(text).into())
    }

    /// Whether it holds.
    pub fn holds(&self, path: &str) -> bool {
        self.unmet(path).is_none()
    }

    /// What of it does not hold.
    pub(super) fn unmet(&self, path: &str) -> Option<Unmet<'static>> {
        let holds = match self {
            PathMatch::Exact(exact) => **exact == *path,
            PathMatch::Pattern(pattern) => pattern.matches(path.as_bytes()),
            PathMatch::Prefix(prefix) => {
                // What is no path (`*` of OPTIONS) is under no prefix but everything's.
                path.strip_prefix(&**prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
            }
            PathMatch::Call(call) => {
                return called(path).map_or(Some(Unmet::Path), |(service, method)| call.unmet(service, method));
            }
        };
        if holds { None } else { Some(Unmet::Path) }
    }

    /// Greater goes first: the order in which [`super::Table::select`] asks its kinds.
    pub(super) fn kind(&self) -> u8 {
        match self {
            PathMatch::Exact(_) => 3,
            PathMatch::Call(_) => 2,
            PathMatch::Pattern(_) => 1,
            PathMatch::Prefix(_) => 0,
        }
    }
}

/// Condition on a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// This very value.
    Exact(Box<str>),
    /// All of the value.
    Pattern(Pattern),
}

impl ValueMatch {
    pub(super) fn holds(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Exact(exact) => exact.as_bytes() == value,
            ValueMatch::Pattern(pattern) => pattern.matches(value),
        }
    }
}

/// Condition on a header: one of its fields fulfils it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Name.
    pub name: HeaderName,
    /// Of the value.
    pub value: ValueMatch,
}

impl HeaderMatch {
    fn holds(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| self.value.holds(value.as_bytes()))
    }
}

/// Condition on a query parameter: its first value fulfils it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Name; its case matters.
    pub name: Box<str>,
    /// Of the value.
    pub value: ValueMatch,
}

impl QueryMatch {
    fn holds(&self, query: &str) -> bool {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let found = pairs.find(|(name, _value)| *decoded(name) == *self.name.as_bytes());
        found.is_some_and(|(_name, value)| self.value.holds(&decoded(value)))
    }
}

/// As forms are encoded: `%` and two digits, and a plus for a space (URL Standard 5.1).
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped =
            (*byte == b'%').then(|| Some(digit(bytes.get(at + 1))? << 4 | digit(bytes.get(at + 2))?)).flatten();
        match escaped {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_segments() {
        let foo = PathMatch::prefix("/foo");
        assert_eq!(foo, PathMatch::prefix("/foo/"));
        for (path, holds) in
            [("/foo", true), ("/foo/", true), ("/foo/bar", true), ("/foo//", true), ("/foobar", false), ("/Foo", false)]
        {
            assert_eq!(foo.holds(path), holds, "{path}");
        }
        let all = PathMatch::prefix("/");
        assert!(["/", "", "*", "/x"].into_iter().all(|path| all.holds(path)));
    }

    #[test]
    fn the_first_value_of_a_parameter_counts() {
        let of = |name: &str, value: &str| QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) };
        for (query, name, value, holds) in [
            ("animal=whale", "animal", "whale", true),
            ("a=1&animal=whale", "animal", "whale", true),
            ("animal=whale&animal=dolphin", "animal", "dolphin", false),
            ("Animal=whale", "animal", "whale", false),
            ("animal=blue+whale", "animal", "blue whale", true),
            ("an%69mal=%77hale", "animal", "whale", true),
            ("animal=100%", "animal", "100%", true),
            ("animal=%zz", "animal", "%zz", true),
            ("animal", "animal", "", true),
            ("", "animal", "", false),
            ("a=b=c", "a", "b=c", true),
        ] {
            assert_eq!(of(name, value).holds(query), holds, "{query} {name}={value}");
        }
    }

    #[test]
    fn one_of_several_fields_is_enough() {
        let mut headers = HeaderMap::new();
        headers.append("version", "one".parse().unwrap());
        headers.append("Version", "two".parse().unwrap());
        let of = |value: &str| HeaderMatch {
            name: HeaderName::from_static("version"),
            value: ValueMatch::Exact(value.into()),
        };
        assert!(of("one").holds(&headers) && of("two").holds(&headers));
        assert!(!of("one, two").holds(&headers) && !of("").holds(&headers));
    }
}
