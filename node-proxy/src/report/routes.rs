//! Requests by the route that decided, and attempts by backend, for reports. Must never say more lines than `limits::ROUTES_REPORTED`.

use std::sync::Arc;

use weir_api::v1;
use weir_core::{route::ObjectRef, snapshot::PodRef};

use super::window::Window;
use crate::{
    limits,
    telemetry::{DURATION_BOUNDS_MS, RouteCounts, RouteKind, RouteLabels, RouteSeries, ServiceRef, Subject},
};

/// What one line is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: RouteKind,
    of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Of {
    Exactly(Arc<RouteLabels>),
    /// What is left when there are too many: of one workload, or of the node.
    Others(Option<Arc<PodRef>>),
}

impl Key {
    pub(super) fn new(series: &RouteSeries, kind: RouteKind) -> Key {
        let of = match &series.subject {
            Subject::Exact(labels) => Of::Exactly(Arc::clone(labels)),
            Subject::Overflow { workload, .. } => Of::Others(workload.clone()),
        };
        Key { kind, of }
    }

    /// What is left of it when there are too many.
    pub(super) fn other(self) -> Key {
        let of = match self.of {
            Of::Exactly(labels) => Of::Others(Some(Arc::clone(&labels.workload))),
            others @ Of::Others(_) => others,
        };
        Key { kind: self.kind, of }
    }

    fn workload(&self) -> Option<&PodRef> {
        match &self.of {
            Of::Exactly(labels) => Some(&labels.workload),
            Of::Others(workload) => workload.as_deref(),
        }
    }

    fn is_asked(&self, query: &v1::RoutesQuery) -> bool {
        let is = |asked: &str, namespace: &str| asked.is_empty() || asked == namespace;
        let is_client = self.workload().is_none_or(|pod| is(&query.client_namespace, &pod.namespace));
        let is_service = match &self.of {
            Of::Exactly(labels) => is(&query.service_namespace, &labels.parent.namespace),
            Of::Others(_) => true,
        };
        is_client && is_service
    }
}

/// Lines of a report.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) lines: Vec<v1::RouteReport>,
    pub(super) left_out: u64,
    pub(super) bounds_ms: Vec<f64>,
}

impl Routes {
    /// What `query` asks about, over the last `wanted`.
    pub(super) fn of(
        window: &Window,
        query: &v1::RoutesQuery,
        now: std::time::Duration,
        wanted: std::time::Duration,
    ) -> Routes {
        let sums = window.sum_routes(now, wanted, |key| key.is_asked(query));
        let mut sums: Vec<(&Key, RouteCounts)> = sums.into_iter().collect();
        let busy = |counts: &RouteCounts| counts.durations.iter().sum::<u64>();
        sums.sort_by_key(|(_, counts)| std::cmp::Reverse(busy(counts)));
        let left_out = sums.len().saturating_sub(limits::ROUTES_REPORTED);
        sums.truncate(limits::ROUTES_REPORTED);
        Routes {
            lines: sums.into_iter().map(|(key, counts)| line(key, counts)).collect(),
            left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            bounds_ms: DURATION_BOUNDS_MS.iter().map(|bound| f64::from(*bound)).collect(),
        }
    }
}

fn line(key: &Key, counts: RouteCounts) -> v1::RouteReport {
    let RouteCounts { success, failure, timeouts, retries, durations } = counts;
    let counted = v1::RouteReport {
        workload: key.workload().map(workload),
        is_attempts: key.kind == RouteKind::Attempts,
        success_total: success,
        failure_total: failure,
        timeouts_total: timeouts,
        retries_total: retries,
        duration_counts: durations.to_vec(),
        ..v1::RouteReport::default()
    };
    let Of::Exactly(labels) = &key.of else { return counted };
    let name = |service: &ServiceRef| format!("{}/{}", service.namespace, service.name);
    v1::RouteReport {
        service: name(&labels.parent),
        port: labels.parent.port.into(),
        route: labels.route.as_deref().map(object),
        rule: labels.route.as_ref().map(|route| route.rule.to_string()).unwrap_or_default(),
        backend: labels.backend.as_ref().map(name).unwrap_or_default(),
        backend_port: labels.backend.as_ref().map_or(0, |backend| backend.port.into()),
        ..counted
    }
}

fn object(route: &ObjectRef) -> v1::ObjectRef {
    v1::ObjectRef {
        group: route.group.to_string(),
        kind: route.kind.to_string(),
        namespace: route.namespace.to_string(),
        name: route.name.to_string(),
    }
}

fn workload(pod: &PodRef) -> v1::PodRef {
    v1::PodRef {
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        owner_kind: pod.owner_kind.to_string(),
        owner_name: pod.owner_name.to_string(),
        ..v1::PodRef::default()
    }
}
