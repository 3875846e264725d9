//! What counts as using a crate, and whose sources are whose.

use super::{names, sources_of, unclaimed, unused};
use crate::tidy::{
    manifests::{Dependency, Manifest},
    source::Source,
};

fn manifest(path: &str, declared: &[(&str, Option<&str>)]) -> Manifest {
    let dependencies = declared
        .iter()
        .map(|(name, kind)| Dependency { name: (*name).to_owned(), rename: None, kind: kind.map(str::to_owned) })
        .collect();
    let text = declared.iter().map(|(name, _)| format!("{name}.workspace = true\n")).collect();
    Manifest { name: path.to_owned(), path: format!("{path}/Cargo.toml"), text, dependencies }
}

#[test]
fn a_crate_is_named_by_path_import_or_attribute() {
    for code in
        ["use http::Uri;", "use ::http::Uri;", "use http as h;", "#[http::main]", "x(http::Uri)", "extern crate http;"]
    {
        assert!(names(code, "http"), "{code}");
    }
    for code in ["let http = 1;", "mod http;", "hyper::http::Uri", "http2::go()", "<A as B>::http::c"] {
        assert!(!names(code, "http"), "{code}");
    }
}

#[test]
fn unused_ones_are_found_with_their_line() {
    let package =
        manifest("a", &[("bytes", None), ("http-body", None), ("tempfile", Some("dev")), ("proptest", Some("dev"))]);
    let source = Source::new("a/src/lib.rs", "use bytes::Buf;\n");
    let tests = Source::new("a/src/tests.rs", "use tempfile::tempdir;\nuse http_body::Body;\n");
    let lines: Vec<usize> = unused(&package, &[&source, &tests]).into_iter().map(|finding| finding.line).collect();
    // `http-body` is used, but by tests only: it is declared at the wrong place.
    assert_eq!(lines, [2, 4]);
}

#[test]
fn a_package_inside_another_has_its_own_sources() {
    let packages = [manifest("a", &[]), manifest("a/core", &[])];
    let sources = [Source::new("a/src/lib.rs", ""), Source::new("a/core/src/lib.rs", "")];
    let [outer, inner] = packages.each_ref().map(|package| sources_of(package, &packages, &sources).len());
    assert_eq!((outer, inner), (1, 1));
}

#[test]
fn the_workspaces_table_holds_nothing_spare() {
    let workspace =
        "[workspace]\n[workspace.dependencies]\na = \"1\"\n# why\nb = { version = \"1\" }\n\n[profile.dev]\nc = 1\n";
    let findings = unclaimed(workspace, &[manifest("p", &[("a", None)])]);
    assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [5]);
}
