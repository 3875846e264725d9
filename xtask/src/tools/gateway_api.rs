//! Gateway API's own resource definitions, out of its published Go module. Must never be a version that the pinned checksum does not name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::go;
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
};

const MODULE: &str = "sigs.k8s.io/gateway-api";
pub(super) const VERSION: &str = "v1.6.3";
/// As Go's checksum database has it.
const SUM: &str = "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=";

/// The folder with the definitions of its standard channel.
pub(crate) fn definitions(cache: &Cache) -> PathBuf {
    cache.path("gateway-api").join(VERSION).join("standard")
}

/// Fetches them, where missing.
///
/// # Errors
/// Go is missing, the module cannot be had, or is another one.
pub(crate) fn ensure(cache: &Cache) -> Outcome {
    let folder = definitions(cache);
    if folder.is_dir() {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    fs::write(scratch.path().join("go.mod"), "module fetch\n")?;
    let mut command = Command::new(go::find()?);
    command.args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).current_dir(scratch.path());
    let said = child::output(command.env("GOWORK", "off").env("GOFLAGS", "-mod=mod"))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    if said["Sum"] != SUM {
        return Err(Failure::new(format!("{MODULE} {VERSION} is {}, not {SUM}", said["Sum"])));
    }
    let source = said["Dir"].as_str().ok_or_else(|| Failure::new(format!("{MODULE} {VERSION}: {}", said["Error"])))?;
    let aside = folder.with_extension("new");
    fs::create_dir_all(&aside)?;
    for entry in fs::read_dir(Path::new(source).join("config/crd/standard"))? {
        let entry = entry?;
        // Not as a link or with the module cache's rights: it has none to write.
        fs::write(aside.join(entry.file_name()), fs::read(entry.path())?)?;
    }
    fs::rename(aside, folder)?;
    Ok(())
}
