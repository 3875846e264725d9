//! Kubernetes' programs, built from their published Go modules. Must never build what is there in the wanted version.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
};

/// As `go/go.mod` requires it.
const VERSION: &str = "v1.34.10";
/// Our Go module: versions and checksums of everything here, so that what several programs use is compiled once.
const MODULE: &str = "xtask/src/tools/go";
/// Go itself, where its own installation instructions put it.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";
/// The oldest Go that builds all of them.
const GO: (u32, u32) = (1, 26);

/// One program: its name and package.
#[derive(Clone, Copy, Debug)]
struct Program(&'static str, &'static str);

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
    build(cache, &CLUSTER)?;
    build(cache, &INTEROP)
}

/// Builds Helm, where missing.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_helm(cache: &Cache) -> Outcome {
    build(cache, &[HELM])
}

fn build(cache: &Cache, wanted: &[Program]) -> Outcome {
    let missing: Vec<&Program> = wanted.iter().filter(|program| !is_there(cache, program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let go = go()?;
    fs::create_dir_all(programs(cache))?;
    for (index, program) in missing.iter().enumerate() {
        let start = Instant::now();
        let Program(name, package) = program;
        let what = format!("go build {name} ({} of {}; up to 5 minutes on two cores)", index + 1, missing.len());
        let aside = programs(cache).join(format!("{name}.new"));
        let mut command = Command::new(&go);
        command
            .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &linker_flags(), "-o"])
            .arg(&aside)
            .arg(package)
            .current_dir(MODULE)
            // One setting for all: another one would compile every package anew. Without cgo they run in an empty image too.
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off");
        child::run(&mut command, &what, "It needs the Go module proxy (GOPROXY) and about 3 GB of memory.")?;
        fs::rename(aside, programs(cache).join(name))?;
        fs::write(stamp(cache, program), wanted_stamp(program)?)?;
        child::say(format_args!("    {name} took {:.0} s", start.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Beside each program, what it was built from.
fn stamp(cache: &Cache, program: &Program) -> PathBuf {
    programs(cache).join(format!(".{}.built-from", program.0))
}

fn wanted_stamp(program: &Program) -> Outcome<String> {
    let mut text = String::new();
    // The one program of a few lines of ours is built from these as well.
    for file in ["go.mod", "coredns/main.go"] {
        let path = Path::new(MODULE).join(file);
        let part = fs::read_to_string(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        text.push_str(&part);
    }
    Ok(format!("{text}\n{}\n{}\n", program.1, linker_flags()))
}

fn is_there(cache: &Cache, program: &Program) -> bool {
    let built = fs::read_to_string(stamp(cache, program)).ok();
    programs(cache).join(program.0).exists() && built.is_some() && built == wanted_stamp(program).ok()
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

/// A Go that is new enough.
///
/// # Errors
/// There is none.
pub(super) fn go() -> Outcome<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("go")).find(|go| go.is_file());
    let go = found.unwrap_or_else(|| USUAL_PLACE.into());
    let hint = "install Go 1.26 or newer (https://go.dev/doc/install), in the PATH or in /usr/local/go";
    let told = child::output(Command::new(&go).args(["env", "GOVERSION"])).map_err(|failure| {
        Failure::new(format!("Kubernetes is built with Go, which is not here ({failure}): {hint}"))
    })?;
    if version(&told).is_none_or(|found| found < GO) {
        return Err(Failure::new(format!("{} is {}, too old: {hint}", go.display(), told.trim())));
    }
    Ok(go)
}

/// `go1.26.8` as numbers.
fn version(told: &str) -> Option<(u32, u32)> {
    let mut numbers = told.trim().strip_prefix("go")?.split(['.', '-', ' ']);
    let minor = |text: &str| text.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok();
    Some((numbers.next()?.parse().ok()?, minor(numbers.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::{GO, VERSION, linker_flags, version};

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.25rc1"), Some((1, 25)));
        assert!(version("go1.9.7").is_some_and(|old| old < GO));
        assert_eq!(version("devel"), None);
    }

    #[test]
    fn the_version_is_the_one_that_the_module_pins() {
        let module = include_str!("go/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {VERSION}")));
        assert!(linker_flags().ends_with("gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"));
    }
}
