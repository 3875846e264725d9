//! Who talks to whom: series are summed up to this before they are reported.
//!
//! Must never count a byte twice: of the two connections of one flow only the one towards the peer is reported.

use std::sync::Arc;

use weir_api::v1;
use weir_core::{identity::Identity, snapshot::PodRef};

use super::{pod_ref, window::Sum};
use crate::telemetry::{Direction, HttpLabels, LATENCY_BOUNDS_MS, Subject, TcpLabels, TcpSeries};

/// Traffic of one local workload with one peer, in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) direction: Direction,
    pub(super) workload: Option<Arc<PodRef>>,
    peer: Option<Arc<PodRef>>,
    service: Option<(Arc<str>, Arc<str>)>,
    tls: &'static str,
    client: Option<Identity>,
    server: Option<Identity>,
}

impl Key {
    pub(super) fn of_http(subject: &Subject<HttpLabels>) -> Key {
        match subject {
            Subject::Exact(labels) => {
                let HttpLabels {
                    direction,
                    workload,
                    peer,
                    tls,
                    client_id,
                    server_id,
                    authority: _,
                    target_addr: _,
                    service,
                    policy: _,
                } = &**labels;
                Key {
                    direction: *direction,
                    workload: Some(Arc::clone(workload)),
                    peer: peer.clone(),
                    service: service.clone(),
                    tls: tls.summary(),
                    client: client_id.clone(),
                    server: server_id.clone(),
                }
            }
            Subject::Overflow { direction, workload } => Key::other(*direction, workload.clone()),
        }
    }

    pub(super) fn of_tcp(subject: &Subject<TcpLabels>) -> Key {
        match subject {
            Subject::Exact(labels) => {
                let TcpLabels {
                    direction,
                    peer_is_src: _,
                    workload,
                    peer,
                    tls,
                    client_id,
                    server_id,
                    target_addr: _,
                    service,
                    policy: _,
                } = &**labels;
                Key {
                    direction: *direction,
                    workload: Some(Arc::clone(workload)),
                    peer: peer.clone(),
                    service: service.clone(),
                    tls: tls.summary(),
                    client: client_id.clone(),
                    server: server_id.clone(),
                }
            }
            Subject::Overflow { direction, workload } => Key::other(*direction, workload.clone()),
        }
    }

    /// What is left of a key when there are too many.
    pub(super) fn other(direction: Direction, workload: Option<Arc<PodRef>>) -> Key {
        Key { direction, workload, peer: None, service: None, tls: "overflow", client: None, server: None }
    }
}

/// Whether these connections are the side towards the peer.
pub(super) fn reported(series: &TcpSeries) -> bool {
    match &series.subject {
        Subject::Exact(labels) => labels.peer_is_src == (labels.direction == Direction::Inbound),
        Subject::Overflow { .. } => true,
    }
}

pub(super) fn report(key: &Key, sum: &Sum) -> v1::TrafficReport {
    let identity = |identity: &Option<Identity>| identity.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    let direction = match key.direction {
        Direction::Inbound => v1::Direction::Inbound,
        Direction::Outbound => v1::Direction::Outbound,
    };
    let has_latency = sum.latency.iter().any(|count| *count > 0);
    v1::TrafficReport {
        direction: direction.into(),
        workload: key.workload.as_deref().map(pod_ref),
        peer: key.peer.as_deref().map(pod_ref),
        service: key.service.as_ref().map(|(namespace, name)| format!("{namespace}/{name}")).unwrap_or_default(),
        tls: key.tls.to_owned(),
        client_identity: identity(&key.client),
        server_identity: identity(&key.server),
        success_total: sum.success,
        failure_total: sum.failure,
        latency_counts: if has_latency { sum.latency.to_vec() } else { Vec::new() },
        latency_bounds_ms: if has_latency {
            LATENCY_BOUNDS_MS.iter().map(|bound| f64::from(*bound)).collect()
        } else {
            Vec::new()
        },
        tcp_open_connections: sum.open,
        tcp_read_bytes: sum.read,
        tcp_write_bytes: sum.written,
    }
}
