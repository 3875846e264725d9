//! Gauges asked of the rest of the process at each scrape. Must never wait.

use weir_core::snapshot::{ServiceTarget, Target};

use super::{Telemetry, families, labels::LabelText, process, state::NodeState, text::Text};

/// Writes all of them.
pub(super) fn write(telemetry: &Telemetry, series: [usize; 4], state: &dyn NodeState, text: &mut Text) {
    write_certificates(state, text);
    write_endpoints(state, text);
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
    let kinds = ["http", "tcp", "route", "backend"];
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

fn write_endpoints(state: &dyn NodeState, text: &mut Text) {
    let family = &families::BALANCER_ENDPOINTS;
    text.family(family);
    let snapshot = state.snapshot();
    let mut services: Vec<&ServiceTarget> = snapshot
        .destinations()
        .filter_map(|destination| match &destination.target {
            Target::Service(service) => Some(service),
            Target::Pod(_) | Target::Unknown => None,
        })
        .collect();
    // A dual-stack service has two addresses and one set of labels.
    services.sort_by(|a, b| (&a.namespace, &a.name, a.port).cmp(&(&b.namespace, &b.name, b.port)));
    services.dedup_by(|a, b| (&a.namespace, &a.name, a.port) == (&b.namespace, &b.name, b.port));
    for service in services {
        let mut labels = LabelText::default();
        for (prefix, kind) in [("parent", "Service"), ("backend", "Service")] {
            labels.push(&format!("{prefix}_group"), "core");
            labels.push(&format!("{prefix}_kind"), kind);
            labels.push(&format!("{prefix}_namespace"), &service.namespace);
            labels.push(&format!("{prefix}_name"), &service.name);
            labels.display(&format!("{prefix}_port"), service.port);
        }
        let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready).count();
        text.sample(family, labels.as_str(), &[("endpoint_state", "ready")], ready);
        let pending = service.endpoints.len() - ready;
        text.sample(family, labels.as_str(), &[("endpoint_state", "pending")], pending);
    }
}
