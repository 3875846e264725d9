//! The suites that need Kubernetes' own programs; the last one a whole cluster. Must never take down a cluster that it did not find
//! or make: a developer's own stays up.

use std::{
    env,
    process::{Command, ExitCode},
};

use clap::{Args, ValueEnum};

use super::{kubectl::Kubectl, layout::Place, lifecycle, load};
use crate::{
    cache::Cache,
    child::{self, Outcome},
    ebpf, images, programs,
    tools::{self, conformance, gateway_api, kubernetes},
};

/// The namespace of the mesh.
const MESH: &str = "weir";

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

/// Runs them, one test at a time, and leaves the cluster up.
///
/// # Errors
/// What they need cannot be built or brought up, or a test fails.
pub(super) fn run(cache: &Cache, place: &Place, args: &TestArgs) -> Outcome<ExitCode> {
    let suites = if args.suites.is_empty() { Suite::value_variants() } else { &args.suites };
    prepare(cache, place, suites)?;
    let mut cargo = command(cache, place, suites, args.filter.as_deref());
    child::run(&mut cargo, "suites on Kubernetes", "Each failed test says why above.")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs all of them by `work`, and takes the cluster down again if there was none before.
///
/// # Errors
/// As [`run`], and those of `work`.
pub(super) fn run_all<T>(
    cache: &Cache,
    place: &Place,
    filter: Option<&str>,
    work: impl FnOnce(&mut Command) -> Outcome<T>,
) -> Outcome<T> {
    let suites = Suite::value_variants();
    let was_there = place.pki("ca.crt").exists();
    let outcome = prepare(cache, place, suites).and_then(|()| work(&mut command(cache, place, suites, filter)));
    let down = if was_there { Ok(()) } else { lifecycle::down(place) };
    // What the suites say matters more than what is left of the cluster.
    outcome.and_then(|outcome| down.map(|()| outcome))
}

/// Builds what they need and brings the cluster up with the images of this checkout.
fn prepare(cache: &Cache, place: &Place, suites: &[Suite]) -> Outcome {
    tools::for_cluster(cache)?;
    kubernetes::ensure_helm(cache)?;
    ebpf::run(cache)?;
    programs::product(cache, programs::Profile::Release)?;
    if suites.contains(&Suite::Cluster) {
        conformance::ensure(cache)?;
        images::product(cache)?;
        images::conformance(cache)?;
        lifecycle::up(cache, place)?;
        load::run(cache, &[])?;
        // A mesh that was installed before would go on with the images of then: they have the same tag.
        let kubectl = Kubectl::new(place, kubernetes::programs(cache).join("kubectl"));
        kubectl.ask(&["--namespace", MESH, "delete", "pods", "--all", "--ignore-not-found"])?;
    }
    Ok(())
}

fn command(cache: &Cache, place: &Place, suites: &[Suite], filter: Option<&str>) -> Command {
    let programs = kubernetes::programs(cache);
    let mut cargo = cache.cargo();
    cargo.args(["test", "--release", "--no-fail-fast", "--package", "weir-tests", "--features", "kubernetes"]);
    cargo.args(suites.iter().flat_map(|suite| ["--test", suite.name()]));
    // One at a time: each takes hold of the whole cluster.
    cargo.args(filter).args(["--", "--test-threads=1", "--show-output"]);
    cargo
        .env("WEIR_BINARIES", cache.binaries())
        .env("WEIR_PYTHON", cache.python())
        .env("WEIR_KUBERNETES", &programs)
        .env("WEIR_KUBECTL", programs.join("kubectl"))
        .env("WEIR_HELM", programs.join("helm"))
        .env("WEIR_GATEWAY_API", gateway_api::definitions(cache))
        .env("WEIR_CONFORMANCE", conformance::suite(cache))
        .env("WEIR_KUBECONFIG", place.kubeconfig("admin"))
        // For power failures.
        .env("WEIR_XTASK", env::current_exe().unwrap_or_default())
        .env("WEIR_CLUSTER_STATE", place.root());
    cargo
}
