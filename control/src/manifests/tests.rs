use super::*;
use crate::objects::Kind;

fn options() -> Options {
    Options {
        trust_domain: "cluster.local".into(),
        linkerd_inject: false,
        l5d_request_headers: false,
        default_policy: weir_core::inbound::DefaultPolicy::AllUnauthenticated,
    }
}

fn folder() -> (tempfile::TempDir, Manifests) {
    let folder = tempfile::tempdir().unwrap();
    let manifests = Manifests::new(folder.path().to_owned(), options());
    (folder, manifests)
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: demo\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: {port}\n"
    )
}

fn names(events: &[Event]) -> Vec<String> {
    let mut names: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Upsert(name, _) => format!("+{name}"),
            Event::Remove(name) => format!("-{name}"),
        })
        .collect();
    names.sort();
    names
}

#[test]
fn only_differences_are_told() {
    let (folder, mut manifests) = folder();
    fs::write(folder.path().join("a.yaml"), service("web", "80")).unwrap();
    assert_eq!(names(&manifests.scan().unwrap().events), ["+Service demo/web"]);
    assert!(manifests.scan().is_none());
    fs::write(folder.path().join("b.yaml"), service("api", "81")).unwrap();
    assert_eq!(names(&manifests.scan().unwrap().events), ["+Service demo/api"]);
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    assert_eq!(names(&manifests.scan().unwrap().events), ["-Service demo/web"]);
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_hides_no_other() {
    let (folder, mut manifests) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{}---\n{}", service("web", "80"), service("api", "81"))).unwrap();
    manifests.scan().unwrap();
    fs::write(&file, format!("{}---\n{}", service("web", "eighty"), service("api", "82"))).unwrap();
    let scan = manifests.scan().unwrap();
    assert_eq!(names(&scan.events), ["+Service demo/api"]);
    let text = scan.findings[0].to_string();
    assert!(text.starts_with("a.yaml:") && text.contains("demo/web") && text.contains("port"), "{text}");
    // Half a file, as an editor may leave it for a moment.
    fs::write(&file, "apiVersion: v1\nkind: [").unwrap();
    let scan = manifests.scan().unwrap();
    assert!(scan.events.is_empty() && scan.findings.len() == 1);
    let kinds: Vec<Kind> = manifests.told.keys().map(|name| name.kind).collect();
    assert_eq!(kinds, [Kind::Service, Kind::Service]);
}

#[test]
fn of_two_definitions_the_first_file_wins_and_it_is_said() {
    let (folder, mut manifests) = folder();
    fs::write(folder.path().join("a.yaml"), service("web", "80")).unwrap();
    fs::write(folder.path().join("b.yaml"), service("web", "81")).unwrap();
    let scan = manifests.scan().unwrap();
    assert_eq!(scan.events.len(), 1);
    assert!(scan.findings[0].to_string().contains("a.yaml already"));
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    assert_eq!(names(&manifests.scan().unwrap().events), ["+Service demo/web"]);
}

#[test]
fn a_folder_that_went_away_takes_nothing_with_it() {
    let (folder, mut manifests) = folder();
    fs::write(folder.path().join("a.yaml"), service("web", "80")).unwrap();
    manifests.scan().unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    let scan = manifests.scan().unwrap();
    assert!(scan.events.is_empty() && scan.findings.len() == 1);
}
