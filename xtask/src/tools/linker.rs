//! bpf-linker, built against the toolchain's own libLLVM. Must never download a prebuilt binary.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
};

/// With the feature that names the LLVM of the pinned toolchain (`rustc -vV`).
const VERSION: &str = "0.13.0";
const LLVM: &str = "22";

/// Builds the linker and adds the toolchain's sources, where missing.
///
/// # Errors
/// rustup is not there, the toolchain has another LLVM, or the build fails.
pub(crate) fn ensure(cache: &Cache) -> Outcome {
    let sysroot = cache.toolchain().sysroot();
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        let hint =
            "The kernel programs need core's source: install Rust with rustup, then `rustup component add rust-src`.";
        child::run(Command::new("rustup").args(["component", "add", "rust-src"]), "rustup: component rust-src", hint)?;
    }
    let version = child::output(Command::new(cache.bpf_linker()).arg("--version")).unwrap_or_default();
    if version.trim() == format!("bpf-linker {VERSION}") {
        return Ok(());
    }
    let llvm = llvm_prefix(cache, sysroot)?;
    let mut cargo = Command::new("cargo");
    plain(&mut cargo)
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--force",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(cache.path("tools"))
        .env("LLVM_PREFIX", llvm)
        .env("CARGO_TARGET_DIR", cache.path("bpf-linker-target"))
        // Found again at run time where it was at build time: the toolchain's own library.
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", sysroot.join("lib").display()));
    child::run(
        &mut cargo,
        "bpf-linker, once (2 to 4 minutes)",
        "It needs a C++ runtime (package g++) and the crate registry.",
    )
}

/// Takes away what an outer build or CI may have set and would change a build for another target.
pub(crate) fn plain(command: &mut Command) -> &mut Command {
    for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

/// A folder that looks like an installed LLVM and leads to the toolchain's library.
fn llvm_prefix(cache: &Cache, sysroot: &Path) -> Outcome<PathBuf> {
    let wanted = format!("libLLVM.so.{LLVM}.");
    let library = fs::read_dir(sysroot.join("lib"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&wanted)))
        .ok_or_else(|| {
            Failure::new(format!(
                "{} has no {wanted}*: the kernel programs need the toolchain of rust-toolchain.toml, installed by rustup",
                sysroot.join("lib").display()
            ))
        })?;
    let prefix = cache.path("tools/llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    symlink(library, link)?;
    Ok(prefix)
}
