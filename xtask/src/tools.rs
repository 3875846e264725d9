//! Everything that the other commands need and the checkout does not hold. Must never install what is there already.

mod apt;
pub(crate) mod linker;
mod python;

use crate::{
    cache::Cache,
    child::{self, Outcome},
};

/// Installs and builds what is missing.
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
