//! Another trust anchor for the whole mesh, by the commands of docs/install.md.

use std::{env, fs, path::Path, process::Command};

use crate::{
    load::{Load, Stream},
    shop::{Shop, figure, timed},
};

/// From the document to here: what it tells people to type is what runs. Each step waits for what the next one needs.
#[test]
fn anchors_are_rotated_without_a_restart_and_without_a_failed_request() {
    // Anchors in use after each step.
    const ANCHORS: [u8; 3] = [2, 2, 1];
    let next = |anchors: u8| {
        format!(
            r#"until weir check > said 2>&1 && grep -q "√ all nodes trust the trust anchors in use ({anchors})" said &&
            grep -q "√ certificates of pods are of the issuer in use" said; do :; done"#
        )
    };
    let shop = Shop::open("rotation", 4);
    shop.mesh(4);
    let before = shop.identity_issuer();
    let document = fs::read_to_string("../docs/install.md").unwrap();
    let steps = document.split("```console\n").find(|block| block.contains("new-anchor.key -out")).unwrap();
    let steps = steps.split("```").next().unwrap();
    assert_eq!(steps.matches("$ weir check").count(), ANCHORS.len());
    let steps =
        ANCHORS.iter().fold(steps.to_owned(), |steps, anchors| steps.replacen("$ weir check", &next(*anchors), 1));
    let script: String = steps.lines().map(|line| format!("{}\n", line.trim_start_matches("$ "))).collect();
    let folder = tempfile::tempdir().unwrap();
    let load = Load::begin(&shop);
    let (output, took) = timed(|| shell(folder.path(), &format!("set -e\n{script}")));
    figure("trust anchor and issuer replaced, in three steps", format!("{took:?}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    load.end().is_whole(Stream::Lives);
    assert_ne!(shop.identity_issuer(), before, "all is issued by another one now");
    shop.meshed(4, weir_tests::cluster::PATIENCE);
}

/// A shell with kubectl and weir, as a user has it.
fn shell(folder: &Path, script: &str) -> std::process::Output {
    let parent = |name: &str| Path::new(&env::var_os(name).expect(name)).to_owned();
    let kubectl = parent("WEIR_KUBECTL").parent().unwrap().to_owned();
    let path = format!("{}:{}:{}", kubectl.display(), parent("WEIR_BINARIES").display(), env::var("PATH").unwrap());
    Command::new("timeout")
        .args(["100", "bash", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("KUBECONFIG", parent("WEIR_KUBECONFIG"))
        .output()
        .unwrap()
}
