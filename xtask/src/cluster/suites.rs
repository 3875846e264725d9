//! The suites that need Kubernetes' own programs; the last one a whole cluster. Must never take down a cluster that it did not find
//! or make: a developer's own stays up.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{layout::Place, lifecycle, load};
use crate::{
    cache::Cache,
    child::{self, Outcome},
    ebpf, images, programs,
    tools::{self, kubernetes},
};

/// What to run.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Only these suites; default: all of them, in this order.
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
}

/// One suite, named as its file in `tests/tests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Control on a bare API server.
    Apiserver,
    /// `weir install` beside the real helm.
    Deploy,
    /// The mesh, installed on the cluster.
    Cluster,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Apiserver => "apiserver",
            Suite::Deploy => "deploy",
            Suite::Cluster => "cluster",
        }
    }
}

/// Runs them, one test at a time.
///
/// # Errors
/// What they need cannot be built or brought up, or a test fails.
pub(super) fn run(cache: &Cache, place: &Place, args: &TestArgs) -> Outcome<ExitCode> {
    let suites = if args.suites.is_empty() { Suite::value_variants() } else { &args.suites };
    tools::for_cluster(cache)?;
    kubernetes::ensure_helm(cache)?;
    ebpf::run(cache)?;
    programs::product(cache, programs::Profile::Release)?;
    if suites.contains(&Suite::Cluster) {
        lifecycle::up(cache, place)?;
        images::product(cache)?;
        load::run(cache, place, &[])?;
    }
    let programs = kubernetes::programs(cache);
    let mut cargo = cache.cargo();
    cargo.args(["test", "--release", "--no-fail-fast", "--package", "weir-tests", "--features", "kubernetes"]);
    cargo.args(suites.iter().flat_map(|suite| ["--test", suite.name()]));
    // One at a time: each takes hold of the whole cluster.
    cargo.args(&args.filter).args(["--", "--test-threads=1", "--show-output"]);
    cargo
        .env("WEIR_BINARIES", cache.binaries())
        .env("WEIR_KUBERNETES", &programs)
        .env("WEIR_KUBECTL", programs.join("kubectl"))
        .env("WEIR_HELM", programs.join("helm"))
        .env("WEIR_KUBECONFIG", place.kubeconfig("admin"));
    child::run(&mut cargo, "suites on Kubernetes", "Each failed test says why above.")?;
    Ok(ExitCode::SUCCESS)
}
