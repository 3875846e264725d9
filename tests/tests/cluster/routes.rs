//! HTTPRoutes on the cluster, with Gateway API's own definitions and admission.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use weir_tests::{
    cluster::{PATIENCE, Running},
    wait,
};

use crate::{
    load::{Load, Stream},
    shop::{Shop, figure},
};

const DEFINITION: &str = "httproutes.gateway.networking.k8s.io";

/// Each backend marks its answers.
fn route(namespace: &str, first: u32, second: u32) -> String {
    let backend = |name: &str, weight: u32| {
        format!(
            "{{name: {name}, port: 80, weight: {weight}, filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-backend, value: {name}}}]}}}}]}}"
        )
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: 80}}]\n  rules: [{{backendRefs: [{}, {}]}}]\n",
        backend("web", first),
        backend("canary", second)
    )
}

fn canary(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: canary, namespace: {namespace}}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}\n"
    )
}

/// The definition, for as long as the test needs it.
struct Definition<'a>(&'a Shop);

impl<'a> Definition<'a> {
    fn install(shop: &'a Shop) -> Definition<'a> {
        let folder = env::var_os("WEIR_GATEWAY_API").map(PathBuf::from);
        let folder = folder.expect("WEIR_GATEWAY_API is not set: run `cargo xtask cluster test`");
        let text = fs::read_to_string(folder.join("gateway.networking.k8s.io_httproutes.yaml")).unwrap();
        shop.cluster.apply(&text);
        // kubectl gives up at once on a definition that has no condition yet.
        let established = ["wait", &format!("crd/{DEFINITION}"), "--for=condition=Established", "--timeout=10s"];
        let is_established = || shop.cluster.try_kubectl(&established).status.success().then_some(());
        wait::until("the definition is established", PATIENCE, is_established);
        Definition(shop)
    }
}

impl Drop for Definition<'_> {
    fn drop(&mut self) {
        let _output = self.0.cluster.try_kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found", "--timeout=60s"]);
    }
}

