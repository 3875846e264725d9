//! A real Prometheus with the shipped configuration, asked what Linkerd's users ask.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;
use weir_tests::{cluster::PATIENCE, wait};

use crate::shop::{Shop, figure};

/// Requests of the load generator, on the path that answers 200 and on the one that answers 503.
const GOOD: u64 = 900;
const BAD: u64 = 100;
/// Those before, in the same proportion: enough that each server answers some of both, and has its series then.
const FIRST_GOOD: u64 = 360;
const FIRST_BAD: u64 = 40;
/// The slowest may be a scrape, a refresh of DNS and a series' life after its workload has gone (docs/metrics.md) together.
const SERIES_GONE: std::time::Duration = std::time::Duration::from_secs(600);

/// The success rate as Linkerd's CLI asks for it (`linkerd viz stat`), and as Flagger's Linkerd provider does.
const LINKERD: &str = r#"sum(increase(response_total{direction="outbound", namespace="scrape", deployment="client", classification="success"}[10m])) / sum(increase(response_total{direction="outbound", namespace="scrape", deployment="client"}[10m]))"#;
const FLAGGER: &str = r#"sum(rate(response_total{namespace="scrape", deployment=~"web", classification!="failure", direction="inbound"}[10m])) / sum(rate(response_total{namespace="scrape", deployment=~"web", direction="inbound"}[10m])) * 100"#;
const FLAGGER_LATENCY: &str = r#"histogram_quantile(0.99, sum(rate(response_latency_ms_bucket{namespace="scrape", deployment=~"web", direction="inbound"}[10m])) by (le))"#;

