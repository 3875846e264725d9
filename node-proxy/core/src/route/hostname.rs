//! Host names of a route. Must never match a name in part of a label.

use super::Invalid;
use crate::limits;

/// A name, or all names below one (`*.example.com`), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hostname {
    /// This very name.
    Exact(Box<str>),
    /// Names that end with this, which begins with a dot.
    Suffix(Box<str>),
}

impl Hostname {
    /// As HTTPRoute's `hostnames` have it (RFC 1123 names, no addresses).
    ///
    /// # Errors
    /// Not a host name.
    pub fn new(text: &str) -> Result<Hostname, Invalid> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(is_inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if name.len() > limits::HOSTNAME_BYTES || !name.split('.').all(is_label) {
            return Err(Invalid::new("hostnames", format!("{text:?} is no host name, nor one with `*.` before it")));
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(Invalid::new("hostnames", format!("{text:?} is an address, only names are taken")));
        }
        let lower = name.to_ascii_lowercase();
        Ok(if name.len() == text.len() {
            Hostname::Exact(lower.into())
        } else {
            Hostname::Suffix(format!(".{lower}").into())
        })
    }

    /// Whether a host, as [`of_authority`] gives it, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Hostname::Exact(name) => **name == *host,
            // More than the dot: an empty label is no name.
            Hostname::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }

    /// Greater is more specific: a whole name before a part of one, then the longer.
    pub fn specificity(&self) -> (bool, usize) {
        match self {
            Hostname::Exact(name) => (true, name.len()),
            Hostname::Suffix(suffix) => (false, suffix.len()),
        }
    }
}

/// Host of an authority: without port and user, without the dot of a full name, in lower case. `None` where no route's name can be meant.
pub(super) fn of_authority(authority: &str) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty() && host.len() <= limits::HOSTNAME_BYTES).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let exact = Hostname::new("Web.Example.com").unwrap();
        let wild = Hostname::new("*.example.com").unwrap();
        for (host, is_exact, is_wild) in [
            ("web.example.com", true, true),
            ("a.web.example.com", false, true),
            ("example.com", false, false),
            (".example.com", false, false),
            ("badexample.com", false, false),
        ] {
            assert_eq!((exact.matches(host), wild.matches(host)), (is_exact, is_wild), "{host}");
        }
        assert!(exact.specificity() > wild.specificity());
        assert!(Hostname::new("*.a.example.com").unwrap().specificity() > wild.specificity());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in
            ["", "*", "*.", "a..b", "-a.b", "a-.b", "a.*.b", "a b", "10.0.0.1", "*.0.0.1", "[::1]", "a:80", "ä.b"]
        {
            assert!(Hostname::new(bad).is_err(), "{bad}");
        }
        assert!(Hostname::new(&"a.".repeat(127)).is_err());
        assert!(Hostname::new("1.example").is_ok(), "digits in a label are fine");
    }

    #[test]
    fn hosts_of_authorities() {
        for (authority, host) in [
            ("Web.example.com", Some("web.example.com")),
            ("web.example.com:8080", Some("web.example.com")),
            ("web.example.com.:8080", Some("web.example.com")),
            ("user@web", Some("web")),
            ("[::1]:80", Some("[::1]")),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(of_authority(authority).as_deref(), host, "{authority}");
        }
        assert_eq!(of_authority(&"a".repeat(300)), None);
    }
}
