use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::*;

fn set(texts: &[&str]) -> Result<Overrides, ChartError> {
    let mut overrides = Overrides::default();
    texts.iter().try_for_each(|text| overrides.set(text))?;
    Ok(overrides)
}

fn rendered(texts: &[&str]) -> Vec<Object> {
    render(&set(texts).unwrap(), "weir").unwrap_or_else(|error| panic!("{texts:?}: {error}"))
}

fn refusal(text: &str) -> String {
    set(&[text]).and_then(|overrides| render(&overrides, "weir")).unwrap_err().to_string()
}

fn named<'a>(objects: &'a [Object], kind: &str, name: &str) -> Option<&'a Value> {
    let wanted = |object: &&Object| (object.reference().kind, object.reference().name) == (kind.into(), name.into());
    objects.iter().find(wanted).map(|object| &object.value)
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart"))
}

#[test]
fn every_template_is_part_of_this_program() {
    let mut files = BTreeSet::new();
    for stage in ["cluster", "mesh"] {
        for file in fs::read_dir(folder().join("templates").join(stage)).unwrap() {
            files.insert(format!("{stage}/{}", file.unwrap().file_name().to_string_lossy()));
        }
    }
    assert_eq!(files, TEMPLATES.iter().map(|(_, name, _)| (*name).to_owned()).collect());
    let link = fs::read_link(folder().join(DEFAULTS_LINK)).unwrap();
    assert_eq!(link, Path::new("values.yaml"), "templates read the defaults by it");
}

#[test]
fn the_charts_version_is_this_programs() {
    let chart: Value = serde_yaml_ng::from_str(&fs::read_to_string(folder().join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&env!("CARGO_PKG_VERSION").into(), &env!("CARGO_PKG_VERSION").into())
    );
}

/// Words of JSON Schema that `schema.rs` knows; another would be checked by helm only.
#[test]
fn the_schema_uses_what_is_checked_here() {
    fn walk(schema: &Value, at: &str) {
        for (word, value) in schema.as_object().unwrap() {
            match word.as_str() {
                "properties" => value.as_object().unwrap().iter().for_each(|(name, inner)| walk(inner, name)),
                "items" => walk(value, at),
                "additionalProperties" if value.is_object() => walk(value, at),
                "additionalProperties" | "required" | "enum" | "minimum" | "maximum" | "description" | "$schema" => {}
                "pattern" => drop(regex::Regex::new(value.as_str().unwrap()).unwrap()),
                "type" => {
                    assert!(["object", "array", "string", "integer", "boolean"].contains(&value.as_str().unwrap()));
                }
                other => panic!("{at}: {other}"),
            }
        }
        let closed = schema.get("properties").is_none() || schema["additionalProperties"] == false;
        assert!(closed, "{at}: unknown names would pass");
        let documented = schema.get("pattern").is_none() || schema.get("description").is_some();
        assert!(documented, "{at}: a pattern needs words for people");
    }
    walk(&schema().unwrap(), "");
    assert_eq!(schema::problems(&schema().unwrap(), &defaults().unwrap()), Vec::<String>::new());
}

