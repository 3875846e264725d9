//! The demo and the benchmark: programs of package weir-tests, built with what they start and then run. Must never keep a cargo lock while they run.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::{Args, ValueEnum};

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    ebpf, tools,
};

/// What the product consists of, as packages to build.
const PRODUCT: [&str; 3] = ["weir-node", "weir-control", "weir-cli"];

/// How the product is built.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Profile {
    /// For tests and the demo: one build of every dependency serves all.
    #[default]
    Release,
    /// As it ships, and is measured.
    Dist,
}

impl Profile {
    /// As cargo calls it, and the folder that it builds into.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Release => "release",
            Profile::Dist => "dist",
        }
    }
}

/// Arguments that go on as they are.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds everything and becomes one program of weir-tests with the given arguments.
///
/// # Errors
/// A tool or a build fails, or this is not root.
pub(crate) fn run(cache: &Cache, binary: &str, profile: Profile, passed: &Passed) -> Outcome<ExitCode> {
    let asks = passed.rest.iter().any(|argument| argument == "--help" || argument == "-h");
    if !asks && !child::is_root() {
        return Err(Failure::new(
            "network namespaces and eBPF need root: run this as root (sudo -E env \"PATH=$PATH\" cargo xtask …)",
        ));
    }
    if !asks {
        tools::run(cache)?;
        ebpf::run(cache)?;
        product(cache, profile)?;
    }
    let mut cargo = cache.cargo();
    cargo.args(["build", "--release", "--quiet", "--package", "weir-tests", "--bin", binary]);
    child::run(&mut cargo, &format!("build {binary}"), "Read the compiler's message above.")?;
    let program = cache.binaries().join(binary);
    // In place of this process: signals, the terminal and the exit code are the program's alone.
    let failed = Command::new(&program)
        .args(&passed.rest)
        .env("WEIR_BINARIES", cache.binaries_of(profile.name()))
        .env("WEIR_PYTHON", cache.python())
        .exec();
    Err(Failure::new(format!("cannot start {}: {failed}", program.display())))
}

/// Builds the product's binaries.
///
/// # Errors
/// It does not compile.
pub(crate) fn product(cache: &Cache, profile: Profile) -> Outcome {
    let mut cargo = cache.cargo();
    cargo
        .args(["build", "--locked", "--profile", profile.name()])
        .args(PRODUCT.iter().flat_map(|package| ["--package", package]));
    child::run(
        &mut cargo,
        "weir-node, weir-control and weir (a few minutes the first time)",
        "Read the compiler's message above.",
    )
}
