//! Routes of all kinds on an API server: Gateway API's own definitions, which may come late and go again; status; what nodes hear.

use std::{collections::BTreeMap, fs, path::PathBuf};

use weir_api::v1::{self, http_backend, http_rule, resource::Body};

use crate::{
    connect, populated,
    stage::{SOON, Stage},
};

const DESTINATION: &str = "DESTINATION 10.96.0.80:80";
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs:
  - {group: gateway.networking.k8s.io, kind: Gateway, name: front}
  - {group: \"\", kind: Service, name: web, sectionName: http}
  - {group: \"\", kind: Service, name: web, sectionName: other}
  rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: canary, port: 80}]}]
";
const CANARY: &str = "
apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec: {clusterIP: 10.96.0.81, ports: [{port: 80}]}
";
const ENTRY: &str = r#"[{"op": "add", "path": "/status/parents/0", "value": {
    "controllerName": "other.org/gateway", "parentRef": {"name": "front"},
    "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
}}]"#;
const OTHER_PORT: &str = r#"[{"op": "replace", "path": "/spec/rules/0/backendRefs/0/port", "value": 8080}]"#;

/// Beside an HTTPRoute of its name.
const CALLS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules: [{matches: [{method: {service: shop.Cart}}], backendRefs: [{name: canary, port: 80}]}]
";

/// Linkerd's kind, of which the definition here says no more than where it is.
pub(crate) const LINKERDS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: httproutes.policy.linkerd.io}
spec:
  group: policy.linkerd.io
  scope: Namespaced
  names: {plural: httproutes, singular: httproute, kind: HTTPRoute}
  versions:
  - name: v1beta2
    served: true
    storage: false
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1beta3
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
/// One for clients, and one for a Server that is not there.
const POLICY: &str = "
apiVersion: policy.linkerd.io/v1beta2
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: core, kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: canary, port: 80}], timeouts: {request: 3s}}]
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: probes, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules: [{matches: [{path: {value: /ready}}]}]
";

/// Gateway API's own file of a kind.
fn definition(plural: &str) -> PathBuf {
    let folder = std::env::var_os("WEIR_GATEWAY_API").map(PathBuf::from);
    let folder = folder.expect(
        "WEIR_GATEWAY_API names the folder with Gateway API's definitions: run `cargo xtask cluster test apiserver`",
    );
    folder.join(format!("gateway.networking.k8s.io_{plural}.yaml"))
}

/// The backends of the only rule, as the node was told them: the Service, or why there is none.
fn backends(held: &BTreeMap<String, v1::Resource>) -> Option<Vec<String>> {
    let Some(Body::Destination(v1::Destination { target: Some(v1::destination::Target::Service(service)) })) =
        &held.get(DESTINATION)?.body
    else {
        return None;
    };
    let rule = service.http_routes.first()?.rules.first()?;
    let Some(http_rule::Destination::Backends(backends)) = &rule.destination else { return None };
    let shown = backends.backends.iter().map(|backend| match &backend.target {
        Some(http_backend::Target::Service(service)) => format!("{}:{}", service.name, service.port),
        Some(http_backend::Target::Invalid(reason)) => reason.clone(),
        None => String::new(),
    });
    Some(shown.collect())
}

/// Kinds and groups of the routes that the node was told.
fn kinds(held: &BTreeMap<String, v1::Resource>) -> Vec<String> {
    match held.get(DESTINATION).and_then(|resource| resource.body.as_ref()) {
        Some(Body::Destination(v1::Destination { target: Some(v1::destination::Target::Service(service)) })) => {
            let objects = service.http_routes.iter().filter_map(|route| route.object.as_ref());
            objects.map(|object| format!("{}.{}", object.kind, object.group)).collect()
        }
        _other => Vec::new(),
    }
}

/// Installs a kind of route, and waits until it is served.
pub(crate) fn install(stage: &Stage, plural: &str) {
    stage.apply(&fs::read_to_string(definition(plural)).unwrap());
    served(stage, &format!("{plural}.gateway.networking.k8s.io"));
}

