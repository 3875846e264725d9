//! The two ends of a request as people name them. Must never take one kind of resource for another.

use crate::resource::{Kind, Resource};

/// A Service, perhaps with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// 0: its only one.
    pub(crate) port: u32,
}

impl Target {
    /// `svc/NAME[.NAMESPACE[.svc.CLUSTER.DOMAIN]][:PORT]`, and the same without `svc/` where there is a namespace or a port.
    pub(crate) fn parse(text: &str, namespace: &str) -> Result<Target, String> {
        let wrong = || {
            format!(
                "{text:?} is no Service: write svc/NAME[:PORT], or NAME.NAMESPACE[:PORT] as a client does, such as web.shop:80"
            )
        };
        let (kind, host) = text.split_once('/').map_or((None, text), |(kind, host)| (Some(kind), host));
        if let Some(kind) = kind
            && Resource::parse(kind)?.kind != Kind::Service
        {
            return Err(wrong());
        }
        let (host, port) = match host.split_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
            None => (host, 0),
        };
        let mut labels = host.split('.');
        let (name, own, rest) = (labels.next().unwrap_or_default(), labels.next(), labels.next());
        let is_named = !name.is_empty()
            && !host.contains('/')
            && own.is_none_or(|own| !own.is_empty())
            && rest.is_none_or(|rest| rest == "svc");
        if !is_named || (kind.is_none() && own.is_none() && port == 0) {
            return Err(wrong());
        }
        Ok(Target { namespace: own.unwrap_or(namespace).to_owned(), name: name.to_owned(), port: port.into() })
    }
}

/// Pods that send requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) namespace: String,
    /// In control's words (`deployment`, `pod`); empty for all pods of the namespace.
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Source {
    /// `deploy/NAME` and its like, `pod/NAME`, or `ns/NAME`.
    pub(crate) fn parse(text: &str, namespace: &str) -> Result<Source, String> {
        let wrong = || {
            format!(
                "{text:?} sends no requests: write deploy/NAME, sts/NAME, ds/NAME, job/NAME, cj/NAME, rs/NAME, pod/NAME or ns/NAME"
            )
        };
        let Resource { kind, name } = Resource::parse(text)?;
        let name = name.ok_or_else(wrong)?;
        let namespace = namespace.to_owned();
        Ok(match kind {
            Kind::Namespace => Source { namespace: name, kind: String::new(), name: String::new() },
            Kind::Pod => Source { namespace, kind: "pod".to_owned(), name },
            Kind::OwnedBy(kind) => Source { namespace, kind: kind.to_owned(), name },
            Kind::Owner | Kind::Service => return Err(wrong()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_as_people_and_clients_name_them() {
        for (text, namespace, name, port) in [
            ("svc/web", "shop", "web", 0),
            ("svc/web:80", "shop", "web", 80),
            ("service/web.other:80", "other", "web", 80),
            ("web.other", "other", "web", 0),
            ("web:80", "shop", "web", 80),
            ("web.other.svc.cluster.local:8080", "other", "web", 8080),
        ] {
            let expected = Target { namespace: namespace.into(), name: name.into(), port };
            assert_eq!(Target::parse(text, "shop"), Ok(expected), "{text}");
        }
        for wrong in
            ["", "web", "deploy/web", "svc/", "svc/:80", "web.:80", "web:0", "web:http", "web.a.pod:80", "svc/a/b"]
        {
            assert!(Target::parse(wrong, "shop").is_err(), "{wrong}");
        }
    }

    #[test]
    fn clients() {
        let parse = |text: &str| Source::parse(text, "shop").map(|source| (source.namespace, source.kind, source.name));
        let strings = |all: [&str; 3]| Ok((all[0].to_owned(), all[1].to_owned(), all[2].to_owned()));
        assert_eq!(parse("deploy/web"), strings(["shop", "deployment", "web"]));
        assert_eq!(parse("pod/web-1"), strings(["shop", "pod", "web-1"]));
        assert_eq!(parse("ns/other"), strings(["other", "", ""]));
        for wrong in ["web", "deploy", "svc/web", "all/x", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
