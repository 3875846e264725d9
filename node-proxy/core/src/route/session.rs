//! Session persistence (Gateway API, GEP-1619): requests that bring the token of a response go to the endpoint that gave it, as long as that is
//! ready. All that is remembered is in the token, so that every node knows every session.
//!
//! Must never send a request anywhere but to a ready endpoint of the rule's own backends, whatever its token says: tokens are anybody's to make.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use weir_api::v1::{self, session_persistence::Carrier as Given};

use super::{Invalid, PathMatch, filter};
use crate::{balance::hash, cookie, limits};

/// How a rule's requests find their endpoint again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    carrier: Carrier,
    /// What numbers of endpoints are mixed with: two rules have no token in common.
    scope: u64,
    absolute: Option<Duration>,
    idle: Option<Duration>,
    is_permanent: bool,
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    Cookie(Box<str>),
    Header(HeaderName),
}

/// A session that a request goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The number of its endpoint, as [`number`] gives it.
    pub endpoint: u64,
    /// Since the Unix epoch; of no meaning without time limits.
    begun: Duration,
}

/// What an endpoint is known by in tokens. Must never change: nodes of different versions would take each other's sessions apart.
pub fn number(address: SocketAddr, uid: &str) -> u64 {
    let (ip, port) = (address.ip().to_canonical(), address.port());
    hash(format!("{uid} {ip} {port}").as_bytes())
}

/// A name for the token of a rule that gives it none; `scope` is the rule's.
pub fn default_name(scope: &str) -> String {
    format!("weir-session-{:016x}", hash(scope.as_bytes()))
}

