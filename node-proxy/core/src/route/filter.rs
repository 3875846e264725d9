//! What a rule does to a request and its response before they go on. Must never make a message that HTTP does not allow.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{Cors, Facts, Invalid, Mirror, PathMatch};

/// One filter of a rule or of a backend (HTTPRouteFilter).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `RequestHeaderModifier`
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`
    ResponseHeaders(HeaderModifier),
    /// `RequestRedirect`
    Redirect(Redirect),
    /// `URLRewrite`
    Rewrite(Rewrite),
    /// `RequestMirror`
    Mirror(Mirror),
    /// `CORS`
    Cors(Box<Cors>),
}

/// Changes of header fields; no name in two of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Instead of what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Names.
    pub remove: Vec<HeaderName>,
}

impl HeaderModifier {
    /// Changes them.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    /// Changes those of a request, whose host may stand in two places.
    pub fn apply_to_request<B>(&self, request: &mut Request<B>) {
        let had_host = request.headers().contains_key(header::HOST);
        self.apply(request.headers_mut());
        if let Some((_host, value)) = self.set.iter().find(|(name, _value)| name == header::HOST)
            && let Ok(authority) = Authority::try_from(value.as_bytes())
            && set_authority(request, authority)
            && !had_host
        {
            request.headers_mut().remove(header::HOST);
        }
    }
}

/// Names that concern one connection, or how long the message is: they are not the configuration's to change.
const RESERVED: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::CONTENT_LENGTH,
];

/// A name that a filter may change.
///
/// # Errors
/// No name of a header field, or one that is HTTP's own.
pub(super) fn header_name(field: &'static str, text: &str) -> Result<HeaderName, Invalid> {
    let name = HeaderName::try_from(text)
        .map_err(|_not| Invalid::new(field, format!("{text:?} is no name of a header field")))?;
    if RESERVED.contains(&name) {
        return Err(Invalid::new(field, format!("{name} is HTTP's own and cannot be changed")));
    }
    Ok(name)
}

/// A value of a header field.
///
/// # Errors
/// Control characters, or bytes that are not ASCII.
pub(super) fn header_value(field: &'static str, text: &str) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_str(text)
        .map_err(|_not| Invalid::new(field, format!("{text:?} can be no value of a header field")))
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// All of it.
    Full(Box<str>),
    /// What the rule's only match, a prefix, matched.
    Prefix(Box<str>),
}

impl PathModifier {
    /// Checks that it makes a path.
    ///
    /// # Errors
    /// No path.
    pub fn checked(self, field: &'static str) -> Result<PathModifier, Invalid> {
        let (PathModifier::Full(text) | PathModifier::Prefix(text)) = &self;
        let is_path = text.is_empty() || text.starts_with('/') && !text.contains(['?', '#']);
        if !is_path || PathAndQuery::try_from(format!("/{text}")).is_err() {
            return Err(Invalid::new(field, format!("{text:?} is no path")));
        }
        Ok(self)
    }

    /// The path that becomes of `path`, which `matched` holds for.
    fn apply(&self, path: &str, matched: &PathMatch) -> String {
        let (new, rest) = match (self, matched) {
            (PathModifier::Prefix(new), PathMatch::Prefix(prefix)) => {
                (new.strip_suffix('/').unwrap_or(new), path.get(prefix.len()..).unwrap_or_default())
            }
            (PathModifier::Full(new) | PathModifier::Prefix(new), _) => (&**new, ""),
        };
        let path = format!("{new}{rest}");
        if path.starts_with('/') { path } else { format!("/{path}") }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The request's when there is none.
    pub scheme: Option<Scheme>,
    /// The request's when there is none.
    pub hostname: Option<Box<str>>,
    /// The request's when there is none.
    pub path: Option<PathModifier>,
    /// The scheme's when that is given, else the one that was dialled.
    pub port: Option<u16>,
    /// Of the answer.
    pub status: StatusCode,
}

impl Redirect {
    /// Value of `Location`, for a request that came in plain to `port` under `matched`. `None` when no such URL can be.
    pub fn location(&self, facts: &Facts<'_>, port: u16, matched: &PathMatch) -> Option<HeaderValue> {
        let scheme = self.scheme.as_ref().unwrap_or(&Scheme::HTTP);
        let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let port = self.port.unwrap_or(if self.scheme.is_some() { own } else { port });
        let asked = facts.authority.rsplit_once('@').map_or(facts.authority, |(_user, host)| host);
        let asked = match asked.rsplit_once(':') {
            Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => asked,
        };
        let host = self.hostname.as_deref().unwrap_or(asked);
        if host.is_empty() {
            return None;
        }
        let port = if port == own { String::new() } else { format!(":{port}") };
        let path = self.path.as_ref().map_or_else(|| facts.path.to_owned(), |path| path.apply(facts.path, matched));
        let query = if facts.query.is_empty() { String::new() } else { format!("?{}", facts.query) };
        HeaderValue::try_from(format!("{scheme}://{host}{port}{path}{query}")).ok()
    }
}

/// Another host or path for the request that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The request's when there is none.
    pub hostname: Option<Authority>,
    /// The request's when there is none.
    pub path: Option<PathModifier>,
}

impl Rewrite {
    /// Changes a request under `matched`.
    pub fn apply<B>(&self, request: &mut Request<B>, matched: &PathMatch) {
        if let Some(host) = &self.hostname {
            let is_named = set_authority(request, host.clone());
            if (!is_named || request.headers().contains_key(header::HOST))
                && let Ok(value) = HeaderValue::from_str(host.as_str())
            {
                request.headers_mut().insert(header::HOST, value);
            }
        }
        // What is no path (`*`, and CONNECT's nothing) has none to rewrite.
        let Some(path) = self.path.as_ref().filter(|_| request.uri().path().starts_with('/')) else { return };
        let path = path.apply(request.uri().path(), matched);
        let whole = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = request.uri().clone().into_parts();
        if let Ok(whole) = PathAndQuery::try_from(whole) {
            parts.path_and_query = Some(whole);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
}

/// Of the URI, where it has one: HTTP/2's `:authority`, beside which a `Host` must not say anything else (RFC 9113 8.3.1). Whether it has one.
fn set_authority<B>(request: &mut Request<B>, authority: Authority) -> bool {
    if request.uri().authority().is_none() {
        return false;
    }
    let mut parts = request.uri().clone().into_parts();
    parts.authority = Some(authority);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    true
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_prefix_is_replaced_as_gateway_api_lays_down() {
        for (path, prefix, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
        ] {
            let modifier = PathModifier::Prefix(new.into()).checked("path").unwrap();
            assert_eq!(modifier.apply(path, &PathMatch::prefix(prefix)), expected, "{path} {prefix} {new}");
        }
        let full = PathModifier::Full("/all".into());
        assert_eq!(full.apply("/foo/bar", &PathMatch::prefix("/foo")), "/all");
        for bad in ["x", "/a?b", "/a b", "/#"] {
            assert!(PathModifier::Full(bad.into()).checked("path").is_err(), "{bad}");
        }
    }

    #[test]
    fn locations() {
        let to = |scheme: Option<Scheme>, hostname: Option<&str>, port| Redirect {
            scheme,
            hostname: hostname.map(Into::into),
            path: None,
            port,
            status: StatusCode::FOUND,
        };
        let headers = HeaderMap::new();
        let facts = |authority| Facts { authority, method: &Method::GET, path: "/a", query: "b=c", headers: &headers };
        for (redirect, authority, expected) in [
            (to(None, None, None), "web:8080", "http://web:8080/a?b=c"),
            (to(None, Some("other.org"), None), "web", "http://other.org:8080/a?b=c"),
            (to(Some(Scheme::HTTPS), None, None), "web:8080", "https://web/a?b=c"),
            (to(Some(Scheme::HTTP), None, Some(80)), "web", "http://web/a?b=c"),
            (to(Some(Scheme::HTTP), None, Some(8443)), "[::1]:80", "http://[::1]:8443/a?b=c"),
        ] {
            let location = redirect.location(&facts(authority), 8080, &PathMatch::prefix("/")).unwrap();
            assert_eq!(location, expected);
        }
        assert_eq!(to(None, None, None).location(&facts(""), 80, &PathMatch::prefix("/")), None);
    }

    #[test]
    fn a_rewrite_reaches_both_places_of_the_host() {
        let rewrite = Rewrite { hostname: Some("other".parse().unwrap()), path: Some(PathModifier::Full("/x".into())) };
        let mut request = Request::get("http://web/a?b=c").body(()).unwrap();
        rewrite.apply(&mut request, &PathMatch::prefix("/"));
        assert_eq!(request.uri(), "http://other/x?b=c");
        assert!(!request.headers().contains_key("host"), "it had none");
        let mut request = Request::get("http://web/a").header("host", "web").body(()).unwrap();
        rewrite.apply(&mut request, &PathMatch::prefix("/"));
        assert_eq!(
            (request.uri().host(), &request.headers()["host"]),
            (Some("other"), &HeaderValue::from_static("other"))
        );
        let mut request = Request::get("/a").header("host", "web").body(()).unwrap();
        rewrite.apply(&mut request, &PathMatch::prefix("/"));
        assert_eq!((request.uri().path(), &request.headers()["host"]), ("/x", &HeaderValue::from_static("other")));
    }

    #[test]
    fn headers_are_set_added_and_removed() {
        let pair = |name: &str, value: &str| (header_name("set", name).unwrap(), header_value("set", value).unwrap());
        let modifier = HeaderModifier {
            set: vec![pair("x-set", "new"), pair("Host", "other")],
            add: vec![pair("x-add", "two")],
            remove: vec![header_name("remove", "X-Remove").unwrap()],
        };
        let mut request = Request::get("http://web/").body(()).unwrap();
        for (name, value) in [("x-set", "old"), ("x-set", "older"), ("x-add", "one"), ("x-remove", "y")] {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        modifier.apply_to_request(&mut request);
        let all = |name: &str| request.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-set"), all("x-add"), all("x-remove")), (vec!["new"], vec!["one", "two"], vec![]));
        assert_eq!((all("host"), request.uri().host()), (vec![], Some("other")), "it had none");
        for bad in ["", "a b", "Content-Length", "Transfer-Encoding", "connection"] {
            assert!(header_name("set", bad).is_err(), "{bad}");
        }
        assert!(header_value("set", "a\r\nb").is_err());
    }
}
