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
    Some(get(port, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

fn get(port: u16, path: String) -> Probe {
    Probe { port, kind: ProbeKind::Get(Arc::from(path)) }
}

fn relative(port: u16, path: &str, location: &str) -> Option<Probe> {
    let (directory, _last) = path.split('?').next()?.rsplit_once('/')?;
    // `//host` is another host's. What climbs would have to be resolved as kubelet does.
    if location.is_empty() || location.starts_with("//") || location.contains("..") {
        return None;
    }
    let absolute = location.starts_with('/');
    Some(get(port, if absolute { location.to_owned() } else { format!("{directory}/{location}") }))
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
        let page = |port, path: &str| Some(get(port, path.to_owned()));
        let tls = |port| Some(Probe { port, kind: ProbeKind::Connection });
        for (target, location, expected) in [
            (v4, "/login", page(8080, "/login")),
            (v4, "/login?next=a#top", page(8080, "/login?next=a")),
            (v4, "done", page(8080, "/health/done")),
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
            (v4, "", None),
        ] {
            assert_eq!(redirected(target, "/health/check?x=/y/", location), expected, "{location}");
        }
    }
}
