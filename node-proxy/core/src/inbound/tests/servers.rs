//! Tests of Servers' policies: the compiled form against a loop over all grants, and what control may say of them.

use proptest::prelude::*;
use weir_api::v1::{self, ClientKind, ResourceKind, resource::Body};

use super::*;
use crate::snapshot::{Snapshot, apply, tests::resource};

fn object(name: &str) -> Arc<ObjectRef> {
    Arc::new(ObjectRef { name: Arc::from(name), ..ObjectRef::default() })
}

fn grant(name: &str, networks: &[&str], clients: Clients) -> Grant {
    let network = |text: &&str| Network { cidr: text.parse().unwrap(), except: Vec::new() };
    let networks = networks.iter().map(network).collect();
    Grant { object: object(name), cluster_networks: false, networks, clients, audit: false }
}

fn identities(exact: &[&str], suffixes: &[&str]) -> Clients {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Clients::Identities { exact: names(exact), suffixes: names(suffixes) }
}

fn who<'a>(policy: &'a ServerPolicy, identity: Option<&str>, is_tls: bool, address: &str) -> Result<&'a str, Denial> {
    let identity: Option<Identity> = identity.map(|name| name.parse().unwrap());
    let client = Client { identity: identity.as_ref(), is_tls, address: address.parse().unwrap() };
    policy.decide(&networks(), client).map(|grant| &*grant.object.name)
}

const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];
const API: &str = "api.shop.serviceaccount.identity.linkerd.cluster.local";
const DOTTED: &str = "web.v1.shop.serviceaccount.identity.linkerd.cluster.local";
const OTHER: &str = "web.shopper.serviceaccount.identity.linkerd.cluster.local";

