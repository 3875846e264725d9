//! What is linked into a binary, as SPDX 2.3. Must never list what only builds or tests it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::archive::sha256;
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    ebpf,
};

/// The same source gives the same list: a time is part of it only when the packager names one.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// The workspace of the kernel programs, its package, and the package that holds them.
const KERNEL_PROGRAMS: &str = "ebpf/programs";
const EMBEDDED: &str = "weir-ebpf-programs";
const HOLDS_KERNEL_PROGRAMS: &str = "weir-node";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it came from; nothing for a package of ours.
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    /// A macro runs in the compiler, with all that it depends on.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `dev` or `build`; nothing for what gets linked.
    kind: Option<String>,
}

/// Writes the list for one package of ours.
///
/// # Errors
/// cargo refuses, or the file cannot be written.
pub(super) fn write(cache: &Cache, package: &str, target: &str, to: &Path) -> Outcome {
    let mut metadata = resolved(cache, ".", target)?;
    let mut checksums = checksums(&fs::read_to_string("Cargo.lock")?);
    if package == HOLDS_KERNEL_PROGRAMS {
        metadata.embed(package, resolved(cache, KERNEL_PROGRAMS, ebpf::TARGET)?)?;
        checksums.extend(self::checksums(&fs::read_to_string(format!("{KERNEL_PROGRAMS}/Cargo.lock"))?));
    }
    let document = document(&metadata, &checksums, package, &toolchain(target)?)?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, serde_json::to_vec_pretty(&document)?)?;
    Ok(())
}

/// What cargo chose for a workspace.
fn resolved(cache: &Cache, folder: &str, target: &str) -> Outcome<Metadata> {
    let mut cargo = cache.cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    Ok(serde_json::from_str(&child::output(cargo.current_dir(folder))?)?)
}

impl Metadata {
    fn package(&self, name: &str) -> Outcome<&Package> {
        let found = self.packages.iter().find(|package| package.name == name && package.source.is_none());
        found.ok_or_else(|| Failure::new(format!("cargo knows no package {name} of ours")))
    }

    /// Adds another workspace, whose program a package of this one holds as bytes.
    fn embed(&mut self, into: &str, other: Metadata) -> Outcome {
        let (holder, embedded) = (self.package(into)?.id.clone(), other.package(EMBEDDED)?.id.clone());
        let known: BTreeSet<String> = self.packages.iter().map(|package| package.id.clone()).collect();
        self.packages.extend(other.packages.into_iter().filter(|package| !known.contains(&package.id)));
        self.resolve.nodes.extend(other.resolve.nodes.into_iter().filter(|node| !known.contains(&node.id)));
        if let Some(node) = self.resolve.nodes.iter_mut().find(|node| node.id == holder) {
            node.deps.push(Edge { pkg: embedded, dep_kinds: vec![Kind { kind: None }] });
        }
        Ok(())
    }
}

/// What the compiler and the C library add to a static binary: name, version, licence.
fn toolchain(target: &str) -> Outcome<Vec<(String, String, &'static str)>> {
    let rustc = child::output(Command::new("rustc").arg("--version"))?;
    let rust = rustc.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut parts = vec![("rust-std".to_owned(), rust, "MIT OR Apache-2.0")];
    if target.ends_with("-gnu") {
        let version = child::output(Command::new("dpkg-query").args(["-W", "-f=${Version}", "libc6-dev"]));
        parts.push(("glibc".to_owned(), version.unwrap_or_else(|_| "unknown".to_owned()), "LGPL-2.1-or-later"));
    }
    Ok(parts)
}

/// Name and version to the registry's checksum.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for block in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), sum);
        }
    }
    found
}

/// The package and all it links, by id.
fn linked<'a>(metadata: &'a Metadata, root: &'a str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let macros: BTreeSet<&str> =
        metadata.packages.iter().filter(|package| package.is_macro()).map(|package| package.id.as_str()).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut found = BTreeMap::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if found.contains_key(id) {
            continue;
        }
        let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let normal = edges.filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        let next: BTreeSet<&str> = normal.map(|edge| edge.pkg.as_str()).filter(|id| !macros.contains(id)).collect();
        open.extend(&next);
        found.insert(id, next);
    }
    found
}

fn document(
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
    package: &str,
    toolchain: &[(String, String, &str)],
) -> Outcome<Value> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|found| (found.id.as_str(), found)).collect();
    let root = metadata.packages.iter().find(|found| found.name == package && found.source.is_none());
    let root = root.ok_or_else(|| Failure::new(format!("cargo metadata knows no package {package}")))?;
    let mut listed = Vec::new();
    let mut relations = vec![
        json!({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": id(root)}),
    ];
    for (from, to) in linked(metadata, &root.id) {
        let Some(found) = packages.get(from) else { continue };
        listed.push(entry(found, checksums));
        for other in to.iter().filter_map(|to| packages.get(to)) {
            relations.push(relation(&id(found), "DEPENDS_ON", &id(other)));
        }
    }
    for (name, version, license) in toolchain {
        let spdx = format!("SPDXRef-Toolchain-{name}");
        relations.push(relation(&id(root), "STATIC_LINK", &spdx));
        listed.push(json!({
            "SPDXID": spdx, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false, "licenseConcluded": "NOASSERTION", "licenseDeclared": license, "copyrightText": "NOASSERTION",
        }));
    }
    let content = sha256(&serde_json::to_vec(&(&listed, &relations))?);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{package}-{}", root.version),
        // Unique by content, as the standard asks; nothing need be found there.
        "documentNamespace": format!("https://weir.mesh/spdx/{package}-{}-{content}", root.version),
        "creationInfo": {"created": created()?, "creators": ["Tool: cargo-xtask-images"]},
        "packages": listed,
        "relationships": relations,
    }))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// The packager's time (`SOURCE_DATE_EPOCH`), as `date` writes it.
fn created() -> Outcome<String> {
    let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") else { return Ok(NO_TIME.to_owned()) };
    let mut date = Command::new("date");
    date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date", &format!("@{epoch}")]);
    Ok(child::output(&mut date)?.trim().to_owned())
}

/// Letters, digits, `.` and `-` are all that an SPDX id may hold.
fn id(package: &Package) -> String {
    let plain =
        |text: &str| text.replace(|character: char| !character.is_ascii_alphanumeric() && character != '.', "-");
    format!("SPDXRef-Package-{}-{}", plain(&package.name), plain(&package.version))
}

fn entry(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let Package { name, version, license, source, .. } = package;
    let location = match source {
        Some(_) => format!("https://crates.io/api/v1/crates/{name}/{version}/download"),
        None => "NOASSERTION".to_owned(),
    };
    let mut entry = json!({
        "SPDXID": id(package),
        "name": name,
        "versionInfo": version,
        "downloadLocation": location,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        // Old manifests separate licences by a slash, which is no SPDX expression.
        "licenseDeclared": license.as_ref().map_or("NOASSERTION".to_owned(), |license| license.replace('/', " OR ")),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{version}"),
        }],
    });
    if let Some(sum) = checksums.get(&(name.clone(), version.clone())) {
        entry["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": sum}]);
    }
    entry
}

#[cfg(test)]
mod tests;
