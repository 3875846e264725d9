use std::time::Duration;

use weir_api::v1;
use weir_core::{inbound::DefaultPolicy, timeouts::Timeouts};

use crate::{
    fixtures::{NAMESPACE, SERVICE, objects, options, pod, route, slice},
    objects::{Kind, Object, PortSpec, Settings, Unfit},
    parse::{Parsed, manifest},
};

fn parse(text: &str) -> Parsed {
    manifest("a.yaml", text, &options())
}

#[test]
fn reads_every_kind() {
    let text = format!(
        "{NAMESPACE}{SERVICE}{}{}apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: web, namespace: demo}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n",
        pod("web", "node-1", "10.0.0.1", ""),
        slice(&[("10.0.0.1", true)])
    );
    let parsed = parse(&text);
    let kinds: Vec<Kind> = parsed.objects.iter().map(|(name, _)| name.kind).collect();
    assert_eq!(kinds, [Kind::Namespace, Kind::Service, Kind::Pod, Kind::EndpointSlice, Kind::ServiceAccount]);
    assert_eq!(parsed.ignored, ["apps/v1/Deployment"]);
    assert!(parsed.findings.is_empty());
}

#[test]
fn a_finding_names_file_line_object_and_field() {
    let text = format!("{NAMESPACE}{}", SERVICE.replace("port: 80,", "port: 80000,"));
    let parsed = parse(&text);
    let shown = parsed.findings[0].to_string();
    assert!(shown.starts_with("a.yaml:"), "{shown}");
    for part in ["Service demo/web", "spec.ports[0].port", "80000"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(
        text.lines().nth(parsed.findings[0].line - 1).unwrap().trim(),
        "- {name: http, port: 80000, targetPort: 8080}"
    );
    assert_eq!(parsed.refused.len(), 1);
    assert_eq!(parsed.objects.len(), 1, "the namespace beside it is read");
}

#[test]
fn annotations_are_read_or_refused_by_name() {
    let annotated = |annotations: &str| pod("web", "node-1", "10.0.0.1", &format!("  annotations: {{{annotations}}}"));
    let found = objects(&annotated("config.linkerd.io/opaque-ports: \"5432,8000-8010, http\""));
    let Object::Pod(read) = &found[0].1 else { panic!("not a pod") };
    let expected = vec![PortSpec::Range(5432, 5432), PortSpec::Range(8000, 8010), PortSpec::Named("http".into())];
    assert_eq!(read.settings.opaque_ports, Some(expected));
    for bad in [
        "config.linkerd.io/opaque-ports: \"0\"",
        "config.linkerd.io/opaque-ports: \"90-80\"",
        "config.linkerd.io/skip-inbound-ports: \"70000\"",
        "config.linkerd.io/skip-subnets: \"10.0.0.0/40\"",
        "config.linkerd.io/access-log: \"xml\"",
        "weir.mesh/fail-mode: \"open\"",
        "config.linkerd.io/default-inbound-policy: \"Deny\"",
    ] {
        let parsed = parse(&annotated(bad));
        let key = bad.split(": ").next().unwrap();
        assert!(parsed.refused.is_empty(), "{bad}");
        assert!(parsed.findings[0].field.ends_with(key), "{bad}: {}", parsed.findings[0]);
        let Object::Pod(read) = &parsed.objects[0].1 else { panic!("not a pod") };
        assert!(read.flaw.as_ref().unwrap().contains(key), "{bad}");
    }
}

#[test]
fn what_is_not_understood_counts_as_its_strictest_reading_and_the_rest_as_it_says() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: demo\n  labels: {weir.mesh/enabled: \"ture\"}\n  annotations:\n    config.linkerd.io/default-inbound-policy: denied\n    config.linkerd.io/skip-inbound-ports: \"25,x y\"\n    config.linkerd.io/skip-outbound-ports: \"4222-\"\n    config.linkerd.io/skip-subnets: \"10.0.0.0/99\"\n    config.linkerd.io/opaque-ports: \"none\"\n    config.linkerd.io/access-log: json\n    weir.mesh/fail-mode: permisive\n";
    let text = text.replace("\"none\"", "\"-\"");
    let parsed = parse(&text);
    assert_eq!((parsed.findings.len(), parsed.refused.len()), (7, 0), "{:?}", parsed.findings);
    let Object::Namespace(read) = &parsed.objects[0].1 else { panic!("not a namespace") };
    assert_eq!(read.enabled, Some(true), "opted in: what should be encrypted is not sent in clear");
    let expected = Settings {
        opaque_ports: None,
        skip_inbound_ports: Some(Vec::new()),
        skip_outbound_ports: Some(Vec::new()),
        skip_subnets: Some(Vec::new()),
        access_log: Some(v1::AccessLog::Json),
        permissive: Some(false),
        default_policy: Some(DefaultPolicy::Deny),
    };
    assert_eq!(read.settings, expected);
}

#[test]
fn a_pod_whose_identity_would_be_too_long_is_unfit_and_not_unknown() {
    let long = "a".repeat(60);
    let text = pod("web", "node-1", "10.0.0.1", "")
        .replace("serviceAccountName: web", &format!("serviceAccountName: {long}.{long}.{long}.{long}"));
    let Object::Pod(read) = &objects(&text)[0].1 else { panic!("not a pod") };
    assert_eq!(read.identity, None);
    assert!(read.unfit.unwrap().has_network() && read.unfit.unwrap().reason().contains("253"));
    let mut index = crate::index::Index::default();
    crate::fixtures::upsert(&mut index, &text);
    assert!(crate::snapshot::plain_pod(&index, "uid-web", "node-1").is_some(), "it may start");
}

#[test]
fn opting_in_by_label_comes_before_linkerds_annotation() {
    let more = "  labels: {weir.mesh/enabled: \"false\"}\n  annotations: {linkerd.io/inject: enabled}";
    let found = objects(&pod("web", "node-1", "10.0.0.1", more));
    let Object::Pod(read) = &found[0].1 else { panic!("not a pod") };
    assert_eq!(read.enabled, Some(false));
    let parsed = parse(&pod("web", "node-1", "10.0.0.1", "  labels: {weir.mesh/enabled: \"no\"}"));
    let Object::Pod(read) = &parsed.objects[0].1 else { panic!("not a pod") };
    assert_eq!((read.enabled, parsed.findings.len()), (Some(true), 1));
}

#[test]
fn a_pods_owner_is_the_deployment_behind_its_replica_set() {
    let more = "  labels: {pod-template-hash: abc}\n  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-abc, uid: r, controller: true}]";
    let found = objects(&pod("web", "node-1", "10.0.0.1", more));
    let Object::Pod(read) = &found[0].1 else { panic!("not a pod") };
    assert_eq!((read.reference.owner_kind.as_str(), read.reference.owner_name.as_str()), ("deployment", "web"));
}

#[test]
fn odd_texts_are_refused_and_never_end_the_process() {
    for text in [
        "",
        "---\n---\n",
        "kind: Pod",
        "apiVersion: v1\nkind: Pod\n",
        "- a\n- b\n",
        "apiVersion: v1\nkind: Service\nmetadata: 7\n",
        "\u{0}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: -1}]}\n",
        "a: &a [*a]\n",
        "{",
        "apiVersion: v1\nkind: List\nitems: [1, {}]\n",
    ] {
        let parsed = parse(text);
        assert!(parsed.objects.is_empty(), "{text:?}");
    }
}

#[test]
fn a_pod_that_has_ended_is_read_whatever_its_annotations_say() {
    let bad = "  annotations: {config.linkerd.io/opaque-ports: \"0\"}";
    let ended = pod("web", "node-1", "10.0.0.1", bad).replace("Running", "Succeeded");
    let Object::Pod(read) = &objects(&ended)[0].1 else { panic!("not a pod") };
    assert!(read.addresses.is_empty(), "its address may be another pod's by now");
}

#[test]
fn reasons_say_what_to_do() {
    let unfit = |text: &str| {
        let Object::Pod(read) = &objects(text)[0].1 else { panic!("not a pod") };
        read.unfit.map(Unfit::reason).unwrap_or_default()
    };
    let web = pod("web", "node-1", "10.0.0.1", "");
    assert_eq!(unfit(&web), "");
    for (text, part) in [
        (web.replace("name: app", "name: linkerd-proxy"), "linkerd.io/inject=disabled"),
        (web.replace("name: app", "name: istio-proxy"), "sidecar.istio.io/inject=false"),
        (web.replace("spec:\n", "spec:\n  runtimeClassName: gvisor\n"), "runtime class"),
        (web.replace("spec:\n", "spec:\n  hostNetwork: true\n"), "hostNetwork"),
    ] {
        assert!(unfit(&text).contains(part), "{part} in {}", unfit(&text));
    }
}

#[test]
fn a_route_that_cannot_be_followed_as_it_is_written_is_refused_whole() {
    for (rule, field, reason) in [
        ("matches: [{path: {type: Glob, value: /}}]", "spec.rules[0].matches[0].path.type", "Glob"),
        ("matches: [{path: {value: x}}]", "spec.rules[0].matches[0].path.value", "slash"),
        ("matches: [{path: {type: RegularExpression, value: \"(\"}}]", "spec.rules", "regular expression"),
        (
            "matches: [{headers: [{type: Prefix, name: a, value: b}]}]",
            "spec.rules[0].matches[0].headers[0].type",
            "Prefix",
        ),
        ("matches: [{headers: [{name: \"a b\", value: b}]}]", "spec.rules", "header field"),
        ("matches: [{method: \"A B\"}]", "spec.rules", "method"),
        ("filters: [{type: ExtensionRef}]", "spec.rules[0].filters[0].type", "ExtensionRef"),
        ("filters: [{type: URLRewrite}]", "spec.rules[0].filters[0].urlRewrite", "missing"),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Content-Length, value: 1}]}}]",
            "spec.rules",
            "content-length",
        ),
        ("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]", "spec.rules", "200"),
        (
            "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
            "spec.rules[0].filters[0].urlRewrite.path",
            "PathPrefix",
        ),
        ("backendRefs: [{name: a, port: 80, weight: -1}]", "spec.rules[0].backendRefs[0].weight", "-1"),
        (
            "backendRefs: [{name: a, port: 80, filters: [{type: ExtensionRef}]}]",
            "spec.rules[0].backendRefs[0].filters[0].type",
            "ExtensionRef",
        ),
        ("filters: [{type: CORS}]", "spec.rules[0].filters[0].cors", "missing"),
        ("filters: [{type: CORS, cors: {maxAge: 0}}]", "spec.rules[0].filters[0].cors.maxAge", "less than 1"),
        (
            "filters: [{type: CORS, cors: {alowOrigins: []}}]",
            "spec.rules[0].filters[0].cors.alowOrigins",
            "unknown field",
        ),
        ("filters: [{type: CORS, cors: {allowOrigins: [shop.org]}}]", "spec.rules", "cors.allowOrigins"),
        ("filters: [{type: CORS, cors: {allowMethods: [GET, \"*\"]}}]", "spec.rules", "cors.allowMethods"),
        ("mathces: [{path: {value: /a}}]", "spec.rules[0].mathces", "unknown field"),
        ("matches: [{path: {vlaue: /a}}]", "spec.rules[0].matches[0].path.vlaue", "unknown field"),
        ("timeouts: {request: 1d}", "spec.rules[0].timeouts.request", "no duration"),
        ("timeouts: {request: 1s, backendRequest: 2s}", "spec.rules[0].timeouts.backendRequest", "longer"),
        ("timeouts: {reqest: 1s}", "spec.rules[0].timeouts.reqest", "unknown field"),
        ("retry: {attempts: -1}", "spec.rules[0].retry.attempts", "-1"),
        ("retry: {codes: [500, 302]}", "spec.rules[0].retry.codes[1]", "302"),
        ("retry: {backoff: 1d}", "spec.rules[0].retry.backoff", "no duration"),
        ("retry: {atempts: 1}", "spec.rules[0].retry.atempts", "unknown field"),
    ] {
        let parsed = parse(&route("web", "demo", &format!("  rules: [{{{rule}}}]")));
        assert_eq!((parsed.objects.len(), parsed.refused.len()), (0, 1), "{rule}");
        let finding = &parsed.findings[0];
        assert_eq!(finding.field, field, "{finding}");
        assert!(finding.reason.contains(reason), "{finding}");
    }
    let parsed = parse(&route("web", "demo", "  hostnames: [\"10.0.0.1\"]"));
    assert_eq!(parsed.findings[0].field, "spec.hostnames");
}

