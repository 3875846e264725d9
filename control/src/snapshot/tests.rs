use super::*;
use crate::fixtures::{NAMESPACE, SERVICE, pod, route, slice, upsert};

fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    upsert(&mut index, &texts.concat());
    index
}

fn service(destination: v1::Destination) -> v1::ServiceTarget {
    match destination.target {
        Some(v1::destination::Target::Service(target)) => target,
        other => panic!("not a service: {other:?}"),
    }
}

#[test]
fn a_cluster_ip_is_a_service_only_at_its_ports() {
    let index = index(&[SERVICE, &slice(&[("10.0.0.1", true)])]);
    let (found, slices) = destination(&index, "10.96.0.1:80".parse().unwrap());
    let target = service(found);
    assert_eq!((target.name.as_str(), target.port_name.as_str()), ("web", "http"));
    assert_eq!(target.protocol(), v1::Protocol::Detect);
    assert_eq!(slices, [Name::new("demo", "web-1")]);
    let (other, _) = destination(&index, "10.96.0.1:81".parse().unwrap());
    assert!(matches!(other.target, Some(v1::destination::Target::Unknown(_))));
}

#[test]
fn protocols_come_from_the_declaration_the_annotation_then_the_well_known_ports() {
    let of = |text: &str, port: u16| {
        let index = index(&[text]);
        service(destination(&index, SocketAddr::new("10.96.0.1".parse().unwrap(), port)).0).protocol()
    };
    assert_eq!(of(&SERVICE.replace("port: 80,", "port: 6379,"), 6379), v1::Protocol::Opaque);
    assert_eq!(of(&SERVICE.replace("port: 80,", "port: 80, appProtocol: kubernetes.io/h2c,"), 80), v1::Protocol::Http2);
    let annotated = |value: &str| {
        SERVICE.replace(
            "namespace: demo}",
            &format!("namespace: demo, annotations: {{config.linkerd.io/opaque-ports: \"{value}\"}}}}"),
        )
    };
    assert_eq!(of(&annotated("http"), 80), v1::Protocol::Opaque);
    let empty = annotated("").replace("port: 80,", "port: 6379,");
    assert_eq!(of(&empty, 6379), v1::Protocol::Detect, "an empty list takes the well-known ports away");
}

#[test]
fn peers_speak_mtls_only_to_pods_whose_nodes_are_ready() {
    let mut index = index(&[NAMESPACE, &slice(&[("10.0.0.1", true)]), &pod("web", "node-1", "10.0.0.1", "")]);
    let name = Name::new("demo", "web-1");
    assert_eq!(endpoints(&index, &name).unwrap().endpoints[0].identity, "");
    index.mark_serving("uid-web");
    let found = endpoints(&index, &name).unwrap().endpoints.remove(0);
    assert_eq!(found.identity, "web.demo.serviceaccount.identity.linkerd.cluster.local");
    assert_eq!(found.uid, "uid-web");
}

#[test]
fn workloads_are_told_to_their_own_node_only() {
    let index = index(&[
        NAMESPACE,
        &pod("web", "node-1", "10.0.0.1", ""),
        &pod("host", "node-1", "10.0.0.9", "").replace("spec:\n", "spec:\n  hostNetwork: true\n"),
    ]);
    let found = workload(&index, "uid-web", "node-1").unwrap().0;
    assert_eq!(found.addresses, ["10.0.0.1"]);
    assert!(workload(&index, "uid-web", "node-2").is_none());
    assert!(workload(&index, "uid-host", "node-1").is_none(), "a pod on its node's network cannot be captured");
}

#[test]
fn versions_depend_on_content_alone() {
    let body =
        || Body::TrustBundle(v1::TrustBundle { trust_domain: "a".into(), anchors: vec![vec![1]], issuer: Vec::new() });
    let one = resource(&Key::TrustBundle, "a", body());
    assert_eq!(one.version, resource(&Key::TrustBundle, "a", body()).version);
    let other =
        Body::TrustBundle(v1::TrustBundle { trust_domain: "a".into(), anchors: vec![vec![2]], issuer: Vec::new() });
    assert_ne!(one.version, resource(&Key::TrustBundle, "a", other).version);
    for key in [
        Key::TrustBundle,
        Key::Workload("u".into()),
        Key::PlainPod("u".into()),
        Key::MeshedNamespace("n".into()),
        Key::Endpoints(Name::new("n", "s")),
        Key::Destination("[fd00::1]:80".parse().unwrap()),
    ] {
        assert_eq!(Key::parse(&key.to_api("a")), Some(key));
    }
}

