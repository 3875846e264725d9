//! Servers and the objects that let clients in, on a real API server: followed where their definitions are, and closed where they are not
//! understood.

use std::collections::BTreeMap;

use weir_api::v1::{self, ClientKind, resource::Body};

use crate::{
    connect, populated,
    routes::{LINKERDS, definition_of, says, served},
    stage::{SOON, Stage},
};

const GROUP: &str = "policy.linkerd.io";
const KINDS: [(&str, &str, &[&str]); 5] = [
    ("servers", "Server", &["v1beta1", "v1beta2", "v1beta3"]),
    ("serverauthorizations", "ServerAuthorization", &["v1alpha1", "v1beta1"]),
    ("authorizationpolicies", "AuthorizationPolicy", &["v1alpha1"]),
    ("meshtlsauthentications", "MeshTLSAuthentication", &["v1alpha1"]),
    ("networkauthentications", "NetworkAuthentication", &["v1alpha1"]),
];

fn object(kind: &str, version: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: {GROUP}/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

type Held = BTreeMap<String, v1::Resource>;

/// Who is let into Server `shop/web`: object, clients and names; none where the node knows no such Server.
fn lets_in(held: &Held) -> Option<Vec<String>> {
    let Some(Body::InboundServer(server)) = &held.get("INBOUND_SERVER shop/web")?.body else { return None };
    let one = |given: &v1::InboundAuthorization| {
        let object = given.object.as_ref().map_or(String::new(), |object| format!("{} {}", object.kind, object.name));
        let who = match given.clients() {
            ClientKind::ClientIdentities => [&*given.identities, &*given.identity_suffixes].concat().join(" "),
            other => other.as_str_name().to_owned(),
        };
        let networks: Vec<&str> = given.networks.iter().map(|network| network.cidr.as_str()).collect();
        format!(
            "{object}: {who} from {}",
            if given.cluster_networks { "the cluster".to_owned() } else { networks.join(" ") }
        )
    };
    Some(server.authorizations.iter().map(one).collect())
}

/// Ports of the node's pod that a Server decides about.
fn ports(held: &Held) -> Vec<(u32, String)> {
    let workload = held.values().find_map(|resource| match &resource.body {
        Some(Body::Workload(workload)) => Some(workload),
        _other => None,
    });
    let servers = workload.into_iter().flat_map(|workload| &workload.servers);
    servers.filter_map(|server| Some((server.ports.as_ref()?.first, server.server.clone()))).collect()
}

/// The routes of Server `shop/web`: each with its rules and whom it lets in by itself.
fn routes(held: &Held) -> Vec<(String, usize, Vec<String>)> {
    let Some(Body::InboundServer(server)) =
        held.get("INBOUND_SERVER shop/web").and_then(|resource| resource.body.as_ref())
    else {
        return Vec::new();
    };
    let one = |given: &v1::InboundRoute| {
        let route = given.route.as_ref()?;
        let by = given.authorizations.iter().filter_map(|one| Some(one.object.as_ref()?.name.clone())).collect();
        Some((route.object.as_ref()?.name.clone(), route.rules.len(), by))
    };
    server.routes.iter().filter_map(one).collect()
}

fn define(stage: &Stage) {
    for (plural, kind, versions) in KINDS {
        stage.apply(&definition_of(GROUP, plural, kind, versions));
    }
    for (plural, _kind, _versions) in KINDS {
        served(stage, &format!("{plural}.{GROUP}"));
    }
}

/// With the rights that an installation has. Each kind comes, changes and goes with its definition.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_followed_where_their_definitions_are() {
    let stage = populated();
    let mut control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    assert!(ports(&node.held).is_empty() && lets_in(&node.held).is_none());
    define(&stage);
    stage.apply(&object("Server", "v1beta1", "web", "{podSelector: {}, port: 8080}"));
    node.until("the Server", |held| lets_in(held) == Some(Vec::new())).await.unwrap();
    node.until("its port", |held| ports(held) == [(8080, "shop/web".to_owned())]).await.unwrap();

    let tail = "serviceaccount.identity.linkerd.cluster.local";
    let everywhere = "from 0.0.0.0/0 ::/0";
    stage.apply(&object(
        "ServerAuthorization",
        "v1alpha1",
        "saz",
        "{server: {name: web}, client: {meshTLS: {serviceAccounts: [{name: api}]}}}",
    ));
    let saz = format!("serverauthorization saz: api.shop.{tail} from the cluster");
    node.until("the ServerAuthorization", |held| lets_in(held) == Some(vec![saz.clone()])).await.unwrap();
    let policy = "{targetRef: {kind: Namespace, name: shop}, requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: it}, {group: policy.linkerd.io, kind: NetworkAuthentication, name: it}]}";
    stage.apply(&object("AuthorizationPolicy", "v1alpha1", "policy", policy));
    stage.apply(&object("NetworkAuthentication", "v1alpha1", "it", "{networks: [{cidr: 10.0.0.0/8}]}"));
    stage.apply(&object("MeshTLSAuthentication", "v1alpha1", "it", "{identityRefs: [{kind: Namespace, name: shop}]}"));
    let both = vec![saz.clone(), format!("authorizationpolicy policy: shop.{tail} from 10.0.0.0/8")];
    node.until("the AuthorizationPolicy", |held| lets_in(held) == Some(both.clone())).await.unwrap();

    // The definition here lets anything in. What is not understood lets nobody in, and a Server closes what it may have meant.
    stage.apply(&object("MeshTLSAuthentication", "v1alpha1", "it", "{identities: ['*.Shop']}"));
    node.until("a bad MeshTLSAuthentication", |held| lets_in(held) == Some(vec![saz.clone()])).await.unwrap();
    control.daemon.wait_for("is no identity", SOON);
    stage.apply(&object(
        "Server",
        "v1beta3",
        "web",
        "{podSelector: {}, port: {number: 8080}, accessPolicy: all-unauthenticated}",
    ));
    node.until("a bad Server", |held| ports(held) == [(1, "shop/web".to_owned())]).await.unwrap();
    assert_eq!(lets_in(&node.held), Some(vec![saz.clone()]), "its accessPolicy is not read either");
    stage.apply(&object("Server", "v1beta3", "web", "{podSelector: {}, port: 8080, accessPolicy: all-authenticated}"));
    let access = format!("default all-authenticated: CLIENT_AUTHENTICATED {everywhere}");
    node.until("a good one", |held| lets_in(held) == Some(vec![saz.clone(), access.clone()])).await.unwrap();

    stage.kubectl(&["delete", "crd", "servers.policy.linkerd.io"]);
    node.until("no Server", |held| ports(held).is_empty() && lets_in(held).is_none()).await.unwrap();
}

