//! `weir install`, `upgrade`, `uninstall` and `prune`: manifests on standard output. Must never change the cluster itself.

pub(crate) mod installed;
#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, io::Write, path::Path};

use serde_json::{Value, json};

use crate::{
    args::install::{InstallArgs, RenderArgs, UninstallArgs},
    chart::{self, Object, Overrides, Reference},
    error::CliError,
    limits,
    output::{Format, json as write_json, note},
    session::{Outcome, Reach, Session},
};

/// The only namespace that control works in.
const NAMESPACE: &str = "weir";

/// Prints an installation. Needs no cluster.
pub(crate) fn install(arguments: &InstallArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let overrides = overrides(Overrides::default(), &arguments.render)?;
    print(arguments, &overrides, session, out)
}

/// Prints an installation with the values of the one that runs, and what is newly set.
pub(crate) async fn upgrade(
    arguments: &InstallArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let cluster = access(session)?.connect().await?;
    let held = installed::values(&cluster).await?;
    print(arguments, &overrides(held, &arguments.render)?, session, out)
}

/// Prints what deletes the installation: what it was rendered to, and whatever else carries its label.
pub(crate) async fn uninstall(
    arguments: &UninstallArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let cluster = access(session)?.connect().await?;
    let found = installed::objects(&cluster, arguments.stage).await?;
    if found.is_empty() {
        note(&format!("nothing of the mesh found here (label {}): check --context", chart::PART_OF));
    }
    references(&found, session, out)
}

/// Prints what carries the mesh's label and is no part of the installation any more.
pub(crate) async fn prune(session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let cluster = access(session)?.connect().await?;
    let wanted = chart::render(&installed::values(&cluster).await?, &session.weir_namespace)?;
    let wanted: Vec<Reference> = wanted.iter().map(Object::reference).collect();
    let mut found = installed::objects(&cluster, None).await?;
    // An object that moved to another version of its API is still the same.
    let same = |a: &Reference, b: &Reference| {
        (a.group(), &a.kind, &a.namespace, &a.name) == (b.group(), &b.kind, &b.namespace, &b.name)
    };
    found.retain(|reference| !wanted.iter().any(|other| same(reference, other)));
    if found.is_empty() {
        note("nothing to prune");
    }
    references(&found, session, out)
}

fn access(session: &Session) -> Result<&crate::cluster::Access, CliError> {
    match &session.reach {
        Reach::Kubernetes(access) => Ok(access),
        Reach::Direct(_) => Err(CliError::Argument(
            "this command asks Kubernetes: leave out --control, --trust-anchors and --token-file, and their environment variables".to_owned(),
        )),
    }
}

/// Files in their order, then `--ha`, then `--set`.
pub(crate) fn overrides(mut overrides: Overrides, arguments: &RenderArgs) -> Result<Overrides, CliError> {
    for path in &arguments.values {
        let failed = |reason: String| CliError::File { what: "values file", path: path.clone(), reason };
        let text = read(path).map_err(|error| failed(error.to_string()))?;
        overrides.file(&text).map_err(|error| failed(error.to_string()))?;
    }
    if arguments.ha {
        overrides.set("ha=true")?;
    }
    arguments.set.iter().try_for_each(|text| overrides.set(text))?;
    Ok(overrides)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limits::VALUES_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::VALUES_BYTES {
        return Err(std::io::Error::other(format!(
            "longer than {} bytes: is this the right file?",
            limits::VALUES_BYTES
        )));
    }
    Ok(text)
}

fn print(
    arguments: &InstallArgs,
    overrides: &Overrides,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    // Control knows no other: refused here rather than by an installation that never comes up.
    if session.weir_namespace != NAMESPACE {
        return Err(CliError::Argument(format!(
            "--weir-namespace {}: this version can be installed in namespace {NAMESPACE} only",
            session.weir_namespace
        )));
    }
    let mut objects = chart::render(overrides, &session.weir_namespace)?;
    if arguments.crds {
        // kubectl takes an empty list for an error, so this phase makes the namespace, which the next makes again.
        objects.retain(|object| object.reference().kind == "Namespace");
        if session.format == Format::Yaml {
            writeln!(out, "# Weir {} has no custom resource definitions of its own yet.", env!("CARGO_PKG_VERSION"))?;
        }
    }
    objects.retain(|object| arguments.stage.is_none_or(|stage| stage == object.stage));
    if session.format == Format::Json {
        write_json(out, &list(objects.iter().map(|object| object.value.clone())))?;
    } else {
        for object in &objects {
            writeln!(out, "---\n{}", object.text)?;
        }
    }
    out.flush()?;
    Ok(Outcome::Good)
}

fn references(found: &[Reference], session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    if session.format == Format::Json {
        write_json(out, &list(found.iter().map(Reference::value)))?;
    } else {
        for reference in found {
            let text = serde_yaml_ng::to_string(&reference.value())
                .map_err(|error| CliError::Argument(format!("{}: {error}", reference.name)))?;
            write!(out, "---\n{text}")?;
        }
    }
    out.flush()?;
    Ok(Outcome::Good)
}

fn list(items: impl Iterator<Item = Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<Value>>()})
}