impl SessionPersistence {
    /// Control's.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn of_api(given: &v1::SessionPersistence) -> Result<SessionPersistence, Invalid> {
        let carrier = match &given.carrier {
            Some(Given::Cookie(name)) => Carrier::Cookie(cookie_name(name)?),
            Some(Given::Header(name)) => Carrier::Header(field_name(name)?),
            None => {
                return Err(Invalid::new(
                    "sessionPersistence.type",
                    "not known here; is this node older than control?",
                ));
            }
        };
        let limit = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
        let absolute = limit(given.absolute_timeout_ms);
        if given.permanent && (absolute.is_none() || matches!(carrier, Carrier::Header(_))) {
            let reason = "of a permanent cookie, which needs one, and nothing else is permanent";
            return Err(Invalid::new("sessionPersistence.absoluteTimeout", reason));
        }
        Ok(SessionPersistence {
            carrier,
            scope: hash(given.scope.as_bytes()),
            absolute,
            idle: limit(given.idle_timeout_ms),
            is_permanent: given.permanent,
        })
    }

    /// The first token that counts, of a request; `now` is the time since the Unix epoch, which nodes have in common more or less. `has` says
    /// whether an endpoint may be used.
    pub(super) fn find<T>(
        &self,
        headers: &HeaderMap,
        now: Duration,
        mut has: impl FnMut(u64) -> Option<T>,
    ) -> Option<(Session, T)> {
        let mut found = |text: &[u8]| {
            let session = self.read(text, now)?;
            has(session.endpoint).map(|at| (session, at))
        };
        match &self.carrier {
            Carrier::Header(name) => {
                let values = headers.get_all(name).iter().take(limits::SESSION_TOKENS);
                values.map(HeaderValue::as_bytes).find_map(&mut found)
            }
            // A browser has one for each path, and sends those of longer ones first (RFC 6265 5.4).
            Carrier::Cookie(name) => cookie::named(headers, name).take(limits::SESSION_TOKENS).find_map(&mut found),
        }
    }

    fn read(&self, text: &[u8], now: Duration) -> Option<Session> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split('-');
        let number = hex(parts.next()?)?;
        let times = (parts.next(), parts.next(), parts.next());
        let begun = match times {
            (None, ..) if self.absolute.is_none() && self.idle.is_none() => Duration::ZERO,
            (Some(begun), Some(seen), None) => {
                let (begun, seen) = (Duration::from_millis(hex(begun)?), Duration::from_millis(hex(seen)?));
                let is_over =
                    |limit: Option<Duration>, since| limit.is_some_and(|limit| now.saturating_sub(since) > limit);
                if is_over(self.absolute, begun) || is_over(self.idle, seen) {
                    return None;
                }
                begun
            }
            _other => return None,
        };
        Some(Session { endpoint: number ^ self.scope, begun })
    }

    /// Says on the response of `endpoint` how to come back to it, where the request did not know or its token is to be renewed. `matched` is the
    /// match that it came by. An application's own cookie or header of that name stays alone.
    pub fn mark(
        &self,
        brought: Option<Session>,
        endpoint: u64,
        matched: Option<&PathMatch>,
        now: Duration,
        headers: &mut HeaderMap,
    ) {
        let brought = brought.filter(|session| session.endpoint == endpoint);
        if brought.is_some() && self.idle.is_none() {
            return;
        }
        // Another node's clock may be ahead: what began later than now would never be over.
        let begun = brought.map_or(now, |session| session.begun.min(now));
        let mut token = format!("{:016x}", endpoint ^ self.scope);
        if self.absolute.is_some() || self.idle.is_some() {
            // Writing to a string does not fail.
            let _written = write!(token, "-{:x}-{:x}", begun.as_millis(), now.as_millis());
        }
        match &self.carrier {
            Carrier::Header(name) => {
                if let header::Entry::Vacant(place) = headers.entry(name)
                    && let Ok(value) = HeaderValue::try_from(token)
                {
                    place.insert(value);
                }
            }
            Carrier::Cookie(name) => {
                let is_set = headers.get_all(header::SET_COOKIE).iter().any(|set| {
                    let pair = set.as_bytes().trim_ascii_start().strip_prefix(name.as_bytes());
                    pair.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
                });
                let cookie = self.cookie(name, &token, begun, matched, now);
                if !is_set && let Ok(value) = HeaderValue::try_from(cookie) {
                    headers.append(header::SET_COOKIE, value);
                }
            }
        }
    }

    /// RFC 6265 4.1. Not `Secure`: within the mesh clients speak plain HTTP to their own node's proxy.
    fn cookie(&self, name: &str, token: &str, begun: Duration, matched: Option<&PathMatch>, now: Duration) -> String {
        let path = matched.map_or("/".into(), path_of);
        let mut cookie = format!("{name}={token}; Path={path}; HttpOnly; SameSite=Strict");
        if let Some(absolute) = self.absolute.filter(|_| self.is_permanent) {
            let left = (begun + absolute).saturating_sub(now).as_millis().div_ceil(1000);
            let _written = write!(cookie, "; Max-Age={left}");
        }
        cookie
    }
}

/// Sixteen digits at most, and no sign.
fn hex(text: &str) -> Option<u64> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

/// For which paths a browser sends a cookie again: those that come by the same match, as near as that can be said.
fn path_of(matched: &PathMatch) -> std::borrow::Cow<'_, str> {
    let path = match matched {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => &**path,
        PathMatch::Pattern(pattern) => literal(pattern.as_str()),
        PathMatch::Call(call) => return call.path().into(),
    };
    // What cannot stand in an attribute would end it.
    let is_sayable = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
    if is_sayable { path.into() } else { "/".into() }
}

/// The whole segments at the beginning of a pattern that are what they say.
fn literal(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "/";
    }
    let special = pattern.find(|one: char| !(one.is_ascii_alphanumeric() || matches!(one, '/' | '-' | '_' | '~')));
    let plain = match special {
        None => return pattern,
        Some(at) => &pattern[..at],
    };
    plain.rfind('/').map_or("/", |at| if at == 0 { "/" } else { &plain[..at] })
}