/// A canary from nothing to all, under load: no request fails, each step is in force soon, shares are what the weights say, the status says so,
/// and without the route all is as before.
#[test]
fn a_canary_by_an_http_route_fails_no_request() {
    let shop = Shop::open("routes", 4);
    let _definition = Definition::install(&shop);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.apply(&canary(&shop.namespace));
    shop.cluster.apply(&route(&shop.namespace, 1, 0));
    let conditions = ["Accepted", "ResolvedRefs"];
    for condition in conditions {
        let path = format!("jsonpath={{.status.parents[0].conditions[?(@.type==\"{condition}\")].status}}=True");
        shop.cluster.kubectl(&[
            "-n",
            &shop.namespace,
            "wait",
            "httproute/web",
            &format!("--for={path}"),
            "--timeout=30s",
        ]);
    }
    let backends = || {
        let said =
            shop.client(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do curl -sS -o /dev/null -D - http://web/; done"]);
        let named = said.lines().filter_map(|line| line.strip_prefix("x-backend: ")).map(|name| name.trim().to_owned());
        let named: Vec<String> = named.collect();
        (said.matches("HTTP/1.1 200").count(), named)
    };
    wait::until("the route is in force", PATIENCE, || (backends().1.len() == 8).then_some(()));
    assert_eq!(backends(), (8, vec!["web".to_owned(); 8]));
    for percent in [5, 25, 50, 100] {
        shop.cluster.apply(&route(&shop.namespace, 100 - percent, percent));
        let is_in_force = || backends().1.iter().any(|name| name == "canary").then_some(());
        wait::until("the step is in force", PATIENCE, is_in_force);
        share_is(&shop, percent);
    }
    let mut took = steps(&shop);
    took.sort();
    let at = |part: usize| took[took.len() * part / 100 - 1];
    figure(
        "all traffic moved to the other backend, 100 times: from before `kubectl apply` until the last answer of the old one on either node, p50, p99",
        format!("{:?}, {:?}", at(50), at(99)),
    );
    shop.cluster.apply(&route(&shop.namespace, 0, 1));
    wait::until("all goes to the canary", PATIENCE, || (backends().1 == vec!["canary".to_owned(); 8]).then_some(()));
    shop.cluster.kubectl(&["-n", &shop.namespace, "delete", "httproute", "web"]);
    wait::until("no route", PATIENCE, || (backends() == (8, Vec::new())).then_some(()));
    load.end().is_whole(Stream::Lives);
}

/// Requests of which the canary's share is taken, at least.
const COUNTED: u64 = 50_000;

/// What the client's node counts as sent to both backends so far.
fn sent(shop: &Shop) -> [u64; 2] {
    let text = shop.metrics().concat();
    ["web", "canary"].map(|name| {
        let (namespace, name) =
            (format!("parent_namespace=\"{}\"", shop.namespace), format!("backend_name=\"{name}\""));
        let lines = text.lines().filter(|line| {
            line.starts_with("outbound_http_route_backend_requests_total{")
                && line.contains(&namespace)
                && line.contains(&name)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    })
}

/// Makes requests, all of which must be answered well, until there were enough, and compares the canary's share of them.
fn share_is(shop: &Shop, percent: u32) {
    let before = sent(shop);
    let counted = wait::until("enough requests", PATIENCE * 4, || {
        let said = shop.client(&["wrk", "-t1", "-c16", "-d5s", "--timeout", "10s", "http://web/"]);
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let counted: Vec<u64> = sent(shop).iter().zip(before).map(|(now, before)| now - before).collect();
        (counted.iter().sum::<u64>() >= COUNTED).then_some(counted)
    });
    let (canary, all) = (counted[1] as f64, counted.iter().sum::<u64>() as f64);
    let share = canary / all * 100.0;
    figure(&format!("a canary of {percent} %, requests; its share"), format!("{all}; {share:.2} %"));
    assert!((share - f64::from(percent)).abs() <= 1.0, "{share} % instead of {percent} %");
}

/// Moves all traffic from one backend to the other and back, 100 times; how long each took until both nodes had followed.
fn steps(shop: &Shop) -> Vec<Duration> {
    let server =
        shop.cluster.get(&["-n", &shop.namespace, "pods", "-l", "app=web", "--field-selector", "spec.nodeName=node-b"]);
    let server = server["items"][0]["metadata"]["name"].as_str().expect("a server on the second node").to_owned();
    let mut watchers = ["deployment/client".to_owned(), format!("pod/{server}")].map(|pod| Watcher::start(shop, &pod));
    let step = |at: u32| {
        let (first, second, name) = if at.is_multiple_of(2) { (0, 1, "canary") } else { (1, 0, "web") };
        let begun = Instant::now();
        shop.cluster.apply(&route(&shop.namespace, first, second));
        watchers.iter_mut().map(|watcher| watcher.follows(name).saturating_duration_since(begun)).max().unwrap()
    };
    (0..100).map(step).collect()
}

/// Answers of a watcher that nobody has looked at yet: ten seconds.
const UNREAD: usize = 1_000;

/// Asks again and again over one connection, a hundred times a second, from one pod.
struct Watcher {
    answers: mpsc::Receiver<(Instant, String)>,
    _asking: Running,
}

impl Watcher {
    fn start(shop: &Shop, pod: &str) -> Watcher {
        // Standard error is written at once, standard output is not.
        let script =
            "curl -sS --rate 100/s -o /dev/null -w '%{stderr}%header{x-backend}\\n' 'http://web/?[1-100000]' 2>&1";
        let mut asking = shop.cluster.start_kubectl(&["-n", &shop.namespace, "exec", pod, "--", "sh", "-c", script]);
        let lines = BufReader::new(asking.stdout()).lines();
        let (answered, answers) = mpsc::sync_channel(UNREAD);
        // Ends with the command.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if answered.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Watcher { answers, _asking: asking }
    }

    /// When it last saw another one than `name`, once it has seen `name` ten times in a row.
    fn follows(&mut self, name: &str) -> Instant {
        let (mut last, mut in_a_row) = (None, 0);
        while in_a_row < 10 {
            let (at, line) = self.answers.recv_timeout(PATIENCE).expect("an answer");
            in_a_row += 1;
            if line != name {
                (last, in_a_row) = (Some(at), 0);
            }
        }
        last.unwrap_or_else(Instant::now)
    }
}
