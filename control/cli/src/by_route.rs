//! Requests by the route that decided, and attempts by backend, summed up over nodes. Must never count an attempt as a request.

use std::collections::BTreeMap;

use weir_api::v1::{ObserveResponse, Report, RouteReport};

use crate::{flows::seconds, histogram::Histogram, output::note};

/// Linkerd's name for what falls under no route.
const DEFAULT: &str = "[DEFAULT]";

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServicePort {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u32,
}

impl ServicePort {
    fn parse(name: &str, port: u32) -> Option<ServicePort> {
        let (namespace, name) = name.split_once('/')?;
        Some(ServicePort { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }

    /// `web:80`; from another namespace `web.shop:80`, as a client there writes it.
    pub(crate) fn seen_from(&self, namespace: &str) -> String {
        let ServicePort { namespace: own, name, port } = self;
        if own == namespace { format!("{name}:{port}") } else { format!("{name}.{own}:{port}") }
    }
}

/// What decided, in the order of lines: what falls under no route comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteName {
    is_default: bool,
    /// Of the object, or of the rule where rules have names.
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Empty where there is no route.
    pub(crate) kind: String,
}

impl RouteName {
    fn of(row: &RouteReport) -> RouteName {
        let object = row.route.clone().unwrap_or_default();
        let name = [row.rule.as_str(), &object.name, DEFAULT].into_iter().find(|name| !name.is_empty());
        let name = name.unwrap_or(DEFAULT).to_owned();
        RouteName { is_default: name == DEFAULT, name, namespace: object.namespace, kind: object.kind }
    }

