//! Developers' commands: `cargo xtask help`. Must never be needed by a user of the product.

mod cache;
mod child;
mod cluster;
mod codegen;
mod ebpf;
mod images;
mod programs;
mod test;
mod tidy;
mod toolchain;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{cache::Cache, child::Outcome};

/// Weir's developers' commands. Everything that is built or installed goes to a cache outside the checkout.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs and builds what the other commands need, only where it is missing.
    Tools {
        /// Also what a Kubernetes cluster needs: its programs are built from source.
        #[arg(long)]
        cluster: bool,
        /// Also Helm.
        #[arg(long)]
        helm: bool,
    },
    /// Builds the kernel programs.
    Ebpf,
    /// Checks the house rules: sizes, module docs, arrows between crates, unused dependencies, generated code.
    Tidy,
    /// Generates the code of the API from its proto files.
    Codegen {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
    /// Everything that CI checks; the suites with real namespaces and eBPF need root.
    Test(test::TestArgs),
    /// Two nodes with real pods on this machine: a tour of the mesh. Needs root.
    Demo(programs::Passed),
    /// A Kubernetes of one control plane and two nodes on this machine. Needs root.
    Cluster(cluster::ClusterArgs),
    /// Builds container images out of local files, with a list of what is linked into the product.
    Images(images::ImagesArgs),
    /// Measures Weir beside nginx and HAProxy and writes docs/measurements.md. Needs root.
    Bench(programs::Passed),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args.command) {
        Ok(code) => code,
        Err(failure) => {
            child::complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<ExitCode> {
    if let Command::Cluster(args) = &command
        && args.is_inside_a_machine()
    {
        return cluster::machine(args);
    }
    let cache = Cache::locate()?;
    child::enter_checkout()?;
    match command {
        Command::Tools { cluster, helm } => {
            tools::run(&cache)?;
            if cluster {
                tools::for_cluster(&cache)?;
            }
            if helm {
                tools::kubernetes::ensure_helm(&cache)?;
            }
        }
        Command::Ebpf => ebpf::run(&cache)?,
        Command::Tidy => tidy::run(&cache)?,
        Command::Codegen { check } => codegen::run(check)?,
        Command::Test(args) => return test::run(&cache, &args),
        Command::Cluster(args) => return cluster::run(&cache, &args),
        Command::Images(args) => images::run(&cache, &args)?,
        Command::Demo(passed) => return programs::run(&cache, "weir-demo", programs::Profile::Release, &passed),
        Command::Bench(passed) => return programs::run(&cache, "weir-bench", programs::Profile::Dist, &passed),
    }
    Ok(ExitCode::SUCCESS)
}
