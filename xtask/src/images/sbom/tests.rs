use std::collections::BTreeMap;

use serde_json::json;

use super::{Metadata, checksums, document};

fn metadata() -> Metadata {
    let package = |name: &str, source: Option<&str>| json!({"id": format!("id {name}"), "name": name, "version": "1.0.0+x", "license": "MIT/Apache-2.0", "source": source, "targets": [{"kind": [if name == "derive" { "proc-macro" } else { "lib" }]}]});
    let edge = |name: &str, kind: Option<&str>| json!({"pkg": format!("id {name}"), "dep_kinds": [{"kind": kind}]});
    serde_json::from_value(json!({
        "packages": [
            package("weir-node", None), package("linked", Some("registry")), package("deep", Some("registry")),
            package("built-with", Some("registry")), package("tested-with", Some("registry")), package("other", None), package("derive", Some("registry")),
        ],
        "resolve": {"nodes": [
            {"id": "id weir-node", "deps": [edge("linked", None), edge("built-with", Some("build")), edge("tested-with", Some("dev"))]},
            {"id": "id linked", "deps": [edge("deep", None), edge("derive", None)]},
            {"id": "id derive", "deps": [edge("built-with", None)]},
            {"id": "id deep", "deps": [edge("linked", None)]},
            {"id": "id built-with", "deps": [edge("other", None)]},
        ]},
    }))
    .expect("metadata")
}

#[test]
fn only_what_is_linked_is_listed() {
    let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0+x\"\nchecksum = \"abc\"\n";
    let toolchain = [("rust-std".to_owned(), "1.95.0".to_owned(), "MIT")];
    let listed = document(&metadata(), &checksums(lock), "weir-node", &toolchain).expect("a document");
    let names: Vec<_> = listed["packages"].as_array().expect("a list").iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["deep", "linked", "weir-node", "rust-std"]);
    assert_eq!(listed["packages"][0]["checksums"][0]["checksumValue"], "abc");
    assert_eq!(listed["packages"][0]["SPDXID"], "SPDXRef-Package-deep-1.0.0-x");
    assert_eq!(listed["packages"][1]["licenseDeclared"], "MIT OR Apache-2.0");
    let described = &listed["relationships"][0]["relatedSpdxElement"];
    assert_eq!(described, "SPDXRef-Package-weir-node-1.0.0-x");
    assert!(document(&metadata(), &BTreeMap::new(), "absent", &[]).is_err());
}

#[test]
fn the_same_input_gives_the_same_document() {
    let made = || document(&metadata(), &BTreeMap::new(), "weir-node", &[]).expect("a document");
    assert_eq!(made(), made());
}