#[test]
fn the_default_policy_is_the_pods_own_then_its_namespaces_then_the_clusters() {
    let annotated = |policy: &str| format!("  annotations: {{config.linkerd.io/default-inbound-policy: {policy}}}");
    let namespace = NAMESPACE.replace("---", &format!("{}\n---", annotated("deny")));
    let own = pod("web", "node-1", "10.0.0.1", &annotated("cluster-authenticated"));
    let plain = pod("web", "node-1", "10.0.0.1", "");
    let policy = |texts: &[&str]| workload(&index(texts), "uid-web", "node-1").unwrap().0.default_policy();
    assert_eq!(policy(&[&namespace, &own]), v1::DefaultPolicy::ClusterAuthenticated);
    assert_eq!(policy(&[&namespace, &plain]), v1::DefaultPolicy::Deny);
    assert_eq!(policy(&[NAMESPACE, &plain]), v1::DefaultPolicy::AllUnauthenticated);
}

#[test]
fn probes_reach_the_node_as_they_were_declared() {
    let probes = "readinessProbe: {httpGet: {path: /ready, port: http}}, livenessProbe: {tcpSocket: {port: 81}}, startupProbe: {grpc: {port: 82}},";
    let pod =
        pod("web", "node-1", "10.0.0.1", "").replace("{name: app, ports", &format!("{{name: app, {probes} ports"));
    let found = workload(&index(&[NAMESPACE, &pod]), "uid-web", "node-1").unwrap().0.probes;
    let found: Vec<_> = found.iter().map(|probe| (probe.port, probe.kind(), probe.path.as_str())).collect();
    let expected =
        [(8080, v1::ProbeKind::Get, "/ready"), (81, v1::ProbeKind::Connection, ""), (82, v1::ProbeKind::Grpc, "")];
    assert_eq!(found, expected);
}

#[test]
fn routes_come_with_the_port_that_they_are_attached_to() {
    let canary = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
    let of_canary = slice(&[("10.0.0.2", true)]).replace("web", "canary");
    let backends = "  rules: [{backendRefs: [{name: canary, port: 80, weight: 3}, {name: gone, port: 80}, {name: canary, port: 81}, {kind: Pod, name: x}]}]";
    let web = slice(&[("10.0.0.1", true)]);
    let index =
        index(&[SERVICE, &canary, &web, &of_canary, &route("web", "demo", backends), &route("own", "other", "")]);
    let (found, slices) = destination(&index, "10.96.0.1:80".parse().unwrap());
    assert_eq!(slices, [Name::new("demo", "canary-1"), Name::new("demo", "web-1")]);
    let routes = service(found).http_routes;
    let consumers: Vec<bool> = routes.iter().map(|route| route.is_consumer).collect();
    assert_eq!(consumers, [false, true]);
    assert!(matches!(routes[1].rules[0].destination, Some(v1::http_rule::Destination::Itself(_))));
    let Some(v1::http_rule::Destination::Backends(backends)) = &routes[0].rules[0].destination else {
        panic!("{routes:?}")
    };
    let shown: Vec<String> = backends
        .backends
        .iter()
        .map(|backend| match backend.target.as_ref().unwrap() {
            v1::http_backend::Target::Service(service) => format!("{} {:?}", backend.weight, service.endpoints),
            v1::http_backend::Target::Invalid(reason) => reason.clone(),
        })
        .collect();
    let expected = [
        "3 [\"demo/canary-1\"]",
        "Service demo/gone not found",
        "Service demo/canary has no port 81",
        "/Pod demo/x is no backend; Services are",
    ];
    assert_eq!(shown, expected);
    for (parent, attached) in [("port: 8080", 0), ("port: 80", 1), ("sectionName: http", 1), ("sectionName: other", 0)]
    {
        let only = route("web", "demo", "").replace("namespace: demo}]", &format!("namespace: demo, {parent}}}]"));
        let index = self::index(&[SERVICE, &only]);
        let found = service(destination(&index, "10.96.0.1:80".parse().unwrap()).0);
        assert_eq!(found.http_routes.len(), attached, "{parent}");
    }
}

