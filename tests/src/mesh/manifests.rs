//! Kubernetes YAML, as an API server would give it out. Must never hold what a real cluster would not.

use std::fmt::Write as _;

use super::{NAMESPACE, Pod};

/// One port of a service.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// Its name.
    pub name: &'static str,
    /// The service's own port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
    /// `appProtocol`.
    pub protocol: Option<&'static str>,
}

/// What a service is made of.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// `internalTrafficPolicy: Local`
    pub local_only: bool,
    /// `sessionAffinity: ClientIP`
    pub client_affinity: bool,
    /// Zone of each node, which its endpoints have, and as their hint (`hints.forZones`).
    pub zones: Vec<&'static str>,
}

impl ServiceOptions {
    /// A service with one port.
    pub fn new(name: &str, port: u16, target: u16) -> ServiceOptions {
        ServiceOptions {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            ports: vec![ServicePort { name: "main", port, target, protocol: None }],
            annotations: Vec::new(),
            local_only: false,
            client_affinity: false,
            zones: Vec::new(),
        }
    }

    /// With `appProtocol` on all ports.
    #[must_use]
    pub fn protocol(mut self, protocol: &'static str) -> ServiceOptions {
        for port in &mut self.ports {
            port.protocol = Some(protocol);
        }
        self
    }

    /// With a port more.
    #[must_use]
    pub fn port(mut self, port: ServicePort) -> ServiceOptions {
        self.ports.push(port);
        self
    }
}

/// A namespace that opts its pods in, or not.
pub(super) fn namespace(name: &str, enabled: bool) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{weir.mesh/enabled: \"{enabled}\"}}\n"
    )
}

fn annotations(annotations: &[(String, String)]) -> String {
    let items: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}: \"{value}\"")).collect();
    format!("{{{}}}", items.join(", "))
}

/// Shared by all pods of a Deployment.
pub(super) fn service_account(pod: &Pod) -> String {
    let Pod { owner, namespace, .. } = pod;
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {owner}, namespace: {namespace}}}\n")
}

pub(super) fn pod(pod: &Pod) -> String {
    let enabled = pod.enabled.map(|enabled| format!(", weir.mesh/enabled: \"{enabled}\"")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n  \
         labels: {{app: {owner}, pod-template-hash: 5d59{enabled}}}\n  annotations: {annotations}\n  \
         ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: {owner}-5d59, uid: replica-set, controller: true}}]\n\
         spec:\n  nodeName: {node}\n  serviceAccountName: {owner}\n  containers: [{{name: app, image: app{container}}}]\n\
         status:\n  phase: Running\n  podIP: {v4}\n  podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]\n",
        owner = pod.owner,
        namespace = pod.namespace,
        name = pod.name,
        uid = pod.uid,
        annotations = annotations(&pod.annotations),
        container = pod.container,
        node = super::Mesh::node_name(pod.place.node),
        v4 = pod.place.v4,
        v6 = pod.place.v6,
    )
}

pub(super) fn service(options: &ServiceOptions, address: &str, pods: &[&Pod]) -> String {
    let ServiceOptions { name, namespace, ports, annotations: given, local_only, client_affinity, zones } = options;
    let policy = if *local_only { "Local" } else { "Cluster" };
    let affinity = if *client_affinity { "ClientIP" } else { "None" };
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  annotations: {}\nspec:\n  internalTrafficPolicy: {policy}\n  sessionAffinity: {affinity}\n  clusterIP: {address}\n  clusterIPs: [{address}]\n  ports:\n",
        annotations(given)
    );
    let mut add = |line: String| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{line}");
    };
    for port in ports {
        let protocol = port.protocol.map(|protocol| format!(", appProtocol: {protocol}")).unwrap_or_default();
        add(format!(
            "  - {{name: {}, port: {}, targetPort: {}, protocol: TCP{protocol}}}",
            port.name, port.port, port.target
        ));
    }
    add(format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-slice\n  namespace: {namespace}\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports:"
    ));
    for port in ports {
        add(format!("- {{name: {}, port: {}, protocol: TCP}}", port.name, port.target));
    }
    add("endpoints:".to_owned());
    for pod in pods {
        let zone =
            zones.get(pod.place.node).map(|zone| format!("zone: {zone}, hints: {{forZones: [{{name: {zone}}}]}}, "));
        let zone = zone.unwrap_or_default();
        add(format!(
            "- {{{zone}addresses: [{}], conditions: {{ready: {}}}, nodeName: {}, targetRef: {{kind: Pod, name: {}, namespace: {}}}}}",
            pod.place.v4,
            pod.ready,
            super::Mesh::node_name(pod.place.node),
            pod.name,
            pod.namespace
        ));
    }
    text
}
