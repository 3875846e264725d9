//! Filter CORS: what scripts of other origins may do, told to browsers (Fetch standard, "CORS protocol"; Gateway API, HTTPCORSFilter).
//!
//! Must never allow an origin, or an origin with credentials, that is not written: browsers keep their users safe by this answer.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use weir_api::v1;

use super::{Facts, Invalid, filter};
use crate::limits;

/// Origin without which a request is nobody's but its client's own.
const ORIGIN: HeaderName = header::ORIGIN;
/// Anything, where a list may say so.
const ANY: &str = "*";

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    with_credentials: bool,
    methods: Names,
    headers: Names,
    exposed: Names,
    max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    Any,
    These(Vec<Origin>),
}

/// Names of methods or of header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    /// Only those that need no word (Fetch: CORS-safelisted).
    Safe,
    Any,
    These(HeaderValue),
}

/// `https://*.example.org:8443`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Exact(Box<str>),
    /// With its dot: at least one label stands before it.
    Suffix(Box<str>),
}

impl Cors {
    /// Reads one.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub(super) fn of_api(given: &v1::Cors) -> Result<Cors, Invalid> {
        let lists = [&given.allow_origins, &given.allow_methods, &given.allow_headers, &given.expose_headers];
        if let Some(long) = lists.iter().find(|list| list.len() > limits::CORS_ITEMS) {
            let reason = format!("{} items in one list; at most {} are taken", long.len(), limits::CORS_ITEMS);
            return Err(Invalid::new("cors", reason));
        }
        let is_method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
        let is_header = |name: &str| HeaderName::try_from(name).is_ok();
        Ok(Cors {
            origins: Origins::new(&given.allow_origins)?,
            with_credentials: given.allow_credentials,
            methods: Names::new("cors.allowMethods", &given.allow_methods, is_method)?,
            headers: Names::new("cors.allowHeaders", &given.allow_headers, is_header)?,
            exposed: Names::exposed(&given.expose_headers, given.allow_credentials, is_header)?,
            max_age: HeaderValue::from(given.max_age_seconds),
        })
    }

    /// Header of the answer to a browser that asks before it sends (Fetch: CORS-preflight request); none to any other request. One whose
    /// origin is not allowed is answered as well, without a word that allows anything.
    pub(super) fn preflight(&self, facts: &Facts<'_>) -> Option<HeaderMap> {
        let wanted =
            facts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| *facts.method == Method::OPTIONS)?;
        let origin = origin(facts.headers)?;
        let mut answer = HeaderMap::new();
        let is_granted = self.grant(&origin, &mut answer);
        if is_granted {
            if let Some(methods) = self.methods.said(self.with_credentials, Some(wanted)) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            let asked = facts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            // `*` would leave `Authorization` out (Fetch), which Gateway API does not.
            let is_told = self.with_credentials || asked.is_some();
            if let Some(headers) = self.headers.said(is_told, asked) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
            }
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            self.expose(&mut answer);
        }
        for name in ["access-control-request-method", "access-control-request-headers"] {
            answer.append(header::VARY, HeaderValue::from_static(name));
        }
        Some(answer)
    }

    /// What the response to any other request says, of `origin` or of nobody's: caches give it to the next one too. What the application itself
    /// says of other origins does not count.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        let is_granted = match origin {
            Some(origin) => self.grant(origin, response),
            None if self.is_for_all() => self.grant(&HeaderValue::from_static(ANY), response),
            None => {
                response.append(header::VARY, HeaderValue::from_static("origin"));
                return;
            }
        };
        if is_granted {
            self.expose(response);
        } else {
            for word in [
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
            ] {
                response.remove(word);
            }
        }
    }

    /// Says the same to everyone.
    fn is_for_all(&self) -> bool {
        self.origins == Origins::Any && !self.with_credentials
    }

    fn expose(&self, headers: &mut HeaderMap) {
        match self.exposed.said(self.with_credentials, None) {
            Some(exposed) => drop(headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed)),
            None => drop(headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS)),
        }
    }

    /// Whether the origin is allowed, and the header that says so.
    fn grant(&self, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
        if !self.is_for_all() {
            // Whatever the answer, another origin's is another one.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if !self.origins.allow(origin) {
            return false;
        }
        let said = if self.is_for_all() { HeaderValue::from_static(ANY) } else { origin.clone() };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, said);
        if self.with_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        } else {
            headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
        true
    }
}

