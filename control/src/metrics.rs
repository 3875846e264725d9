//! Control's own metrics. Must never have a label whose values others choose.

use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::{index::Index, objects::Kind};

/// Counters and gauges, by the names that they are scraped under.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    objects: IntGaugeVec,
    findings: IntGauge,
    nodes: IntGauge,
    upserts: IntCounter,
    removals: IntCounter,
    rejected: IntCounter,
    certificates: IntCounterVec,
}

macro_rules! registered {
    ($registry:expr, $made:expr) => {{
        // Names are constants of this file: the test below makes them once.
        let made = $made;
        if let Err(error) = $registry.register(Box::new(made.clone())) {
            tracing::error!(%error, "a metric cannot be registered");
        }
        made
    }};
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        Metrics {
            objects: registered!(
                registry,
                constant(IntGaugeVec::new(Opts::new("weir_control_objects", "Kubernetes objects in use"), &["kind"]))
            ),
            findings: registered!(
                registry,
                constant(gauge("weir_control_refused_objects", "Objects or files that are refused at this moment"))
            ),
            nodes: registered!(registry, constant(gauge("weir_control_nodes", "Connected nodes"))),
            upserts: registered!(
                registry,
                constant(counter("weir_control_sent_upserts_total", "Resources sent to nodes"))
            ),
            removals: registered!(
                registry,
                constant(counter("weir_control_sent_removals_total", "Removals sent to nodes"))
            ),
            rejected: registered!(
                registry,
                constant(counter("weir_control_rejected_total", "Resources that nodes did not take"))
            ),
            certificates: registered!(
                registry,
                constant(IntCounterVec::new(
                    Opts::new("weir_control_certificates_total", "Certificate requests by outcome"),
                    &["outcome"]
                ))
            ),
            registry,
        }
    }

    /// Counts objects anew.
    pub fn objects(&self, index: &Index) {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ServiceAccount) {
            self.objects.with_label_values(&[kind.shown()]).set(whole(index.count(kind)));
        }
    }

    /// Refused objects now.
    pub fn findings(&self, count: usize) {
        self.findings.set(whole(count));
    }

    /// Connected nodes now.
    pub fn nodes(&self, count: usize) {
        self.nodes.set(whole(count));
    }

    /// An update was sent.
    pub fn update(&self, upserts: usize, removals: usize) {
        self.upserts.inc_by(upserts as u64);
        self.removals.inc_by(removals as u64);
    }

    /// A node refused resources.
    pub fn rejected(&self, count: usize) {
        self.rejected.inc_by(count as u64);
    }

    /// A certificate was `issued` or `refused`.
    pub fn certificate(&self, outcome: &'static str) {
        self.certificates.with_label_values(&[outcome]).inc();
    }

    /// As text.
    pub fn scrape(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::expect_used, reason = "names and help are constants of this file, tried by its test")]
fn constant<T>(made: prometheus::Result<T>) -> T {
    made.expect("a valid metric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_registered_and_counted() {
        let metrics = Metrics::new();
        metrics.update(3, 1);
        metrics.rejected(2);
        metrics.nodes(5);
        metrics.findings(4);
        metrics.certificate("issued");
        metrics.objects(&Index::default());
        let text = metrics.scrape();
        for line in [
            "weir_control_sent_upserts_total 3",
            "weir_control_sent_removals_total 1",
            "weir_control_rejected_total 2",
            "weir_control_nodes 5",
            "weir_control_refused_objects 4",
            "weir_control_certificates_total{outcome=\"issued\"} 1",
            "weir_control_objects{kind=\"Pod\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