/// Counts in Prometheus are the load generator's own, by workload; and a pod that left is forgotten.
#[test]
fn prometheus_sees_workloads_and_counts_what_the_client_counted() {
    let shop = Shop::open("scrape", 4);
    shop.cluster.apply(&prometheus());
    shop.cluster.rolled_out(&shop.namespace, "deployment/prometheus");
    // All but Prometheus are meshed: it scrapes from outside.
    shop.mesh(4);
    let targets = wait::until("three targets that are up", PATIENCE, || {
        let up = query(&shop, "up{job=\"weir\"}")?;
        let up: Vec<String> = up.iter().filter(|one| one.1 == 1.0).map(|one| one.0["component"].to_string()).collect();
        (up.len() == 3).then_some(up)
    });
    assert_eq!(targets.iter().filter(|component| component.contains("proxy")).count(), 2, "{targets:?}");
    // The first requests make the series, whose beginning no `increase` sees; they are scraped before the others come.
    load(&shop, FIRST_GOOD, FIRST_BAD);
    scraped(&shop, FIRST_GOOD + FIRST_BAD);
    load(&shop, GOOD, BAD);
    scraped(&shop, FIRST_GOOD + FIRST_BAD + GOOD + BAD);
    let by_status = query(&shop, r#"sum(response_total{namespace="scrape", deployment="client", direction="outbound"}) by (status_code, classification, tls, dst_service)"#).unwrap();
    let of = |code: &str| by_status.iter().filter(|one| one.0["status_code"] == code).map(|one| one.1).sum::<f64>();
    assert_eq!((of("200"), of("503")), ((FIRST_GOOD + GOOD) as f64, (FIRST_BAD + BAD) as f64), "{by_status:?}");
    let inbound = query(
        &shop,
        r#"sum(response_total{namespace="scrape", deployment="web", direction="inbound", client_id!=""}) by (pod)"#,
    )
    .unwrap();
    assert_eq!(inbound.len(), 4, "each server by its own name: {inbound:?}");
    assert_eq!(inbound.iter().map(|one| one.1).sum::<f64>(), (FIRST_GOOD + FIRST_BAD + GOOD + BAD) as f64);
    // What others ask of the servers (kubelet's probes) is counted, too: the ratio of the counters says what the queries must.
    let sum = |which: &str| {
        let text =
            format!(r#"sum(response_total{{namespace="scrape", deployment="web", direction="inbound"{which}}})"#);
        query(&shop, &text).unwrap()[0].1
    };
    let healthy = 100.0 * sum(r#", classification="success""#) / sum("");
    for (name, text, expected, tolerance) in [
        ("success rate as `linkerd viz stat` asks for it", LINKERD, 0.9, 0.02),
        ("success rate as Flagger asks for it, %", FLAGGER, healthy, 2.0),
        ("latency as Flagger asks for it, ms", FLAGGER_LATENCY, 500.0, 499.9),
    ] {
        let answer = query(&shop, text).unwrap()[0].1;
        figure(name, answer);
        assert!((answer - expected).abs() <= tolerance, "{name}: {answer}, expected {expected}");
    }
    is_clean(&shop);
    shop.cluster.kubectl(&["-n", &shop.namespace, "scale", "deployment/web", "--replicas", "1"]);
    let left = r#"count(count by (pod) (response_total{namespace="scrape", deployment="web", direction="inbound"}))"#;
    wait::until("only one server's series", SERIES_GONE, || (query(&shop, left)?.first()?.1 == 1.0).then_some(()));
}

fn load(shop: &Shop, good: u64, bad: u64) {
    for (path, count) in [("", good), ("bad", bad)] {
        let said = shop.client(&["h2load", "--h1", "-n", &count.to_string(), "-c", "4", &format!("http://web/{path}")]);
        assert!(said.contains(&format!("{count} done")), "{said}");
    }
}

/// Waits until this many requests are in Prometheus.
fn scraped(shop: &Shop, requests: u64) {
    let total = r#"sum(request_total{namespace="scrape", deployment="client", direction="outbound"})"#;
    let received = r#"sum(response_total{namespace="scrape", deployment="web", direction="inbound", client_id!=""})"#;
    wait::until("all requests scraped", PATIENCE, || {
        let enough = |text: &str| Some(query(shop, text)?.first()?.1 == requests as f64);
        (enough(total)? && enough(received)?).then_some(())
    });
}

/// An instant query: labels and value of each series.
fn query(shop: &Shop, text: &str) -> Option<Vec<(Value, f64)>> {
    let arguments =
        ["-n", &shop.namespace, "exec", "deployment/prometheus", "--", "curl", "-sS", "-G", "--data-urlencode"];
    let text = format!("query={text}");
    let output = shop.cluster.try_kubectl(&[&arguments[..], &[&text, "http://127.0.0.1:9090/api/v1/query"]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let series = answer.pointer("/data/result")?.as_array()?;
    let value = |one: &Value| one.pointer("/value/1")?.as_str()?.parse().ok();
    Some(series.iter().filter_map(|one| Some((one["metric"].clone(), value(one)?))).collect())
}

/// `promtool check metrics` has nothing to say about either kind of target, but Linkerd's own unit (docs/metrics.md).
fn is_clean(shop: &Shop) {
    let pods = shop.cluster.get(&["-n", "weir", "pods", "-l", "weir.mesh/metrics"]);
    for pod in pods["items"].as_array().unwrap() {
        let port = if pod["metadata"]["labels"]["weir.mesh/component"] == "proxy" { 4191 } else { 9990 };
        let address = pod["status"]["podIP"].as_str().unwrap();
        let text = shop.client(&["curl", "-sS", "--fail", &format!("http://{address}:{port}/metrics")]);
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let said = String::from_utf8_lossy(&promtool.wait_with_output().unwrap().stderr).into_owned();
        let others: Vec<&str> = said.lines().filter(|line| !line.contains("response_latency_ms")).collect();
        assert!(text.len() > 1_000 && others.is_empty(), "{others:?}");
    }
}

/// Debian's Prometheus with the configuration as it is shipped.
fn prometheus() -> String {
    let shipped = fs::read_to_string("../deploy/prometheus-dns.yml").unwrap();
    let indented: String = shipped.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: prometheus, namespace: scrape}}
data:
  prometheus.yml: |
{indented}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: prometheus, namespace: scrape}}
spec:
  selector: {{matchLabels: {{app: prometheus}}}}
  template:
    metadata: {{labels: {{app: prometheus, weir.mesh/enabled: "false"}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: prometheus
          image: weir-test/apps:1
          imagePullPolicy: Never
          command: [prometheus, --config.file=/etc/prometheus/prometheus.yml, --storage.tsdb.path=/tmp/data]
          readinessProbe: {{httpGet: {{path: /-/ready, port: 9090}}, periodSeconds: 1}}
          volumeMounts: [{{name: prometheus, mountPath: /etc/prometheus}}]
      volumes: [{{name: prometheus, configMap: {{name: prometheus}}}}]
"#
    )
}
