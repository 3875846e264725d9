use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{Image, sha256};

fn image(folder: &Path) -> Image {
    let program = folder.join("program");
    fs::write(&program, "machine code").expect("written");
    let mut image = Image::new("docker.io/weir/x:1", &["/x"]);
    image.user = Some("7:7".into());
    image.program("/bin/x", &program);
    image.text("/etc/passwd", "root:x:0:0::/:/bin/sh\n");
    image.directory("/tmp", 0o1777);
    image.link("/bin/x", "never");
    image.link("/bin/y", "x");
    image
}

/// Name, then content, of everything in an archive.
fn contents(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("an archive").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        assert_eq!(entry.header().mtime().expect("a time"), 0, "{name}");
        assert_eq!(entry.header().uid().expect("an owner"), 0, "{name}");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        (name, (entry.header().mode().expect("a mode"), bytes))
    });
    entries.collect()
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = image(folder.path()).write(&folder.path().join("a.tar")).expect("written");
    // Touched, and written again by another image value: only content may count.
    let later = SystemTime::now() + Duration::from_secs(60);
    let second = image(folder.path());
    fs::File::open(folder.path().join("program")).expect("there").set_modified(later).expect("touched");
    let second = second.write(&folder.path().join("b.tar")).expect("written");
    assert_eq!(first, second);
    let read = |name: &str| fs::read(folder.path().join(name)).expect("read");
    assert_eq!(read("a.tar"), read("b.tar"));
    let mut other = image(folder.path());
    other.text("/etc/passwd", "");
    let other = other.write(&folder.path().join("c.tar")).expect("written");
    assert_ne!(first.digest, other.digest);
}

#[test]
fn the_manifest_leads_to_layer_and_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tar");
    let written = image(folder.path()).write(&path).expect("written");
    let outer = contents(&fs::read(&path).expect("read"));
    let manifest: Value = serde_json::from_slice(&outer["manifest.json"].1).expect("JSON");
    assert_eq!(manifest[0]["RepoTags"][0], "docker.io/weir/x:1");
    let config = &outer[manifest[0]["Config"].as_str().expect("a name")].1;
    assert_eq!(sha256(config), written.digest);
    let config: Value = serde_json::from_slice(config).expect("JSON");
    assert_eq!(config["config"]["User"], "7:7");
    let layer = &outer[manifest[0]["Layers"][0].as_str().expect("a name")].1;
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(layer)));
    let inner = contents(layer);
    // Parents come without being asked for, and a link does not replace a file.
    assert_eq!(inner["bin/"].0, 0o755);
    assert_eq!(inner["bin/x"], (0o755, b"machine code".to_vec()));
    assert_eq!(inner["tmp/"].0, 0o1777);
    assert!(inner.contains_key("bin/y"));
}