#[test]
fn each_grant_adds_and_nothing_else_does() {
    let shop = "shop.serviceaccount.identity.linkerd.cluster.local";
    let policy = ServerPolicy::new(
        object("web"),
        vec![
            grant("web", &ALL, identities(&[WEB], &[])),
            grant("near", &["10.1.0.0/16"], identities(&[], &[shop])),
            grant("tls", &["192.0.2.0/24"], Clients::Tls),
            grant("meshed", &["198.51.100.0/24"], Clients::Authenticated),
            grant("open", &["203.0.113.7/32"], Clients::Anyone),
            grant("nowhere", &[], Clients::Anyone),
        ],
    );
    for (identity, is_tls, address, expected) in [
        (Some(WEB), true, "8.8.8.8", Ok("web")),
        (Some(WEB), true, "10.1.0.1", Ok("web")),
        (Some(API), true, "10.1.0.1", Ok("near")),
        (Some(API), true, "::ffff:10.1.0.1", Ok("near")),
        (Some(DOTTED), true, "10.1.0.1", Ok("near")),
        (Some(API), true, "10.2.0.1", Err(Denial::ServerNetworks)),
        (Some(OTHER), true, "10.1.0.1", Err(Denial::ServerNetworks)),
        (Some(OTHER), true, "198.51.100.1", Ok("meshed")),
        (Some(OTHER), true, "192.0.2.1", Ok("tls")),
        (None, true, "192.0.2.1", Ok("tls")),
        (None, true, "198.51.100.1", Err(Denial::ServerNetworks)),
        (None, false, "192.0.2.1", Err(Denial::ServerNetworks)),
        (None, false, "203.0.113.7", Ok("open")),
        (Some(API), true, "203.0.113.7", Ok("open")),
    ] {
        assert_eq!(who(&policy, identity, is_tls, address), expected, "{identity:?} {is_tls} {address}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let of = |grants| ServerPolicy::new(object("web"), grants);
    let named = || grant("a", &ALL, identities(&[WEB], &[]));
    assert_eq!(who(&of(Vec::new()), Some(WEB), true, INSIDE), Err(Denial::Server));
    assert_eq!(who(&of(vec![named()]), None, false, INSIDE), Err(Denial::ServerUnauthenticated));
    assert_eq!(who(&of(vec![named()]), Some(API), true, INSIDE), Err(Denial::ServerIdentities));
    let cut = Network { cidr: "10.0.0.0/8".parse().unwrap(), except: vec!["10.9.0.0/16".parse().unwrap()] };
    let cut = Grant { networks: vec![cut], ..grant("cut", &[], Clients::Anyone) };
    assert_eq!(who(&of(vec![cut.clone()]), None, false, INSIDE), Err(Denial::ServerNetworks));
    assert_eq!(who(&of(vec![cut]), None, false, "10.8.0.1"), Ok("cut"));
    let cluster = Grant { cluster_networks: true, ..grant("cluster", &[], Clients::Anyone) };
    assert_eq!(who(&of(vec![cluster.clone()]), None, false, INSIDE), Ok("cluster"));
    assert_eq!(who(&of(vec![cluster]), None, false, OUTSIDE), Err(Denial::ServerNetworks));
}

pub(super) fn workload(servers: &[(u32, u32, &str)]) -> v1::Resource {
    let servers = servers.iter().map(|(first, last, server)| v1::ServerPorts {
        ports: Some(v1::PortRange { first: *first, last: *last }),
        server: (*server).to_owned(),
    });
    let workload = v1::Workload {
        uid: "u".into(),
        addresses: vec!["10.1.0.9".into()],
        identity: WEB.into(),
        default_policy: v1::DefaultPolicy::AllUnauthenticated.into(),
        servers: servers.collect(),
        ..v1::Workload::default()
    };
    resource(ResourceKind::Workload, "u", Body::Workload(workload))
}

pub(super) fn server(name: &str, authorizations: Vec<v1::InboundAuthorization>) -> v1::Resource {
    with_routes(name, authorizations, Vec::new())
}

pub(super) fn with_routes(
    name: &str,
    authorizations: Vec<v1::InboundAuthorization>,
    routes: Vec<v1::InboundRoute>,
) -> v1::Resource {
    let (namespace, own) = name.split_once('/').unwrap();
    let object = v1::ObjectRef {
        group: "policy.linkerd.io".into(),
        kind: "server".into(),
        namespace: namespace.into(),
        name: own.into(),
    };
    let server = v1::InboundServer { object: Some(object), authorizations, routes };
    resource(ResourceKind::InboundServer, name, Body::InboundServer(server))
}

pub(super) fn authorization(clients: ClientKind) -> v1::InboundAuthorization {
    let object = v1::ObjectRef { kind: "authorizationpolicy".into(), name: "p".into(), ..v1::ObjectRef::default() };
    v1::InboundAuthorization {
        object: Some(object),
        networks: vec![v1::Network { cidr: "0.0.0.0/0".into(), except: Vec::new() }],
        clients: clients.into(),
        ..v1::InboundAuthorization::default()
    }
}

fn asked(snapshot: &Snapshot, port: u16) -> InboundPlan {
    let workload = snapshot.workload_by_uid("u").unwrap();
    let client = Client { identity: None, is_tls: false, address: INSIDE.parse().unwrap() };
    standing(workload, snapshot.rules(workload, port), &networks(), client).plan.or_probe(workload, port, None, GET)
}

pub(super) fn apply_all(previous: &Snapshot, upserts: Vec<v1::Resource>) -> (Snapshot, Vec<String>) {
    let applied = apply(previous, std::time::Duration::ZERO, upserts, Vec::new());
    (applied.snapshot, applied.rejected.into_iter().map(|rejected| rejected.reason).collect())
}

const NO: fn(Denial) -> InboundPlan = |denial| InboundPlan::Deny(ProxyError::Unauthorized(denial));

/// A port that a Server names is closed until the node knows its policies, and again when it knows them no more; the first name of a port counts.
#[test]
fn a_server_that_is_not_known_closes_its_ports() {
    let yes = InboundPlan::Allow(Authorization::Policy);
    let ports = [(80, 80, "shop/web"), (70, 90, "shop/all")];
    let (late, rejected) = apply_all(&Snapshot::default(), vec![workload(&ports)]);
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(
        [80, 81, 91].map(|port| asked(&late, port)),
        [NO(Denial::ServerUnknown), NO(Denial::ServerUnknown), yes]
    );
    let servers = [("shop/web", vec![authorization(ClientKind::ClientAnyone)]), ("shop/all", Vec::new())];
    let (known, rejected) = apply_all(&late, servers.map(|(name, grants)| server(name, grants)).to_vec());
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!([80, 81, 91].map(|port| asked(&known, port)), [yes, NO(Denial::Server), yes]);
    let key = v1::ResourceKey { kind: ResourceKind::InboundServer.into(), name: "shop/web".into() };
    let gone = apply(&known, std::time::Duration::ZERO, Vec::new(), vec![key]).snapshot;
    assert_eq!(asked(&gone, 80), NO(Denial::ServerUnknown));
    let kinds: Vec<_> = known.versions().into_iter().map(|(key, _version)| key.kind()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == ResourceKind::InboundServer).count(), 2, "{kinds:?}");
}

/// What is missing or malformed is refused by name, and its ports are closed: the last good policy might let in whom the new one does not.
#[test]
fn a_bad_server_is_refused_by_name() {
    let (good, _) =
        apply_all(&Snapshot::default(), vec![workload(&[(80, 80, "shop/web")]), server("shop/web", Vec::new())]);
    let anyone = || authorization(ClientKind::ClientAnyone);
    let named = |identities: &[&str]| v1::InboundAuthorization {
        identities: identities.iter().map(|name| (*name).to_owned()).collect(),
        ..authorization(ClientKind::ClientIdentities)
    };
    let network = |cidr: &str, except: &[&str]| v1::InboundAuthorization {
        networks: vec![v1::Network {
            cidr: cidr.into(),
            except: except.iter().map(|text| (*text).to_owned()).collect(),
        }],
        ..anyone()
    };
    for (bad, field) in [
        (authorization(ClientKind::Unspecified), "authorizations[1].clients: missing"),
        (v1::InboundAuthorization { clients: 77, ..anyone() }, "authorizations[1].clients"),
        (v1::InboundAuthorization { object: None, ..anyone() }, "authorizations[1].object: missing"),
        (named(&[""]), "authorizations[1].identities: an empty one"),
        (network("10.0.0.0/33", &[]), "authorizations[1].networks[0].cidr: \"10.0.0.0/33\""),
        (network("10.0.0.0/8", &["ten"]), "authorizations[1].networks[0].except: \"ten\""),
    ] {
        let (after, rejected) = apply_all(&good, vec![server("shop/web", vec![anyone(), bad])]);
        assert!(rejected.len() == 1 && rejected[0].starts_with(field), "{field}: {rejected:?}");
        assert_eq!(asked(&after, 80), NO(Denial::ServerUnknown), "{field}");
    }
    let (_after, rejected) = apply_all(&good, vec![workload(&[(80, 80, "")]), workload(&[(0, 80, "shop/web")])]);
    assert!(rejected.len() == 2 && rejected.iter().all(|reason| reason.starts_with("servers")), "{rejected:?}");
}

fn any_clients() -> impl Strategy<Value = Clients> {
    let name = prop::sample::select(vec![WEB, API, DOTTED, OTHER]);
    let suffix = prop::sample::select(vec![
        "shop.serviceaccount.identity.linkerd.cluster.local",
        "v1.shop.serviceaccount.identity.linkerd.cluster.local",
        "linkerd.cluster.local",
        "local",
        "op.serviceaccount.identity.linkerd.cluster.local",
        WEB,
    ]);
    let lists = (prop::collection::vec(name, 0..3), prop::collection::vec(suffix, 0..3));
    prop_oneof![
        Just(Clients::Anyone),
        Just(Clients::Tls),
        Just(Clients::Authenticated),
        lists.prop_map(|(exact, suffixes)| identities(&exact, &suffixes)),
    ]
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let cidr = prop::sample::select(vec!["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.9.9/32", "fd00::/8"]);
    let network = (cidr.clone(), prop::collection::vec(cidr, 0..2));
    let network = network.prop_map(|(cidr, except)| Network {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|text| text.parse().unwrap()).collect(),
    });
    (prop::collection::vec(network, 0..3), any_clients(), any::<(bool, bool)>()).prop_map(
        |(networks, clients, (cluster_networks, audit))| Grant {
            object: object(""),
            cluster_networks,
            networks,
            clients,
            audit,
        },
    )
}

