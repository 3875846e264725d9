//! Who may call whom, from YAML by way of index, session and a node's snapshot to the decision, against a naive reading of the objects.
//!
//! The naive reading knows the objects as they are written and nothing of how they are kept: it goes through all of them for each question.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use fastrand::Rng;
use ipnet::IpNet;
use weir_core::{
    identity::Identity,
    inbound::{self, Ask, DefaultPolicy, InboundPlan, Rules},
    route::Facts,
    snapshot::{self as node, Snapshot},
};

use super::*;
use crate::{
    fixtures::options,
    objects::{Event, Object},
    parse,
};

const CLUSTER: &str = "10.0.0.0/8";
const PORTS: [u16; 4] = [80, 81, 8080, 9090];

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Asking {
    /// Namespace and service account.
    who: Option<(&'static str, &'static str)>,
    tls: bool,
    address: &'static str,
}

const CLIENTS: [Asking; 9] = [
    Asking { who: None, tls: false, address: "10.1.0.1" },
    Asking { who: None, tls: false, address: "192.0.2.1" },
    Asking { who: None, tls: false, address: "::ffff:10.1.0.1" },
    Asking { who: None, tls: true, address: "10.1.0.1" },
    Asking { who: Some(("demo", "web")), tls: true, address: "10.1.0.1" },
    Asking { who: Some(("demo", "api")), tls: true, address: "10.2.0.1" },
    Asking { who: Some(("shop", "web")), tls: true, address: "192.0.2.1" },
    Asking { who: Some(("demos", "web")), tls: true, address: "10.1.0.1" },
    Asking { who: Some(("demo", "web.demo")), tls: true, address: "10.1.0.9" },
];

impl Asking {
    fn name(self) -> Option<String> {
        let (namespace, account) = self.who?;
        Some(format!("{account}.{namespace}.serviceaccount.identity.linkerd.cluster.local"))
    }

    fn within(self, cidr: &str) -> bool {
        let address: IpAddr = self.address.parse().unwrap();
        cidr.parse::<IpNet>().unwrap().contains(&address.to_canonical())
    }
}

/// Networks as they are written, with exceptions.
type Networks = Vec<(&'static str, Vec<&'static str>)>;

fn is_from(networks: &Networks, client: Asking) -> bool {
    networks.iter().any(|(cidr, except)| client.within(cidr) && !except.iter().any(|part| client.within(part)))
}

fn networks_yaml(networks: &Networks) -> String {
    let each = networks.iter().map(|(cidr, except)| format!("{{cidr: \"{cidr}\", except: {except:?}}}"));
    format!("[{}]", each.collect::<Vec<_>>().join(", "))
}

/// What a MeshTLSAuthentication or the `meshTLS` of a ServerAuthorization names.
#[derive(Clone, Debug, Default)]
struct Named {
    patterns: Vec<&'static str>,
    /// Namespace (its own where none is written) and name.
    accounts: Vec<(Option<&'static str>, &'static str)>,
    namespaces: Vec<&'static str>,
}

impl Named {
    fn names(&self, client: Asking) -> bool {
        let (Some(name), Some((namespace, account))) = (client.name(), client.who) else { return false };
        self.patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(end) => name.ends_with(end),
            None => name == *pattern,
        }) || self.accounts.iter().any(|(of, own)| (of.unwrap_or("demo"), *own) == (namespace, account))
            || self.namespaces.contains(&namespace)
    }
}

#[derive(Clone, Debug)]
enum Port {
    Number(u16),
    /// `http` is 8080.
    Http,
    /// Nothing of the pod's.
    Other,
    /// Not understood.
    Bad,
}

