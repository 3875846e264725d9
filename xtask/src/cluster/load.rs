//! Brings images into the nodes. Must never ask a registry: there is none.

use std::{
    fs::{self, File},
    path::PathBuf,
    thread,
};

use super::{layout::Machine, machines};
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    images,
};

/// Imports archives into every node, both nodes at once.
///
/// # Errors
/// A node does not run, an archive cannot be read, or containerd refuses it.
pub(super) fn run(cache: &Cache, files: &[PathBuf]) -> Outcome {
    let all;
    let files = if files.is_empty() {
        all = every_archive(cache)?;
        &all
    } else {
        files
    };
    for file in files {
        into_nodes(file)?;
    }
    Ok(())
}

fn every_archive(cache: &Cache) -> Outcome<Vec<PathBuf>> {
    let folder = images::folder(cache);
    let listed = fs::read_dir(&folder)
        .map_err(|error| Failure::new(format!("{}: {error}: `cargo xtask images` makes it", folder.display())))?;
    let mut found: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "tar"));
    found.sort();
    Ok(found)
}

/// Imports one archive.
///
/// # Errors
/// As [`run`].
pub(super) fn into_nodes(file: &PathBuf) -> Outcome {
    let import = |node: Machine| -> Outcome {
        // By standard input: the node's root need not show the file.
        let archive = File::open(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        let mut ctr = machines::inside(node, "ctr")?;
        let output = ctr.args(["--namespace", "k8s.io", "images", "import", "-"]).stdin(archive).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!("{} does not import {}: {}", node.name, file.display(), said.trim())))
    };
    thread::scope(|scope| {
        let imports: Vec<_> = Machine::nodes().map(|node| scope.spawn(move || import(node))).collect();
        imports.into_iter().try_for_each(|import| {
            import.join().unwrap_or_else(|_| Err(Failure::new("an import ended without an answer: run it again")))
        })
    })?;
    child::say(format_args!("  · {} is on every node", file.display()));
    Ok(())
}
