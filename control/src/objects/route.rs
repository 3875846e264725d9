//! HTTPRoutes, and GRPCRoutes as the HTTPRoutes that they amount to, as the control plane needs them. Must never hold a rule that nodes would refuse.

use std::sync::Arc;

use weir_api::v1;
use weir_core::{route::Size, timeouts::Timeouts};

use super::{Name, ServicePort};

/// An HTTPRoute or GRPCRoute of Gateway API that has a Service as a parent.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `metadata.creationTimestamp` as it is written, which sorts by time; empty in manifests.
    pub created: Arc<str>,
    /// `metadata.generation`; 0 in manifests.
    pub generation: i64,
    /// Parents that are Services; others are other people's.
    pub parents: Vec<ParentRef>,
    /// Names that it is for; all when there are none.
    pub hostnames: Vec<String>,
    /// In the order of the object.
    pub rules: Vec<RouteRule>,
    /// Annotations; any of them replaces all of the Service's.
    pub timeouts: Option<Timeouts>,
    /// Annotations; the same.
    pub retry: Option<v1::Retry>,
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
    /// Never empty.
    pub matches: Vec<v1::HttpMatch>,
    /// In order.
    pub filters: Vec<v1::HttpFilter>,
    /// None for the parent itself.
    pub backends: Option<Vec<RouteBackend>>,
    /// `timeouts`; zero lifts a limit.
    pub timeouts: Timeouts,
    /// `retry`; no attempts where nothing is to be sent again.
    pub retry: Option<v1::Retry>,
}

/// One backend of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteBackend {
    /// 0: nothing goes there.
    pub weight: u32,
    /// In order.
    pub filters: Vec<v1::HttpFilter>,
    /// A port of a Service; or why it is none, for people.
    pub target: Result<(Name, u16), Invalid>,
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
        Size::of(self.hostnames.len(), self.rules.iter().flat_map(|rule| &rule.matches))
    }

    /// Services that its rules send requests to.
    pub fn backends(&self) -> impl Iterator<Item = &Name> {
        let all = self.rules.iter().flat_map(|rule| rule.backends.iter().flatten());
        all.filter_map(|backend| backend.target.as_ref().ok().map(|(name, _port)| name))
    }
}