/// Who a request says it comes from; several are nobody.
pub(super) fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut all = headers.get_all(ORIGIN).iter();
    let first = all.next()?;
    Some(if all.next().is_some() { HeaderValue::from_static("null") } else { first.clone() })
}

impl Origins {
    fn new(given: &[String]) -> Result<Origins, Invalid> {
        if let [one] = given
            && one == ANY
        {
            return Ok(Origins::Any);
        }
        Ok(Origins::These(given.iter().map(|text| Origin::pattern(text)).collect::<Result<_, _>>()?))
    }

    fn allow(&self, given: &HeaderValue) -> bool {
        match self {
            Origins::Any => true,
            // `null` and whatever else is no origin with a host is none of them.
            Origins::These(all) => {
                let origin = given.to_str().ok().and_then(Parts::of).filter(|origin| !origin.host.contains('*'));
                origin.is_some_and(|origin| all.iter().any(|one| one.matches(&origin)))
            }
        }
    }
}

impl Origin {
    fn pattern(text: &str) -> Result<Origin, Invalid> {
        let wrong = || {
            Invalid::new(
                "cors.allowOrigins",
                format!("{text:?} is no origin: scheme://host:port, or `*` alone, is one"),
            )
        };
        let Parts { is_https, host, port } = Parts::of(text).ok_or_else(wrong)?;
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(rest) if rest.len() > 1 && rest.starts_with('.') && !rest.contains('*') => Host::Suffix(rest.into()),
            None if !host.contains('*') => Host::Exact(host.into()),
            _ => return Err(wrong()),
        };
        Ok(Origin { is_https, host, port })
    }

    fn matches(&self, origin: &Parts) -> bool {
        let is_host = match &self.host {
            Host::Any => true,
            Host::Exact(host) => **host == *origin.host,
            Host::Suffix(suffix) => origin.host.len() > suffix.len() && origin.host.ends_with(&**suffix),
        };
        self.is_https == origin.is_https && self.port == origin.port && is_host
    }
}

/// Of an origin as browsers send it (RFC 6454 6.2), or as it is written with a wildcard.
struct Parts {
    is_https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

impl Parts {
    fn of(text: &str) -> Option<Parts> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _other => return None,
        };
        // An address of IPv6 has colons of its own.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
            _none => (rest, if is_https { 443 } else { 80 }),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*[]:".contains(&byte);
        let is_good = !host.is_empty() && host.len() <= limits::HOSTNAME_BYTES && host.bytes().all(is_host);
        is_good.then(|| Parts { is_https, host: host.to_ascii_lowercase(), port })
    }
}

impl Names {
    fn new(field: &'static str, given: &[String], is_name: impl Fn(&str) -> bool) -> Result<Names, Invalid> {
        match given {
            [] => Ok(Names::Safe),
            [one] if one == ANY => Ok(Names::Any),
            names => {
                if let Some(wrong) = names.iter().find(|name| *name == ANY || !is_name(name)) {
                    return Err(Invalid::new(field, format!("{wrong:?} is no name; `*` is one alone")));
                }
                Ok(Names::These(filter::header_value(field, &names.join(", "))?))
            }
        }
    }

    /// Of `exposeHeaders`, `*` may stand beside others, which count where it is none.
    fn exposed(given: &[String], with_credentials: bool, is_name: impl Fn(&str) -> bool) -> Result<Names, Invalid> {
        let field = "cors.exposeHeaders";
        let named: Vec<String> = given.iter().filter(|name| *name != ANY).cloned().collect();
        let names = Names::new(field, &named, is_name)?;
        Ok(if named.len() < given.len() && !with_credentials { Names::Any } else { names })
    }

