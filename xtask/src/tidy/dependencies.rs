//! Dependencies that nobody uses, in a package or in the workspace's table. Must never guess: what only a feature needs is listed with its reason.

#[cfg(test)]
mod tests;

use std::fs;

use super::{
    Finding,
    manifests::{Dependency, Manifest, line_of},
    source::{Source, words},
};
use crate::child::Outcome;

/// (package, dependency, reason) of what no source names.
const UNNAMED: [(&str, &str, &str); 0] = [];
const WORKSPACE: &str = "Cargo.toml";

/// Dependencies that can go.
///
/// # Errors
/// The workspace's manifest cannot be read.
pub(super) fn check(manifests: &[Manifest], sources: &[Source]) -> Outcome<Vec<Finding>> {
    let mut findings: Vec<Finding> =
        manifests.iter().flat_map(|manifest| unused(manifest, &sources_of(manifest, manifests, sources))).collect();
    findings.extend(stale(manifests));
    findings.extend(unclaimed(&fs::read_to_string(WORKSPACE)?, manifests));
    Ok(findings)
}

/// The sources inside a package's folder that belong to no package further in.
fn sources_of<'a>(manifest: &Manifest, all: &[Manifest], sources: &'a [Source]) -> Vec<&'a Source> {
    let inner = |path: &str| {
        all.iter().any(|other| other.folder().len() > manifest.folder().len() && path.starts_with(other.folder()))
    };
    sources.iter().filter(|source| source.path.starts_with(manifest.folder()) && !inner(&source.path)).collect()
}

fn unused(manifest: &Manifest, sources: &[&Source]) -> Vec<Finding> {
    let listed = |dependency: &Dependency| {
        UNNAMED.iter().any(|(package, name, _)| *package == manifest.name && *name == dependency.name)
    };
    let declared_twice = |dependency: &Dependency| {
        dependency.kind.is_some()
            && manifest.dependencies.iter().any(|other| other.kind.is_none() && other.name == dependency.name)
    };
    let unused = manifest.dependencies.iter().filter(|dependency| {
        let name = dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_");
        let mut used = sources.iter().filter(|source| dependency.kind.is_some() || !source.is_test());
        // Declared again for tests only to add features: its use shows with the normal one.
        !listed(dependency) && !declared_twice(dependency) && !used.any(|source| names(&source.code, &name))
    });
    unused
        .map(|dependency| {
            let kind = dependency.kind.as_deref().unwrap_or("normal");
            let text = format!(
                "{kind} dependency `{}` is named nowhere in the package's sources: take it out, or list it with a reason in \
                 xtask/src/tidy/dependencies.rs",
                dependency.name
            );
            Finding::new(&manifest.path, manifest.line_of(&dependency.name), text)
        })
        .collect()
}

/// Does the code name this crate: `name::…`, `use name`, `extern crate name`, but not `other::name::…`?
fn names(code: &str, name: &str) -> bool {
    words(code, name).any(|at| {
        let before = code.get(..at).unwrap_or_default();
        let after = code.get(at + name.len()..).unwrap_or_default().trim_start();
        let inside_a_path = before
            .strip_suffix("::")
            .is_some_and(|path| path.ends_with(|last: char| last.is_alphanumeric() || matches!(last, '_' | '>')));
        let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
        !inside_a_path && (after.starts_with("::") || imported)
    })
}

/// Entries of the list that excuse nothing.
fn stale(manifests: &[Manifest]) -> Vec<Finding> {
    let declared = |package: &str, name: &str| {
        manifests
            .iter()
            .filter(|manifest| manifest.name == package)
            .any(|manifest| manifest.dependencies.iter().any(|dependency| dependency.name == name))
    };
    let stale = UNNAMED.iter().filter(|(package, name, reason)| !declared(package, name) || reason.is_empty());
    stale
        .map(|(package, name, _)| {
            Finding::new(
                file!(),
                0,
                format!("`{package}` does not declare `{name}` (or no reason is given): take it off the list"),
            )
        })
        .collect()
}

/// Entries of `[workspace.dependencies]` that no package takes.
fn unclaimed(workspace: &str, manifests: &[Manifest]) -> Vec<Finding> {
    let table = workspace.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let entries = table.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    let taken =
        |name: &str| manifests.iter().any(|manifest| manifest.dependencies.iter().any(|other| other.name == name));
    entries
        .filter_map(|line| Some(line.split_once('=')?.0.trim()))
        .filter(|name| !name.is_empty() && !taken(name))
        .map(|name| {
            Finding::new(WORKSPACE, line_of(workspace, name), format!("no package takes `{name}`: take it out"))
        })
        .collect()
}