/// RFC 6265 4.1.1: a token of HTTP.
fn cookie_name(name: &str) -> Result<Box<str>, Invalid> {
    let is_token = HeaderName::try_from(name).is_ok();
    let is_short = name.len() <= limits::SESSION_NAME_BYTES;
    if !is_token || !is_short {
        let reason = format!("{name:?} is no name of a cookie of at most {} bytes", limits::SESSION_NAME_BYTES);
        return Err(Invalid::new("sessionPersistence.sessionName", reason));
    }
    Ok(name.into())
}

fn field_name(name: &str) -> Result<HeaderName, Invalid> {
    let field = "sessionPersistence.sessionName";
    let name = filter::header_name(field, name)?;
    if name.as_str().len() > limits::SESSION_NAME_BYTES || TAKEN.contains(&name) {
        return Err(Invalid::new(field, format!("{name} means something else, or is too long")));
    }
    Ok(name)
}

/// Fields that a token would change the meaning of.
const TAKEN: [HeaderName; 8] = [
    header::HOST,
    header::COOKIE,
    header::SET_COOKIE,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::LOCATION,
    header::DATE,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Pattern, *};

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn given(carrier: Given, absolute_ms: u64, idle_ms: u64, permanent: bool) -> v1::SessionPersistence {
        v1::SessionPersistence {
            carrier: Some(carrier),
            scope: "HTTPRoute shop/web #0".into(),
            absolute_timeout_ms: absolute_ms,
            idle_timeout_ms: idle_ms,
            permanent,
        }
    }

    fn by_cookie(absolute_ms: u64, idle_ms: u64) -> SessionPersistence {
        SessionPersistence::of_api(&given(Given::Cookie("cart".into()), absolute_ms, idle_ms, false)).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn found(sessions: &SessionPersistence, headers: &HeaderMap, now: Duration, known: &[u64]) -> Option<Session> {
        sessions.find(headers, now, |endpoint| known.contains(&endpoint).then_some(())).map(|(session, ())| session)
    }

    /// What the response says of `name`, as the next request brings it.
    fn said(sessions: &SessionPersistence, brought: Option<Session>, endpoint: u64, now: Duration) -> Option<String> {
        let mut response = HeaderMap::new();
        sessions.mark(brought, endpoint, None, now, &mut response);
        let set = response.get("set-cookie").or_else(|| response.get("x-session"))?.to_str().unwrap();
        Some(set.split(';').next().unwrap().to_owned())
    }

    #[test]
    fn a_token_leads_back_to_its_endpoint() {
        let sessions = by_cookie(0, 0);
        let cookie = said(&sessions, None, 7, NOW).unwrap();
        let request = headers(&[("cookie", &format!("a=1; {cookie}"))]);
        let session = found(&sessions, &request, NOW + 1_000_000 * MINUTE, &[6, 7]).unwrap();
        assert_eq!(session.endpoint, 7);
        assert_eq!(said(&sessions, Some(session), 7, NOW), None, "it knows already");
        assert_eq!(found(&sessions, &request, NOW, &[6]), None, "it is gone");
        assert_ne!(said(&sessions, Some(session), 6, NOW).unwrap(), cookie, "it moved");
        // Of several the first that leads to somebody.
        let other = said(&sessions, None, 9, NOW).unwrap();
        let request = headers(&[("cookie", &format!("cart=x; {other}")), ("cookie", &cookie)]);
        assert_eq!(found(&sessions, &request, NOW, &[7]).unwrap().endpoint, 7);
        assert_eq!(found(&sessions, &request, NOW, &[7, 9]).unwrap().endpoint, 9);
    }

    #[test]
    fn rules_have_no_token_in_common() {
        let sessions = by_cookie(0, 0);
        let mut other = given(Given::Cookie("cart".into()), 0, 0, false);
        other.scope = "HTTPRoute shop/web #1".into();
        let other = SessionPersistence::of_api(&other).unwrap();
        let request = headers(&[("cookie", &said(&sessions, None, 7, NOW).unwrap())]);
        assert!(found(&sessions, &request, NOW, &[7]).is_some() && found(&other, &request, NOW, &[7]).is_none());
    }

    #[test]
    fn a_session_ends_by_its_age_and_when_nothing_comes() {
        for (absolute, idle, after, is_over) in [
            (60_000, 0, MINUTE, false),
            (60_000, 0, MINUTE + Duration::from_millis(1), true),
            (0, 60_000, MINUTE, false),
            (0, 60_000, MINUTE + Duration::from_millis(1), true),
            (120_000, 60_000, MINUTE * 2, true),
            (30_000, 60_000, MINUTE, true),
        ] {
            let sessions = by_cookie(absolute, idle);
            let request = headers(&[("cookie", &said(&sessions, None, 7, NOW).unwrap())]);
            let session = found(&sessions, &request, NOW + after, &[7]);
            assert_eq!(session.is_none(), is_over, "{absolute} {idle} {after:?}");
            // Of another node, whose clock is behind.
            assert!(found(&sessions, &request, NOW - MINUTE, &[7]).is_some());
        }
        let sessions = by_cookie(150_000, 60_000);
        let mut token = said(&sessions, None, 7, NOW).unwrap();
        for minutes in 1..=2 {
            let now = NOW + MINUTE * minutes;
            let session = found(&sessions, &headers(&[("cookie", &token)]), now, &[7]).unwrap();
            token = said(&sessions, Some(session), 7, now).expect("renewed with each response");
        }
        assert_eq!(found(&sessions, &headers(&[("cookie", &token)]), NOW + MINUTE * 3, &[7]), None, "it is too old");
        let without = said(&by_cookie(0, 0), None, 7, NOW).unwrap();
        assert_eq!(found(&sessions, &headers(&[("cookie", &without)]), NOW, &[7]), None, "from before it had limits");
    }

    #[test]
    fn cookies_are_for_the_paths_of_their_match_and_live_as_long_as_they_may() {
        let cookie = |sessions: &SessionPersistence, matched: Option<&PathMatch>, begun, now| {
            let mut response = HeaderMap::new();
            let brought = Some(Session { endpoint: 7, begun });
            sessions.mark(brought, 7, matched, now, &mut response);
            response["set-cookie"].to_str().unwrap().to_owned()
        };
        let sessions = by_cookie(0, 1000);
        let path = |matched: &PathMatch| {
            let cookie = cookie(&sessions, Some(matched), NOW, NOW);
            let rest = cookie.split("; Path=").nth(1).unwrap().to_owned();
            rest.strip_suffix("; HttpOnly; SameSite=Strict").unwrap().to_owned()
        };
        let pattern = |text: &str| PathMatch::Pattern(Pattern::new("value", text).unwrap());
        let call = |service: &str, method: Option<&str>| {
            let exact = |name: &str| Some(super::super::ValueMatch::Exact(name.into()));
            PathMatch::Call(super::super::CallMatch { service: exact(service), method: method.and_then(exact) })
        };
        for (matched, expected) in [
            (PathMatch::prefix("/"), "/"),
            (PathMatch::prefix("/a/"), "/a"),
            (PathMatch::Exact("/a/b".into()), "/a/b"),
            (PathMatch::Exact("/a;b".into()), "/"),
            (pattern("/p1/p2/.*/p3"), "/p1/p2"),
            (pattern("/foo*"), "/"),
            (pattern("/a/b|/c"), "/"),
            (pattern("/a/b"), "/a/b"),
            (pattern(".*"), "/"),
            (call("shop.Cart", None), "/shop.Cart"),
            (call("shop.Cart", Some("Add")), "/shop.Cart/Add"),
        ] {
            assert_eq!(path(&matched), expected, "{matched:?}");
        }
        let lasting = given(Given::Cookie("cart".into()), 90_500, 1000, true);
        let lasting = SessionPersistence::of_api(&lasting).unwrap();
        assert!(cookie(&lasting, None, NOW, NOW).ends_with("; Max-Age=91"));
        assert!(cookie(&lasting, None, NOW, NOW + MINUTE).ends_with("; Max-Age=31"));
    }

    #[test]
    fn what_the_application_says_stays_alone() {
        let mut response = headers(&[("set-cookie", "carts=1"), ("set-cookie", " cart =own; Path=/")]);
        by_cookie(0, 0).mark(None, 7, None, NOW, &mut response);
        assert_eq!(response.get_all("set-cookie").iter().count(), 2);
        let by_header = SessionPersistence::of_api(&given(Given::Header("X-Session".into()), 0, 0, false)).unwrap();
        let mut response = headers(&[("x-session", "own")]);
        by_header.mark(None, 7, None, NOW, &mut response);
        assert_eq!(response["x-session"], "own");
        let token = said(&by_header, None, 7, NOW).unwrap();
        assert_eq!(found(&by_header, &headers(&[("x-session", &token)]), NOW, &[7]).unwrap().endpoint, 7);
    }

    #[test]
    fn names_that_cannot_be_used_are_refused() {
        let refused = |carrier| SessionPersistence::of_api(&given(carrier, 0, 0, false)).unwrap_err().field;
        let long = "a".repeat(limits::SESSION_NAME_BYTES + 1);
        for name in ["", "a b", "a=b", "a;b", "a\u{e9}", &long] {
            assert_eq!(refused(Given::Cookie(name.into())), "sessionPersistence.sessionName", "{name:?}");
            assert_eq!(refused(Given::Header(name.into())), "sessionPersistence.sessionName", "{name:?}");
        }
        for name in ["Host", "content-length", "Set-Cookie", "Connection", "Authorization"] {
            assert_eq!(refused(Given::Header(name.into())), "sessionPersistence.sessionName", "{name}");
        }
        let unknown = v1::SessionPersistence { carrier: None, ..given(Given::Cookie("a".into()), 0, 0, false) };
        assert_eq!(SessionPersistence::of_api(&unknown).unwrap_err().field, "sessionPersistence.type");
        for lasting in [given(Given::Cookie("a".into()), 0, 0, true), given(Given::Header("a".into()), 1000, 0, true)] {
            assert_eq!(SessionPersistence::of_api(&lasting).unwrap_err().field, "sessionPersistence.absoluteTimeout");
        }
    }

    /// Other nodes, and other versions, come to the same ones.
    #[test]
    fn numbers_are_these_for_ever() {
        let of = |address: &str, uid| number(address.parse().unwrap(), uid);
        // By another implementation, in Python.
        assert_eq!(of("10.1.0.7:8080", "a-b"), 0x234f_2c98_370e_b397);
        assert_eq!(of("10.1.0.7:8080", "a-b"), of("[::ffff:10.1.0.7]:8080", "a-b"));
        assert_ne!(of("10.1.0.7:8080", "a-b"), of("10.1.0.7:8080", "a-c"));
        assert_eq!(default_name("HTTPRoute shop/web #0"), "weir-session-255c58c80214d0e7");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Whatever clients bring leads to an endpoint that there is, or nowhere.
        #[test]
        fn no_token_leads_anywhere_else(text in "[-0-9a-fx+ ;=]{0,60}|cart=[0-9a-f]{16}(-[0-9a-f]{1,16}){0,3}", absolute in 0_u64..3, idle in 0_u64..3) {
            let sessions = by_cookie(absolute * 1000, idle * 1000);
            if let Ok(value) = HeaderValue::from_str(&text) {
                let request: HeaderMap = [(header::COOKIE, value)].into_iter().collect();
                prop_assert_eq!(found(&sessions, &request, NOW, &[]), None);
                let any = sessions.find(&request, NOW, Some);
                if let Some((session, endpoint)) = any {
                    prop_assert_eq!(session.endpoint, endpoint);
                    prop_assert!(absolute == 0 || NOW.saturating_sub(session.begun) <= Duration::from_secs(absolute));
                }
            }
        }
    }
}
