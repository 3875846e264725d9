//! Kubernetes' programs, built from their published Go modules. Must never build what is there in the wanted version.

use std::path::PathBuf;

use super::go::{Kind, Module, Program};
use crate::{cache::Cache, child::Outcome};

/// As `kubernetes/go.mod` requires it.
const VERSION: &str = "v1.34.10";

/// What a cluster needs, in an order in which each build uses most of the one before.
const CLUSTER: [Program; 8] = [
    Program("etcd", "go.etcd.io/etcd/server/v3"),
    Program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Program("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    Program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Program("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    Program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    Program("coredns", "./coredns"),
];
/// The gRPC project's own client and server for tests of interoperation, the suites' gRPC traffic.
const INTEROP: [Program; 2] = [
    Program("grpc-interop-client", "google.golang.org/grpc/interop/client"),
    Program("grpc-interop-server", "google.golang.org/grpc/interop/server"),
];
const HELM: Program = Program("helm", "helm.sh/helm/v3/cmd/helm");

/// The folder with all programs.
pub(crate) fn programs(cache: &Cache) -> PathBuf {
    cache.path("kubernetes").join(VERSION).join("bin")
}

/// Those of gRPC's programs that the image of applications holds.
pub(crate) fn interop() -> impl Iterator<Item = &'static str> {
    INTEROP.iter().map(|program| program.0)
}

/// Builds what a cluster and its applications need, where missing.
///
/// # Errors
/// Go is missing or too old, or a build fails.
pub(crate) fn ensure(cache: &Cache) -> Outcome {
    let module = module(cache);
    module.ensure(Kind::Program, &CLUSTER)?;
    module.ensure(Kind::Program, &INTEROP)
}

/// Builds Helm, where missing.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_helm(cache: &Cache) -> Outcome {
    module(cache).ensure(Kind::Program, &[HELM])
}

fn module(cache: &Cache) -> Module {
    Module {
        folder: "xtask/src/tools/kubernetes",
        // The one program of a few lines of ours is built from these as well.
        sources: &["coredns/main.go"],
        flags: linker_flags(),
        to: programs(cache),
    }
}

fn linker_flags() -> String {
    let mut flags = "-s -w".to_owned();
    // Without these Kubernetes says that it is v0.0.0, and refuses to work with other versions.
    let mut numbers = VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    for (name, value) in [("gitVersion", VERSION), ("gitMajor", major), ("gitMinor", minor)] {
        flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::{VERSION, linker_flags};

    #[test]
    fn the_version_is_the_one_that_the_module_pins() {
        let module = include_str!("kubernetes/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {VERSION}")));
        assert!(linker_flags().ends_with("gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"));
    }
}
