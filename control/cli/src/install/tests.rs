use clap::Parser as _;

use super::*;
use crate::args::{Arguments, Command};

/// Standard output of `weir install …`, with no kubeconfig to be found.
fn installed(words: &str) -> Result<String, CliError> {
    let words =
        ["weir", "--kubeconfig", "/nonexistent/kubeconfig", "install"].into_iter().chain(words.split_whitespace());
    let arguments = Arguments::try_parse_from(words).unwrap();
    let session = Session::new(&arguments.global, &arguments.command)?;
    let Command::Install(chosen) = &arguments.command else { panic!("{arguments:?}") };
    let mut out = Vec::new();
    install(chosen, &session, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn kinds(yaml: &str) -> Vec<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    let values = documents.map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap());
    values.filter(|value| !value.is_null()).map(|value| value["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn stages_are_the_whole() {
    let (cluster, mesh) = (installed("--stage cluster").unwrap(), installed("--stage mesh").unwrap());
    assert_eq!(kinds(&cluster), ["Namespace", "PersistentVolume", "ClusterRole", "ClusterRoleBinding"]);
    assert!(kinds(&mesh).iter().all(|kind| !kind.starts_with("Cluster")), "{mesh}");
    assert_eq!(format!("{cluster}{mesh}"), installed("").unwrap());
}

#[test]
fn the_first_phase_is_something_that_kubectl_takes() {
    let text = installed("--crds").unwrap();
    assert!(text.starts_with("# Weir ") && text.contains("no custom resource definitions"), "{text}");
    assert_eq!(kinds(&text), ["Namespace"]);
}

#[test]
fn json_is_one_list_of_the_same_objects() {
    let list: Value = serde_json::from_str(&installed("-o json --ha").unwrap()).unwrap();
    let of_list: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(list["kind"], "List");
    assert_eq!(of_list, kinds(&installed("--ha").unwrap()));
}

#[test]
fn files_then_ha_then_set() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.yaml"), folder.path().join("two.yaml"));
    std::fs::write(&one, "proxy: {log: debug}\nha: false\ntrustDomain: one.example\n").unwrap();
    std::fs::write(&two, "trustDomain: two.example\n").unwrap();
    let arguments = format!("-f {} -f {} --ha --set proxy.log=warn", one.display(), two.display());
    let text = installed(&arguments).unwrap();
    assert!(text.contains("--log=warn") && text.contains("replicas: 3"), "{text}");
    assert!(text.contains("--trust-domain=two.example"), "{text}");
    std::fs::write(&two, "trustDomian: x\n").unwrap();
    let wrong = installed(&arguments).unwrap_err().to_string();
    assert!(wrong.contains("is trustDomain meant?"), "{wrong}");
    let absent = installed("-f /nonexistent/values.yaml").unwrap_err().to_string();
    assert!(absent.contains("/nonexistent/values.yaml"), "{absent}");
}

#[test]
fn reasons_for_privileges_reach_who_reviews_the_manifests() {
    assert!(installed("").unwrap().contains("# Enter pods' network namespaces (setns)"));
}

#[test]
fn what_would_not_work_is_refused() {
    assert!(installed("--weir-namespace other").unwrap_err().to_string().contains("in namespace weir only"));
    assert!(installed("-o wide").unwrap_err().to_string().contains("there are yaml, json"));
}