    /// With its namespace where that is not the Service's.
    pub(crate) fn seen_from(&self, namespace: &str) -> String {
        let is_own = self.namespace.is_empty() || self.namespace == namespace;
        if is_own { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// Sums of requests, or of attempts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) success: u64,
    pub(crate) failure: u64,
    pub(crate) timeouts: u64,
    pub(crate) retries: u64,
    rate: f64,
    durations: Histogram,
}

impl Counts {
    fn add(&mut self, row: &RouteReport, bounds_ms: &[f64], seconds: f64) {
        self.success = self.success.saturating_add(row.success_total);
        self.failure = self.failure.saturating_add(row.failure_total);
        self.timeouts = self.timeouts.saturating_add(row.timeouts_total);
        self.retries = self.retries.saturating_add(row.retries_total);
        self.rate += row.success_total.saturating_add(row.failure_total) as f64 / seconds;
        self.durations.add(bounds_ms, &row.duration_counts);
    }

    /// All that ended well or badly.
    pub(crate) fn ended(&self) -> u64 {
        self.success.saturating_add(self.failure)
    }

    /// Share that ended well; `None` of nothing.
    pub(crate) fn success_rate(&self) -> Option<f64> {
        share(self.success, self.ended())
    }

    /// Per second; `None` of nothing.
    pub(crate) fn per_second(&self) -> Option<f64> {
        (self.ended() > 0).then_some(self.rate)
    }

    /// Share that met a time limit.
    pub(crate) fn timeout_rate(&self) -> Option<f64> {
        share(self.timeouts, self.ended())
    }

    /// Share of all that was sent that was sent again (Linkerd's).
    pub(crate) fn retry_rate(&self) -> Option<f64> {
        share(self.retries, self.ended().saturating_add(self.retries))
    }

    /// Milliseconds below which a share of them took.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        self.durations.quantile(quantile)
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    // What met its limit when its client had left is not among those that ended.
    (all > 0).then(|| (part as f64 / all as f64).min(1.0))
}

/// What became of requests, and of the attempts that they took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests: Counts,
    /// At all backends.
    pub(crate) attempts: Counts,
    pub(crate) backends: BTreeMap<ServicePort, Counts>,
}

/// All lines of all nodes that `keys` finds a place for. `asked`: seconds.
pub(crate) fn figures<K: Ord>(
    reports: &[Report],
    asked: f64,
    keys: impl Fn(&RouteReport, &ServicePort, &RouteName) -> Vec<K>,
) -> BTreeMap<K, Figures> {
    let mut all: BTreeMap<K, Figures> = BTreeMap::new();
    for (report, row) in reports.iter().flat_map(|report| report.routes.iter().map(move |row| (report, row))) {
        let Some(service) = ServicePort::parse(&row.service, row.port) else { continue };
        let (bounds, seconds) = (&*report.route_bounds_ms, seconds(report, asked));
        for key in keys(row, &service, &RouteName::of(row)) {
            let figures = all.entry(key).or_default();
            if !row.is_attempts {
                figures.requests.add(row, bounds, seconds);
                continue;
            }
            figures.attempts.add(row, bounds, seconds);
            if let Some(backend) = ServicePort::parse(&row.backend, row.backend_port) {
                figures.backends.entry(backend).or_default().add(row, bounds, seconds);
            }
        }
    }
    all
}

/// Says what the lines leave out.
pub(crate) fn note_left_out(answer: &ObserveResponse) {
    for report in answer.reports.iter().filter(|report| report.routes_left_out > 0) {
        let (name, count) = (&report.node_name, report.routes_left_out);
        note(&format!(
            "node {name} has {count} lines more, with fewer requests, than a report holds: try one namespace"
        ));
    }
    let rows = answer.reports.iter().flat_map(|report| &report.routes);
    let untold = rows.filter(|row| row.service.is_empty() && !row.is_attempts);
    let requests =
        untold.fold(0_u64, |sum, row| sum.saturating_add(row.success_total).saturating_add(row.failure_total));
    if requests > 0 {
        note(&format!("{requests} requests fell under more routes than nodes tell apart, and are not shown"));
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Requests of two clients on two nodes.

    use weir_api::v1::{ObjectRef, PodRef, Report, RouteReport};

    fn row(client: &str, service: &str, route: Option<(&str, &str, &str)>, counts: [u64; 4]) -> RouteReport {
        let [success, failure, timeouts, retries] = counts;
        RouteReport {
            workload: Some(PodRef {
                namespace: "shop".into(),
                name: format!("{client}-1"),
                owner_kind: "deployment".into(),
                owner_name: client.into(),
                ..PodRef::default()
            }),
            service: service.into(),
            port: 80,
            route: route.map(|(kind, namespace, name)| ObjectRef {
                kind: kind.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..ObjectRef::default()
            }),
            success_total: success,
            failure_total: failure,
            timeouts_total: timeouts,
            retries_total: retries,
            duration_counts: vec![0, success + failure, 0],
            ..RouteReport::default()
        }
    }

    fn attempts(row: &RouteReport, backend: &str, counts: [u64; 3]) -> RouteReport {
        let [success_total, failure_total, timeouts_total] = counts;
        RouteReport {
            is_attempts: true,
            backend: backend.into(),
            backend_port: 8080,
            success_total,
            failure_total,
            timeouts_total,
            retries_total: 0,
            duration_counts: vec![success_total + failure_total, 0, 0],
            ..row.clone()
        }
    }

    /// `cart` calls `web` by a route with retries, from both nodes, and by none; `cron` by a ServiceProfile of its own namespace.
    pub(crate) fn reports() -> Vec<Report> {
        let main = Some(("HTTPRoute", "shop", "main"));
        let routed = row("cart", "shop/web", main, [95, 5, 2, 25]);
        let profiled = row("cron", "front/api", Some(("ServiceProfile", "shop", "api.front.svc")), [10, 0, 0, 0]);
        let profiled = RouteReport { rule: "GET /a".into(), ..profiled };
        let lost = RouteReport { service: String::new(), port: 0, ..row("cart", "", None, [7, 0, 0, 0]) };
        let report =
            |routes| Report { routes, window_seconds: 10.0, route_bounds_ms: vec![10.0, 20.0], ..Report::default() };
        vec![
            report(vec![
                attempts(&routed, "shop/v1", [60, 0, 0]),
                attempts(&routed, "shop/v2", [35, 30, 4]),
                row("cart", "shop/web", None, [20, 0, 0, 0]),
                routed.clone(),
                lost,
            ]),
            report(vec![routed, profiled]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_clients_are_summed_up() {
        let all = figures(&fixtures::reports(), 60.0, |_, service, route| vec![(service.clone(), route.clone())]);
        let lines: Vec<(String, String)> = all
            .keys()
            .map(|(service, route)| (service.seen_from("shop"), route.seen_from(&service.namespace)))
            .collect();
        let expected = [("api.front:80", "shop/GET /a"), ("web:80", "main"), ("web:80", "[DEFAULT]")]
            .map(|(service, route)| (service.to_owned(), route.to_owned()));
        assert_eq!(lines, expected, "what falls under no route comes last");
        let main = all.values().nth(1).unwrap();
        let Counts { success, failure, timeouts, retries, .. } = &main.requests;
        assert_eq!([*success, *failure, *timeouts, *retries], [190, 10, 4, 50], "both nodes");
        assert_eq!((main.requests.success_rate(), main.requests.per_second()), (Some(0.95), Some(20.0)));
        assert_eq!((main.requests.retry_rate(), main.requests.timeout_rate()), (Some(0.2), Some(0.02)));
        assert_eq!((main.attempts.ended(), main.attempts.success), (125, 95), "attempts are no requests");
        assert_eq!(main.backends.len(), 2);
        assert_eq!((main.requests.quantile(0.5), main.attempts.quantile(0.5)), (Some(15.0), Some(5.0)));
    }

    #[test]
    fn nothing_is_no_number() {
        let nothing = Counts::default();
        assert_eq!(
            [nothing.success_rate(), nothing.per_second(), nothing.timeout_rate(), nothing.quantile(0.5)],
            [None; 4]
        );
        let odd = RouteReport { service: "web".into(), success_total: u64::MAX, ..RouteReport::default() };
        let named = RouteReport {
            service: "a/web".into(),
            failure_total: u64::MAX,
            retries_total: u64::MAX,
            timeouts_total: 9,
            ..odd.clone()
        };
        let report = Report { routes: vec![odd, named.clone(), named], window_seconds: f64::NAN, ..Report::default() };
        let all = figures(&[report], 60.0, |_, service, _| vec![service.name.clone()]);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["web"]);
        assert!(all["web"].requests.timeout_rate().is_some_and(|share| share <= 1.0));
    }
}
