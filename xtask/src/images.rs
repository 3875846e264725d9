//! Container images out of local files: no registry, no daemon. Must never put anything into one that changes from build to build.

mod apps;
mod archive;
mod closure;
mod coredns;
mod echo;
mod product;
mod sbom;

use std::path::PathBuf;

use clap::Args;

use crate::{
    cache::Cache,
    child::{self, Outcome},
    ebpf,
    programs::Profile,
    tools::{self, conformance, kubernetes},
};

/// What keeps a pod's namespaces.
pub(crate) const PAUSE: &str = "docker.io/weir-test/pause:1";
/// Names in the cluster.
pub(crate) const COREDNS: &str = "docker.io/weir-test/coredns:1";
/// Clients and servers to test with.
pub(crate) const APPS: &str = "docker.io/weir-test/apps:1";
/// By this name the conformance suite's manifests ask for it.
const ECHO: &str = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1";
/// Without these no node runs a pod with a name: it imports them before its kubelet starts.
pub(crate) const FOR_EVERY_NODE: [&str; 2] = ["pause", "coredns"];

/// What to build.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// How the product inside is built.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Leave out what only tests need: neither Go nor Debian's servers are asked for.
    #[arg(long)]
    product_only: bool,
}

/// Where the archives go.
pub(crate) fn folder(cache: &Cache) -> PathBuf {
    cache.path("images")
}

/// One archive.
pub(crate) fn archive(cache: &Cache, name: &str) -> PathBuf {
    folder(cache).join(format!("{name}.tar"))
}

/// Builds every image.
///
/// # Errors
/// A program is missing or does not compile.
pub(crate) fn run(cache: &Cache, args: &ImagesArgs) -> Outcome {
    if !args.product_only {
        tools::for_cluster(cache)?;
        for_cluster(cache)?;
    }
    ebpf::run(cache)?;
    product::build(cache, args.profile)
}

/// Builds the product's images as the suites use them.
///
/// # Errors
/// As [`run`].
pub(crate) fn product(cache: &Cache) -> Outcome {
    product::build(cache, Profile::Release)
}

/// Builds the image that the conformance suite's pods run.
///
/// # Errors
/// Its programs were not built, or the module with its certificate cannot be had.
pub(crate) fn conformance(cache: &Cache) -> Outcome {
    write(cache, "echo", &echo::image(&conformance::programs(cache))?)
}

/// Builds the images that the cluster and its tests need beside the product.
///
/// # Errors
/// A program is missing or the C compiler fails.
pub(crate) fn for_cluster(cache: &Cache) -> Outcome {
    let coredns = kubernetes::programs(cache).join("coredns");
    write(cache, "pause", &apps::pause()?)?;
    write(cache, "coredns", &coredns::image(&coredns))?;
    write(cache, "apps", &apps::apps(&kubernetes::programs(cache))?)
}

fn write(cache: &Cache, name: &str, image: &archive::Image) -> Outcome {
    let written = image.write(&archive(cache, name))?;
    child::say(format_args!("  · {name}.tar: {}, {:.1} MB, sha256:{}", image.tag, written.megabytes(), written.digest));
    Ok(())
}
