//! What of policy objects is taken, and what is in force instead of what is not understood.

use super::*;
use crate::{
    fixtures::{objects, options},
    objects::authorization::{Operator, Selector},
    parse::{self, Parsed},
};

fn text(kind: &str, spec: &str) -> String {
    let version = if kind == "Server" { "v1beta3" } else { "v1alpha1" };
    format!(
        "apiVersion: policy.linkerd.io/{version}\nkind: {kind}\nmetadata: {{name: it, namespace: demo}}\nspec: {spec}\n"
    )
}

fn good(kind: &str, spec: &str) -> Policy {
    match objects(&text(kind, spec)).remove(0).1 {
        Object::Policy(policy) => Policy::clone(&policy),
        other => panic!("{other:?}"),
    }
}

/// What is in force, and what is said about it.
fn bad(kind: &str, spec: &str) -> (Policy, String) {
    let Parsed { objects, findings, refused, .. } = parse::manifest("test.yaml", &text(kind, spec), &options());
    assert!(refused.is_empty() && findings.len() == 1, "{spec}: {refused:?} {findings:?}");
    match &objects[0].1 {
        Object::Policy(policy) => (Policy::clone(policy), format!("{}: {}", findings[0].field, findings[0].reason)),
        other => panic!("{other:?}"),
    }
}

fn server(spec: &str) -> Server {
    match good("Server", spec) {
        Policy::Server(server) => server,
        other => panic!("{other:?}"),
    }
}

#[test]
fn servers_are_read_as_they_are_written() {
    let read = server(
        "{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [db]}, {key: x, operator: Exists}, {key: y, operator: DoesNotExist}]}, port: http}",
    );
    let requirements = read.pods.as_ref().map(|Selector(requirements)| requirements.len());
    assert_eq!((requirements, &read.port), (Some(4), &ServerPort::Named("http".into())));
    assert_eq!((read.protocol, read.access), (v1::Protocol::Detect, DefaultPolicy::Deny), "Linkerd's defaults");
    let labels =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
    let selector = read.pods.unwrap();
    assert!(selector.matches(&labels(&[("app", "web"), ("x", "")])));
    for other in [
        &[("app", "api"), ("x", "")][..],
        &[("app", "web")],
        &[("app", "web"), ("x", ""), ("tier", "db")],
        &[("app", "web"), ("x", ""), ("y", "")],
    ] {
        assert!(!selector.matches(&labels(other)), "{other:?}");
    }
    assert_eq!(server("{podSelector: {}, port: 80}").pods, Some(Selector::default()), "all of its namespace");
    assert_eq!(server("{podSelector: {}, port: \"80\"}").port, ServerPort::Number(80));
    assert_eq!(server("{externalWorkloadSelector: {}, port: 80}").pods, None, "no pod");
    for (written, protocol) in [
        ("unknown", v1::Protocol::Detect),
        ("HTTP/1", v1::Protocol::Http1),
        ("HTTP/2", v1::Protocol::Http2),
        ("gRPC", v1::Protocol::Http2),
        ("opaque", v1::Protocol::Opaque),
        ("TLS", v1::Protocol::Tls),
    ] {
        assert_eq!(server(&format!("{{podSelector: {{}}, port: 80, proxyProtocol: {written}}}")).protocol, protocol);
    }
    for access in DefaultPolicy::ALL {
        assert_eq!(server(&format!("{{podSelector: {{}}, port: 80, accessPolicy: {access}}}")).access, access);
    }
}

/// Of a Server that is not understood whatever it may have meant is closed.
#[test]
fn the_strictest_reading_of_a_server_is_in_force() {
    let all = Server::strictest(Arc::default(), Default::default());
    let at_80 = Server { port: ServerPort::Number(80), ..all.clone() };
    for (spec, expected, said) in [
        ("{port: 80}", &at_80, "spec.podSelector: missing"),
        ("{podSelector: {}, externalWorkloadSelector: {}, port: 80}", &at_80, "spec.podSelector: both"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}, port: 80}",
            &at_80,
            "spec.podSelector.matchExpressions[0].operator: \"Like\"",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}, port: 80}",
            &at_80,
            "spec.podSelector.matchExpressions[0].values: missing",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}, port: 80}",
            &at_80,
            "spec.podSelector.matchExpressions[0].values: Exists takes none",
        ),
        ("{podSelector: {}}", &all, "spec.port: missing"),
        ("{podSelector: {}, port: 0}", &all, "spec.port: 0 is no port"),
        ("{podSelector: {}, port: 65536}", &all, "spec.port: 65536 is no port"),
        ("{podSelector: {}, port: \"\"}", &all, "spec.port: \"\" is no port"),
        ("{podSelector: {}, port: 80, proxyProtocol: SPDY}", &at_80, "spec.proxyProtocol: \"SPDY\""),
        ("{podSelector: {}, port: 80, accessPolicy: allow}", &at_80, "spec.accessPolicy: \"allow\""),
        ("{podSelector: [], port: 80}", &all, "spec.podSelector"),
    ] {
        let (policy, finding) = bad("Server", spec);
        assert_eq!(policy, Policy::Server(expected.clone()), "{spec}");
        assert!(finding.starts_with(said) && finding.contains("; until it is corrected, "), "{spec}: {finding}");
    }
}

