//! `weir install` and the real helm render the same objects from the chart. Needs helm: `cargo xtask cluster test deploy` builds it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize as _;
use serde_json::Value;
use weir_tests::mesh::binary;

/// Helm asks no cluster here, and takes a very old one for granted otherwise.
const KUBERNETES: &str = "1.34.0";
/// Group and version, kind, namespace, name.
type Key = [String; 4];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart")
}

fn helm() -> PathBuf {
    program("WEIR_HELM")
}

/// What the environment names: nothing is guessed.
fn program(variable: &str) -> PathBuf {
    let named = env::var_os(variable).map(PathBuf::from);
    named.unwrap_or_else(|| panic!("{variable} names no program: run `cargo xtask cluster test deploy`"))
}

/// Standard output of a program that succeeds.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.env_remove("KUBECONFIG").output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn by_helm(arguments: &[&str]) -> Result<BTreeMap<Key, Value>, String> {
    let mut command = Command::new(helm());
    command.args(["template", "weir"]).arg(chart()).args(["--namespace", "weir", "--kube-version", KUBERNETES]);
    let text = output(command.args(arguments))?;
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    Ok(keyed(
        documents.map(|document| Value::deserialize(document).unwrap()).filter(|value| !value.is_null()).collect(),
    ))
}

fn by_weir(arguments: &[&str]) -> Result<BTreeMap<Key, Value>, String> {
    let text = output(Command::new(binary("weir")).args(["install", "-o", "json"]).args(arguments))?;
    let mut list: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(items) = list["items"].take() else { panic!("{text}") };
    Ok(keyed(items))
}

fn keyed(objects: Vec<Value>) -> BTreeMap<Key, Value> {
    let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let key = |object: &Value| {
        ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(object, pointer))
    };
    let count = objects.len();
    let keyed: BTreeMap<Key, Value> = objects.into_iter().map(|object| (key(&object), object)).collect();
    assert_eq!(keyed.len(), count, "an object twice");
    keyed
}

fn compare(weir: &[&str], helm: &[&str]) {
    let (ours, theirs) = (by_weir(weir).unwrap(), by_helm(helm).unwrap());
    assert!(ours.len() > 10, "{weir:?}: {} objects", ours.len());
    let names = |objects: &BTreeMap<Key, Value>| objects.keys().map(|key| key.join(" ")).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{weir:?}");
    for (key, object) in &ours {
        assert_eq!(object, &theirs[key], "{weir:?}: {}", key.join(" "));
    }
}

#[test]
fn the_same_objects_by_default() {
    compare(&[], &[]);
}

#[test]
fn the_same_objects_with_ha() {
    compare(&["--ha"], &["--set", "ha=true"]);
}

#[test]
fn the_same_objects_for_what_is_set() {
    for set in [
        "image.registry=registry.example:5000/a,image.tag=1.2-x,image.pullPolicy=Always",
        "control.replicas=5,ha=true,control.log=weir_control=debug",
        "podMonitor.enabled=true,podMonitor.labels.release=prometheus,podMonitor.interval=30s",
        r"proxy.nodeSelector.weir\.mesh/node=yes,compat.linkerdInject=true",
        "networkPolicies.enabled=false,installNamespace=false",
        "holder.cniExcludeNamespaces={kube-system,cni},holder.cgroupDir=/sys/fs/cgroup/unified",
        "clusterDomain=corp.example,trustDomain=trust.example",
        "clusterNetworks={10.0.0.0/8,fd00::/8},proxy.defaultInboundPolicy=cluster-authenticated",
        r"control.nodeSelector.kubernetes\.io/os=null,proxy.resources.requests.memory=null",
        "proxy.resources.limits.cpu=2,proxy.resources.requests.cpu=0.5,proxy.priorityClassName=",
    ] {
        compare(&["--set", set], &["--set", set]);
    }
}

#[test]
fn the_same_objects_for_files_of_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.yaml");
    let text = "image: {pullSecrets: [{name: registry}]}\n\
        holder: {seLinuxOptions: {type: spc_t}, tolerations: [{key: \"a<b>&c\", operator: Exists}], nodeSelector: {zone: a}, cniExcludeNamespaces: []}\n\
        networkPolicies: {metricsFrom: [{namespaceSelector: {matchLabels: {a: \"1\"}}}], apiServerPorts: [{port: 6443}]}\n\
        proxy: {resources: {requests: {cpu: 0.5, memory: 100000000}}, log: \"info,weir_node=debug\"}\n\
        control: {tolerations: [{key: x, operator: Equal, value: \"#, : \\\" '\"}]}\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    compare(&["-f", path, "--set", "ha=true"], &["-f", path, "--set", "ha=true"]);
}

/// What one refuses, the other refuses: they check the same schema.
#[test]
fn the_same_refusals() {
    for set in [
        "proxy.lgo=debug",
        "quux=1",
        "control.replicas=99",
        "ha=maybe",
        "image.pullPolicy=Sometimes",
        "trustDomain=Upper.Case",
        "holder.cniBinDir=relative",
        "holder.seLinuxOptions.tpye=x",
        "proxy=1",
    ] {
        assert!(by_weir(&["--set", set]).is_err(), "{set}: weir takes it");
        assert!(by_helm(&["--set", set]).is_err(), "{set}: helm takes it");
    }
}

/// The real kubectl finds both names in the PATH, runs the second, and understands its answer: a line that is no directive would be a
/// candidate, and files would be offered.
#[test]
fn kubectl_completes_the_plugin() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["kubectl-weir", "kubectl_complete-weir"] {
        std::os::unix::fs::symlink(binary("weir"), folder.path().join(name)).unwrap();
    }
    let completed = |words: &[&str]| {
        let mut command = Command::new(program("WEIR_KUBECTL"));
        let path = format!("{}:{}", folder.path().display(), env::var("PATH").unwrap());
        output(command.args(["__completeNoDesc", "weir"]).args(words).env("PATH", path)).unwrap()
    };
    assert_eq!(completed(&["st"]), "stat\nstat-outbound\n:4\n");
    assert_eq!(completed(&["check", "--output", "s"]), "short\n:4\n");
    assert_eq!(completed(&["install", "--values", ""]), ":0\n");
}
