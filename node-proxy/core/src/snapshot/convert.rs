//! Control's resources into domain types. Must never default what is malformed: it is rejected with the field's name.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weir_api::v1;

use super::{AccessLog, CaptureSettings, PodRef, Workload};
use crate::{
    identity::Identity,
    inbound::{DefaultPolicy, InboundPolicy, Probe, ProbeKind},
    limits,
    protocol::{PortProtocols, PortRange},
};

/// A field that cannot be used, for people.
pub(super) type Reason = String;

pub(super) fn workload(uid: &str, resource: &v1::Workload) -> Result<Workload, Reason> {
    if uid.is_empty() || resource.uid != uid {
        return Err(format!("uid: {:?} is not the resource's name", resource.uid));
    }
    let addresses = resource.addresses.iter().map(|text| address("addresses", text)).collect::<Result<Vec<_>, _>>()?;
    if addresses.len() > limits::ADDRESSES_PER_POD {
        return Err(format!("addresses: {} of them, at most {} are taken", addresses.len(), limits::ADDRESSES_PER_POD));
    }
    let access_log = match v1::AccessLog::try_from(resource.access_log) {
        Ok(v1::AccessLog::Off) => AccessLog::Off,
        Ok(v1::AccessLog::Apache) => AccessLog::Apache,
        Ok(v1::AccessLog::Json) => AccessLog::Json,
        Err(error) => return Err(format!("access_log: {error}")),
    };
    Ok(Workload {
        uid: Arc::from(uid),
        pod: Arc::new(pod(resource.pod.as_ref())),
        addresses,
        identity: resource.identity.parse().map_err(|error| format!("identity: {error}"))?,
        capture: capture(resource.capture.as_ref())?,
        ports: ports(&resource.ports)?,
        access_log,
        policy: policy(resource)?,
    })
}

fn policy(resource: &v1::Workload) -> Result<InboundPolicy, Reason> {
    let given =
        v1::DefaultPolicy::try_from(resource.default_policy).map_err(|error| format!("default_policy: {error}"))?;
    let default = DefaultPolicy::of_api(given).ok_or("default_policy: missing")?;
    let count = resource.probes.len();
    if count > limits::PROBES_PER_POD {
        return Err(format!("probes: {count} of them, at most {} are taken", limits::PROBES_PER_POD));
    }
    let count = resource.servers.len();
    if count > limits::SERVERS_PER_POD {
        return Err(format!("servers: {count} of them, at most {} are taken", limits::SERVERS_PER_POD));
    }
    let servers = resource.servers.iter().map(server_ports).collect::<Result<_, _>>()?;
    Ok(InboundPolicy { default, probes: resource.probes.iter().map(probe).collect::<Result<_, _>>()?, servers })
}

fn server_ports(given: &v1::ServerPorts) -> Result<(PortRange, Arc<str>), Reason> {
    let ports = given.ports.as_ref().and_then(range).ok_or_else(|| format!("servers: {given:?} has no port range"))?;
    if given.server.is_empty() {
        return Err("servers.server: empty".to_owned());
    }
    Ok((ports, Arc::from(given.server.as_str())))
}

fn probe(given: &v1::Probe) -> Result<Probe, Reason> {
    let kind = match v1::ProbeKind::try_from(given.kind) {
        Ok(v1::ProbeKind::Connection) => ProbeKind::Connection,
        Ok(v1::ProbeKind::Get) if given.path.starts_with('/') => ProbeKind::Get(Arc::from(given.path.as_str())),
        Ok(v1::ProbeKind::Get) => return Err(format!("probes.path: {:?} is no path", given.path)),
        Ok(v1::ProbeKind::Grpc) => ProbeKind::Grpc,
        Ok(v1::ProbeKind::Unspecified) => return Err("probes.kind: missing".to_owned()),
        Err(error) => return Err(format!("probes.kind: {error}")),
    };
    Ok(Probe { port: port("probes.port", given.port)?, kind })
}

pub(super) fn pod(pod: Option<&v1::PodRef>) -> PodRef {
    let Some(pod) = pod else { return PodRef::default() };
    PodRef {
        namespace: Arc::from(pod.namespace.as_str()),
        name: Arc::from(pod.name.as_str()),
        service_account: Arc::from(pod.service_account.as_str()),
        owner_kind: Arc::from(pod.owner_kind.as_str()),
        owner_name: Arc::from(pod.owner_name.as_str()),
        node_name: Arc::from(pod.node_name.as_str()),
        zone: Arc::from(pod.zone.as_str()),
        pod_template_hash: Arc::from(pod.pod_template_hash.as_str()),
    }
}

fn capture(settings: Option<&v1::CaptureSettings>) -> Result<CaptureSettings, Reason> {
    let Some(settings) = settings else { return Ok(CaptureSettings::default()) };
    let skip_subnets = settings
        .skip_subnets
        .iter()
        .map(|text| text.parse::<IpNet>().map_err(|error| format!("skip_subnets: {text:?}: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let settings = CaptureSettings {
        skip_inbound_ports: ranges("skip_inbound_ports", &settings.skip_inbound_ports)?,
        skip_outbound_ports: ranges("skip_outbound_ports", &settings.skip_outbound_ports)?,
        skip_subnets,
        permissive: settings.permissive,
    };
    for (field, count) in [
        ("skip_inbound_ports", settings.skip_inbound_ports.len()),
        ("skip_outbound_ports", settings.skip_outbound_ports.len()),
        ("skip_subnets", settings.skip_subnets.len()),
    ] {
        if count > limits::EXCLUSIONS {
            return Err(format!("{field}: {count} of them, at most {} are taken", limits::EXCLUSIONS));
        }
    }
    Ok(settings)
}

fn ranges(field: &str, ranges: &[v1::PortRange]) -> Result<Vec<PortRange>, Reason> {
    ranges.iter().map(|given| range(given).ok_or_else(|| format!("{field}: {given:?} is no port range"))).collect()
}

fn range(range: &v1::PortRange) -> Option<PortRange> {
    let (first, last) = (u16::try_from(range.first).ok()?, u16::try_from(range.last).ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

pub(super) fn ports(ports: &[v1::PortProtocol]) -> Result<PortProtocols, Reason> {
    if ports.len() > limits::PORT_RANGES {
        return Err(format!("ports: {} of them, at most {} are taken", ports.len(), limits::PORT_RANGES));
    }
    let convert = |port: &v1::PortProtocol| {
        let range = port.ports.as_ref().and_then(range).ok_or_else(|| format!("ports: {port:?} has no port range"))?;
        let protocol = v1::Protocol::try_from(port.protocol).map_err(|error| format!("ports: {error}"))?;
        Ok((range, protocol.into()))
    };
    ports.iter().map(convert).collect::<Result<Vec<_>, Reason>>().map(PortProtocols::new)
}

/// A pod's address. One that leads back into this node would hand a request to whatever listens here.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, Reason> {
    let address: IpAddr = text.parse().map_err(|error| format!("{field}: {text:?}: {error}"))?;
    let address = address.to_canonical();
    let everyone = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || everyone {
        return Err(format!("{field}: {text:?} is no address of a pod"));
    }
    Ok(address)
}

pub(super) fn port(field: &str, port: u32) -> Result<u16, Reason> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("{field}: {port} is no port"))
}

pub(super) fn identity(text: &str) -> Result<Option<Identity>, Reason> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("identity: {error}"))
}
