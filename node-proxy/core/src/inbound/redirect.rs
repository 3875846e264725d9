//! Where kubelet goes on to when an application redirects its probe. Must never lead to another address than the pod's own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Probe, ProbeKind};

/// What is asked next by whoever follows `location`, answered to a GET of `path` at `target`. None for what kubelet does not follow
/// (another host), or cannot.
pub fn redirected(target: SocketAddr, path: &str, location: &str) -> Option<Probe> {
    let location = location.split('#').next()?;
    let (secure, rest) = match location.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        // A colon may stand in a path; a scheme that is not HTTP's ends like another host.
        _none => return relative(target.port(), path, location),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = port_of(authority, target.ip(), if secure { 443 } else { 80 })?;
    if secure {
        return Some(Probe { port, kind: ProbeKind::Connection });
    }
    get(port, &if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// The page at `path`, without the dots that whoever follows leaves out (RFC 3986 5.2.4).
fn get(port: u16, path: &str) -> Option<Probe> {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut segments: Vec<&str> = path.split('/').collect();
    // What climbs would have to be resolved as kubelet does.
    if segments.contains(&"..") {
        return None;
    }
    if segments.last() == Some(&".") {
        segments.push("");
    }
    segments.retain(|segment| *segment != ".");
    Some(Probe { port, kind: ProbeKind::Get(Arc::from(segments.join("/") + query)) })
}

fn relative(port: u16, path: &str, location: &str) -> Option<Probe> {
    let path = path.split('?').next()?;
    let (directory, _last) = path.rsplit_once('/')?;
    match location.chars().next()? {
        // Another host's.
        '/' if location.starts_with("//") => None,
        '/' => get(port, location),
        // The same page.
        '?' => get(port, &format!("{path}{location}")),
        _relative => get(port, &format!("{directory}/{location}")),
    }
}

fn port_of(authority: &str, own: IpAddr, default: u16) -> Option<u16> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return (address.ip() == own).then_some(address.port());
    }
    let host = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    host.parse::<IpAddr>().is_ok_and(|host| host == own).then_some(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pod_itself_is_followed_to() {
        let v4: SocketAddr = "10.1.0.1:8080".parse().unwrap();
        let v6: SocketAddr = "[fd00::1]:8080".parse().unwrap();
        let page = |port, path: &str| Some(Probe { port, kind: ProbeKind::Get(Arc::from(path)) });
        let tls = |port| Some(Probe { port, kind: ProbeKind::Connection });
        for (target, location, expected) in [
            (v4, "/login", page(8080, "/login")),
            (v4, "/login?next=a#top", page(8080, "/login?next=a")),
            (v4, "done", page(8080, "/health/done")),
            (v4, "./done?a=../b", page(8080, "/health/done?a=../b")),
            (v4, "a/./b/.", page(8080, "/health/a/b/")),
            (v4, "/./login", page(8080, "/login")),
            (v4, "?x=1", page(8080, "/health/check?x=1")),
            (v4, "http://10.1.0.1:8080/login", page(8080, "/login")),
            (v4, "http://10.1.0.1", page(80, "/")),
            (v4, "HTTP://10.1.0.1:81?a", page(81, "/?a")),
            (v4, "https://10.1.0.1:8443/login", tls(8443)),
            (v4, "https://10.1.0.1/", tls(443)),
            (v6, "http://[fd00::1]:81/x", page(81, "/x")),
            (v6, "https://[fd00::1]", tls(443)),
            (v4, "http://10.1.0.2:8080/login", None),
            (v4, "http://10.1.0.1.example.org/", None),
            (v4, "http://user@10.1.0.1/", None),
            (v4, "https://example.org/", None),
            (v4, "//example.org/", None),
            (v4, "../up", None),
            (v4, "/up/..", None),
            (v4, "http://10.1.0.1:8080/a/../b", None),
            (v4, "", None),
        ] {
            assert_eq!(redirected(target, "/health/check?x=/y/", location), expected, "{location}");
        }
    }
}
