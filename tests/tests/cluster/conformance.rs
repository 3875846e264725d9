//! Gateway API's conformance suite as it is published, with both of its profiles for meshes.
//!
//! As it is shipped three right answers in a row within 30 s are enough for it, and some of its tests pass by luck without any mesh. So it runs a
//! second time, asking for twenty, and is seen to fail so where the mesh is off.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_yaml_ng::Value;
use weir_tests::{
    cluster::{Cluster, PATIENCE},
    wait,
};

use crate::shop::{figure, timed};

/// Every one that a test of the suite for meshes asks for.
const FEATURES: [&str; 17] = [
    "Mesh",
    "HTTPRoute",
    "GRPCRoute",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
];
/// How many tests those are.
const TESTS: usize = 22;
/// Twenty right answers in a row, within 15 s.
const STRICT: &str = "--timeout-config-overrides=RequiredConsecutiveSuccesses:20;MaxTimeToConsistency:15";
const NAMESPACES: [&str; 2] = ["gateway-conformance-mesh", "gateway-conformance-mesh-consumer"];
const REPORT: &str = "../docs/conformance/v1.6-standard-report.yaml";

/// Gateway API's definitions, all of its standard channel, and the suite's namespaces; gone at the end.
struct Suite {
    cluster: Cluster,
    definitions: PathBuf,
}

impl Suite {
    fn open(cluster: Cluster) -> Suite {
        let folder = env::var_os("WEIR_GATEWAY_API").map(PathBuf::from);
        let definitions = folder.expect("WEIR_GATEWAY_API is not set: run `cargo xtask cluster test`");
        let suite = Suite { cluster, definitions };
        suite.clear();
        // The suite is told of its namespaces' label by the flag: they are made by it.
        suite.cluster.kubectl(&["apply", "--server-side", "-f", suite.folder()]);
        // kubectl gives up at once on a definition that has no condition yet.
        let established = ["wait", "crd", "--all", "--for=condition=Established", "--timeout=10s"];
        wait::until("all definitions are established", PATIENCE, || {
            suite.cluster.try_kubectl(&established).status.success().then_some(())
        });
        suite
    }

    fn folder(&self) -> &str {
        self.definitions.to_str().expect("a name")
    }

    fn clear(&self) {
        let delete = ["delete", "--ignore-not-found", "--timeout=120s"];
        self.cluster.try_kubectl(&[&delete[..], &["namespace"], &NAMESPACES].concat());
        self.cluster.try_kubectl(&[&delete[..], &["-f", self.folder()]].concat());
    }

    /// Runs it, with namespaces that opt in or do not.
    fn run(&self, is_meshed: bool, report: &Path, flags: &[&str]) -> Output {
        let suite =
            env::var_os("WEIR_CONFORMANCE").expect("WEIR_CONFORMANCE is not set: run `cargo xtask cluster test`");
        let kubeconfig = env::var_os("WEIR_KUBECONFIG").expect("WEIR_KUBECONFIG is not set");
        Command::new(suite)
            .args(["-test.v", "-test.timeout=300s", "--conformance-profiles=MESH-HTTP,MESH-GRPC"])
            .arg(format!("--supported-features={}", FEATURES.join(",")))
            .arg(format!("--namespace-labels=weir.mesh/enabled={is_meshed}"))
            .args(["--cleanup-base-resources=false", "--organization=weir", "--project=weir"])
            .args(["--url=https://weir.test", "--contact=@weir", concat!("--version=v", env!("CARGO_PKG_VERSION"))])
            .arg(format!("--report-output={}", report.display()))
            .args(flags)
            .env("KUBECONFIG", kubeconfig)
            .output()
            .expect("the suite")
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Names of the suite's tests that ended so.
fn ended<'a>(output: &'a str, how: &str) -> Vec<&'a str> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("    --- ")?.strip_prefix(how));
    lines.filter_map(|line| line.trim_start_matches(": TestConformance/").split(' ').next()).collect()
}

/// Without what changes from run to run.
fn report(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut report: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    report.as_mapping_mut().expect("a report").remove("date").expect("its date");
    sort(&mut report);
    report
}

/// The suite writes profiles and features as its maps give them out: in another order each time. Seen to fail in every other run.
fn sort(value: &mut Value) {
    match value {
        Value::Sequence(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_cached_key(|item| serde_yaml_ng::to_string(item).expect("YAML"));
        }
        Value::Mapping(fields) => fields.values_mut().for_each(sort),
        _scalar => {}
    }
}

#[test]
fn reports_are_the_same_in_any_order() {
    let text = fs::read_to_string(REPORT).expect("the report");
    let mut turned: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    turned["profiles"].as_sequence_mut().expect("profiles").reverse();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("report.yaml");
    fs::write(&other, serde_yaml_ng::to_string(&turned).expect("YAML")).unwrap();
    assert_eq!(report(&other), report(Path::new(REPORT)));
    turned["profiles"].as_sequence_mut().expect("profiles").pop();
    fs::write(&other, serde_yaml_ng::to_string(&turned).expect("YAML")).unwrap();
    assert_ne!(report(&other), report(Path::new(REPORT)));
}

/// Core and all extended features, and the tests outside the profiles' statistics. The report is the committed one; with WEIR_UPDATE_DOCS set it
/// is written instead.
#[test]
fn both_profiles_for_meshes_pass() {
    let cluster = Cluster::from_environment();
    cluster.install();
    let suite = Suite::open(cluster);
    let folder = tempfile::tempdir().unwrap();
    for (name, flags) in [("as shipped", &[][..]), ("asked for 20 right answers in a row", &[STRICT])] {
        let written = folder.path().join("report.yaml");
        let (output, took) = timed(|| suite.run(true, &written, flags));
        let said = String::from_utf8_lossy(&output.stdout);
        let (passed, failed) = (ended(&said, "PASS"), ended(&said, "FAIL"));
        let is_whole = output.status.success() && passed.len() == TESTS && failed.is_empty();
        assert!(is_whole, "{name}: {} passed, failed: {failed:?}\n{said}", passed.len());
        figure(&format!("Gateway API conformance, {name}: tests passed, time"), format!("{}, {took:?}", passed.len()));
        if env::var_os("WEIR_UPDATE_DOCS").is_some() {
            fs::create_dir_all(Path::new(REPORT).parent().unwrap()).unwrap();
            fs::copy(&written, REPORT).unwrap();
        }
        assert_eq!(report(&written), report(Path::new(REPORT)), "WEIR_UPDATE_DOCS=1 writes the report");
    }
}

/// Two of those that pass by luck without a mesh as the suite is shipped.
#[test]
fn with_the_mesh_off_it_fails() {
    let suite = Suite::open(Cluster::from_environment());
    let folder = tempfile::tempdir().unwrap();
    for test in ["MeshTrafficSplit", "MeshHTTPRouteMatching"] {
        let only = format!("--run-test={test}");
        let output = suite.run(false, &folder.path().join("report.yaml"), &[STRICT, &only]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.success(), ended(&said, "FAIL")), (false, vec![test]), "{said}");
    }
}
