//! From Kubernetes' types to ours. Must never refuse what Kubernetes itself accepts: an object that is left out is left open.

use std::{net::IpAddr, sync::Arc};

use weir_api::v1;
use weir_core::identity::Identity;

use super::{
    FieldError, Options, annotations, balancer, breaker, clients, fields, probes, quoted, retry, settings, timeouts,
};
use crate::{
    limits,
    objects::{
        MESHED, Name, Namespace, OPTED_OUT, Object, Pod, Service, ServicePort, Settings, Slice, SliceEndpoint, Unfit,
    },
};

/// An object that is needed, with what is not understood of its labels and annotations; or why it is none.
pub(super) type Outcome<E> = Result<Option<(Object, Vec<E>)>, Vec<E>>;

const TEMPLATE_HASH: &str = "pod-template-hash";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Runtime classes whose pods have a network stack that the node's kernel does not see.
const SANDBOXES: [&str; 3] = ["gvisor", "runsc", "kata"];
const SANDBOXED: &str = "its runtime class gives it a network stack of its own (gVisor, Kata), where nothing can be captured; run it with the default runtime class, or label it weir.mesh/enabled=false";
const LONG_IDENTITY: &str = "the names of its service account, namespace and trust domain are together too long for an identity, which is a DNS name of at most 253 bytes in labels of at most 63; use a shorter service account, or label it weir.mesh/enabled=false";
const LINKERD: &str = "has a Linkerd sidecar, which handles its traffic already; restart it with annotation linkerd.io/inject=disabled, or label it weir.mesh/enabled=false";
const ISTIO: &str = "has an Istio sidecar, which handles its traffic already; restart it with label sidecar.istio.io/inject=false, or label it weir.mesh/enabled=false";

fn checked(object: Object, flaws: Vec<FieldError>, errors: Vec<FieldError>) -> Outcome<FieldError> {
    if errors.is_empty() { Ok(Some((object, flaws))) } else { Err(errors) }
}

fn opted_in(metadata: &fields::Metadata, options: &Options, flaws: &mut Vec<FieldError>) -> (Option<bool>, Settings) {
    let annotations = metadata.annotations.as_ref();
    let enabled = settings::enabled(metadata.labels.as_ref(), annotations, options.linkerd_inject, flaws);
    (enabled, settings::settings(annotations, flaws))
}

pub(super) fn namespace(namespace: &fields::Plain, options: &Options) -> Outcome<FieldError> {
    let mut flaws = Vec::new();
    let (enabled, settings) = opted_in(&namespace.metadata, options, &mut flaws);
    let uid = Arc::from(namespace.metadata.uid.as_deref().unwrap_or_default());
    checked(Object::Namespace(Arc::new(Namespace { uid, enabled, settings })), flaws, Vec::new())
}

/// `None` for a pod that has no node yet: nobody can act on it.
pub(super) fn pod(pod: &fields::Pod, options: &Options) -> Outcome<FieldError> {
    let Some(spec) = &pod.spec else {
        return Err(vec![FieldError::new("spec", "missing")]);
    };
    let Some(node_name) = spec.node_name.clone().filter(|name| !name.is_empty()) else { return Ok(None) };
    let (mut flaws, mut errors) = (Vec::new(), Vec::new());
    let (enabled, settings) = opted_in(&pod.metadata, options, &mut flaws);
    let reference = reference(&pod.metadata, spec, node_name);
    let identity = Identity::of(&reference.namespace, &reference.service_account, &options.trust_domain).ok();
    let nameless = identity.is_none().then_some(Unfit::Refused(LONG_IDENTITY));
    let unfit = unfit(spec, pod.status.as_ref()).or(nameless);
    if matches!(unfit, Some(Unfit::Ended | Unfit::HostNetwork)) {
        // Its settings do not matter.
        flaws.clear();
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if uid.is_empty() {
        errors.push(FieldError::new("metadata.uid", "missing: it names the pod's network namespace on its node"));
    }
    let mut addresses = addresses(pod.status.as_ref(), &mut errors);
    if unfit.is_some_and(|unfit| !unfit.has_network()) {
        addresses.clear();
    }
    let named_ports = named_ports(spec);
    let (uid, mark) = (Arc::from(uid), pod.status.as_ref().and_then(mark));
    let is_unmarked = pod.status.as_ref().is_some_and(is_unmarked);
    let pod = Pod {
        uid,
        reference,
        addresses,
        identity,
        enabled,
        settings,
        labels: clients::labels(pod.metadata.labels.as_ref()),
        named_ports,
        probes: probes::of(spec),
        fallback_policy: options.default_policy,
        unfit,
        flaw: flaws.first().map(|flaw| Arc::from(flaw.to_string())),
        mark,
        is_unmarked,
    };
    checked(Object::Pod(Arc::new(pod)), flaws, errors)
}

fn unfit(spec: &fields::PodSpec, status: Option<&fields::PodStatus>) -> Option<Unfit> {
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Some(Unfit::Ended);
    }
    if spec.host_network == Some(true) {
        return Some(Unfit::HostNetwork);
    }
    let class = spec.runtime_class_name.as_deref().unwrap_or_default();
    if SANDBOXES.iter().any(|sandbox| class.contains(sandbox)) {
        return Some(Unfit::Refused(SANDBOXED));
    }
    spec.all_containers().find_map(|container| match container.name.as_str() {
        "linkerd-proxy" => Some(Unfit::Refused(LINKERD)),
        "istio-proxy" => Some(Unfit::Refused(ISTIO)),
        _ => None,
    })
}