/// A port of HTTP/1 has no calls, and an opaque one no requests; where HTTP is declared requests are decided about, and nowhere both.
#[test]
fn routes_hold_where_what_they_are_about_is_spoken() {
    let http = route("same", "demo", "");
    let grpc = route("calls", "demo", "").replace("HTTPRoute", "GRPCRoute");
    let [tls, tcp] =
        ["TLSRoute", "TCPRoute"].map(|kind| route("some", "demo", "  rules: [{}]").replace("HTTPRoute", kind));
    for (declared, expected) in [
        ("appProtocol: http", ["HTTPRoute", "HTTPRoute", ""]),
        ("appProtocol: kubernetes.io/h2c", ["GRPCRoute", "HTTPRoute", ""]),
        ("appProtocol: grpc", ["TCPRoute", "TCPRoute", "TCPRoute"]),
        ("protocol: TCP", ["GRPCRoute", "HTTPRoute", "TLSRoute"]),
    ] {
        let service_on = SERVICE.replace("port: 80,", &format!("port: 80, {declared},"));
        for (routes, expected) in
            [&[&grpc, &http, &tls, &tcp][..], &[&http, &tls, &tcp], &[&tls, &tcp]].iter().zip(expected)
        {
            let mut all = vec![&*service_on];
            all.extend(routes.iter().map(|route| &***route));
            let index = index(&all);
            let found = service(destination(&index, "10.96.0.1:80".parse().unwrap()).0).http_routes;
            let kinds: Vec<&str> = found.iter().filter_map(|route| Some(&*route.object.as_ref()?.kind)).collect();
            assert_eq!(kinds.join(" "), expected, "{declared}");
            assert!(weir_core::route::routes(&found).is_ok(), "{declared}");
        }
    }
}

/// A node's zone is what some endpoint there says, also of its pods that no Service has; its workloads are told anew then.
#[test]
fn hints_and_the_zone_of_a_node_are_told() {
    let mut index =
        index(&[NAMESPACE, SERVICE, &pod("web", "node-1", "10.0.0.1", ""), &pod("other", "node-1", "10.0.0.2", "")]);
    let zone = |index: &Index| workload(index, "uid-other", "node-1").unwrap().0.pod.unwrap().zone;
    assert_eq!(zone(&index), "");
    let hinted = slice(&[("10.0.0.1", true)]).replace(
        "- {addresses",
        "- {nodeName: node-1, zone: a, hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: node-1}]}, addresses",
    );
    let changed = upsert(&mut index, &hinted);
    assert!(changed.workloads.contains(&("node-1".into(), "uid-other".into())), "{changed:?}");
    assert_eq!(zone(&index), "a");
    let told = endpoints(&index, &Name::new("demo", "web-1")).unwrap();
    assert_eq!(
        (&*told.endpoints[0].zone_hints, &*told.endpoints[0].node_hints),
        (&["a".to_owned(), "b".to_owned()][..], &["node-1".to_owned()][..])
    );
    assert!(upsert(&mut index, &hinted.replace("ready: true", "ready: false")).workloads.is_empty(), "the same zone");
}

/// Of TCPRoutes the oldest is asked, of each namespace by itself; their shares are those of backends as they are.
#[test]
fn of_tcp_routes_the_oldest_counts() {
    let tcp = |name: &str, namespace: &str, created: &str| {
        let rules = "  rules: [{backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 1}]}]";
        let named = format!("name: {name}, creationTimestamp: '{created}'");
        let text = route(name, namespace, rules).replace("HTTPRoute", "TCPRoute");
        text.replace(&format!("name: {name}"), &named).replace("namespace: elsewhere}]}]", "namespace: demo}]}]")
    };
    let [younger, older] = [tcp("a", "demo", "2026-02-01T00:00:00Z"), tcp("b", "demo", "2026-01-01T00:00:00Z")];
    let index = index(&[SERVICE, &younger, &older, &tcp("c", "elsewhere", "2026-03-01T00:00:00Z")]);
    let found = service(destination(&index, "10.96.0.1:80".parse().unwrap()).0).http_routes;
    let names: Vec<&str> = found.iter().filter_map(|route| Some(&*route.object.as_ref()?.name)).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(found.iter().all(|route| route.level() == v1::RouteLevel::Tcp && route.rules[0].matches.is_empty()));
    let Some(v1::http_rule::Destination::Backends(backends)) = &found[0].rules[0].destination else { panic!() };
    let told: Vec<_> = backends.backends.iter().map(|one| (one.weight, one.target.clone().unwrap())).collect();
    assert!(matches!(
        &told[..],
        [(3, v1::http_backend::Target::Service(_)), (1, v1::http_backend::Target::Invalid(_))]
    ));
    let routes = weir_core::route::routes(&found).unwrap().unwrap();
    assert!(routes.of_client("demo").is_none() && routes.of_connections("demo").is_some());
}

