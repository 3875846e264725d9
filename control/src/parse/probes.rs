//! What kubelet asks of a pod's containers. Must never refuse a pod: what kubelet could not ask either is left out.

use std::sync::Arc;

use weir_core::inbound::{Probe, ProbeKind};

use super::{convert::is_tcp, fields};

/// Of all containers but ephemeral ones, within the bound of one pod.
pub(super) fn of(spec: &fields::PodSpec) -> Vec<Probe> {
    let mut found: Vec<Probe> = Vec::new();
    for container in spec.all_containers() {
        let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
        let hooks = container.lifecycle.iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
        for probe in probes.into_iter().chain(hooks).flatten().filter_map(|declared| probe(container, declared)) {
            if !found.contains(&probe) && found.len() < weir_core::limits::PROBES_PER_POD {
                found.push(probe);
            }
        }
    }
    found
}

fn probe(container: &fields::Container, declared: &fields::Probe) -> Option<Probe> {
    // One with a host of its own does not go to the pod.
    let own = |host: &Option<String>| host.as_deref().is_none_or(str::is_empty);
    if let Some(get) = declared.http_get.as_ref().filter(|get| own(&get.host)) {
        let secure = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let kind =
            if secure { ProbeKind::Connection } else { ProbeKind::Get(path(get.path.as_deref().unwrap_or_default())) };
        return Some(Probe { port: port(container, get.port.as_ref()?)?, kind });
    }
    if let Some(socket) = declared.tcp_socket.as_ref().filter(|socket| own(&socket.host)) {
        return Some(Probe { port: port(container, socket.port.as_ref()?)?, kind: ProbeKind::Connection });
    }
    let grpc = declared.grpc.as_ref()?;
    Some(Probe { port: number(grpc.port)?, kind: ProbeKind::Grpc })
}

/// As kubelet sends it: with a slash first, without fragment, and what a URL cannot hold escaped.
fn path(declared: &str) -> Arc<str> {
    let declared = declared.split('#').next().unwrap_or_default();
    let mut sent = String::with_capacity(declared.len() + 1);
    if !declared.starts_with('/') {
        sent.push('/');
    }
    for byte in declared.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                sent.push(char::from(byte));
            }
            other => sent.push_str(&format!("%{other:02X}")),
        }
    }
    Arc::from(sent)
}

fn port(container: &fields::Container, declared: &fields::IntOrString) -> Option<u16> {
    let name = match declared {
        fields::IntOrString::Number(port) => return number(*port),
        fields::IntOrString::Text(name) => name,
    };
    // As kubelet: a name is one of the container's own, or a number in quotes.
    let ports = container.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
    let named = ports.into_iter().find(|port| port.name.as_ref() == Some(name));
    named.map_or_else(|| name.parse().ok().and_then(number), |port| number(port.container_port))
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{objects, pod},
        objects::Object,
    };

    fn probes(container: &str) -> Vec<Probe> {
        let text = pod("web", "node-1", "10.0.0.1", "")
            .replace("containers: [{name: app,", &format!("containers: [{{name: app, {container},"));
        let Object::Pod(read) = &objects(&text)[0].1 else { panic!("not a pod") };
        read.probes.clone()
    }

    fn get(port: u16, path: &str) -> Probe {
        Probe { port, kind: ProbeKind::Get(Arc::from(path)) }
    }

    #[test]
    fn every_kind_with_its_port() {
        let connection = |port| Probe { port, kind: ProbeKind::Connection };
        for (declared, expected) in [
            ("readinessProbe: {httpGet: {path: /ready, port: http}}", vec![get(8080, "/ready")]),
            ("startupProbe: {httpGet: {port: 81}}", vec![get(81, "/")]),
            ("livenessProbe: {httpGet: {path: \"live?a b\", port: \"82\"}}", vec![get(82, "/live?a%20b")]),
            ("livenessProbe: {httpGet: {path: /x, port: 8443, scheme: HTTPS}}", vec![connection(8443)]),
            ("readinessProbe: {tcpSocket: {port: http}}", vec![connection(8080)]),
            ("readinessProbe: {grpc: {port: 50051}}", vec![Probe { port: 50051, kind: ProbeKind::Grpc }]),
            ("lifecycle: {preStop: {httpGet: {path: /stop, port: 80}}}", vec![get(80, "/stop")]),
            ("readinessProbe: {exec: {command: [ls]}}", vec![]),
            ("readinessProbe: {httpGet: {host: example.org, port: 80}}", vec![]),
            ("readinessProbe: {httpGet: {port: nowhere}}", vec![]),
            ("readinessProbe: null", vec![]),
        ] {
            assert_eq!(probes(declared), expected, "{declared}");
        }
    }

    #[test]
    fn what_is_declared_twice_is_one() {
        let twice = "readinessProbe: {httpGet: {path: /, port: 80}}, livenessProbe: {httpGet: {port: 80}}";
        assert_eq!(probes(twice), [get(80, "/")]);
    }
}