/// Of the condition that says that peers may speak mTLS to the pod.
fn mark(status: &fields::PodStatus) -> Option<Arc<str>> {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.kind == MESHED && condition.status == "True")?;
    Some(Arc::from(condition.message.as_deref().unwrap_or_default()))
}

fn is_unmarked(status: &fields::PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| {
        condition.kind == MESHED && condition.status == "False" && condition.reason.as_deref() == Some(OPTED_OUT)
    })
}

fn addresses(status: Option<&fields::PodStatus>, errors: &mut Vec<FieldError>) -> Vec<IpAddr> {
    let Some(status) = status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    let mut texts: Vec<&str> = many.filter(|ip| !ip.is_empty()).collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref().filter(|ip| !ip.is_empty()));
    }
    texts.truncate(weir_core::limits::ADDRESSES_PER_POD);
    texts.into_iter().filter_map(|text| address("status.podIPs", text, errors)).collect()
}

fn address(field: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<IpAddr> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            errors.push(FieldError::new(field, format!("{} is no IP address: {error}", quoted(text))));
            None
        }
    }
}

fn reference(metadata: &fields::Metadata, spec: &fields::PodSpec, node_name: String) -> v1::PodRef {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    let pod_template_hash = label(TEMPLATE_HASH);
    let (owner_kind, owner_name) = owner(metadata, &pod_template_hash);
    let service_account = spec.service_account_name.clone().or_else(|| spec.service_account.clone());
    v1::PodRef {
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: metadata.name.clone().unwrap_or_default(),
        service_account: service_account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
        owner_kind,
        owner_name,
        node_name,
        zone: label("topology.kubernetes.io/zone"),
        pod_template_hash,
    }
}

/// The owner that people know: a Deployment makes its ReplicaSets' names by appending the hash of its pod template.
fn owner(metadata: &fields::Metadata, template_hash: &str) -> (String, String) {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first()) else {
        return (String::new(), String::new());
    };
    if owner.kind == "ReplicaSet" && !template_hash.is_empty() {
        let name = owner.name.strip_suffix(template_hash).and_then(|name| name.strip_suffix('-'));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            return ("deployment".to_owned(), name.to_owned());
        }
    }
    (owner.kind.to_lowercase(), owner.name.clone())
}

fn named_ports(spec: &fields::PodSpec) -> Vec<(Arc<str>, u16)> {
    let ports = spec.all_containers().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter_map(|port| Some((Arc::from(port.name.as_deref()?), u16::try_from(port.container_port).ok()?)))
        .collect()
}

pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

