//! How cargo compiles for this project: static binaries that name no folder of this machine. Must never differ between suites, lints and
//! images: what is tested is what ships, and every dependency is compiled once.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::child::{self, Failure, Outcome};

/// The Rust that `rust-toolchain.toml` picks.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The triple of this machine. Naming it to cargo keeps the flags away from build scripts and macros.
    target: String,
    sysroot: PathBuf,
    cargo_home: Option<String>,
}

impl Toolchain {
    /// Asks `rustc`.
    ///
    /// # Errors
    /// It is not there, or not rustup's.
    pub(crate) fn find() -> Outcome<Self> {
        let told = child::output(Command::new("rustc").arg("-vV"))?;
        let target = told
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .ok_or_else(|| Failure::new("`rustc -vV` names no host: is Rust installed by rustup?"))?;
        let sysroot = child::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
        Ok(Self { target: target.to_owned(), sysroot: sysroot.trim().into(), cargo_home: home.ok() })
    }

    /// The target triple, which is also a folder in cargo's target folder.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Where the compiler and its libraries lie.
    pub(crate) fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// Sets target and flags of a cargo command.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        let renamed = self.renamed();
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        flags.extend(renamed.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
        let c: Vec<String> = renamed.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
        cargo
            .env("CARGO_BUILD_TARGET", &self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("CFLAGS", c.join(" "));
    }

    /// Messages of panics and of C's assertions name files: as everywhere, not as here. The checkout is not among them: cargo
    /// names its files relative to it, and a flag with its path would make another checkout compile every dependency anew.
    fn renamed(&self) -> Vec<(String, &'static str)> {
        let library = self.sysroot.join("lib/rustlib/src/rust").display().to_string();
        let mut renamed = vec![(library, "/rustc")];
        renamed.extend(self.cargo_home.clone().map(|home| (home, "/cargo")));
        renamed
    }
}