    /// What is said of them. To a request with credentials `*` is no wildcard but a name (Fetch): it is told what it asked for.
    fn said(&self, with_credentials: bool, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Names::Safe => None,
            Names::These(names) => Some(names.clone()),
            Names::Any if with_credentials => asked.cloned(),
            Names::Any => Some(HeaderValue::from_static(ANY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn cors(origins: &[&str], with_credentials: bool, names: &[&str]) -> Cors {
        let given = v1::Cors {
            allow_origins: list(origins),
            allow_credentials: with_credentials,
            allow_methods: list(names),
            allow_headers: list(names),
            expose_headers: list(names),
            max_age_seconds: 60,
        };
        Cors::of_api(&given).unwrap()
    }

    fn asks(cors: &Cors, method: &Method, headers: &[(&'static str, &str)]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        let facts = Facts { authority: "web", method, path: "/", query: "", headers: &headers };
        let mut answer: Vec<String> = cors
            .preflight(&facts)?
            .iter()
            .filter(|(name, _)| *name != header::VARY)
            .map(|(name, value)| {
                format!("{}: {}", name.as_str().trim_start_matches("access-control-"), value.to_str().unwrap())
            })
            .collect();
        answer.sort();
        Some(answer.join("; "))
    }

    /// Seen to fail with hosts compared by their end alone, and with ports that are not.
    #[test]
    fn origins_are_who_they_are() {
        let allowed =
            |pattern: &str, origin: &str| Origins::new(&list(&[pattern])).unwrap().allow(&origin.parse().unwrap());
        for (pattern, origin) in [
            ("*", "null"),
            ("http://a.org", "http://a.org"),
            ("http://a.org", "HTTP://A.ORG"),
            ("http://a.org", "http://a.org:80"),
            ("https://a.org:443", "https://a.org"),
            ("https://*.a.org", "https://x.y.a.org"),
            ("http://*", "http://anybody.net"),
            ("http://*:8080", "http://anybody.net:8080"),
            ("http://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ] {
            assert!(allowed(pattern, origin), "{pattern} {origin}");
        }
        for (pattern, origin) in [
            ("http://a.org", "https://a.org"),
            ("http://a.org", "http://a.org:8080"),
            ("http://a.org", "http://a.org.evil.net"),
            ("http://a.org", "http://evil-a.org"),
            ("http://a.org", "null"),
            ("https://*.a.org", "https://a.org"),
            ("https://*.a.org", "https://.a.org"),
            ("https://*.a.org", "https://evila.org"),
            ("https://*.a.org", "https://evil.net/.a.org"),
            ("https://*.a.org", "https://user@x.a.org"),
            ("http://*", "https://anybody.net"),
            ("http://*", "file://x"),
            ("https://*.a.org", "https://*.a.org"),
        ] {
            assert!(!allowed(pattern, origin), "{pattern} {origin}");
        }
        for wrong in [
            "a.org",
            "ftp://a.org",
            "http://",
            "http://a.org:0",
            "http://a.org:99999",
            "http://a*.org",
            "http://*a.org",
            "http://a.org/x",
            "",
        ] {
            assert!(Origins::new(&list(&[wrong])).is_err(), "{wrong}");
        }
        assert!(Origins::new(&list(&["*", "http://a.org"])).is_err());
        assert_eq!(Origins::new(&[]), Ok(Origins::These(Vec::new())), "nobody");
    }

    #[test]
    fn who_asks_first_is_told() {
        let asked = [
            ("origin", "https://shop.org"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-one, x-two"),
        ];
        let these = cors(&["https://shop.org"], true, &["GET", "PUT"]);
        assert_eq!(
            asks(&these, &Method::OPTIONS, &asked).unwrap(),
            "allow-credentials: true; allow-headers: GET, PUT; allow-methods: GET, PUT; allow-origin: https://shop.org; expose-headers: GET, PUT; max-age: 60"
        );
        let all = cors(&["*"], false, &["*"]);
        assert_eq!(
            asks(&all, &Method::OPTIONS, &asked).unwrap(),
            "allow-headers: x-one, x-two; allow-methods: *; allow-origin: *; expose-headers: *; max-age: 60",
            "`*` would leave `Authorization` out"
        );
        let credentials = cors(&["*"], true, &["*"]);
        assert_eq!(
            asks(&credentials, &Method::OPTIONS, &asked).unwrap(),
            "allow-credentials: true; allow-headers: x-one, x-two; allow-methods: PUT; allow-origin: https://shop.org; max-age: 60"
        );
        assert_eq!(
            asks(&credentials, &Method::OPTIONS, &asked[..2]).unwrap(),
            "allow-credentials: true; allow-methods: PUT; allow-origin: https://shop.org; max-age: 60",
            "it asked for no header"
        );
        let little = cors(&["https://shop.org"], false, &[]);
        assert_eq!(asks(&little, &Method::OPTIONS, &asked).unwrap(), "allow-origin: https://shop.org; max-age: 60");
        let others = cors(&["https://other.org"], true, &["*"]);
        assert_eq!(asks(&others, &Method::OPTIONS, &asked).unwrap(), "", "answered, and not allowed");
        for none in [&asked[..1], &asked[1..]] {
            assert_eq!(asks(&these, &Method::OPTIONS, none), None);
        }
        assert_eq!(asks(&these, &Method::PUT, &asked), None, "the request itself");
    }

    #[test]
    fn answers_differ_by_what_was_asked() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://shop.org"));
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        let facts = Facts { authority: "web", method: &Method::OPTIONS, path: "/", query: "", headers: &headers };
        let asked = ["access-control-request-method", "access-control-request-headers"];
        for (origins, expected) in
            [("https://shop.org", Some("origin")), ("https://other.org", Some("origin")), ("*", None)]
        {
            let answer = cors(&[origins], false, &["*"]).preflight(&facts).unwrap();
            let vary: Vec<&str> = answer.get_all(header::VARY).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(vary, expected.into_iter().chain(asked).collect::<Vec<_>>());
        }
    }

    #[test]
    fn responses_say_who_may_read_them() {
        let own = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://apps.own"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::VARY, HeaderValue::from_static("accept"));
            headers
        };
        let origin = HeaderValue::from_static("https://shop.org");
        let mut response = own();
        cors(&["https://*.org"], false, &["x-one"]).mark(Some(&origin), &mut response);
        let said = |headers: &HeaderMap, name: HeaderName| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said(&response, header::ACCESS_CONTROL_ALLOW_ORIGIN), "https://shop.org");
        assert_eq!(said(&response, header::ACCESS_CONTROL_EXPOSE_HEADERS), "x-one");
        assert_eq!(said(&response, header::VARY), "accept origin");
        assert_eq!(said(&response, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "", "not the application's");
        let mut response = own();
        cors(&["https://*.org"], true, &["*"]).mark(Some(&origin), &mut response);
        assert_eq!(said(&response, header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
        assert_eq!(said(&response, header::ACCESS_CONTROL_EXPOSE_HEADERS), "", "`*` would be a name");
        let mut response = own();
        cors(&["https://*.net"], true, &["*"]).mark(Some(&origin), &mut response);
        for word in [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_ALLOW_CREDENTIALS] {
            assert_eq!(said(&response, word), "", "nor who is not written, by the application's word");
        }
        assert_eq!(said(&response, header::VARY), "accept origin");
        // What nobody's script asked for is kept by caches for those that will.
        let mut response = own();
        cors(&["https://*.org"], true, &["*"]).mark(None, &mut response);
        assert_eq!(said(&response, header::VARY), "accept origin");
        let mut response = own();
        cors(&["*"], false, &["*"]).mark(None, &mut response);
        assert_eq!(said(&response, header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(said(&response, header::VARY), "accept", "the same to all");
    }

    #[test]
    fn several_origins_are_nobody() {
        let mut headers = HeaderMap::new();
        assert_eq!(origin(&headers), None);
        for (text, expected) in [("https://shop.org", "https://shop.org"), ("https://evil.net", "null")] {
            headers.append(ORIGIN, HeaderValue::from_static(text));
            assert_eq!(origin(&headers).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let given = |change: fn(&mut v1::Cors)| {
            let mut given = v1::Cors { allow_origins: list(&["http://a.org"]), ..v1::Cors::default() };
            change(&mut given);
            Cors::of_api(&given).map_err(|invalid| invalid.field)
        };
        assert!(given(|_| {}).is_ok());
        assert_eq!(given(|given| given.allow_methods = list(&["G ET"])), Err("cors.allowMethods"));
        assert_eq!(given(|given| given.allow_methods = list(&["*", "GET"])), Err("cors.allowMethods"));
        assert_eq!(given(|given| given.allow_headers = list(&["a b"])), Err("cors.allowHeaders"));
        assert_eq!(given(|given| given.expose_headers = list(&[""])), Err("cors.exposeHeaders"));
        assert!(given(|given| given.expose_headers = list(&["*", "x-own"])).is_ok(), "beside others as well");
        assert_eq!(given(|given| given.allow_origins = list(&["http://a.org"; 65])), Err("cors"));
    }
}