pub(super) fn service(service: &fields::Service, options: &Options) -> Outcome<FieldError> {
    let (mut flaws, mut errors) = (Vec::new(), Vec::new());
    let annotations = service.metadata.annotations.as_ref();
    let settings = settings::settings(annotations, &mut flaws);
    let mut unread = Vec::new();
    let timeouts = timeouts::annotated(annotations, &mut unread);
    let unlimited = "there is no such limit";
    flaws.extend(unread.into_iter().map(|flaw| settings::meanwhile(flaw.field, &flaw.reason, unlimited)));
    let mut unread = Vec::new();
    let (retry, retry_budget) = (retry::annotated(annotations, &mut unread), retry::budget(annotations, &mut unread));
    let (breaker, load_bias) =
        (breaker::breaker(annotations, &mut unread), breaker::load_bias(annotations, &mut unread));
    let balancer = balancer::balancer(annotations, &mut unread);
    let unsaid = "it is as good as not there";
    flaws.extend(unread.into_iter().map(|flaw| settings::meanwhile(flaw.field, &flaw.reason, unsaid)));
    let Some(spec) = &service.spec else {
        return Err(vec![FieldError::new("spec", "missing")]);
    };
    let mut texts: Vec<&str> = spec.cluster_ips.iter().flatten().map(String::as_str).collect();
    if texts.is_empty() {
        texts.extend(spec.cluster_ip.as_deref());
    }
    let texts = texts.into_iter().filter(|text| !matches!(*text, "" | "None"));
    let addresses: Vec<IpAddr> = texts.filter_map(|text| address("spec.clusterIPs", text, &mut errors)).collect();
    let mut ports = Vec::new();
    for (at, port) in spec.ports.iter().flatten().enumerate().filter(|(_, port)| is_tcp(port.protocol.as_deref())) {
        let Some(number) = u16::try_from(port.port).ok().filter(|number| *number > 0) else {
            errors.push(FieldError::new(
                format!("spec.ports[{at}].port"),
                format!("{} is no port (1 to 65535)", port.port),
            ));
            continue;
        };
        ports.push(ServicePort {
            name: Arc::from(port.name.as_deref().unwrap_or_default()),
            port: number,
            protocol: port.app_protocol.as_deref().map(app_protocol),
        });
    }
    let local_only = spec.internal_traffic_policy.as_deref() == Some("Local");
    let service = Service {
        addresses,
        ports,
        local_only,
        client_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        settings,
        timeouts,
        retry,
        retry_budget,
        breaker,
        load_bias,
        balancer,
        l5d_request_headers: options.l5d_request_headers,
        annotated: annotations::understood(annotations, &flaws),
    };
    checked(Object::Service(Arc::new(service)), flaws, errors)
}

/// Linkerd's reading (2.18): what is declared and not known is not touched.
fn app_protocol(value: &str) -> v1::Protocol {
    match value {
        "http" => v1::Protocol::Http1,
        "kubernetes.io/h2c" => v1::Protocol::Http2,
        _ => v1::Protocol::Opaque,
    }
}

pub(super) fn slice(slice: &fields::EndpointSlice) -> Outcome<FieldError> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    // A slice of names, or of no service, is nothing that a connection can be balanced over.
    let (Some(service), "IPv4" | "IPv6") = (service, slice.address_type.as_str()) else { return Ok(None) };
    let mut errors = Vec::new();
    let ports = slice.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
    let ports = ports.filter_map(|port| {
        let name = Arc::from(port.name.as_deref().unwrap_or_default());
        Some((name, u16::try_from(port.port?).ok().filter(|port| *port > 0)?))
    });
    let mut endpoints = Vec::new();
    for (at, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        endpoints.extend(slice_endpoint(namespace, at, endpoint, &mut errors));
    }
    let slice = Slice { service: Name::new(namespace, service), ports: ports.collect(), endpoints };
    checked(Object::Slice(Arc::new(slice)), Vec::new(), errors)
}

/// As many as Kubernetes takes.
fn hinted(given: Option<&[fields::Hint]>) -> Vec<Arc<str>> {
    let names = given.unwrap_or_default().iter().map(|hint| &*hint.name).filter(|name| !name.is_empty());
    names.take(limits::HINTS).map(Arc::from).collect()
}

fn slice_endpoint(
    namespace: &str,
    at: usize,
    endpoint: &fields::Endpoint,
    errors: &mut Vec<FieldError>,
) -> Option<SliceEndpoint> {
    let text = endpoint.addresses.as_ref()?.first()?;
    let address = address(&format!("endpoints[{at}].addresses"), text, errors)?;
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target
        .and_then(|target| Some(Name::new(target.namespace.as_deref().unwrap_or(namespace), target.name.as_deref()?)));
    Some(SliceEndpoint {
        address,
        ready: endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true),
        pod,
        node: Arc::from(endpoint.node_name.as_deref().unwrap_or_default()),
        zone: Arc::from(endpoint.zone.as_deref().unwrap_or_default()),
        zone_hints: hinted(endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref())),
        node_hints: hinted(endpoint.hints.as_ref().and_then(|hints| hints.for_nodes.as_deref())),
    })
}