#[test]
fn a_route_without_a_service_as_parent_is_somebody_elses() {
    for rule in ["filters: [{type: ExtensionRef}]", "unheard: of", "matches: 3"] {
        let other = route("web", "demo", &format!("  rules: [{{{rule}}}]")).replace("kind: Service", "kind: Gateway");
        let parsed = parse(&other);
        assert!(parsed.objects.is_empty() && parsed.findings.is_empty() && parsed.refused.is_empty(), "{rule}");
    }
}

#[test]
fn limits_of_a_service_that_are_not_understood_are_none_and_a_route_with_such_is_refused() {
    let annotated = "metadata: {annotations: {timeout.linkerd.io/request: 1.5s, timeout.linkerd.io/idle: 2s}, ";
    let parsed = parse(&SERVICE.replacen("metadata: {", annotated, 1));
    let Object::Service(service) = &parsed.objects[0].1 else { panic!("no Service") };
    let idle = Some(Timeouts { idle: Some(Duration::from_secs(2)), ..Timeouts::default() });
    assert_eq!(service.timeouts, idle);
    assert_eq!(parsed.findings[0].field, "metadata.annotations.timeout.linkerd.io/request");
    let parsed = parse(&route("web", "demo", "").replacen("metadata: {", annotated, 1));
    assert_eq!((parsed.objects.len(), parsed.refused.len()), (0, 1));
    assert_eq!(parsed.findings[0].field, "metadata.annotations.timeout.linkerd.io/request");
}

/// Gateway API's defaults: everything, to the Service itself.
#[test]
fn a_route_without_rules_is_for_everything() {
    for rules in ["", "  rules:", "  rules: []", "  rules: [{}]", "  rules: [{matches: [], backendRefs: []}]"] {
        let parsed = parse(&route("web", "demo", rules));
        let [parsed] = &*parsed.objects else { panic!("{rules}: {:?}", parsed.findings) };
        let Object::HttpRoute(route) = &parsed.1 else { panic!("{rules}") };
        let [rule] = &*route.rules else { panic!("{rules}: {route:?}") };
        assert_eq!((rule.matches.len(), &rule.backends), (1, &None), "{rules}");
    }
}