/// Waits until the API server serves a kind that was defined.
pub(crate) fn served(stage: &Stage, name: &str) {
    let path = "jsonpath={.status.conditions[?(@.type==\"Established\")].status}";
    // `kubectl wait` gives up at once on a definition that has no condition yet.
    stage.until("the definition is established", &["get", "crd", name, "-o", path], |said| said == "True");
    stage.until("the kind is served", &["get", name, "-A"], |said| !said.contains("error"));
}

/// Waits until one of a route's parents says this, in our name.
pub(crate) fn says(stage: &Stage, route: &str, parent: usize, wanted: &[&str]) {
    let path = format!(
        "jsonpath={{range .status.parents[{parent}].conditions[*]}}{{.type}}={{.status}}/{{.reason}} {{end}}{{.status.parents[{parent}].controllerName}}"
    );
    stage.until(&format!("{route} says {wanted:?}"), &["-n", "shop", "get", route, "-o", &path], |said| {
        let words: Vec<&str> = said.split_whitespace().collect();
        words.iter().copied().eq(wanted.iter().copied().chain(["weir.mesh/control"]))
    });
}

/// A control that waited for a kind which the API server does not know would never be ready; one without the right to change
/// `httproutes/status` would never say anything.
#[tokio::test(flavor = "multi_thread")]
async fn routes_reach_nodes_and_say_what_became_of_them() {
    let stage = populated();
    // Nothing of Gateway API is there: control serves all the same.
    let mut control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    assert_eq!(backends(&node.held), None);
    install(&stage, "httproutes");
    stage.apply(ROUTE);
    let missing = Some(vec!["Service shop/canary not found".to_owned()]);
    node.until("the route", |held| backends(held) == missing).await.unwrap();
    says(&stage, "httproute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);
    says(&stage, "httproute/web", 1, &["Accepted=False/NoMatchingParent", "ResolvedRefs=False/BackendNotFound"]);

    stage.apply(CANARY);
    node.until("the backend", |held| backends(held) == Some(vec!["canary:80".to_owned()])).await.unwrap();
    says(&stage, "httproute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);

    // Somebody else's entry stays, and ours beside it.
    let patch = |arguments: &[&str]| stage.kubectl(&[&["-n", "shop", "patch", "httproute", "web"], arguments].concat());
    patch(&["--subresource=status", "--type=json", "-p", ENTRY]);
    patch(&["--type=json", "-p", OTHER_PORT]);
    says(&stage, "httproute/web", 1, &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);
    let names = ["-n", "shop", "get", "httproute", "web", "-o", "jsonpath={.status.parents[*].controllerName}"];
    assert_eq!(stage.kubectl(&names), "other.org/gateway weir.mesh/control weir.mesh/control");

    let later = ROUTE.replace("{name: web, namespace", "{name: later, namespace");
    let mirror = |to: &str| {
        let mirror =
            format!("filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}}}}}]");
        stage.apply(&later.replace("backendRefs: [{name: canary, port: 80}]", &mirror));
    };
    mirror("canary");
    says(&stage, "httproute/later", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    mirror("nowhere");
    says(&stage, "httproute/later", 0, &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);
    let other = "filters: [{type: ExtensionRef, extensionRef: {group: example.org, kind: Other, name: other}}]";
    stage.apply(&later.replace("backendRefs: [{name: canary, port: 80}]", other));
    says(&stage, "httproute/later", 0, &["Accepted=False/UnsupportedValue"]);
    control.daemon.wait_for("ExtensionRef", SOON);

    // Its last good version stays, without an error, for as long as control runs.
    stage.kubectl(&["-n", "shop", "delete", "httproute", "later"]);

    install(&stage, "grpcroutes");
    stage.apply(CALLS);
    says(&stage, "grpcroute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    says(&stage, "httproute/web", 1, &["Accepted=False/RouteReasonConflicted", "ResolvedRefs=False/BackendNotFound"]);
    node.until("the GRPCRoute alone", |held| kinds(held) == ["GRPCRoute.gateway.networking.k8s.io"]).await.unwrap();
    stage.kubectl(&["delete", "crd", "grpcroutes.gateway.networking.k8s.io"]);
    node.until("the HTTPRoute alone", |held| kinds(held) == ["HTTPRoute.gateway.networking.k8s.io"]).await.unwrap();
    says(&stage, "httproute/web", 1, &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);

    stage.apply(LINKERDS);
    served(&stage, "httproutes.policy.linkerd.io");
    stage.apply(POLICY);
    let both = ["HTTPRoute.gateway.networking.k8s.io", "HTTPRoute.policy.linkerd.io"];
    node.until("Linkerd's beside it", |held| kinds(held) == both).await.unwrap();
    let policy = "httproute.policy.linkerd.io/web";
    says(&stage, policy, 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    stage.kubectl(&["delete", "crd", "httproutes.gateway.networking.k8s.io"]);
    node.until("Linkerd's alone", |held| kinds(held) == ["HTTPRoute.policy.linkerd.io"]).await.unwrap();
    says(&stage, "httproute.policy.linkerd.io/probes", 0, &["Accepted=False/NoMatchingParent"]);
    stage.kubectl(&["delete", "crd", "httproutes.policy.linkerd.io"]);
    node.until("no route", |held| backends(held).is_none()).await.unwrap();
}

/// Linkerd's and SMI's kinds, of which the definitions here say no more than where they are; objects are stored as the last version.
pub(crate) fn definition_of(group: &str, plural: &str, kind: &str, versions: &[&str]) -> String {
    let version = |name: &&str| {
        let is_stored = versions.last() == Some(name);
        format!(
            "  - {{name: {name}, served: true, storage: {is_stored}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
        )
    };
    let versions: String = versions.iter().map(version).collect();
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\nspec:\n  group: {group}\n  scope: Namespaced\n  \
         names: {{plural: {plural}, singular: {}, kind: {kind}}}\n  versions:\n{versions}",
        kind.to_lowercase()
    )
}

/// What users bring from Linkerd stands instead of routes, whose status says so, for as long as it is there.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_and_splits_are_followed_where_their_definitions_are() {
    let stage = populated();
    let mut control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    install(&stage, "httproutes");
    stage.apply(CANARY);
    stage.apply(ROUTE);
    node.until("the route", |held| kinds(held) == ["HTTPRoute.gateway.networking.k8s.io"]).await.unwrap();
    says(&stage, "httproute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);

    stage.apply(&definition_of("split.smi-spec.io", "trafficsplits", "TrafficSplit", &["v1alpha1", "v1alpha2"]));
    served(&stage, "trafficsplits.split.smi-spec.io");
    stage.apply(
        "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: web, namespace: shop}\n\
         spec: {service: web, backends: [{service: canary, weight: 500m}, {service: web, weight: 500m}]}\n",
    );
    node.until("the split", |held| kinds(held) == ["TrafficSplit.split.smi-spec.io"]).await.unwrap();
    assert_eq!(backends(&node.held), Some(vec!["canary:80".to_owned(), "web:80".to_owned()]));
    says(&stage, "httproute/web", 0, &["Accepted=False/RouteReasonConflicted", "ResolvedRefs=True/ResolvedRefs"]);

    stage.apply(&definition_of("linkerd.io", "serviceprofiles", "ServiceProfile", &["v1alpha1", "v1alpha2"]));
    served(&stage, "serviceprofiles.linkerd.io");
    let profile = "apiVersion: linkerd.io/v1alpha1\nkind: ServiceProfile\nmetadata: {name: web.shop.svc.cluster.local, namespace: shop}\n\
         spec: {routes: [{name: read, condition: {method: GET}}]}\n";
    stage.apply(profile);
    node.until("the profile", |held| kinds(held) == ["ServiceProfile.linkerd.io"]).await.unwrap();
    assert_eq!(
        backends(&node.held),
        Some(vec!["canary:80".to_owned(), "web:80".to_owned()]),
        "with the split's shares"
    );
    stage.apply(&profile.replace("method: GET", "pathRegex: \"(\""));
    control.daemon.wait_for("is no regular expression", SOON);
    assert_eq!(kinds(&node.held), ["ServiceProfile.linkerd.io"], "the last good version stays");

    stage.kubectl(&["delete", "crd", "serviceprofiles.linkerd.io", "trafficsplits.split.smi-spec.io"]);
    node.until("the route is back", |held| kinds(held) == ["HTTPRoute.gateway.networking.k8s.io"]).await.unwrap();
    says(&stage, "httproute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
}

/// A definition of one kind that serves these versions; the last one is what objects are stored as.
fn serving(kind: &str, versions: &[(&str, bool)]) -> String {
    let plural = format!("{}s", kind.to_lowercase());
    let last = versions.len() - 1;
    let version = |(at, (name, is_served)): (usize, &(&str, bool))| {
        format!(
            "  - {{name: {name}, served: {is_served}, storage: {}, subresources: {{status: {{}}}}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}\n",
            at == last
        )
    };
    let versions: String = versions.iter().enumerate().map(version).collect();
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.gateway.networking.k8s.io, annotations: {{api-approved.kubernetes.io: unapproved}}}}\n\
         spec:\n  group: gateway.networking.k8s.io\n  scope: Namespaced\n  names: {{plural: {plural}, singular: {}, kind: {kind}}}\n  versions:\n{versions}",
        kind.to_lowercase()
    )
}

/// Older bundles of Gateway API serve some kinds in older versions alone: those objects are followed as they are, and go on when the definition is
/// replaced by a newer one that no longer serves the old version. Seen to fail with a watch that is only begun again when its version is gone.
#[tokio::test(flavor = "multi_thread")]
async fn routes_of_older_definitions_are_followed() {
    let stage = populated();
    let control = stage.control("control-0").until_ready();
    let mut node = connect(&control, &stage, "node-a").await;
    stage.apply(CANARY);
    let tcp = "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: web, namespace: shop}\nspec:\n  \
               parentRefs: [{group: \"\", kind: Service, name: web, port: 80}]\n  rules: [{backendRefs: [{name: canary, port: 80}]}]\n";
    stage.apply(&serving("TCPRoute", &[("v1alpha2", true)]));
    served(&stage, "tcproutes.gateway.networking.k8s.io");
    stage.apply(tcp);
    node.until("the TCPRoute", |held| kinds(held) == ["TCPRoute.gateway.networking.k8s.io"]).await.unwrap();
    assert_eq!(backends(&node.held), Some(vec!["canary:80".to_owned()]));
    says(&stage, "tcproute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);

    stage.apply(&serving("TLSRoute", &[("v1alpha2", true), ("v1alpha3", true)]));
    served(&stage, "tlsroutes.gateway.networking.k8s.io");
    let tls = tcp.replace("TCPRoute", "TLSRoute").replace("spec:\n", "spec:\n  hostnames: [a.example]\n");
    stage.apply(&tls);
    node.until("the TLSRoute instead", |held| kinds(held) == ["TLSRoute.gateway.networking.k8s.io"]).await.unwrap();
    says(&stage, "tlsroute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    says(&stage, "tcproute/web", 0, &["Accepted=False/RouteReasonConflicted", "ResolvedRefs=True/ResolvedRefs"]);

    // The newer bundle, which serves what is stored under another name.
    stage.apply(&serving("TLSRoute", &[("v1alpha2", false), ("v1alpha3", false), ("v1", true)]));
    let elsewhere = ["get", "--raw", "/apis/gateway.networking.k8s.io/v1/namespaces/shop/tlsroutes/web"];
    stage.until("the new version is served", &elsewhere, |said| said.contains("a.example"));
    let other = tls.replace("/v1alpha2", "/v1").replace("name: canary, port: 80", "name: canary, port: 81");
    stage.apply(&other);
    let missing = Some(vec!["Service shop/canary has no port 81".to_owned()]);
    node.until("the newer object", |held| backends(held) == missing).await.unwrap();
    says(&stage, "tlsroute/web", 0, &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]);
    stage.kubectl(&["-n", "shop", "delete", "tlsroute", "web"]);
    node.until("the TCPRoute again", |held| kinds(held) == ["TCPRoute.gateway.networking.k8s.io"]).await.unwrap();
    stage.kubectl(&["delete", "crd", "tcproutes.gateway.networking.k8s.io", "tlsroutes.gateway.networking.k8s.io"]);
    node.until("no route", |held| backends(held).is_none()).await.unwrap();
}
