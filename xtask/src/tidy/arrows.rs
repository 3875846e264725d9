//! Which of our packages may know which, and that `weir-core` knows nothing asynchronous. Must never grow an arrow without docs/architecture.md saying so.

use super::{Finding, manifests::Manifest};
use crate::{
    cache::Cache,
    child::{self, Outcome},
};

/// Every package of ours and what it may depend on. `weir-tests` may use all.
const ARROWS: [(&str, &[&str]); 9] = [
    ("weir-api", &[]),
    ("weir-core", &["weir-api"]),
    ("weir-ebpf-common", &[]),
    ("weir-ebpf-loader", &["weir-ebpf-common"]),
    ("weir-ebpf-programs", &["weir-ebpf-common"]),
    ("weir-node", &["weir-api", "weir-core", "weir-ebpf-common", "weir-ebpf-loader"]),
    ("weir-control", &["weir-api", "weir-core"]),
    ("weir-cli", &["weir-api", "weir-core"]),
    ("xtask", &[]),
];
const ANY: &str = "weir-tests";
const CORE: &str = "weir-core";
const CORE_MANIFEST: &str = "node-proxy/core/Cargo.toml";
/// I/O, time and threads come to `weir-core` as arguments, never as one of these or their families (`tokio-util`, …).
const ASYNCHRONOUS: [&str; 12] =
    ["async-std", "aya", "futures", "h2", "hyper", "kube", "mio", "quinn", "reqwest", "smol", "tokio", "tonic"];

/// Arrows that must not be.
pub(super) fn check(manifests: &[Manifest]) -> Vec<Finding> {
    manifests.iter().flat_map(of_one).collect()
}

fn of_one(manifest: &Manifest) -> Vec<Finding> {
    if manifest.name == ANY {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == manifest.name) else {
        let text = format!(
            "package `{}` has no place in the map: add it to xtask/src/tidy/arrows.rs and docs/architecture.md",
            manifest.name
        );
        return vec![Finding::new(&manifest.path, 1, text)];
    };
    let ours = |name: &str| name == ANY || ARROWS.iter().any(|(known, _)| *known == name);
    let refused = manifest.dependencies.iter().filter(|dependency| {
        ours(&dependency.name) && dependency.name != manifest.name && !allowed.contains(&dependency.name.as_str())
    });
    refused
        .map(|dependency| {
            let text = format!(
                "`{}` must not know `{}`: it may know {allowed:?} (docs/architecture.md)",
                manifest.name, dependency.name
            );
            Finding::new(&manifest.path, manifest.line_of(&dependency.name), text)
        })
        .collect()
}

/// What `weir-core` must not reach, through any number of crates.
///
/// # Errors
/// Cargo cannot resolve the dependencies.
pub(super) fn check_core(cache: &Cache) -> Outcome<Vec<Finding>> {
    let mut cargo = cache.cargo();
    // Not `cargo metadata`: that one mixes in the features that other members ask for.
    cargo.args(["tree", "--package", CORE, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    Ok(asynchronous(&child::output(&mut cargo)?))
}

fn asynchronous(tree: &str) -> Vec<Finding> {
    let mut names: Vec<&str> =
        tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| is_asynchronous(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let text = format!(
                "reaches `{name}`: {CORE} decides without I/O (see `cargo tree -p {CORE} -e normal -i {name}`)"
            );
            Finding::new(CORE_MANIFEST, 1, text)
        })
        .collect()
}

fn is_asynchronous(name: &str) -> bool {
    ASYNCHRONOUS
        .iter()
        .any(|family| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
        && name != "tonic-prost-build"
}

#[cfg(test)]
mod tests {
    use super::{asynchronous, of_one};
    use crate::tidy::manifests::{Dependency, Manifest};

    fn manifest(name: &str, dependency: &str) -> Manifest {
        let declared = Dependency { name: dependency.to_owned(), rename: None, kind: None };
        let text = format!("[package]\n[dependencies]\n{dependency}.workspace = true\n");
        Manifest { name: name.to_owned(), path: "a/Cargo.toml".to_owned(), text, dependencies: vec![declared] }
    }

    #[test]
    fn the_halves_do_not_know_each_other() {
        for (name, dependency) in [("weir-node", "weir-control"), ("weir-control", "weir-node"), ("xtask", "weir-api")]
        {
            let findings = of_one(&manifest(name, dependency));
            assert!(findings.len() == 1 || dependency == "weir-unknown", "{name} -> {dependency}");
            assert!(findings.iter().all(|finding| finding.line == 3));
        }
        assert!(of_one(&manifest("weir-node", "weir-core")).is_empty());
        assert!(of_one(&manifest("weir-node", "tokio")).is_empty());
        assert!(of_one(&manifest("weir-tests", "weir-node")).is_empty());
        assert_eq!(of_one(&manifest("weir-new", "tokio")).len(), 1);
    }

    #[test]
    fn families_of_asynchronous_crates_are_known() {
        let tree = "weir-core v0.1.0 (/x)\nbytes v1.2.3\ntokio-util v0.7.0\nhttp v1.0.0\ntokio-util v0.7.0 (*)\n";
        assert_eq!(asynchronous(tree).len(), 1);
        assert!(asynchronous("weir-core v0.1.0\nhttparse v1.0.0\n").is_empty());
    }
}
