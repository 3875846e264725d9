//! Where a request goes, as the contract says it. Must never name an answer that nodes do not give.

use http::{HeaderMap, HeaderValue};
use weir_api::v1::{self, way::What};
use weir_core::{
    proxy_error::ProxyError,
    route::{ObjectRef, Routed, Way},
};

use super::{Decided, Endpoints, Gathered, candidates::is};
use crate::policy::shown;

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn fields(headers: &HeaderMap) -> Vec<v1::Header> {
    headers.iter().map(|(name, value)| v1::Header { name: name.to_string(), value: text(value) }).collect()
}

impl Gathered {
    /// Where no route says anything.
    pub(super) fn itself(&self) -> v1::Way {
        v1::Way { percent: 100.0, filters: Vec::new(), what: Some(What::Forward(self.forward(None))) }
    }

    fn forward(&self, backend: Option<usize>) -> v1::Forwarding {
        let (service, endpoints) = match backend {
            Some(index) => self.backends.get(index).cloned().unwrap_or_default(),
            None => (self.reference.clone(), self.own),
        };
        let Endpoints { all, ready } = endpoints;
        v1::Forwarding {
            service: Some(service),
            is_itself: backend.is_none(),
            endpoints: all,
            ready_endpoints: ready,
            is_opaque: self.told.protocol() == v1::Protocol::Opaque,
        }
    }

    pub(super) fn way(&self, decided: &Decided<'_>, way: &Way) -> v1::Way {
        let object = decided.selected.and_then(|at| decided.table.routes().get(at.route)).map(|route| &*route.object);
        let what = match &way.routed {
            Routed::NoRoute => What::Failure(self.failure(ProxyError::NoRoute, "")),
            Routed::Broken(reason) => {
                let error = object.map_or(ProxyError::BackendInvalid, ObjectRef::broken);
                What::Failure(self.failure(error, reason))
            }
            Routed::Redirect(status, location) => {
                What::Redirect(v1::Redirection { status_code: status.as_u16().into(), location: text(location) })
            }
            Routed::Preflight(headers) => What::Preflight(v1::PreflightAnswer { headers: fields(headers) }),
            Routed::Forward(forward) => What::Forward(self.forward(forward.service())),
        };
        let rule = decided.selected.and_then(|at| {
            let mut routes = self.told.http_routes.iter();
            let told =
                routes.find(|route| route.object.as_ref().zip(object).is_some_and(|(own, object)| is(own, object)))?;
            told.rules.get(at.rule)
        });
        let filters = rule.map(|rule| {
            let of_backend = match (&rule.destination, way.backend) {
                (Some(v1::http_rule::Destination::Backends(all)), Some(index)) => all.backends.get(index),
                _itself => None,
            };
            let of_backend = of_backend.into_iter().flat_map(|backend| &backend.filters);
            rule.filters.iter().chain(of_backend).map(shown).collect()
        });
        // Whole hundredths: more digits would be those of the arithmetic.
        let percent = (way.share * 10_000.0).round() / 100.0;
        v1::Way { percent, filters: filters.unwrap_or_default(), what: Some(what) }
    }

    fn failure(&self, error: ProxyError, reason: &str) -> v1::Failure {
        let reason = if reason.is_empty() { error.to_string() } else { format!("{error}: {reason}") };
        let grpc_code = self.asked.is_grpc().then(|| error.grpc_code());
        v1::Failure { http_status: error.http_status().into(), grpc_code, reason }
    }
}
