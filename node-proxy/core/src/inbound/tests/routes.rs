//! Tests of routes that have a Server as a parent: which requests there are, and who may send which.

use http::{HeaderMap, Method};
use weir_api::v1::{self, ClientKind, HttpMatch, http_match::Path, http_rule::Destination};

use super::{
    servers::{apply_all, authorization, with_routes, workload},
    *,
};
use crate::{route::Facts, snapshot::Snapshot};

fn route(name: &str, prefix: &str, authorizations: Vec<v1::InboundAuthorization>) -> v1::InboundRoute {
    let object = v1::ObjectRef { kind: "HTTPRoute".into(), name: name.into(), ..v1::ObjectRef::default() };
    let matches = vec![HttpMatch { path: Some(Path::PathPrefix(prefix.into())), ..HttpMatch::default() }];
    let rule =
        v1::HttpRule { matches, destination: Some(Destination::Itself(v1::Itself {})), ..v1::HttpRule::default() };
    let route = v1::HttpRoute {
        object: Some(object),
        rules: vec![rule],
        level: v1::RouteLevel::Requests.into(),
        ..v1::HttpRoute::default()
    };
    v1::InboundRoute { route: Some(route), authorizations }
}

fn only(who: &str) -> v1::InboundAuthorization {
    v1::InboundAuthorization { identities: vec![who.into()], ..authorization(ClientKind::ClientIdentities) }
}

fn node(authorizations: Vec<v1::InboundAuthorization>, routes: Vec<v1::InboundRoute>) -> (Snapshot, Vec<String>) {
    let server = with_routes("shop/web", authorizations, routes);
    apply_all(&Snapshot::default(), vec![workload(&[(80, 80, "shop/web")]), server])
}

/// The plan, the route and what let the client in.
fn request(snapshot: &Snapshot, identity: Option<&str>, path: &str) -> (InboundPlan, String, String) {
    let workload = snapshot.workload_by_uid("u").unwrap();
    let identity: Option<Identity> = identity.map(|name| name.parse().unwrap());
    let client = Client { identity: identity.as_ref(), is_tls: identity.is_some(), address: INSIDE.parse().unwrap() };
    let Rules::Server(policy) = snapshot.rules(workload, 80) else { panic!("not known") };
    let standing = standing(workload, Rules::Server(policy), &networks(), client);
    let headers = HeaderMap::new();
    let facts = Facts { authority: "web", method: &Method::GET, path, query: "", headers: &headers };
    let routes = policy.routes.as_ref().unwrap();
    let requested = routes.request(&standing, &facts, 80, &networks(), client);
    assert_eq!(requested.routed.is_some(), !matches!(requested.plan, InboundPlan::Deny(_)));
    let named =
        |object: &Option<Arc<ObjectRef>>| object.as_ref().map_or(String::new(), |object| object.name.to_string());
    (requested.plan, named(&requested.ruling.route), named(&requested.ruling.authorization))
}

const YES: InboundPlan = InboundPlan::Allow(Authorization::Policy);
const UNROUTED: InboundPlan = InboundPlan::Deny(ProxyError::NoRoute);
const API: &str = "api.shop.serviceaccount.identity.linkerd.cluster.local";

fn no(denial: Denial) -> InboundPlan {
    InboundPlan::Deny(ProxyError::Unauthorized(denial))
}

/// A route's policies add to the Server's; a request under no route is none, whoever sends it.
#[test]
fn routes_add_to_their_server() {
    let server = v1::InboundAuthorization {
        object: Some(v1::ObjectRef {
            kind: "serverauthorization".into(),
            name: "s".into(),
            ..v1::ObjectRef::default()
        }),
        ..only(API)
    };
    let routes = vec![
        route("open", "/open", vec![authorization(ClientKind::ClientAnyone)]),
        route("web", "/web", vec![only(WEB)]),
        route("shut", "/shut", Vec::new()),
    ];
    let (snapshot, rejected) = node(vec![server], routes);
    assert!(rejected.is_empty(), "{rejected:?}");
    let identities = no(Denial::ServerIdentities);
    for (who, path, plan, of, by) in [
        (None, "/open", YES, "open", "p"),
        (None, "/web", no(Denial::ServerUnauthenticated), "web", ""),
        (None, "/shut", no(Denial::ServerUnauthenticated), "shut", ""),
        (None, "/none", UNROUTED, "", ""),
        (Some(WEB), "/web/x", YES, "web", "p"),
        (Some(WEB), "/shut", identities, "shut", ""),
        (Some(WEB), "/webx", UNROUTED, "", ""),
        (Some(API), "/open", YES, "open", "s"),
        (Some(API), "/web", YES, "web", "s"),
        (Some(API), "/shut", YES, "shut", "s"),
        (Some(API), "/none", UNROUTED, "", ""),
        (None, "/open/../web", UNROUTED, "", ""),
        (Some(API), "/open/%2e%2e/web", UNROUTED, "", ""),
    ] {
        assert_eq!(request(&snapshot, who, path), (plan, of.to_owned(), by.to_owned()), "{who:?} {path}");
    }
}

/// A route that cannot be used, or is no route of a Server's, closes its ports.
#[test]
fn a_bad_route_closes_its_server() {
    let changed = |change: fn(&mut v1::HttpRoute)| {
        let mut one = route("a", "/", Vec::new());
        change(one.route.as_mut().unwrap());
        one
    };
    let anyone = || vec![authorization(ClientKind::ClientAnyone)];
    for (routes, field) in [
        (vec![v1::InboundRoute { route: None, authorizations: Vec::new() }], "routes[0].route: missing"),
        (vec![changed(|route| route.object = None)], "routes[0].route.object: missing"),
        (vec![changed(|route| route.is_consumer = true)], "routes[0].route: not one"),
        (vec![changed(|route| route.level = v1::RouteLevel::Tcp.into())], "routes[0].route: not one"),
        (vec![changed(|route| route.rules[0].destination = None)], "routes."),
        (vec![route("a", "/", Vec::new()), route("a", "/b", Vec::new())], "routes[1].route.object: there twice"),
        (vec![route("a", "/", vec![authorization(ClientKind::Unspecified)])], "routes[0].authorizations[0].clients"),
    ] {
        let (snapshot, rejected) = node(anyone(), routes);
        assert!(rejected.len() == 1 && rejected[0].starts_with(field), "{field}: {rejected:?}");
        let workload = snapshot.workload_by_uid("u").unwrap();
        assert!(matches!(snapshot.rules(workload, 80), Rules::Unknown(_)), "{field}");
    }
}

/// One that has no rules stands there, and nothing falls under it.
#[test]
fn a_route_without_rules_is_one() {
    let empty = v1::InboundRoute {
        route: Some(v1::HttpRoute { rules: Vec::new(), ..route("a", "/", Vec::new()).route.unwrap() }),
        authorizations: vec![authorization(ClientKind::ClientAnyone)],
    };
    let (snapshot, rejected) = node(vec![authorization(ClientKind::ClientAnyone)], vec![empty]);
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(request(&snapshot, Some(WEB), "/").0, UNROUTED);
}
