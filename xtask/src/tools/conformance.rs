//! Gateway API's conformance suite as it is published, and the applications that it asks for. Must never change a line of either.

use std::path::PathBuf;

use super::go::{self, Kind, Module, Program};
use crate::{
    cache::Cache,
    child::{self, Outcome},
};

const FOLDER: &str = "xtask/src/tools/conformance";
/// As `conformance/go.mod` requires it.
const VERSION: &str = "v1.6.3";
/// The suite as a program.
const SUITE: Program = Program("conformance", ".");
/// Istio's echo, which the suite calls `echo-advanced`: its pods serve, and requests are made in them.
const ECHO: [Program; 2] = [
    Program("server", "istio.io/istio/pkg/test/echo/cmd/server"),
    Program("client", "istio.io/istio/pkg/test/echo/cmd/client"),
];

/// The folder with all programs.
pub(crate) fn programs(cache: &Cache) -> PathBuf {
    cache.path("conformance").join(VERSION).join("bin")
}

/// The suite.
pub(crate) fn suite(cache: &Cache) -> PathBuf {
    programs(cache).join(SUITE.0)
}

/// The programs of the pods.
pub(crate) fn echo() -> impl Iterator<Item = &'static str> {
    ECHO.iter().map(|program| program.0)
}

/// Builds all of it, where missing.
///
/// # Errors
/// Go is missing or too old, or a build fails.
pub(crate) fn ensure(cache: &Cache) -> Outcome {
    let module =
        Module { folder: FOLDER, sources: &["conformance_test.go"], flags: "-s -w".to_owned(), to: programs(cache) };
    module.ensure(Kind::Program, &ECHO)?;
    module.ensure(Kind::Tests, &[SUITE])
}

/// The folder with the certificate that echo serves: nobody's secret, as it is published with its key.
///
/// # Errors
/// Go is missing or too old, or the module cannot be had.
pub(crate) fn certificates() -> Outcome<PathBuf> {
    let mut command = std::process::Command::new(go::find()?);
    command.args(["mod", "download", "-json", "istio.io/istio"]).current_dir(FOLDER).env("GOWORK", "off");
    let said: serde_json::Value = serde_json::from_str(&child::output(&mut command)?)?;
    let source = said["Dir"].as_str().unwrap_or_default();
    Ok(PathBuf::from(source).join("tests/testdata/certs"))
}

#[cfg(test)]
mod tests {
    use super::VERSION;
    use crate::tools::gateway_api;

    #[test]
    fn suite_and_definitions_are_of_one_version() {
        let module = include_str!("conformance/go.mod");
        assert!(module.contains(&format!("sigs.k8s.io/gateway-api/conformance {VERSION}")));
        assert_eq!(VERSION, gateway_api::VERSION);
    }
}