/// A value that stands in a template as it is could otherwise add keys of its own.
#[test]
fn what_is_not_quoted_cannot_break_out() {
    let schema = schema().unwrap();
    let mut seen = 0;
    for (_, name, text) in TEMPLATES {
        for action in text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim_matches(['-', ' '])) {
            let Some(path) = action.strip_prefix(".Values.") else { continue };
            if action.contains("| toJson") {
                continue;
            }
            let path: Vec<String> = path.split(' ').next().unwrap().split('.').map(str::to_owned).collect();
            let of = schema::at(&schema, &path).unwrap_or_else(|| panic!("{name}: {action}"));
            let of = if of["type"] == "array" { &of["items"] } else { of };
            let tame = of["type"] == "integer" || of.get("enum").is_some() || of.get("pattern").is_some();
            assert!(tame, "{name}: {action} needs toJson, or a pattern in the schema");
            for bad in ["a\nb: c", "a\"b", "a b", "a'b", "a#b", "{a"] {
                assert!(!schema::problems(of, &json!(bad)).is_empty(), "{name}: {action} takes {bad:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_object_is_of_the_mesh() {
    for texts in [&[][..], &["ha=true", "podMonitor.enabled=true"], &["networkPolicies.enabled=false"]] {
        let mut seen = BTreeSet::new();
        for object in rendered(texts) {
            let reference = object.reference();
            assert_eq!(object.value["metadata"]["labels"]["weir.mesh/part-of"], "weir", "{reference:?}");
            assert_eq!(reference.namespace.is_empty(), object.stage == Stage::Cluster, "{reference:?}");
            assert!(reference.namespace.is_empty() || reference.namespace == "weir", "{reference:?}");
            assert!(seen.insert(reference.clone()), "{reference:?} twice");
            assert!(!object.text.contains("{{"), "{reference:?}");
        }
    }
}

#[test]
fn high_availability() {
    let (one, three) = (rendered(&[]), rendered(&["ha=true"]));
    let replicas =
        |objects: &[Object]| named(objects, "Deployment", "weir-control").unwrap()["spec"]["replicas"].clone();
    assert_eq!((replicas(&one), replicas(&three)), (json!(1), json!(3)));
    assert_eq!(replicas(&rendered(&["ha=true,control.replicas=5"])), 5);
    assert!(named(&one, "PodDisruptionBudget", "weir-control").is_none());
    assert!(named(&three, "PodDisruptionBudget", "weir-control").is_some());
    let affinity = |objects: &[Object]| {
        named(objects, "Deployment", "weir-control").unwrap().pointer("/spec/template/spec/affinity").is_some()
    };
    assert!(!affinity(&one) && affinity(&three));
}

/// What Pod Security's profile "restricted" asks for, of all pods but the holder's.
#[test]
fn only_the_holder_has_privileges() {
    for object in rendered(&["ha=true"]) {
        let Some(pod) = object.value.pointer("/spec/template/spec") else { continue };
        let name = object.reference().name;
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]), "{name}");
        if name == "weir-holder" {
            let added = json!(["BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]);
            assert_eq!(container["capabilities"]["add"], added);
            assert!(container.get("privileged").is_none());
            continue;
        }
        assert_eq!(container["allowPrivilegeEscalation"], false, "{name}");
        assert!(container["capabilities"].get("add").is_none(), "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let host: Vec<&String> = pod.as_object().unwrap().keys().filter(|key| key.starts_with("host")).collect();
        assert!(host.is_empty(), "{name}: {host:?}");
        let allowed = ["configMap", "emptyDir", "projected", "persistentVolumeClaim"];
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
            assert!(kinds.iter().all(|kind| allowed.contains(&kind.as_str())), "{name}: {kinds:?}");
        }
    }
}

#[test]
fn values_reach_their_places() {
    let objects = rendered(&[
        "image.registry=registry.example:5000/weir,image.tag=7",
        "compat.linkerdInject=true,clusterDomain=corp.example,trustDomain=trust.example",
        "holder.cniExcludeNamespaces={kube-system,cni}",
        "clusterNetworks={10.0.0.0/8,fd00::/8},proxy.defaultInboundPolicy=deny",
        r"proxy.nodeSelector.weir\.mesh/node=yes",
    ]);
    let args = |kind: &str, name: &str| {
        named(&objects, kind, name).unwrap().pointer("/spec/template/spec/containers/0/args").unwrap().to_string()
    };
    let proxy = named(&objects, "DaemonSet", "weir-proxy").unwrap();
    assert_eq!(proxy["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example:5000/weir/weir-node:7");
    let selector = json!({"kubernetes.io/os": "linux", "weir.mesh/node": "yes"});
    assert_eq!(proxy["spec"]["template"]["spec"]["nodeSelector"], selector);
    assert!(args("DaemonSet", "weir-proxy").contains("https://weir-control.weir.svc.corp.example:8086"));
    assert!(args("DaemonSet", "weir-proxy").contains("serviceaccount.identity.linkerd.trust.example"));
    assert!(args("DaemonSet", "weir-holder").contains("--cni-exclude-namespaces=weir,kube-system,cni"));
    assert!(args("Deployment", "weir-control").contains("--linkerd-inject"));
    assert!(args("Deployment", "weir-control").contains("--default-inbound-policy=deny"));
    assert!(args("DaemonSet", "weir-proxy").contains("--cluster-networks=10.0.0.0/8,fd00::/8"));
    let default = rendered(&[]);
    let image =
        named(&default, "Deployment", "weir-control").unwrap()["spec"]["template"]["spec"]["containers"][0]["image"]
            .clone();
    assert_eq!(image, format!("docker.io/weir/weir-control:{}", env!("CARGO_PKG_VERSION")));
}

/// `weir upgrade` reads this back.
#[test]
fn the_installation_knows_what_was_set() {
    let objects = rendered(&["proxy.log=debug", "ha=true"]);
    let data = &named(&objects, "ConfigMap", "weir-config").unwrap()["data"];
    let read = |key: &str| -> Value { serde_yaml_ng::from_str(data[key].as_str().unwrap()).unwrap() };
    let overrides = Overrides::of_installed(&read("values.yaml"), &read("defaults.yaml"));
    assert_eq!(overrides, set(&["ha=true,proxy.log=debug"]).unwrap());
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn refusals_name_the_key_and_what_is_allowed() {
    for (text, parts) in [
        ("proxy.lgo=debug", &["no value proxy.lgo", "is proxy.log meant?"][..]),
        ("linkerdInject=true", &["no value linkerdInject", "is compat.linkerdInject meant?"]),
        ("replicas=3", &["is control.replicas meant?"]),
        ("quux=1", &["no value quux: there are", "clusterDomain"]),
        ("control.replicas=99", &["control.replicas: 99 is not a whole number from 0 to 15"]),
        ("control.replicas=many", &["\"many\" is not a whole number from 0 to 15"]),
        ("ha=maybe", &["ha: \"maybe\" is not true or false"]),
        ("image.pullPolicy=Sometimes", &["is not one of IfNotPresent, Always, Never"]),
        ("trustDomain=Upper.Case", &["trustDomain", "a DNS domain in small letters"]),
        ("proxy=1", &["proxy: 1 is not a map"]),
        ("holder.cniExcludeNamespaces={a,B}", &["holder.cniExcludeNamespaces.1: \"B\" is not the name of a namespace"]),
        (
            "networkPolicies.apiServerPorts=[{\"prot\":1}]",
            &[
                "there is no value networkPolicies.apiServerPorts.0.prot",
                "networkPolicies.apiServerPorts.0.port is missing",
            ],
        ),
    ] {
        let refusal = refusal(text);
        for part in parts {
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
    let both = set(&["ha=maybe", "quux=1"]).and_then(|overrides| render(&overrides, "weir")).unwrap_err().to_string();
    assert!(both.contains("quux") && both.contains("maybe"), "all at once: {both}");
}
