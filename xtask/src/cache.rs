//! Where built and installed things go: one folder outside the checkout. Must never write into the checkout.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    child::{Failure, Outcome},
    toolchain::Toolchain,
};

/// The cache, and how cargo builds into it: `$WEIR_CACHE`, else `$XDG_CACHE_HOME/weir`, else `~/.cache/weir`.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    toolchain: Toolchain,
}

impl Cache {
    /// Finds the folder; it need not exist yet.
    ///
    /// # Errors
    /// No variable says where it could be, or there is no compiler.
    pub(crate) fn locate() -> Outcome<Self> {
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = named("WEIR_CACHE")
            .or_else(|| Some(named("XDG_CACHE_HOME")?.join("weir")))
            .or_else(|| Some(named("HOME")?.join(".cache/weir")))
            .ok_or_else(|| Failure::new("no place for the cache: set WEIR_CACHE to a folder outside the checkout"))?;
        if root.is_relative() {
            return Err(Failure::new(format!("the cache must be an absolute path, not {}", root.display())));
        }
        Ok(Self { root, toolchain: Toolchain::find()? })
    }

    /// Something inside the cache.
    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.root.join(inside)
    }

    /// The linker of kernel programs.
    pub(crate) fn bpf_linker(&self) -> PathBuf {
        self.path("tools/bin/bpf-linker")
    }

    /// The kernel programs, as the loader embeds them.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.path("ebpf/weir-ebpf.o")
    }

    /// The interpreter of the Python environment with other people's clients and servers.
    pub(crate) fn python(&self) -> PathBuf {
        self.path("python/bin/python3")
    }

    /// Where cargo puts the product's binaries.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.binaries_of("release")
    }

    /// The same for one of cargo's profiles.
    pub(crate) fn binaries_of(&self, profile: &str) -> PathBuf {
        self.path("target").join(self.toolchain.target()).join(profile)
    }

    /// The compiler.
    pub(crate) fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// `cargo`, building into the cache and embedding the kernel programs when they are built.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new("cargo");
        self.toolchain.apply(&mut cargo);
        cargo.env("CARGO_TARGET_DIR", self.path("target"));
        if self.ebpf_object().exists() {
            cargo.env("WEIR_EBPF_OBJECT", self.ebpf_object());
        }
        cargo
    }
}