fn lets_nobody_in(cases: &[((&str, String), &str)]) {
    for ((kind, spec), said) in cases {
        let (policy, finding) = bad(kind, spec);
        assert_eq!(policy, Policy::Broken, "{kind} {spec}");
        assert!(finding.starts_with(said) && finding.ends_with("lets nobody in"), "{kind} {spec}: {finding}");
    }
}

/// Whoever lets clients in and is not understood lets nobody in; the field is named.
#[test]
fn a_server_authorization_that_is_not_understood_lets_nobody_in() {
    let saz = |client: &str| ("ServerAuthorization", format!("{{server: {{name: web}}, client: {{{client}}}}}"));
    lets_nobody_in(&[
        (("ServerAuthorization", "{client: {unauthenticated: true}}".to_owned()), "spec.server: exactly one"),
        (
            ("ServerAuthorization", "{server: {name: a, selector: {}}, client: {unauthenticated: true}}".to_owned()),
            "spec.server: exactly one",
        ),
        (saz(""), "spec.client: neither"),
        (saz("unauthenticated: false"), "spec.client: neither"),
        (saz("unauthenticated: true, meshTLS: {identities: ['*']}"), "spec.client.meshTLS: set beside unauthenticated"),
        (saz("meshTLS: {}"), "spec.client.meshTLS: names nobody"),
        (
            saz("meshTLS: {unauthenticatedTLS: true, identities: ['*']}"),
            "spec.client.meshTLS.unauthenticatedTLS: set beside",
        ),
        (saz("meshTLS: {identities: ['Web.demo']}"), "spec.client.meshTLS.identities[0]: \"Web.demo\" is no identity"),
        (saz("meshTLS: {identities: ['web.demo.']}"), "spec.client.meshTLS.identities[0]: \"web.demo.\""),
        (saz("meshTLS: {identities: ['web*.demo']}"), "spec.client.meshTLS.identities[0]: \"web*.demo\""),
        (saz("meshTLS: {identities: ['']}"), "spec.client.meshTLS.identities[0]: \"\""),
        (saz("meshTLS: {serviceAccounts: [{namespace: demo}]}"), "spec.client.meshTLS.serviceAccounts[0]: "),
        (saz("meshTLS: {serviceAccounts: [{name: web, namespace: a.b}]}"), "spec.client.meshTLS.serviceAccounts[0]: "),
        (saz("unauthenticated: true, networks: []"), "spec.client.networks: an empty list"),
        (
            saz("unauthenticated: true, networks: [{cidr: 10.0.0.0/33}]"),
            "spec.client.networks[0].cidr: \"10.0.0.0/33\"",
        ),
        (
            saz("unauthenticated: true, networks: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]"),
            "spec.client.networks[0].except[0]: 11.0.0.0/16 is no part",
        ),
        (
            saz("unauthenticated: true, networks: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]"),
            "spec.client.networks[0].except[0]: 10.0.0.0/8 is no part",
        ),
        (saz("unauthenticated: yes please"), "spec.client.unauthenticated"),
    ]);
}

