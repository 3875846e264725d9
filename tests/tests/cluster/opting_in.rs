//! By label: running pods at once, new pods before their first container.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use weir_tests::wire;

use crate::{
    load::{Load, Stream},
    shop::{MARKER, Shop, figure, timed},
    tap::Tap,
};

/// What only those ask who ask when they are meshed.
const QUESTION: &str = "a-question-that-nobody-asked-before";

/// Running pods are meshed without a restart, and released again; open connections go on both times. Seen to fail with the holder's search for processes
/// switched off (`--processes` left out).
#[test]
fn a_label_meshes_running_pods_and_taking_it_off_releases_them() {
    let shop = Shop::open("opting-in", 6);
    let before = restarts(&shop);
    let address = shop.addresses("node-b").pop().unwrap();
    let plain = Tap::open();
    assert!(shop.client(&["curl", "-sS", &format!("http://{address}:8080/")]).contains(MARKER));
    assert!(wire::holds(&plain.close(), MARKER), "a pod that is not opted in speaks plainly");
    let load = Load::begin(&shop);
    shop.opt(true);
    let ((), took) = timed(|| shop.meshed(6, Duration::from_secs(10)));
    figure("label to all 10 pods captured and certified, as control's status says it", format!("{took:?}"));
    // What was opened before goes on as it began, in clear: only what is new is looked for.
    let secured = Tap::open();
    for target in [format!("http://{address}:8080/{QUESTION}"), format!("http://web/{QUESTION}")] {
        let said = shop.client(&["h2load", "--h1", "-n", "200", "-c", "4", &target]);
        assert!(said.contains("200 succeeded, 0 failed"), "{target}: {said}");
    }
    let wire = secured.close();
    assert!(wire.len() > 50_000 && !wire::holds(&wire, QUESTION), "{} bytes on the wire", wire.len());
    shop.opt(false);
    shop.cluster.meshed(0, Duration::from_secs(30));
    load.end().is_whole(Stream::Lives);
    let plain = Tap::open();
    assert!(shop.client(&["curl", "-sS", &format!("http://{address}:8080/")]).contains(MARKER));
    assert!(wire::holds(&plain.close(), MARKER), "a pod that is not opted in any more speaks plainly");
    assert_eq!(restarts(&shop), before, "no container was restarted");
}

/// A pod's first system call of note is a connect: it is captured all the same. Seen to fail with the CNI plugin not chained.
#[test]
fn a_new_pod_is_captured_before_its_first_container_runs() {
    const PODS: usize = 50;
    let shop = Shop::open("first", 2);
    shop.mesh(2);
    let address = shop.addresses("node-b").pop().unwrap();
    let tap = Tap::open();
    let jobs: Vec<String> = (0..PODS).map(|index| job(&shop.namespace, index, &address)).collect();
    shop.cluster.apply(&jobs.join("---"));
    let selector =
        ["-n", &shop.namespace, "wait", "--for=condition=complete", "job", "-l", "app=first", "--timeout=300s"];
    let ((), took) = timed(|| drop(shop.cluster.kubectl(&selector)));
    figure("50 jobs on one node, each connecting at once, twice", format!("{took:?}"));
    let wire = tap.close();
    figure("plaintext packets among them", format!("0 of {}", wire::packets(&wire)));
    assert!(wire.len() > 100_000 && !wire::holds(&wire, MARKER), "a first request went out in clear");
    assert!(!wire::holds(&wire, "Host: first-connect"), "a first request went out in clear");
}

/// 50 pods that run already, 25 on each node: the time of each, from before the label is set until the API server tells a watcher
/// that the pod's node has called it captured and certified.
#[test]
fn a_label_meshes_fifty_running_pods() {
    const PODS: usize = 50;
    let shop = Shop::open("fifty", 2);
    shop.cluster.apply(&idle(&shop.namespace, PODS));
    shop.cluster.rolled_out(&shop.namespace, "deployment/idle");
    let query = r#"{.metadata.name} {.status.conditions[?(@.type=="weir.mesh/Meshed")].status}{"\n"}"#;
    let columns = format!("jsonpath={query}");
    let watch =
        ["-n", &shop.namespace, "get", "pods", "-l", "app=idle", "--watch", "--request-timeout=120s", "-o", &columns];
    let mut watcher = shop.cluster.start_kubectl(&watch);
    let mut lines = BufReader::new(watcher.stdout()).lines().map_while(Result::ok);
    // First all that are there; from then on nothing is missed.
    assert_eq!(lines.by_ref().take(PODS).filter(|line| !line.ends_with(" True")).count(), PODS, "none is meshed yet");
    let begin = Instant::now();
    shop.opt(true);
    let mut times: HashMap<String, Duration> = HashMap::new();
    for line in lines {
        if let Some(name) = line.strip_suffix(" True") {
            times.entry(name.to_owned()).or_insert_with(|| begin.elapsed());
        }
        if times.len() == PODS {
            break;
        }
    }
    assert_eq!(times.len(), PODS, "when the watch ended");
    let mut times: Vec<Duration> = times.into_values().collect();
    times.sort();
    figure(
        "label to captured and certified, each of 50 pods: p50, p99",
        format!("{:?}, {:?}", times[PODS / 2], times[PODS - 1]),
    );
}

fn idle(namespace: &str, pods: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: idle, namespace: {namespace}}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: idle}}}}
  template:
    metadata: {{labels: {{app: idle}}}}
    spec:
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: idle}}}}}}
      terminationGracePeriodSeconds: 0
      containers:
        - {{name: idle, image: weir-test/apps:1, imagePullPolicy: Never, command: [sleep, "100000"]}}
"#
    )
}

fn job(namespace: &str, index: usize, address: &str) -> String {
    let container = |name: &str| {
        format!(
            "{{name: {name}, image: weir-test/apps:1, imagePullPolicy: Never, command: [first-connect, {address}, \"8080\"]}}"
        )
    };
    format!(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: first-{index}, namespace: {namespace}, labels: {{app: first}}}}
spec:
  backoffLimit: 0
  template:
    spec:
      nodeName: node-a
      restartPolicy: Never
      initContainers: [{}]
      containers: [{}]
"#,
        container("init"),
        container("main")
    )
}

fn restarts(shop: &Shop) -> Vec<(String, u64)> {
    let pods = shop.cluster.get(&["-n", &shop.namespace, "pods"]);
    let mut found: Vec<(String, u64)> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            (name, pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap())
        })
        .collect();
    found.sort();
    found
}
