//! What routes cost: more and more rules, retries that are armed, a mirror. Must never compare with a run of its own: all take turns in one.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    hops::{self, HTTP1},
    load::{self, Sample},
    process,
    report::{RuleRow, Than},
    say, stage,
};
use crate::{
    daemon::Daemon,
    fabric::NODES,
    mesh::{HttpRules, Mesh, NAMESPACE, Pod, PodOptions, ServiceOptions},
    stop::Stop,
    wait,
};

/// As options call it.
pub(super) const NAME: &str = "rules";
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the load.
const CONNECTIONS: u32 = 16;

/// One Service, all of them before the same server on the other node.
struct Variant {
    /// Of the Service.
    name: &'static str,
    title: &'static str,
    /// How many rules with a path of their own, every second one a prefix.
    rules: usize,
    /// How many regular expressions beside them.
    patterns: usize,
    /// What the last rule has beside its backend.
    more: &'static str,
    /// The path of the load.
    path: &'static str,
    /// What it is compared with, and how far above that it may be.
    than: Option<(&'static str, Than)>,
}

const NONE: Variant =
    Variant { name: "none", title: "no route", rules: 0, patterns: 0, more: "", path: "/", than: None };
const ONE: Variant = Variant {
    name: "one",
    title: "1 rule",
    rules: 1,
    path: "/0/x",
    than: Some((NONE.name, Than { micros: None, ratio: None })),
    ..NONE
};
const MANY: Than = Than { micros: Some(5.0), ratio: None };

const VARIANTS: [Variant; 8] = [
    NONE,
    ONE,
    Variant { name: "ten", title: "10 rules", rules: 10, path: "/8/x", ..ONE },
    Variant { name: "hundred", title: "100 rules", rules: 100, path: "/98/x", ..ONE },
    Variant {
        name: "all",
        title: "10,000 rules",
        rules: 10_000,
        path: "/9998/x",
        than: Some((NONE.name, MANY)),
        ..ONE
    },
    // A prefix comes after all of them: each is asked.
    Variant {
        name: "patterns",
        title: "10,000 rules, and 100 regular expressions that do not match",
        rules: 10_000,
        patterns: 100,
        path: "/9998/x",
        than: Some((NONE.name, MANY)),
        ..ONE
    },
    Variant {
        name: "retry",
        title: "1 rule, ready to retry",
        more: "    retry: {codes: [500, 502, 503], attempts: 2}\n",
        than: Some((ONE.name, Than { micros: None, ratio: Some(1.03) })),
        ..ONE
    },
    Variant {
        name: "mirror",
        title: "1 rule, a mirror of 10 %",
        more: "    filters: [{type: RequestMirror, requestMirror: {percent: 10, backendRef: {name: none, port: 8080}}}]\n",
        than: Some((ONE.name, Than { micros: None, ratio: None })),
        ..ONE
    },
];

impl Variant {
    fn rules(&self) -> HttpRules<'_> {
        HttpRules { service: self.name, port: HTTP1, rules: self.rules, patterns: self.patterns, more: self.more }
    }
}

struct Rules {
    mesh: Mesh,
    client: Pod,
    addresses: Vec<SocketAddr>,
    // Its namespace ends with it.
    _far: Pod,
    _origin: [Daemon; 2],
}

impl Rules {
    fn start() -> Rules {
        let mut mesh = Mesh::start();
        let (client, far) = (mesh.pod(&PodOptions::new("client", 0)), mesh.pod(&PodOptions::new("far", 1)));
        [&client, &far].into_iter().for_each(|pod| stage::tune(&pod.place.netns));
        let origin = hops::origin(&far, &mesh.path("bench-far"), &mesh.path("logs"));
        let mut service = |variant: &Variant| -> SocketAddr {
            let address = mesh.service(&ServiceOptions::new(variant.name, HTTP1, HTTP1), &[&far]);
            SocketAddr::new(address.parse::<IpAddr>().expect("an address"), HTTP1)
        };
        let addresses = VARIANTS.iter().map(&mut service).collect();
        mesh.wait_ready(&[&client, &far]);
        let rules = Rules { mesh, client, addresses, _far: far, _origin: origin };
        for (variant, address) in VARIANTS.iter().zip(&rules.addresses) {
            rules.in_force(variant, *address);
        }
        rules
    }

    /// Applies a variant's routes and waits until the client's node has all of them.
    fn in_force(&self, variant: &Variant, address: SocketAddr) {
        let (text, count) = variant.rules().manifest();
        if count > 0 {
            self.mesh.manifest(&format!("routes-{}", variant.name), &text);
        }
        let url = format!("http://{address}{}", variant.path);
        let wanted = format!("HTTPRoute {NAMESPACE}/{}-", variant.name);
        wait::until(&format!("{} in force", variant.title), PATIENCE, || {
            let answers = self.client.curl(&["--fail", &url]).status.success();
            (answers && self.mesh.admin(0, "/config").matches(&wanted).count() == count).then_some(())
        });
    }

    fn measure(&self, at: usize, length: Duration) -> Result<Sample, String> {
        let nodes = (0..NODES).flat_map(|node| [self.mesh.proxy(node).pid(), self.mesh.holder(node).pid()]);
        let processes: Vec<u32> = nodes.chain([self.mesh.control().pid()]).collect();
        let before = process::cpu(&processes);
        let mut sample =
            load::wrk(&self.client.place.netns, self.addresses[at], VARIANTS[at].path, CONNECTIONS, length)?;
        sample.cpu = process::cpu(&processes).saturating_sub(before);
        Ok(sample)
    }
}

/// Measures all of them, in turns.
///
/// # Panics
/// When the mesh does not start.
pub(super) fn run(rounds: usize, length: Duration, stop: &Stop) -> Vec<RuleRow> {
    say("starting a mesh with routes");
    let rules = Rules::start();
    let mut rows: Vec<RuleRow> =
        VARIANTS.iter().map(|variant| RuleRow::new(variant.name, variant.title, variant.than)).collect();
    for round in 0..rounds.max(1) {
        let mut order: Vec<usize> = (0..VARIANTS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            if stop.asked().is_some() {
                return rows;
            }
            let said = rows[at].note(rules.measure(at, length));
            say(&format!("rules          round {} {:<8} {said}", round + 1, VARIANTS[at].name));
        }
    }
    rows
}
