//! Builds the kernel programs. Must never replace an object with the same bytes: that would rebuild the loader.

use std::{fs, process::Command};

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    tools::linker,
};

/// What the kernel runs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Builds `ebpf/programs` into the cache, where every later cargo call finds it.
///
/// # Errors
/// The linker cannot be built, or the programs do not compile.
pub(crate) fn run(cache: &Cache) -> Outcome {
    linker::ensure(cache)?;
    let target = cache.path("ebpf-target");
    let mut cargo = Command::new("cargo");
    linker::plain(&mut cargo)
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET, "-Z", "build-std=core"])
        .current_dir("ebpf/programs")
        // The programs use no nightly feature of ours: only build-std, which stable cargo hides behind this variable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", format!("-C linker={}", cache.bpf_linker().display()));
    child::run(&mut cargo, "kernel programs (ebpf/programs)", "Read the compiler's message above.")?;
    let built = fs::read(target.join(TARGET).join("release/weir-ebpf"))
        .map_err(|error| Failure::new(format!("the build left no object behind: {error}")))?;
    let object = cache.ebpf_object();
    if fs::read(&object).is_ok_and(|old| old == built) {
        return Ok(());
    }
    fs::create_dir_all(cache.path("ebpf"))?;
    // Written aside and moved: a concurrent cargo never embeds half an object.
    let aside = cache.path("ebpf/weir-ebpf.o.new");
    fs::write(&aside, built)?;
    fs::rename(aside, object)?;
    Ok(())
}
