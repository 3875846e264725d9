//! From no mesh to meshed, as a new user would.

use std::{env, process::Command};

use weir_tests::cluster::{Cluster, PATIENCE};

use crate::shop::{MARKER, Shop, figure, timed};

/// The three commands and the label of docs/getting-started.md, on a cluster on which an application runs.
#[test]
fn from_no_mesh_to_meshed_by_three_commands_and_a_label() {
    let cluster = Cluster::from_environment();
    cluster.uninstall();
    let shop = Shop::open_on(cluster, "first-steps", 4);
    let ((), took) = timed(|| {
        shop.cluster.apply(&shop.cluster.weir(&["install", "--crds"]));
        shop.cluster.apply(&shop.cluster.weir(&["install"]));
        shop.cluster.weir(&["check"]);
        shop.mesh(4);
    });
    figure("from no mesh to 8 meshed pods", format!("{took:?}"));
    assert!(shop.client(&["curl", "-sS", "http://web/"]).contains(MARKER));
    let said = shop.cluster.weir(&["edges", "-n", &shop.namespace]);
    assert!(said.contains("client") && said.contains("web"), "{said}");
}

/// One with cluster-admin and one with rights inside the namespace only. Seen to fail with both stages given to the second.
#[test]
fn an_installation_in_two_stages_needs_few_rights_for_the_second() {
    const USER: [&str; 1] = ["--as=jane"];
    let cluster = Cluster::from_environment();
    cluster.uninstall();
    cluster.apply(&cluster.weir(&["install", "--stage", "cluster"]));
    let binding = ["-n", "weir", "create", "rolebinding", "jane", "--clusterrole=admin", "--user=jane"];
    cluster.kubectl(&binding);
    let secrets = ["auth", "can-i", "list", "secrets", "--all-namespaces", "--as=jane"];
    assert!(!cluster.try_kubectl(&secrets).status.success(), "jane may do nothing outside");
    cluster.apply_as(&cluster.weir(&["install", "--stage", "mesh"]), &USER);
    cluster.weir(&["check", "--wait", "90s"]);
}

/// The real helm installs the same, and `weir check` is content with it.
#[test]
fn helm_installs_upgrades_and_uninstalls_it() {
    let cluster = Cluster::from_environment();
    cluster.uninstall();
    let helm = |arguments: &[&str]| {
        let program = env::var_os("WEIR_HELM").expect("WEIR_HELM is not set: run `cargo xtask cluster test`");
        let kubeconfig = env::var_os("WEIR_KUBECONFIG").expect("a cluster");
        let output = Command::new(program).args(arguments).env("KUBECONFIG", kubeconfig).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let chart =
        ["../deploy/chart", "--namespace", "weir", "--set", "installNamespace=false", "--wait", "--timeout", "120s"];
    helm(&[&["install", "weir", "--create-namespace"], &chart[..]].concat());
    let labels = ["pod-security.kubernetes.io/enforce=privileged", "weir.mesh/enabled=false", "weir.mesh/part-of=weir"];
    cluster.kubectl(&[&["label", "--overwrite", "namespace", "weir"], &labels[..]].concat());
    cluster.weir(&["check", "--wait", "90s"]);
    helm(&[&["upgrade", "weir"], &chart[..], &["--set", "proxy.log=debug"]].concat());
    cluster.weir(&["check", "--wait", "90s"]);
    helm(&["uninstall", "weir", "--namespace", "weir", "--wait", "--timeout", "120s"]);
    cluster.kubectl(&["delete", "namespace", "weir", "--timeout=120s"]);
    let shop = Shop::open("after-helm", 2);
    shop.mesh(2);
    shop.meshed(2, PATIENCE);
}