/// As the resources are documented: one grant after the other, each of its words looked at.
fn naive(grants: &[Grant], identity: Option<&str>, is_tls: bool, address: IpAddr) -> Option<usize> {
    let lets_in = |grant: &Grant| {
        let from_there = grant.networks.iter().any(|network| {
            network.cidr.contains(&address) && network.except.iter().all(|except| !except.contains(&address))
        }) || (grant.cluster_networks && networks().iter().any(|network| network.contains(&address)));
        let is_who = match &grant.clients {
            Clients::Anyone => true,
            Clients::Tls => is_tls,
            Clients::Authenticated => identity.is_some(),
            Clients::Identities { exact, suffixes } => identity.is_some_and(|identity| {
                exact.iter().any(|name| **name == *identity)
                    || suffixes.iter().any(|suffix| identity.ends_with(&format!(".{suffix}")))
            }),
        };
        from_there && is_who
    };
    grants.iter().position(lets_in)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn compiled_grants_are_those_that_are_written(
        grants in prop::collection::vec(any_grant(), 0..6),
        identity in prop::option::of(prop::sample::select(vec![WEB, API, DOTTED, OTHER])),
        plain_tls in any::<bool>(),
        address in prop::sample::select(vec!["10.9.9.9", "10.9.1.1", "10.1.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"]),
    ) {
        let grants: Vec<Grant> = grants.into_iter().enumerate().map(|(at, grant)| Grant { object: object(&at.to_string()), ..grant }).collect();
        let is_tls = plain_tls || identity.is_some();
        let expected = naive(&grants, identity, is_tls, address.parse().unwrap());
        let policy = ServerPolicy::new(object("web"), grants);
        let found = who(&policy, identity, is_tls, address).ok().map(|name| name.parse::<usize>().unwrap());
        prop_assert_eq!(found, expected);
    }
}
