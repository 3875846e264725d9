//! Manifests for unit tests. Must never be used outside them.

pub(crate) mod api;

use crate::{
    index::{Changed, Index},
    objects::{Event, Object, ObjectName},
    parse::{self, Options},
};
use weir_core::inbound::DefaultPolicy;

pub(crate) fn options() -> Options {
    Options {
        trust_domain: "cluster.local".into(),
        linkerd_inject: true,
        l5d_request_headers: false,
        default_policy: DefaultPolicy::AllUnauthenticated,
    }
}

/// All objects of a text without findings.
pub(crate) fn objects(text: &str) -> Vec<(ObjectName, Object)> {
    let parsed = parse::manifest("test.yaml", text, &options());
    assert_eq!(parsed.findings, []);
    parsed.objects
}

pub(crate) fn upsert(index: &mut Index, text: &str) -> Changed {
    index.apply(objects(text).into_iter().map(|(name, object)| Event::Upsert(name, object)).collect())
}

pub(crate) fn pod(name: &str, node: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: demo\n  uid: uid-{name}\n{more}\nspec:\n  nodeName: {node}\n  serviceAccountName: {name}\n  containers: [{{name: app, ports: [{{name: http, containerPort: 8080}}]}}]\nstatus:\n  phase: Running\n  podIPs: [{{ip: {address}}}]\n---\n"
    )
}

pub(crate) const NAMESPACE: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: demo\n  labels: {weir.mesh/enabled: \"true\"}\n---\n";

pub(crate) const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: demo}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - {name: http, port: 80, targetPort: 8080}\n---\n";

pub(crate) fn slice(addresses: &[(&str, bool)]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|(address, ready)| format!("- {{addresses: [{address}], conditions: {{ready: {ready}}}}}\n"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: demo\n  labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n{endpoints}---\n"
    )
}

/// An HTTPRoute of the service `web`.
pub(crate) fn route(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, namespace: demo}}]\n{spec}\n---\n"
    )
}
