//! Everything that the other commands need and the checkout does not hold. Must never install what is there already.

mod apt;
pub(crate) mod conformance;
pub(crate) mod gateway_api;
mod go;
pub(crate) mod kubernetes;
pub(crate) mod linker;
mod python;

use crate::{
    cache::Cache,
    child::{self, Outcome},
};

/// Installs and builds what the suites without a cluster need, where missing.
///
/// # Errors
/// Something cannot be installed; the text says by what command it could be done by hand.
pub(crate) fn run(cache: &Cache) -> Outcome {
    child::say("tools: programs to test with, the kernel programs' linker, Python clients and servers");
    apt::ensure()?;
    linker::ensure(cache)?;
    python::ensure(cache)?;
    child::say("tools: all there");
    Ok(())
}

/// Installs and builds what a cluster and images need, where missing.
///
/// # Errors
/// As [`run`].
pub(crate) fn for_cluster(cache: &Cache) -> Outcome {
    child::say("tools: Debian's programs; Kubernetes (10 to 15 minutes the first time, on two cores)");
    apt::ensure_for_cluster()?;
    kubernetes::ensure(cache)?;
    gateway_api::ensure(cache)?;
    python::ensure(cache)?;
    child::say("tools: all there");
    Ok(())
}