/// Of each namespace by itself, and port by port.
#[test]
fn a_grpc_route_puts_http_routes_of_its_port_aside() {
    let two = SERVICE.replace("  ports:\n", "  ports:\n  - {name: other, port: 81}\n");
    let http = route("same", "demo", "");
    let grpc = route("calls", "demo", "").replace("HTTPRoute", "GRPCRoute");
    let grpc = grpc.replace("namespace: demo}]", "namespace: demo, port: 80}]");
    let index = index(&[&two, &http, &grpc, &route("own", "elsewhere", "")]);
    for (port, expected) in [(80, ["GRPCRoute calls", "HTTPRoute own"]), (81, ["HTTPRoute own", "HTTPRoute same"])] {
        let found = service(destination(&index, format!("10.96.0.1:{port}").parse().unwrap()).0).http_routes;
        let objects = found.iter().filter_map(|route| route.object.as_ref());
        let mut shown: Vec<String> = objects.map(|object| format!("{} {}", object.kind, object.name)).collect();
        shown.sort();
        assert_eq!(shown, expected, "{port}");
    }
}

/// Also of a route of another namespace, which is the mirror's own where none is named.
#[test]
fn mirrors_come_with_their_services_and_slices() {
    let canary = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
    let others = canary.replace("demo", "other").replace("10.96.0.2", "10.96.0.3");
    let of_canary = slice(&[("10.0.0.2", true)]).replace("web", "canary");
    let of_others = of_canary.replace("demo", "other");
    let mirror = |name: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{{name}, port: 80}}, percent: 5}}}}")
    };
    let rules = format!(
        "  rules: [{{filters: [{}, {}], backendRefs: [{{name: web, namespace: demo, port: 80, filters: [{}]}}]}}]",
        mirror("name: canary"),
        mirror("name: gone"),
        mirror("name: canary, namespace: demo"),
    );
    let index = index(&[SERVICE, &canary, &others, &of_canary, &of_others, &route("web", "other", &rules)]);
    let (found, slices) = destination(&index, "10.96.0.1:80".parse().unwrap());
    assert_eq!(slices, [Name::new("demo", "canary-1"), Name::new("other", "canary-1")]);
    let routes = service(found).http_routes;
    let rule = &routes[0].rules[0];
    let Some(v1::http_rule::Destination::Backends(backends)) = &rule.destination else { panic!("{routes:?}") };
    let shown: Vec<String> = rule
        .filters
        .iter()
        .chain(&backends.backends[0].filters)
        .map(|filter| match &filter.filter {
            Some(v1::http_filter::Filter::Mirror(mirror)) => {
                assert_eq!((mirror.numerator, mirror.denominator), (5, 100));
                match mirror.target.as_ref().unwrap() {
                    v1::request_mirror::Target::Service(service) => format!("{:?}", service.endpoints),
                    v1::request_mirror::Target::Invalid(reason) => reason.clone(),
                }
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["[\"other/canary-1\"]", "Service other/gone not found", "[\"demo/canary-1\"]"]);
    assert!(weir_core::route::routes(&routes).is_ok());
}

#[test]
fn one_namespace_cannot_crowd_out_anothers_routes() {
    let rules = |patterns: usize| {
        let one = "{path: {type: RegularExpression, value: \"/a+\"}}";
        format!("  rules: [{{matches: [{}]}}]", vec![one; patterns].join(", "))
    };
    let created = |text: String, day: usize| {
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: \"2026-01-0{day}T00:00:00Z\", "))
    };
    let all = weir_core::limits::ROUTE_PATTERNS;
    let index = index(&[
        SERVICE,
        &created(route("full", "other", &rules(all)), 1),
        &created(route("too-much", "other", &rules(1)), 2),
        &created(route("plain", "other", ""), 3),
        &created(route("web", "demo", &rules(all)), 4),
    ]);
    let told = service(destination(&index, "10.96.0.1:80".parse().unwrap()).0).http_routes;
    let names: Vec<&str> = told.iter().filter_map(|route| Some(route.object.as_ref()?.name.as_str())).collect();
    assert_eq!(names, ["full", "plain", "web"]);
    assert!(weir_core::route::routes(&told).is_ok());
}