/// The same.
#[test]
fn a_policy_that_is_not_understood_lets_nobody_in() {
    let policy = |target: &str, refs: &str| {
        ("AuthorizationPolicy", format!("{{targetRef: {target}, requiredAuthenticationRefs: [{refs}]}}"))
    };
    let web = "{group: policy.linkerd.io, kind: Server, name: web}";
    let mesh = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: a}";
    let network = "{group: policy.linkerd.io, kind: NetworkAuthentication, name: a}";
    let mesh_tls = |spec: &str| ("MeshTLSAuthentication", spec.to_owned());
    let networks = |list: &str| ("NetworkAuthentication", format!("{{networks: {list}}}"));
    lets_nobody_in(&[
        (policy("{kind: Pod, name: a}", ""), "spec.targetRef.kind: \"/Pod\""),
        (policy("{kind: Namespace, name: other}", ""), "spec.targetRef.name: it has to be"),
        (
            policy("{group: policy.linkerd.io, kind: Server, name: web, namespace: other}", ""),
            "spec.targetRef.namespace: it has to be",
        ),
        (policy("{group: policy.linkerd.io, kind: Server}", ""), "spec.targetRef.name: missing"),
        (policy(web, &format!("{mesh}, {mesh}")), "spec.requiredAuthenticationRefs[1]: at most one MeshTLS"),
        (
            policy(web, &format!("{{kind: ServiceAccount, name: a}}, {mesh}")),
            "spec.requiredAuthenticationRefs[1]: at most one MeshTLS",
        ),
        (policy(web, &format!("{network}, {network}")), "spec.requiredAuthenticationRefs[1]: at most one Network"),
        (policy(web, "{kind: Secret, name: a}"), "spec.requiredAuthenticationRefs[0]: \"/Secret\""),
        (
            policy(web, "{group: policy.linkerd.io, kind: MeshTLSAuthentication}"),
            "spec.requiredAuthenticationRefs[0].name: missing",
        ),
        (("AuthorizationPolicy", "{}".to_owned()), "spec.targetRef: missing"),
        (mesh_tls("{}"), "spec.identities: names nobody"),
        (mesh_tls("{identities: []}"), "spec.identities: names nobody"),
        (mesh_tls("{identities: ['*'], identityRefs: [{kind: Namespace, name: demo}]}"), "spec.identities: set beside"),
        (mesh_tls("{identities: ['spiffe://']}"), "spec.identities[0]: \"spiffe://\" is no SPIFFE id"),
        (mesh_tls("{identities: ['spiffe://td/ns/a.b/sa/web']}"), "spec.identities[0]: "),
        (
            mesh_tls("{identityRefs: [{kind: Namespace, name: demo, namespace: demo}]}"),
            "spec.identityRefs[0].namespace: a Namespace is in none",
        ),
        (mesh_tls("{identityRefs: [{kind: Namespace}]}"), "spec.identityRefs[0].name: missing"),
        (mesh_tls("{identityRefs: [{kind: Pod, name: a}]}"), "spec.identityRefs[0].kind: \"/Pod\""),
        (mesh_tls("{identities: 7}"), "spec.identities"),
        (networks("[]"), "spec.networks: missing"),
        (networks("[{}]"), "spec.networks[0].cidr: \"\""),
        (networks("[{cidr: 'ten'}]"), "spec.networks[0].cidr: \"ten\""),
    ]);
}

#[test]
fn clients_are_who_is_named() {
    let names = |list: &[&str]| -> Vec<Arc<str>> { list.iter().map(|name| Arc::from(*name)).collect() };
    let of = |spec: &str| match good("MeshTLSAuthentication", spec) {
        Policy::MeshTls(clients) => clients,
        other => panic!("{other:?}"),
    };
    let tail = "serviceaccount.identity.linkerd.cluster.local";
    assert_eq!(of("{identities: ['*', 'a.b']}"), Clients::Authenticated);
    let expected = Clients::Identities {
        exact: names(&["a.b", &format!("web.shop.{tail}"), "spiffe://td/vm/one"]),
        suffixes: names(&["demo.example"]),
    };
    let spec = "{identities: ['a.b', '*.demo.example', 'spiffe://cluster.local/ns/shop/sa/web', 'spiffe://td/vm/one']}";
    assert_eq!(of(spec), expected, "a SPIFFE id of a service account is its identity");
    let expected = Clients::Identities {
        exact: names(&[&format!("web.demo.{tail}")]),
        suffixes: names(&[&format!("shop.{tail}")]),
    };
    assert_eq!(of("{identityRefs: [{kind: ServiceAccount, name: web}, {kind: Namespace, name: shop}]}"), expected);
    let expected = Selector(vec![crate::objects::authorization::Requirement {
        key: "own".into(),
        operator: Operator::In(names(&["x"])),
    }]);
    match good(
        "ServerAuthorization",
        "{server: {selector: {matchLabels: {own: x}}}, client: {meshTLS: {unauthenticatedTLS: true}, networks: [{cidr: 10.1.2.3/8}, {cidr: 192.0.2.1}]}}",
    ) {
        Policy::ServerAuthorization(given) => {
            assert_eq!(given.servers, ServerTarget::Selector(expected));
            assert_eq!(given.clients, Clients::Tls);
            let cidrs: Vec<_> = given.networks.iter().flatten().map(|network| network.cidr.to_string()).collect();
            assert_eq!(cidrs, ["10.0.0.0/8", "192.0.2.1/32"]);
        }
        other => panic!("{other:?}"),
    }
}
