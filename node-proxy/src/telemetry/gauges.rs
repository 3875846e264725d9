//! Gauges asked of the rest of the process at each scrape. Must never wait.

use std::sync::Arc;

use weir_core::snapshot::{Endpoint, ServiceTarget, Snapshot};

use super::{Telemetry, families, labels::LabelText, process, state::NodeState, text::Text};

/// Writes all of them.
pub(super) fn write(telemetry: &Telemetry, series: [usize; 6], state: &dyn NodeState, text: &mut Text) {
    write_certificates(state, text);
    write_balancers(state, text);
    let captures = state.captures();
    let captured = captures.iter().filter(|capture| capture.captured).count();
    let family = &families::CAPTURED;
    text.family(family);
    text.sample(family, "", &[("state", "captured")], captured);
    text.sample(family, "", &[("state", "refused")], captures.len() - captured);
    for (family, value) in
        [(&families::STOCK, state.sockets_in_stock()), (&families::CONTROL, usize::from(state.control_connected()))]
    {
        text.family(family);
        text.sample(family, "", &[], value);
    }
    let family = &families::SERIES;
    text.family(family);
    let kinds = ["http", "tcp", "route", "backend", "mirror", "connection"];
    for (kind, count) in kinds.iter().zip(series) {
        text.sample(family, "", &[("kind", kind)], count);
    }
    let family = &families::SERIES_OVERFLOW;
    text.family(family);
    let overflowed = [
        telemetry.http.overflowed(),
        telemetry.tcp.overflowed(),
        telemetry.routes.overflowed(),
        telemetry.backends.overflowed(),
        telemetry.mirrors.overflowed(),
        telemetry.connections.overflowed(),
    ];
    for (kind, count) in kinds.iter().zip(overflowed) {
        text.sample(family, "", &[("kind", kind)], count);
    }
    process::write(text);
    let family = &families::BUILD;
    text.family(family);
    text.sample(family, "", &[("version", env!("CARGO_PKG_VERSION")), ("vendor", "weir")], 1);
}

fn write_certificates(state: &dyn NodeState, text: &mut Text) {
    let family = &families::CERT_EXPIRATION;
    text.family(family);
    let mut certificates = state.certificates();
    certificates.sort_by(|a, b| a.identity.as_str().cmp(b.identity.as_str()));
    certificates.dedup_by(|a, b| a.identity == b.identity);
    for certificate in certificates {
        let mut labels = LabelText::default();
        labels.push("identity", certificate.identity.as_str());
        text.sample(family, labels.as_str(), &[], certificate.not_after);
    }
}

/// A service that is dialled, and what its requests are balanced over: itself, or a service that its routes name.
type Balanced<'a> = (&'a ServiceTarget, &'a ServiceTarget);

fn balanced(snapshot: &Snapshot) -> Vec<Balanced<'_>> {
    let services = snapshot.destinations().filter_map(|destination| destination.service());
    let mut all: Vec<Balanced<'_>> = Vec::new();
    for service in services {
        all.push((service, service));
        all.extend(service.backends.iter().map(|backend| (service, &**backend)));
    }
    let name = |service: &ServiceTarget| (Arc::clone(&service.namespace), Arc::clone(&service.name), service.port);
    let key = |(parent, backend): &Balanced<'_>| (name(parent), name(backend));
    // A dual-stack service has two addresses and one set of labels.
    all.sort_by_cached_key(key);
    all.dedup_by_key(|one| key(one));
    all
}

fn write_balancers(state: &dyn NodeState, text: &mut Text) {
    let snapshot = state.snapshot();
    let labelled: Vec<(LabelText, &ServiceTarget)> = balanced(&snapshot)
        .into_iter()
        .map(|(parent, backend)| {
            let mut labels = LabelText::default();
            for (prefix, service) in [("parent", parent), ("backend", backend)] {
                labels.push(&format!("{prefix}_group"), "core");
                labels.push(&format!("{prefix}_kind"), "Service");
                labels.push(&format!("{prefix}_namespace"), &service.namespace);
                labels.push(&format!("{prefix}_name"), &service.name);
                labels.display(&format!("{prefix}_port"), service.port);
            }
            (labels, backend)
        })
        .collect();
    let family = &families::BALANCER_ENDPOINTS;
    text.family(family);
    for (labels, service) in &labelled {
        let is_out = |endpoint: &&Arc<Endpoint>| endpoint.health.as_ref().is_some_and(|health| !health.is_in());
        let ejected = service.ready_endpoints().iter().filter(is_out).count();
        let ready = service.ready_endpoints().len() - ejected;
        let states = [
            ("ready", ready),
            ("ejected", ejected),
            ("pending", service.endpoints.len().saturating_sub(ready + ejected)),
        ];
        // Linkerd's two, and one more where there is a breaker.
        let has_breaker = service.breaker.is_some();
        for (state, count) in states.into_iter().filter(|(state, _)| has_breaker || *state != "ejected") {
            text.sample(family, labels.as_str(), &[("endpoint_state", state)], count);
        }
    }
    let family = &families::BALANCER_EJECTIONS;
    text.family(family);
    for (labels, service) in &labelled {
        if let Some(breaker) = &service.breaker {
            text.sample(family, labels.as_str(), &[], breaker.ejections());
        }
    }
}
