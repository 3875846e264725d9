//! What this node knows about its traffic and workloads, over a window of time: the answer to control's queries.
//!
//! Samples hold only what changed. Must never touch the hot path, and never keep more than `limits::SAMPLES` samples.

mod checks;
mod endpoints;
mod routes;
#[cfg(test)]
mod tests;
mod traffic;
mod window;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use weir_api::v1;
use weir_core::snapshot::{PodRef, Snapshot, Workload};

use self::{routes::Routes, traffic::Key, window::Window};
use crate::{
    limits,
    telemetry::{NodeState, Telemetry},
};

/// Makes reports. One per process: it is the one consumer of what the series grew by.
pub struct Reporter {
    node_name: String,
    telemetry: Arc<Telemetry>,
    state: Arc<dyn NodeState>,
    window: Mutex<Window>,
}

impl Reporter {
    /// Samples begin now.
    pub fn new(node_name: impl Into<String>, telemetry: Arc<Telemetry>, state: Arc<dyn NodeState>) -> Reporter {
        let window = Mutex::new(Window::new(telemetry.now()));
        Reporter { node_name: node_name.into(), telemetry, state, window }
    }

    /// Samples every `limits::SAMPLE_INTERVAL` and drops idle series, for ever. Run once, on the admin runtime.
    pub async fn run(&self) {
        let mut ticks = interval(limits::SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick_at(self.telemetry.now());
        }
    }

    /// Looks every `limits::OUT_LOOK` which endpoints are out, for ever. Run once, on the admin runtime.
    pub async fn follow_out(&self, tell: impl Fn(v1::OutEndpoints)) {
        let mut looks = interval(limits::OUT_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            tell(endpoints::out(&self.state.snapshot()));
        }
    }

    fn tick_at(&self, now: Duration) {
        let snapshot = self.state.snapshot();
        let mut window = self.window.lock();
        self.sample(&mut window, &snapshot, now);
        window.close(now);
    }

    /// Traffic of the last `window_seconds` (1 to 300; rounded up to whole samples), everything else as of now.
    ///
    /// `id` of the query is left to the caller.
    pub fn report(&self, query: &v1::Query) -> v1::Report {
        self.report_at(query, self.telemetry.now())
    }

    /// The answer to a query about the log level, and about nothing else.
    pub fn of_log_level(&self, said: v1::LogLevelReport) -> v1::Report {
        v1::Report {
            node_name: self.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_level: Some(said),
            ..v1::Report::default()
        }
    }

    fn report_at(&self, query: &v1::Query, now: Duration) -> v1::Report {
        let longest = limits::SAMPLE_INTERVAL * limits::SAMPLES as u32;
        let wanted = Duration::from_secs(u64::from(query.window_seconds)).clamp(Duration::from_secs(1), longest);
        let snapshot = self.state.snapshot();
        let (covered, mut traffic, routes) = {
            let mut window = self.window.lock();
            self.sample(&mut window, &snapshot, now);
            let routes = query.routes.as_ref().map(|asked| Routes::of(&window, asked, now, wanted)).unwrap_or_default();
            let (covered, traffic) = window.sum(now, wanted);
            (covered, traffic, routes)
        };
        for series in self.telemetry.tcp_series() {
            let open = series.open_now();
            if open > 0 && traffic::reported(&series) {
                traffic.entry(Arc::new(Key::of_tcp(&series.subject))).or_default().open += open;
            }
        }
        let (endpoints, endpoints_left_out) = query
            .endpoints
            .as_ref()
            .map(|asked| endpoints::reports(&snapshot, asked, self.state.now()))
            .unwrap_or_default();
        v1::Report {
            query_id: 0,
            node_name: self.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            window_seconds: covered.as_secs_f64(),
            traffic: traffic.iter().map(|(key, sum)| traffic::report(key, sum)).collect(),
            workloads: self.workloads(&snapshot),
            endpoints,
            checks: checks::all(&*self.state, &snapshot),
            endpoints_left_out,
            routes: routes.lines,
            routes_left_out: routes.left_out,
            route_bounds_ms: routes.bounds_ms,
            log_level: None,
        }
    }

    fn sample(&self, window: &mut Window, snapshot: &Snapshot, now: Duration) {
        let local: HashSet<&PodRef> = snapshot.workloads().map(|workload| &*workload.pod).collect();
        let window = std::cell::RefCell::new(window);
        self.telemetry.advance(
            now,
            |pod| local.contains(pod),
            |series, growth| window.borrow_mut().add_http(Key::of_http(&series.subject), &growth),
            |series, growth| {
                if traffic::reported(series) {
                    window.borrow_mut().add_tcp(Key::of_tcp(&series.subject), &growth);
                }
            },
            |series, kind, growth| window.borrow_mut().add_route(routes::Key::new(series, kind), &growth),
        );
    }

    fn workloads(&self, snapshot: &Snapshot) -> Vec<v1::WorkloadReport> {
        let captures: HashMap<Arc<str>, _> =
            self.state.captures().into_iter().map(|capture| (Arc::clone(&capture.uid), capture)).collect();
        let certificates = self.state.certificates();
        let report = |workload: &Arc<Workload>| {
            let capture = captures.get(&workload.uid);
            let certificate = certificates.iter().find(|certificate| certificate.identity == workload.identity);
            let unknown = || "not handed to the holder yet".to_owned();
            v1::WorkloadReport {
                uid: workload.uid.to_string(),
                pod: Some(pod_ref(&workload.pod)),
                captured: capture.is_some_and(|capture| capture.captured),
                reason: capture.map_or_else(unknown, |capture| capture.reason.clone()),
                identity: workload.identity.as_str().to_owned(),
                certificate_chain: certificate.map(|certificate| certificate.chain.clone()).unwrap_or_default(),
            }
        };
        snapshot.workloads().map(report).collect()
    }
}

/// As the contract writes it.
pub(crate) fn pod_ref(pod: &PodRef) -> v1::PodRef {
    v1::PodRef {
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        service_account: pod.service_account.to_string(),
        owner_kind: pod.owner_kind.to_string(),
        owner_name: pod.owner_name.to_string(),
        node_name: pod.node_name.to_string(),
        zone: pod.zone.to_string(),
        pod_template_hash: pod.pod_template_hash.to_string(),
    }
}
