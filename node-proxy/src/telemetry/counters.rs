//! Counters that have no workload: errors, detection, certificates, passed-through TLS.
//!
//! Must never take a label value from a peer without a bound.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use weir_core::detect::Detected;

use super::{
    families::{self, Family},
    labels::{Direction, LabelText},
    slots::Slots,
    text::Text,
};
use crate::limits;

/// Values of the label `result`, as Linkerd's.
const DETECT_RESULTS: [&str; 4] = ["http/1", "http/2", "not_http", "read_timeout"];
/// Stands for label values that came after a bound was reached.
const OVERFLOW: &str = "overflow";

struct PerDirection {
    http_errors: Slots<&'static str>,
    tcp_errors: Slots<&'static str>,
    detected: [AtomicU64; DETECT_RESULTS.len()],
}

impl Default for PerDirection {
    fn default() -> PerDirection {
        PerDirection {
            http_errors: Slots::new(limits::CLOSE_KINDS),
            tcp_errors: Slots::new(limits::CLOSE_KINDS),
            detected: Default::default(),
        }
    }
}

/// As the client sent it, if it sent one.
type ServerName = (Direction, Option<Arc<str>>);

#[derive(Default)]
pub(super) struct Counters {
    inbound: PerDirection,
    outbound: PerDirection,
    transport_headers: AtomicU64,
    certificate_refreshes: [AtomicU64; 2],
    access_log_dropped: AtomicU64,
    passed_tls: Mutex<BTreeMap<ServerName, u64>>,
}

impl Counters {
    fn of(&self, direction: Direction) -> &PerDirection {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    pub(super) fn http_error(&self, direction: Direction, error: &'static str) {
        let _within_bound = self.of(direction).http_errors.add(error);
    }

    pub(super) fn tcp_error(&self, direction: Direction, error: &'static str) {
        let _within_bound = self.of(direction).tcp_errors.add(error);
    }

    pub(super) fn detected(&self, direction: Direction, detected: Detected) {
        let index = match detected {
            Detected::Http1 => 0,
            Detected::Http2 => 1,
            Detected::Tls | Detected::Opaque => 2,
        };
        self.of(direction).detected[index].fetch_add(1, Relaxed);
    }

    pub(super) fn detect_timeout(&self, direction: Direction) {
        self.of(direction).detected[3].fetch_add(1, Relaxed);
    }

    pub(super) fn transport_header(&self) {
        self.transport_headers.fetch_add(1, Relaxed);
    }

    pub(super) fn certificate_refresh(&self, success: bool) {
        self.certificate_refreshes[usize::from(success)].fetch_add(1, Relaxed);
    }

    pub(super) fn access_log_dropped(&self) {
        self.access_log_dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn passed_tls(&self, direction: Direction, server_name: Option<&str>) {
        let name = server_name
            .map(|name| if name.len() > limits::LABEL_BYTES { OVERFLOW.to_owned() } else { name.to_ascii_lowercase() });
        let mut counts = self.passed_tls.lock();
        let mut key = (direction, name.map(Arc::from));
        if counts.len() >= limits::SNI_NAMES && !counts.contains_key(&key) {
            key.1 = Some(Arc::from(OVERFLOW));
        }
        *counts.entry(key).or_default() += 1;
    }

    /// Writes all of them.
    pub(super) fn write(&self, text: &mut Text) {
        let errors = |family: &'static Family, slots: &Slots<&'static str>, text: &mut Text| {
            text.family(family);
            for (error, count) in slots.iter() {
                text.sample(family, "", &[("error", error)], count);
            }
        };
        errors(&families::INBOUND_HTTP_ERRORS, &self.inbound.http_errors, text);
        errors(&families::OUTBOUND_HTTP_ERRORS, &self.outbound.http_errors, text);
        errors(&families::INBOUND_TCP_ERRORS, &self.inbound.tcp_errors, text);
        errors(&families::OUTBOUND_TCP_ERRORS, &self.outbound.tcp_errors, text);
        let results = |family: &'static Family, side: &PerDirection, text: &mut Text| {
            text.family(family);
            for (result, count) in DETECT_RESULTS.iter().zip(&side.detected) {
                text.sample(family, "", &[("result", result)], count.load(Relaxed));
            }
        };
        results(&families::INBOUND_DETECT, &self.inbound, text);
        results(&families::OUTBOUND_DETECT, &self.outbound, text);
        let header = &families::TRANSPORT_HEADERS;
        text.family(header);
        text.sample(header, "", &[], self.transport_headers.load(Relaxed));
        let refreshes = &families::CERT_REFRESHES;
        text.family(refreshes);
        for (result, count) in ["failure", "success"].iter().zip(&self.certificate_refreshes) {
            text.sample(refreshes, "", &[("result", result)], count.load(Relaxed));
        }
        let dropped = &families::ACCESS_LOG_DROPPED;
        text.family(dropped);
        text.sample(dropped, "", &[], self.access_log_dropped.load(Relaxed));
        self.write_passed_tls(text);
    }

    fn write_passed_tls(&self, text: &mut Text) {
        let family = &families::TLS_PASSED;
        text.family(family);
        for ((direction, name), count) in self.passed_tls.lock().iter() {
            let mut labels = LabelText::default();
            labels.push("direction", direction.label());
            if let Some(name) = name {
                labels.push("sni", name);
            }
            text.sample(family, labels.as_str(), &[], *count);
        }
    }
}
