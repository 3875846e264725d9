//! HTTPRoutes, and routes of other kinds as the HTTPRoutes that they amount to, as the control plane needs them. Must never hold a rule that nodes would refuse.

use std::sync::Arc;

use weir_api::v1;
use weir_core::{route::Size, timeouts::Timeouts};

use super::{Name, Override, Profile, ProfileRule, ServicePort};

/// A route of Gateway API, of any kind, that has a Service or a Server as a parent.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `metadata.creationTimestamp` as it is written, which sorts by time; empty in manifests.
    pub created: Arc<str>,
    /// `metadata.generation`; 0 in manifests.
    pub generation: i64,
    /// Parents that are Services; others are other people's.
    pub parents: Vec<ParentRef>,
    /// Parents that are Servers, of its own namespace.
    pub servers: Vec<Name>,
    /// Names that it is for: of hosts, or those that clients with TLS ask for; all when there are none.
    pub hostnames: Vec<String>,
    /// In the order of the object.
    pub rules: Vec<RouteRule>,
    /// What it decides about.
    pub level: v1::RouteLevel,
    /// Annotations; any of them replaces all of the Service's.
    pub timeouts: Option<Timeouts>,
    /// Annotations; the same.
    pub retry: Option<v1::Retry>,
    /// Which of [`super::annotation::all`] it has.
    pub annotated: Vec<&'static str>,
    /// Of a ServiceProfile or TrafficSplit; none of a route.
    pub profile: Option<Box<Profile>>,
}

/// A Service, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// The Service.
    pub service: Name,
    /// Number of the port; all when there is none.
    pub port: Option<u16>,
    /// `sectionName`, which is a Service's name of a port; all when there is none.
    pub section: Option<Arc<str>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRule {
    /// Never empty but in a profile, or where connections are decided about.
    pub matches: Vec<v1::HttpMatch>,
    /// In order.
    pub filters: Vec<RouteFilter>,
    /// None for the parent itself.
    pub backends: Option<Vec<RouteBackend>>,
    /// `timeouts`; zero lifts a limit.
    pub timeouts: Timeouts,
    /// `retry`; no attempts where nothing is to be sent again.
    pub retry: Option<v1::Retry>,
    /// `sessionPersistence`
    pub sessions: Option<v1::SessionPersistence>,
    /// Of a profile's.
    pub of_profile: Option<ProfileRule>,
}

/// One backend of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteBackend {
    /// 0: nothing goes there.
    pub weight: u32,
    /// In order.
    pub filters: Vec<RouteFilter>,
    /// A port of a Service; or why it is none, for people.
    pub target: Result<(Name, u16), Invalid>,
}

/// One filter of a rule or of a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteFilter {
    /// Nodes are told it as it is.
    Plain(Box<v1::http_filter::Filter>),
    /// A copy to a Service that is yet to be looked up.
    Mirror(RouteMirror),
}

/// A copy of a share of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMirror {
    /// Of `denominator`; never more than it.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
    /// A port of a Service; or why it is none, for people.
    pub target: Result<MirrorTarget, Invalid>,
}

/// A port of a Service that may be named without its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorTarget {
    /// The route's own when there is none.
    pub namespace: Option<Arc<str>>,
    /// Name of the Service.
    pub name: Arc<str>,
    /// Number of the port.
    pub port: u16,
}

impl RouteMirror {
    /// The port of the Service that is meant by a route of `namespace`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn target(&self, namespace: &Arc<str>) -> Result<(Name, u16), &Invalid> {
        let MirrorTarget { namespace: own, name, port } = self.target.as_ref()?;
        let namespace = own.as_ref().unwrap_or(namespace);
        Ok((Name { namespace: Arc::clone(namespace), name: Arc::clone(name) }, *port))
    }
}

/// Why a backend is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Of condition `ResolvedRefs`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl ParentRef {
    /// Whether a port of the Service is meant.
    pub fn is_for(&self, port: &ServicePort) -> bool {
        self.port.is_none_or(|own| own == port.port) && self.section.as_ref().is_none_or(|own| *own == port.name)
    }
}

impl HttpRoute {
    /// What it costs those who compile it.
    pub fn size(&self) -> Size {
        // Each rule of a profile names all that its requests are sent to instead.
        let overrides = self.overrides().len() * self.rules.len();
        let targets = self.targets(&Arc::from("")).count() + overrides;
        if self.level != v1::RouteLevel::Requests {
            return Size::of_connections(self.hostnames.len(), targets);
        }
        let size = Size::of(self.hostnames.len(), targets, self.rules.iter().flat_map(|rule| &rule.matches));
        let conditions = self.rules.iter().filter_map(|rule| rule.of_profile.as_ref());
        conditions.map(|own| Size::of_condition(&own.condition)).fold(size, Size::and)
    }

    /// Where a profile sends the requests of its Service.
    pub fn overrides(&self) -> &[Override] {
        self.profile.as_ref().map(|profile| &*profile.overrides).unwrap_or_default()
    }

    /// Where its rules send requests, and copies of them: ports of Services, or why one is none. `namespace` is the route's own.
    pub fn targets<'a>(
        &'a self,
        namespace: &'a Arc<str>,
    ) -> impl Iterator<Item = Result<(Name, u16), &'a Invalid>> + use<'a> {
        let mirrored = |filters: &'a [RouteFilter]| {
            filters.iter().filter_map(|filter| match filter {
                RouteFilter::Mirror(mirror) => Some(mirror.target(namespace)),
                RouteFilter::Plain(_) => None,
            })
        };
        self.rules.iter().flat_map(move |rule| {
            let backends = rule.backends.iter().flatten();
            let backends = backends.flat_map(move |backend| {
                std::iter::once(backend.target.as_ref().cloned()).chain(mirrored(&backend.filters))
            });
            mirrored(&rule.filters).chain(backends)
        })
    }

    /// Services that its rules send requests or copies of them to.
    pub fn services<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = Name> + use<'a> {
        let overrides = self.overrides().iter().map(|one| one.service.clone());
        self.targets(namespace).filter_map(|target| target.ok().map(|(name, _port)| name)).chain(overrides)
    }
}