/// Routes with a Server as a parent and policies of them, and what stands in a route's status.
#[tokio::test(flavor = "multi_thread")]
async fn routes_of_servers_are_followed() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    define(&stage);
    stage.apply(LINKERDS);
    served(&stage, "httproutes.policy.linkerd.io");
    let route = |rules: &str| {
        let parents = "[{group: policy.linkerd.io, kind: Server, name: web}]";
        object("HTTPRoute", "v1beta3", "read", &format!("{{parentRefs: {parents}, rules: {rules}}}"))
    };
    let rules = "[{matches: [{path: {value: /read}}]}, {matches: [{path: {value: /list}}]}]";
    let shown = "httproute.policy.linkerd.io/read";
    stage.apply(&route(rules));
    says(&stage, shown, 0, &["Accepted=False/NoMatchingParent"]);
    stage.apply(&object("Server", "v1beta3", "web", "{podSelector: {}, port: 8080}"));
    node.until("the route", |held| routes(held) == [("read".to_owned(), 2, Vec::new())]).await.unwrap();
    says(&stage, shown, 0, &["Accepted=True/Accepted"]);
    let target = "{targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: read}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: api}]}";
    stage.apply(&object("AuthorizationPolicy", "v1alpha1", "readers", target));
    let read = || ("read".to_owned(), 2, vec!["readers".to_owned()]);
    node.until("its policy", |held| routes(held) == [read()]).await.unwrap();
    assert_eq!(lets_in(&node.held), Some(Vec::new()), "it is the route's alone");

    stage.apply(&route("[{matches: [{path: {type: RegularExpression, value: '('}}]}]"));
    node.until("a bad route", |held| routes(held) == [("read".to_owned(), 0, read().2)]).await.unwrap();
    says(&stage, shown, 0, &["Accepted=False/UnsupportedValue"]);
    stage.apply(&route(rules));
    node.until("a good one", |held| routes(held) == [read()]).await.unwrap();
    says(&stage, shown, 0, &["Accepted=True/Accepted"]);
    stage.kubectl(&["delete", "crd", "httproutes.policy.linkerd.io"]);
    node.until("no route", |held| routes(held).is_empty()).await.unwrap();
}
