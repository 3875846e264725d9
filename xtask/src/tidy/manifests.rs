//! The checkout's packages as `cargo metadata` tells them. Must never resolve or download: the manifests alone say it all.

use std::{env, fs, path::Path, process::Command};

use serde::Deserialize;

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
};

/// Built for another target, hence with a workspace of its own.
const PROGRAMS: &str = "ebpf/programs/Cargo.toml";

/// One package of ours.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    /// Relative to the top of the checkout.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// One declared dependency.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// What the package calls it, where that differs.
    pub(super) rename: Option<String>,
    /// `dev` or `build`; nothing for a normal one.
    pub(super) kind: Option<String>,
}

impl Manifest {
    /// The line, from 1, that declares this dependency; 1 when it cannot be told.
    pub(super) fn line_of(&self, dependency: &str) -> usize {
        line_of(&self.text, dependency)
    }

    /// The package's folder, with a slash at its end.
    pub(super) fn folder(&self) -> &str {
        self.path.strip_suffix("Cargo.toml").unwrap_or(&self.path)
    }
}

/// The line, from 1, that begins with this key; 1 when there is none.
pub(super) fn line_of(text: &str, key: &str) -> usize {
    let declares = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
    text.lines().position(declares).map_or(1, |index| index + 1)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

/// Every package of the checkout.
///
/// # Errors
/// Cargo does not accept a manifest.
pub(super) fn all(cache: &Cache) -> Outcome<Vec<Manifest>> {
    let top = env::current_dir()?;
    let mut manifests = Vec::new();
    for manifest in ["Cargo.toml", PROGRAMS] {
        let mut cargo = cache.cargo();
        cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
        manifests.extend(parse(&mut cargo, &top)?);
    }
    Ok(manifests)
}

fn parse(cargo: &mut Command, top: &Path) -> Outcome<Vec<Manifest>> {
    let metadata: Metadata = serde_json::from_str(&child::output(cargo)?)?;
    metadata.packages.into_iter().map(|package| read(package, top)).collect()
}

fn read(package: Package, top: &Path) -> Outcome<Manifest> {
    let path = Path::new(&package.manifest_path);
    let text = fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let path = path.strip_prefix(top).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Manifest { name: package.name, path, text, dependencies: package.dependencies })
}
