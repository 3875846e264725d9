//! HTTPRoutes and TrafficSplits on the cluster; of routes with Gateway API's own definitions and admission.

use std::{
    collections::HashMap,
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

/// A Service of a part of the servers: all of them, or those with the label.
fn service(namespace: &str, name: &str, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{selector: {{app: web{label}}}, ports: [{{port: 80, targetPort: http}}]}}\n"
    )
}

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

/// As tools of progressive delivery write it.
fn split(namespace: &str, first: u32, second: u32) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{service: web, backends: [{{service: stable, weight: {first}}}, {{service: canary, weight: {second}}}]}}\n"
    )
}

/// SMI's own, without its schema.
const SPLITS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: trafficsplits.split.smi-spec.io}
spec:
  group: split.smi-spec.io
  scope: Namespaced
  names: {plural: trafficsplits, singular: trafficsplit, kind: TrafficSplit, shortNames: [ts]}
  versions:
  - {name: v1alpha2, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";

/// A definition, for as long as the test needs it.
struct Definition<'a> {
    shop: &'a Shop,
    name: &'static str,
}

impl<'a> Definition<'a> {
    fn of_routes(shop: &'a Shop) -> Definition<'a> {
        let folder = env::var_os("WEIR_GATEWAY_API").map(PathBuf::from);
        let folder = folder.expect("WEIR_GATEWAY_API is not set: run `cargo xtask cluster test`");
        let text = fs::read_to_string(folder.join("gateway.networking.k8s.io_httproutes.yaml")).unwrap();
        Definition::install(shop, "httproutes.gateway.networking.k8s.io", &text)
    }

    fn install(shop: &'a Shop, name: &'static str, text: &str) -> Definition<'a> {
        shop.cluster.apply(text);
        // kubectl gives up at once on a definition that has no condition yet.
        let established = ["wait", &format!("crd/{name}"), "--for=condition=Established", "--timeout=10s"];
        let is_established = || shop.cluster.try_kubectl(&established).status.success().then_some(());
        wait::until("the definition is established", PATIENCE, is_established);
        Definition { shop, name }
    }
}

impl Drop for Definition<'_> {
    fn drop(&mut self) {
        let arguments = ["delete", "crd", self.name, "--ignore-not-found", "--timeout=60s"];
        let _output = self.shop.cluster.try_kubectl(&arguments);
    }
}

/// Two backends, and an object that says their weights.
struct Canary<'a> {
    shop: &'a Shop,
    object: fn(&str, u32, u32) -> String,
    /// The Services; the second one is the canary.
    backends: [&'static str; 2],
    /// What answers are told apart by.
    header: &'static str,
    /// What stands there, where that is not the backend's name.
    servers: HashMap<String, &'static str>,
}

impl Canary<'_> {
    fn weigh(&self, first: u32, second: u32) {
        self.shop.cluster.apply(&(self.object)(&self.shop.namespace, first, second));
    }

    /// Who is behind an answer.
    fn backend<'l>(&self, line: &'l str) -> &'l str {
        self.servers.get(line).copied().unwrap_or(line)
    }

    /// How many of eight requests are answered well, and by whom.
    fn asked(&self) -> (usize, Vec<String>) {
        let script = "for i in 1 2 3 4 5 6 7 8; do curl -sS -o /dev/null -D - http://web/; done";
        let said = self.shop.client(&["sh", "-c", script]);
        let header = format!("{}: ", self.header);
        let named = said.lines().filter_map(|line| line.strip_prefix(&header));
        let named = named.map(|name| self.backend(name.trim()).to_owned()).collect();
        (said.matches("HTTP/1.1 200").count(), named)
    }

    fn has_all(&self, backend: &str) {
        wait::until(&format!("all goes to {backend}"), PATIENCE, || {
            (self.asked() == (8, vec![backend.to_owned(); 8])).then_some(())
        });
    }

    /// From nothing to all: shares are what the weights say, and each step is in force soon.
    fn runs(&self) {
        let [_first, second] = self.backends;
        for percent in [5, 25, 50, 100] {
            self.weigh(100 - percent, percent);
            let is_in_force = || self.asked().1.iter().any(|name| name == second).then_some(());
            wait::until("the step is in force", PATIENCE, is_in_force);
            self.share_is(percent);
        }
        let mut took = self.steps();
        took.sort();
        let at = |part: usize| took[took.len() * part / 100 - 1];
        figure(
            "all traffic moved to the other backend, 100 times: from before `kubectl apply` until the last answer of the old one on either node, p50, p99",
            format!("{:?}, {:?}", at(50), at(99)),
        );
        self.weigh(0, 1);
        self.has_all(second);
    }
}

/// A canary from nothing to all, under load: no request fails, each step is in force soon, shares are what the weights say, the status says so,
/// and without the route all is as before.
#[test]
fn a_canary_by_an_http_route_fails_no_request() {
    let shop = Shop::open("routes", 4);
    let _definition = Definition::of_routes(&shop);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.apply(&service(&shop.namespace, "canary", ""));
    let canary = Canary {
        shop: &shop,
        object: route,
        backends: ["web", "canary"],
        header: "x-backend",
        servers: HashMap::new(),
    };
    canary.weigh(1, 0);
    for condition in ["Accepted", "ResolvedRefs"] {
        let path = format!("--for=jsonpath={{.status.parents[0].conditions[?(@.type==\"{condition}\")].status}}=True");
        shop.cluster.kubectl(&["-n", &shop.namespace, "wait", "httproute/web", &path, "--timeout=30s"]);
    }
    canary.has_all("web");
    canary.runs();
    shop.cluster.kubectl(&["-n", &shop.namespace, "delete", "httproute", "web"]);
    wait::until("no route", PATIENCE, || (canary.asked() == (8, Vec::new())).then_some(()));
    load.end().is_whole(Stream::Lives);
}