#[derive(Clone, Debug)]
enum Written {
    Server {
        created: u8,
        label: Option<&'static str>,
        own: &'static str,
        port: Port,
        access: Option<&'static str>,
    },
    ServerAuthorization {
        name: Option<&'static str>,
        own: &'static str,
        networks: Option<Networks>,
        clients: Clients,
    },
    AuthorizationPolicy {
        target: Target,
        refs: Vec<Ref>,
    },
    MeshTls(Named),
    Networks(Networks),
    /// Of one match. Its parents are Servers.
    Route {
        servers: Vec<&'static str>,
        prefix: &'static str,
        method: Option<&'static str>,
    },
    /// Of whatever kind its name is, with a field that is not understood; a route has Server `a` as its parent.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    Namespace,
    Server(&'static str),
    Route(Kind, &'static str),
}

/// Method and path.
type Request = (&'static str, &'static str);

/// What is asked at each port: a connection, and requests.
const ASKED: [Option<Request>; 4] = [None, Some(("GET", "/a")), Some(("GET", "/b/c")), Some(("POST", "/a/b"))];

#[derive(Clone, Debug)]
enum Clients {
    Anyone,
    Tls,
    Named(Named),
}

#[derive(Clone, Debug)]
enum Ref {
    MeshTls(&'static str),
    Networks(&'static str),
    Account(&'static str, &'static str),
}

/// Of a Server's requests.
enum Under {
    /// There are no routes.
    All,
    Nothing,
    Route((Kind, &'static str)),
}

const ROUTES: [Kind; 2] = [Kind::HttpRoute, Kind::PolicyHttpRoute];

/// All that there is.
#[derive(Clone, Debug)]
struct World {
    default: DefaultPolicy,
    /// Of the pod.
    label: &'static str,
    objects: BTreeMap<(Kind, &'static str), Written>,
}

impl World {
    fn allows(&self, client: Asking, port: u16, request: Option<Request>) -> bool {
        let is_about = |written: &Written| match written {
            Written::Server { label, port: named, .. } => {
                let port_is = match named {
                    Port::Number(number) => *number == port,
                    Port::Http => port == 8080,
                    Port::Other => false,
                    Port::Bad => true,
                };
                port_is && label.is_none_or(|label| label == self.label)
            }
            _other => false,
        };
        let servers = self.objects.iter().filter(|((kind, _), written)| *kind == Kind::Server && is_about(written));
        let rank = |written: &Written| match written {
            Written::Server { created, .. } => *created,
            _other => 0,
        };
        let decides = servers.min_by_key(|((_, name), written)| (rank(written), *name));
        match decides {
            None => by_default(self.default, client),
            Some(((_, name), Written::Server { own, access, .. })) => {
                let of_server = self.server_allows(name, own, *access, client);
                match self.falls_under(name, request) {
                    Under::All => of_server,
                    Under::Nothing => false,
                    Under::Route(route) => of_server || self.policies_allow(&Target::Route(route.0, route.1), client),
                }
            }
            Some(_other) => false,
        }
    }

    /// Gateway API: the longest path, then one with a method, then by name.
    fn falls_under(&self, server: &str, request: Option<Request>) -> Under {
        let Some((method, path)) = request else { return Under::All };
        let of_server = |((kind, _), written): &(&(Kind, &'static str), &Written)| match written {
            Written::Route { servers, .. } => servers.contains(&server),
            Written::Broken => ROUTES.contains(kind) && server == "a",
            _other => false,
        };
        let mut routes = self.objects.iter().filter(of_server).peekable();
        if routes.peek().is_none() {
            return Under::All;
        }
        let fits = routes.filter_map(|((kind, name), written)| match written {
            Written::Route { prefix, method: asked, .. } => {
                let below = path.strip_prefix(prefix.trim_end_matches('/'));
                let is_below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                (is_below && asked.is_none_or(|asked| asked == method)).then_some((
                    std::cmp::Reverse((prefix.len(), asked.is_some())),
                    *name,
                    *kind,
                ))
            }
            _broken => None,
        });
        fits.min().map_or(Under::Nothing, |(_rank, name, kind)| Under::Route((kind, name)))
    }

    fn policies_allow(&self, about: &Target, client: Asking) -> bool {
        self.objects.values().any(|written| match written {
            Written::AuthorizationPolicy { target, refs } => {
                target == about && refs.iter().all(|required| self.holds(required, client))
            }
            _other => false,
        })
    }

    fn server_allows(&self, name: &str, label: &str, access: Option<&str>, client: Asking) -> bool {
        let by_itself = access.and_then(|access| access.parse().ok()).unwrap_or(DefaultPolicy::Deny);
        by_default(by_itself, client)
            || self.objects.values().any(|written| match written {
                Written::ServerAuthorization { name: meant, own, networks, clients } => {
                    let is_about = meant.map_or(*own == label, |meant| meant == name);
                    let from = match networks {
                        Some(networks) => is_from(networks, client),
                        None => client.within(CLUSTER),
                    };
                    let who = match clients {
                        Clients::Anyone => true,
                        Clients::Tls => client.tls,
                        Clients::Named(named) => named.names(client),
                    };
                    is_about && from && who
                }
                _other => false,
            })
            || self.policies_allow(&Target::Namespace, client)
            || self.objects.keys().any(|(kind, own)| {
                *kind == Kind::Server && *own == name && self.policies_allow(&Target::Server(own), client)
            })
    }

    fn holds(&self, required: &Ref, client: Asking) -> bool {
        match required {
            Ref::Account(namespace, name) => client.who == Some((namespace, name)),
            Ref::MeshTls(name) => match self.objects.get(&(Kind::MeshTlsAuthentication, *name)) {
                Some(Written::MeshTls(named)) => named.names(client),
                _none => false,
            },
            Ref::Networks(name) => match self.objects.get(&(Kind::NetworkAuthentication, *name)) {
                Some(Written::Networks(networks)) => is_from(networks, client),
                _none => false,
            },
        }
    }

    fn pod(&self) -> String {
        let more = format!(
            "  labels: {{app: {}}}\n  annotations: {{config.linkerd.io/default-inbound-policy: {}}}",
            self.label, self.default
        );
        pod("web", "node-1", "10.0.0.1", &more)
    }
}

fn by_default(policy: DefaultPolicy, client: Asking) -> bool {
    match policy {
        DefaultPolicy::AllUnauthenticated | DefaultPolicy::Audit => true,
        DefaultPolicy::AllAuthenticated => client.who.is_some(),
        DefaultPolicy::ClusterUnauthenticated => client.within(CLUSTER),
        DefaultPolicy::ClusterAuthenticated => client.who.is_some() && client.within(CLUSTER),
        DefaultPolicy::Deny => false,
    }
}

fn named_yaml(named: &Named) -> (String, String) {
    let account = |(namespace, name): &(Option<&str>, &str)| match namespace {
        Some(namespace) => format!("{{name: {name}, namespace: {namespace}}}"),
        None => format!("{{name: {name}}}"),
    };
    (
        format!("{:?}", named.patterns),
        format!("[{}]", named.accounts.iter().map(account).collect::<Vec<_>>().join(", ")),
    )
}

fn ref_yaml(required: &Ref) -> String {
    match required {
        Ref::MeshTls(name) => format!("{{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: {name}}}"),
        Ref::Networks(name) => format!("{{group: policy.linkerd.io, kind: NetworkAuthentication, name: {name}}}"),
        Ref::Account(namespace, name) => format!("{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}"),
    }
}

fn yaml(kind: Kind, name: &str, written: &Written) -> String {
    let mut meta = format!("name: {name}, namespace: demo");
    let spec = match written {
        Written::Broken if ROUTES.contains(&kind) => {
            "spec: {parentRefs: [{group: policy.linkerd.io, kind: Server, name: a}], rules: 7}".to_owned()
        }
        Written::Broken => "spec: {podSelector: 7, server: 7, targetRef: 7, identities: 7, networks: 7}".to_owned(),
        Written::Server { created, label, own, port, access } => {
            let _infallible =
                write!(meta, ", creationTimestamp: \"2026-01-01T00:00:{created:02}Z\", labels: {{own: {own}}}");
            let port = match port {
                Port::Number(number) => number.to_string(),
                Port::Http => "http".to_owned(),
                Port::Other => "grpc".to_owned(),
                Port::Bad => "0".to_owned(),
            };
            let selector = label.map_or("{}".to_owned(), |label| format!("{{matchLabels: {{app: {label}}}}}"));
            let access = access.map_or(String::new(), |access| format!(", accessPolicy: {access}"));
            format!("spec: {{podSelector: {selector}, port: {port}{access}}}")
        }
        Written::ServerAuthorization { name, own, networks, clients } => {
            let server = match name {
                Some(name) => format!("{{name: {name}}}"),
                None => format!("{{selector: {{matchExpressions: [{{key: own, operator: In, values: [{own}]}}]}}}}"),
            };
            let networks =
                networks.as_ref().map_or(String::new(), |given| format!(", networks: {}", networks_yaml(given)));
            let who = match clients {
                Clients::Anyone => "unauthenticated: true".to_owned(),
                Clients::Tls => "meshTLS: {unauthenticatedTLS: true}".to_owned(),
                Clients::Named(named) => {
                    let (patterns, accounts) = named_yaml(named);
                    format!("meshTLS: {{identities: {patterns}, serviceAccounts: {accounts}}}")
                }
            };
            format!("spec: {{server: {server}, client: {{{who}{networks}}}}}")
        }
        Written::Route { servers, prefix, method } => {
            let parent = |name: &&str| format!("{{group: policy.linkerd.io, kind: Server, name: {name}}}");
            let parents = servers.iter().map(parent).collect::<Vec<_>>().join(", ");
            let method = method.map_or(String::new(), |method| format!(", method: {method}"));
            format!("spec: {{parentRefs: [{parents}], rules: [{{matches: [{{path: {{value: {prefix}}}{method}}}]}}]}}")
        }
        Written::AuthorizationPolicy { target, refs } => {
            let target = match target {
                Target::Server(server) => format!("{{group: policy.linkerd.io, kind: Server, name: {server}}}"),
                Target::Namespace => "{kind: Namespace, name: demo}".to_owned(),
                Target::Route(kind, name) => format!("{{group: {}, kind: HTTPRoute, name: {name}}}", kind.group()),
            };
            let refs = refs.iter().map(ref_yaml).collect::<Vec<_>>().join(", ");
            format!("spec: {{targetRef: {target}, requiredAuthenticationRefs: [{refs}]}}")
        }
        Written::MeshTls(named) if named.patterns.is_empty() => {
            let accounts = named.accounts.iter().map(|(namespace, name)| match namespace {
                Some(namespace) => format!("{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}"),
                None => format!("{{kind: ServiceAccount, name: {name}}}"),
            });
            let namespaces = named.namespaces.iter().map(|name| format!("{{kind: Namespace, name: {name}}}"));
            format!("spec: {{identityRefs: [{}]}}", accounts.chain(namespaces).collect::<Vec<_>>().join(", "))
        }
        Written::MeshTls(named) => format!("spec: {{identities: {:?}}}", named.patterns),
        Written::Networks(networks) => format!("spec: {{networks: {}}}", networks_yaml(networks)),
    };
    let version = kind.versions()[0];
    let group = kind.group();
    format!("apiVersion: {group}/{version}\nkind: {}\nmetadata: {{{meta}}}\n{spec}\n---\n", kind.as_str())
}

/// Control and one node, kept up to date by what changed alone.
struct Mesh {
    index: Index,
    session: Session,
    node: Snapshot,
}

impl Mesh {
    fn new() -> Mesh {
        let mut index = Index::default();
        upsert(&mut index, NAMESPACE);
        let session = begin(&index, &v1::Hello::default());
        Mesh { index, session, node: Snapshot::of_node("node-1") }
    }

    fn events(text: &str) -> Vec<Event> {
        let parsed = parse::manifest("test.yaml", text, &options());
        assert!(parsed.refused.is_empty(), "{:?}", parsed.findings);
        parsed.objects.into_iter().map(|(name, object): (ObjectName, Object)| Event::Upsert(name, object)).collect()
    }

    fn apply(&mut self, events: Vec<Event>) {
        let changed = self.index.apply(events);
        self.session.touch(&changed, &self.index);
        while let Some(update) = self.session.next(&self.index, ANCHORS, Instant::now()) {
            acknowledge(&mut self.session, &update);
            let upserts = update.upserts.into_iter().filter(|one| !matches!(one.body, Some(Body::TrustBundle(_))));
            let applied = node::apply(&self.node, Duration::ZERO, upserts.collect(), update.removals);
            assert_eq!(applied.rejected, []);
            self.node = applied.snapshot;
        }
    }

    fn allows(&self, client: Asking, port: u16, request: Option<Request>) -> bool {
        let workload = self.node.workload_by_uid("uid-web").expect("the pod");
        let identity: Option<Identity> = client.name().map(|name| name.parse().unwrap());
        let asking = inbound::Client {
            identity: identity.as_ref(),
            is_tls: client.tls,
            address: client.address.parse().unwrap(),
        };
        let networks = [CLUSTER.parse().unwrap()];
        let rules = self.node.rules(workload, port);
        let standing = inbound::standing(workload, rules, &networks, asking);
        let routes = match rules {
            Rules::Server(policy) => policy.routes.as_ref(),
            _other => None,
        };
        let plan = match (routes, request) {
            (Some(routes), Some((method, path))) => {
                let (headers, method) = (http::HeaderMap::new(), method.parse().unwrap());
                let facts = Facts { authority: "web", method: &method, path, query: "", headers: &headers };
                routes.request(&standing, &facts, port, &networks, asking).plan
            }
            _other => standing.plan,
        };
        !matches!(plan.or_probe(workload, port, None, Ask::Connection), InboundPlan::Deny(_))
    }

    /// How many questions were asked.
    fn compare(&self, world: &World, context: &str) -> usize {
        for client in CLIENTS {
            for (port, asked) in PORTS.iter().flat_map(|port| ASKED.map(|asked| (*port, asked))) {
                let (found, expected) = (self.allows(client, port, asked), world.allows(client, port, asked));
                assert_eq!(found, expected, "{context}: {client:?} asks {asked:?} at {port} in {world:#?}");
            }
        }
        CLIENTS.len() * PORTS.len() * ASKED.len()
    }
}

fn some<T: Clone>(rng: &mut Rng, all: &[T], most: usize) -> Vec<T> {
    (0..rng.usize(0..=most)).map(|_| all[rng.usize(0..all.len())].clone()).collect()
}

fn one<T: Clone>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(0..all.len())].clone()
}

fn any_networks(rng: &mut Rng) -> Networks {
    let cidrs = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "192.0.2.0/24"];
    let mut networks = vec![one(rng, &cidrs)];
    networks.extend(some(rng, &cidrs, 1));
    let parts = |rng: &mut Rng, cidr: &str| match cidr {
        "0.0.0.0/0" => some(rng, &["10.1.0.0/16", "192.0.2.1/32"], 2),
        "10.0.0.0/8" => some(rng, &["10.1.0.0/16", "10.2.0.1/32"], 2),
        _other => Vec::new(),
    };
    networks.into_iter().map(|cidr| (cidr, parts(rng, cidr))).collect()
}

fn any_named(rng: &mut Rng, by_reference: bool) -> Named {
    let patterns = [
        "*",
        "*.demo.serviceaccount.identity.linkerd.cluster.local",
        "*.cluster.local",
        "web.demo.serviceaccount.identity.linkerd.cluster.local",
        "web.shop.serviceaccount.identity.linkerd.cluster.local",
        "*.other",
    ];
    let accounts = [(None, "web"), (Some("demo"), "api"), (Some("shop"), "web"), (None, "web.demo")];
    if by_reference && rng.bool() {
        let mut named = Named { accounts: some(rng, &accounts, 2), ..Named::default() };
        named.namespaces = some(rng, &["demo", "shop", "demos"], 2);
        if named.accounts.is_empty() && named.namespaces.is_empty() {
            named.namespaces.push("demo");
        }
        return named;
    }
    let accounts = if by_reference { Vec::new() } else { some(rng, &accounts, 2) };
    let mut named = Named { patterns: some(rng, &patterns, 2), accounts, namespaces: Vec::new() };
    if named.patterns.is_empty() && named.accounts.is_empty() {
        named.patterns.push(one(rng, &patterns));
    }
    named
}

fn any_written(rng: &mut Rng, kind: Kind) -> Written {
    if rng.u8(0..12) == 0 && kind != Kind::Server {
        return Written::Broken;
    }
    match kind {
        Kind::Server => {
            let ports = [Port::Number(80), Port::Number(8080), Port::Http, Port::Number(9090), Port::Other, Port::Bad];
            let access = [
                "deny",
                "audit",
                "all-unauthenticated",
                "all-authenticated",
                "cluster-unauthenticated",
                "cluster-authenticated",
                "nonsense",
            ];
            Written::Server {
                created: rng.u8(0..3),
                label: one(rng, &[None, Some("web"), Some("api")]),
                own: one(rng, &["x", "y"]),
                port: one(rng, &ports),
                access: some(rng, &access, 1).pop(),
            }
        }
        Kind::ServerAuthorization => Written::ServerAuthorization {
            name: one(rng, &[None, Some("a"), Some("b")]),
            own: one(rng, &["x", "y"]),
            networks: rng.bool().then(|| any_networks(rng)),
            clients: match rng.u8(0..4) {
                0 => Clients::Anyone,
                1 => Clients::Tls,
                _named => Clients::Named(any_named(rng, false)),
            },
        },
        Kind::AuthorizationPolicy => {
            let mut refs = Vec::new();
            match rng.u8(0..4) {
                0 => {}
                1 => refs.push(Ref::Account(one(rng, &["demo", "shop"]), one(rng, &["web", "api"]))),
                _object => refs.push(Ref::MeshTls(one(rng, &["a", "b", "gone"]))),
            }
            if rng.bool() {
                refs.push(Ref::Networks(one(rng, &["a", "b", "gone"])));
            }
            let targets = [
                Target::Namespace,
                Target::Server("a"),
                Target::Server("b"),
                Target::Route(Kind::HttpRoute, "a"),
                Target::Route(Kind::PolicyHttpRoute, "a"),
                Target::Route(Kind::PolicyHttpRoute, "b"),
            ];
            Written::AuthorizationPolicy { target: one(rng, &targets), refs }
        }
        Kind::HttpRoute | Kind::PolicyHttpRoute => Written::Route {
            servers: one(rng, &[vec!["a"], vec!["b"], vec!["a", "b"]]),
            prefix: one(rng, &["/", "/a", "/b", "/a/b"]),
            method: one(rng, &[None, Some("GET"), Some("POST")]),
        },
        Kind::MeshTlsAuthentication => Written::MeshTls(any_named(rng, true)),
        _networks => Written::Networks(any_networks(rng)),
    }
}

/// Objects come, change, go and break one at a time; after each of them every client is asked about at every port, with connections and requests. Seen to fail when a change of
/// a MeshTLSAuthentication, of a Server's labels or of a pod's touches nobody, and when exceptions of networks are left out.
#[test]
fn compiled_policies_are_those_that_are_written() {
    let mut rng = Rng::with_seed(6);
    let (mut asked, mut allowed_before) = (0, BTreeSet::new());
    for run in 0..60 {
        let mut mesh = Mesh::new();
        let mut world = World { default: DefaultPolicy::AllUnauthenticated, label: "web", objects: BTreeMap::new() };
        mesh.apply(Mesh::events(&world.pod()));
        for step in 0..60 {
            let context = format!("run {run}, step {step}");
            if rng.u8(0..8) == 0 {
                world.default = one(&mut rng, &DefaultPolicy::ALL);
                world.label = one(&mut rng, &["web", "api", "db"]);
                mesh.apply(Mesh::events(&world.pod()));
            } else {
                let kinds = [&Kind::INBOUND_POLICIES[..], &ROUTES].concat();
                let key = (one(&mut rng, &kinds), one(&mut rng, &["a", "b", "c"]));
                if rng.u8(0..4) == 0 {
                    world.objects.remove(&key);
                    let name = ObjectName { kind: key.0, name: Name::new("demo", key.1) };
                    mesh.apply(vec![Event::Remove(name)]);
                } else {
                    let written = any_written(&mut rng, key.0);
                    mesh.apply(Mesh::events(&yaml(key.0, key.1, &written)));
                    world.objects.insert(key, written);
                }
            }
            asked += mesh.compare(&world, &context);
            allowed_before.insert(CLIENTS.iter().filter(|client| world.allows(**client, 80, ASKED[1])).count());
        }
    }
    assert!(asked > 100_000 && allowed_before.len() == CLIENTS.len() + 1, "{asked}: {allowed_before:?}");
}

/// Each way to name clients in each kind of object, against each client, at a port of its Server, at one of another Server and at one of none.
#[test]
fn each_way_to_let_clients_in_lets_in_those() {
    let everywhere: Networks = vec![("0.0.0.0/0", vec![]), ("::/0", vec![])];
    let named = |patterns: &[&'static str]| Named { patterns: patterns.to_vec(), ..Named::default() };
    let accounts = Named { accounts: vec![(None, "web"), (Some("shop"), "web")], ..Named::default() };
    let ways: Vec<Vec<(Kind, &'static str, Written)>> = {
        let saz = |networks: &Option<Networks>, clients: Clients| {
            let (name, networks) = (Some("a"), networks.clone());
            vec![(Kind::ServerAuthorization, "s", Written::ServerAuthorization { name, own: "x", networks, clients })]
        };
        let policy = |server: Option<&'static str>, refs| {
            let target = server.map_or(Target::Namespace, Target::Server);
            (Kind::AuthorizationPolicy, "p", Written::AuthorizationPolicy { target, refs })
        };
        let mesh = |named: Named| (Kind::MeshTlsAuthentication, "m", Written::MeshTls(named));
        let net = |networks: Networks| (Kind::NetworkAuthentication, "n", Written::Networks(networks));
        let cut: Networks = vec![("10.0.0.0/8", vec!["10.1.0.0/16"])];
        let namespaces = Named { namespaces: vec!["demo"], ..Named::default() };
        let (own, suffix) = (
            "web.demo.serviceaccount.identity.linkerd.cluster.local",
            "*.demo.serviceaccount.identity.linkerd.cluster.local",
        );
        vec![
            vec![],
            saz(&None, Clients::Anyone),
            saz(&Some(everywhere.clone()), Clients::Anyone),
            saz(&Some(everywhere.clone()), Clients::Tls),
            saz(&Some(everywhere.clone()), Clients::Named(named(&["*"]))),
            saz(&Some(cut.clone()), Clients::Named(named(&[suffix]))),
            saz(&None, Clients::Named(accounts.clone())),
            vec![policy(None, vec![])],
            vec![policy(Some("a"), vec![Ref::Account("demo", "api")])],
            vec![policy(Some("a"), vec![Ref::MeshTls("m")]), mesh(named(&[own]))],
            vec![policy(Some("a"), vec![Ref::MeshTls("m")]), mesh(named(&[suffix]))],
            vec![policy(Some("a"), vec![Ref::MeshTls("m")]), mesh(namespaces)],
            vec![policy(Some("a"), vec![Ref::MeshTls("m"), Ref::Networks("n")]), mesh(accounts), net(cut.clone())],
            vec![policy(Some("a"), vec![Ref::Networks("n")]), net(cut)],
            vec![policy(Some("a"), vec![Ref::MeshTls("gone")])],
            vec![policy(Some("a"), vec![Ref::Networks("gone")]), net(everywhere)],
            vec![policy(Some("b"), vec![])],
        ]
    };
    let server = |port, access| Written::Server { created: 0, label: Some("web"), own: "x", port, access };
    let mut asked = 0;
    for (at, way) in ways.into_iter().enumerate() {
        for access in [None, Some("all-authenticated"), Some("cluster-unauthenticated")] {
            let mut world =
                World { default: DefaultPolicy::ClusterAuthenticated, label: "web", objects: BTreeMap::new() };
            let servers = [("a", server(Port::Number(80), access)), ("b", server(Port::Http, None))];
            let servers = servers.map(|(name, written)| (Kind::Server, name, written));
            for (kind, name, written) in servers.into_iter().chain(way.clone()) {
                world.objects.insert((kind, name), written);
            }
            let objects = world.objects.iter().map(|((kind, name), written)| yaml(*kind, name, written));
            let mut mesh = Mesh::new();
            mesh.apply(Mesh::events(&objects.chain([world.pod()]).collect::<String>()));
            asked += mesh.compare(&world, &format!("way {at}, {access:?}"));
        }
    }
    assert!(asked >= 300, "{asked}");
}

/// A Server is told before the pods that it is about, and taken away after them: in between a node would close its ports.
#[test]
fn servers_come_before_their_pods_and_go_after_them() {
    let mut index = cluster();
    let server = yaml(
        Kind::Server,
        "a",
        &Written::Server {
            created: 0,
            label: None,
            own: "x",
            port: Port::Number(80),
            access: Some("all-authenticated"),
        },
    );
    upsert(&mut index, &server);
    let mut session = begin(&index, &v1::Hello::default());
    let first = session.next(&index, ANCHORS, Instant::now()).unwrap();
    let expected =
        ["+TRUST_BUNDLE:cluster.local", "+MESHED_NAMESPACE:demo", "+INBOUND_SERVER:demo/a", "+WORKLOAD:uid-web"];
    assert_eq!(keys(&first), expected);
    acknowledge(&mut session, &first);
    let gone = ObjectName { kind: Kind::Server, name: Name::new("demo", "a") };
    let changed = index.apply(vec![Event::Remove(gone)]);
    session.touch(&changed, &index);
    let second = session.next(&index, ANCHORS, Instant::now()).unwrap();
    assert_eq!(keys(&second), ["+WORKLOAD:uid-web", "-INBOUND_SERVER:demo/a"]);
    assert!(session.next(&index, ANCHORS, Instant::now()).is_none());
}