/// The same by a TrafficSplit, between two halves of the servers.
#[test]
fn a_canary_by_a_traffic_split_fails_no_request() {
    const BACKENDS: [&str; 2] = ["stable", "canary"];
    let shop = Shop::open("splits", 4);
    let _definition = Definition::install(&shop, "trafficsplits.split.smi-spec.io", SPLITS);
    let names = shop.cluster.get(&["-n", &shop.namespace, "pods", "-l", "app=web"]);
    let names = names["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let servers: HashMap<String, &str> =
        names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), BACKENDS[at % 2])).collect();
    for (name, backend) in &servers {
        shop.cluster.kubectl(&["-n", &shop.namespace, "label", "pod", name, &format!("track={backend}")]);
    }
    for name in BACKENDS {
        shop.cluster.apply(&service(&shop.namespace, name, &format!(", track: {name}")));
    }
    shop.mesh(4);
    let load = Load::begin(&shop);
    let canary = Canary { shop: &shop, object: split, backends: BACKENDS, header: "x-server", servers };
    canary.weigh(1, 0);
    canary.has_all("stable");
    canary.runs();
    shop.cluster.kubectl(&["-n", &shop.namespace, "delete", "trafficsplit", "web"]);
    wait::until("no split", PATIENCE, || {
        let (answered, by) = canary.asked();
        (answered == 8 && by.iter().any(|name| name == "stable")).then_some(())
    });
    load.end().is_whole(Stream::Lives);
}

/// Requests of which the canary's share is taken, at least.
const COUNTED: u64 = 50_000;

impl Canary<'_> {
    /// What the client's node counts as sent to both backends so far.
    fn sent(&self) -> [u64; 2] {
        let text = self.shop.metrics().concat();
        self.backends.map(|name| {
            let (namespace, name) =
                (format!("parent_namespace=\"{}\"", self.shop.namespace), format!("backend_name=\"{name}\""));
            let lines = text.lines().filter(|line| {
                line.starts_with("outbound_http_route_backend_requests_total{")
                    && line.contains(&namespace)
                    && line.contains(&name)
            });
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        })
    }

    /// Makes requests, all of which must be answered well, until there were enough, and compares the canary's share of them.
    fn share_is(&self, percent: u32) {
        let before = self.sent();
        let counted = wait::until("enough requests", PATIENCE * 4, || {
            let said = self.shop.client(&["wrk", "-t1", "-c16", "-d5s", "--timeout", "10s", "http://web/"]);
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
            let counted: Vec<u64> = self.sent().iter().zip(before).map(|(now, before)| now - before).collect();
            (counted.iter().sum::<u64>() >= COUNTED).then_some(counted)
        });
        let (canary, all) = (counted[1] as f64, counted.iter().sum::<u64>() as f64);
        let share = canary / all * 100.0;
        figure(&format!("a canary of {percent} %, requests; its share"), format!("{all}; {share:.2} %"));
        assert!((share - f64::from(percent)).abs() <= 1.0, "{share} % instead of {percent} %");
    }

    /// Moves all traffic from one backend to the other and back, 100 times; how long each took until both nodes had followed.
    fn steps(&self) -> Vec<Duration> {
        let on_second = ["-l", "app=web", "--field-selector", "spec.nodeName=node-b"];
        let servers = self.shop.cluster.get(&[&["-n", &self.shop.namespace, "pods"], &on_second[..]].concat());
        let server = servers["items"][0]["metadata"]["name"].as_str().expect("a server on the second node").to_owned();
        let mut watchers =
            ["deployment/client".to_owned(), format!("pod/{server}")].map(|pod| Watcher::start(self, &pod));
        let step = |at: u32| {
            let to_second = at.is_multiple_of(2);
            let begun = Instant::now();
            self.weigh(u32::from(!to_second), u32::from(to_second));
            let name = self.backends[usize::from(to_second)];
            watchers.iter_mut().map(|watcher| watcher.follows(name).saturating_duration_since(begun)).max().unwrap()
        };
        (0..100).map(step).collect()
    }
}

/// Answers of a watcher that nobody has looked at yet: ten seconds.
const UNREAD: usize = 1_000;

/// Asks again and again over one connection, a hundred times a second, from one pod.
struct Watcher<'a> {
    canary: &'a Canary<'a>,
    answers: mpsc::Receiver<(Instant, String)>,
    _asking: Running,
}

impl<'a> Watcher<'a> {
    fn start(canary: &'a Canary<'a>, pod: &str) -> Watcher<'a> {
        // Standard error is written at once, standard output is not.
        let script = format!(
            "curl -sS --rate 100/s -o /dev/null -w '%{{stderr}}%header{{{}}}\\n' 'http://web/?[1-100000]' 2>&1",
            canary.header
        );
        let arguments = ["-n", &canary.shop.namespace, "exec", pod, "--", "sh", "-c", &script];
        let mut asking = canary.shop.cluster.start_kubectl(&arguments);
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
        Watcher { canary, answers, _asking: asking }
    }

    /// When it last saw another one than `name`, once it has seen `name` ten times in a row.
    fn follows(&mut self, name: &str) -> Instant {
        let (mut last, mut in_a_row) = (None, 0);
        while in_a_row < 10 {
            let (at, line) = self.answers.recv_timeout(PATIENCE).expect("an answer");
            in_a_row += 1;
            if self.canary.backend(&line) != name {
                (last, in_a_row) = (Some(at), 0);
            }
        }
        last.unwrap_or_else(Instant::now)
    }
}
