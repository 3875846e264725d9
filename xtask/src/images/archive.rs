//! An image as a docker-archive: one layer, its configuration, a manifest. Must never write a time, an owner or an order of this machine's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::child::{Failure, Outcome};

/// One thing in an image's file system.
#[derive(Clone, Debug)]
enum Entry {
    Directory { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Bytes { bytes: Vec<u8>, mode: u32 },
    Link { to: String },
}

/// An image to be written.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) tag: String,
    pub(super) entrypoint: Vec<String>,
    /// `uid:gid`; nothing for root.
    pub(super) user: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
}

/// What was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Written {
    /// Of the image's configuration, which names the layer's: the image's id.
    pub(super) digest: String,
    bytes: u64,
}

impl Written {
    /// The archive's size.
    pub(super) fn megabytes(&self) -> f64 {
        f64::from(u32::try_from(self.bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
    }
}

impl Image {
    /// An image that runs one program.
    pub(super) fn new(tag: &str, entrypoint: &[&str]) -> Self {
        Self {
            tag: tag.to_owned(),
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            user: None,
            labels: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/').to_owned();
        let mut parent = Path::new(&path).parent();
        while let Some(folder) = parent.filter(|folder| !folder.as_os_str().is_empty()) {
            let name = folder.to_string_lossy().into_owned();
            self.entries.entry(name).or_insert(Entry::Directory { mode: 0o755 });
            parent = folder.parent();
        }
        self.entries.insert(path, entry);
    }

    /// An empty folder.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.add(path, Entry::Directory { mode });
    }

    /// A copy of a local file that can be executed.
    pub(super) fn program(&mut self, path: &str, from: &Path) {
        self.add(path, Entry::File { from: from.to_owned(), mode: 0o755 });
    }

    /// A copy of a local file that is data.
    pub(super) fn file(&mut self, path: &str, from: &Path) {
        self.add(path, Entry::File { from: from.to_owned(), mode: 0o644 });
    }

    /// A file of this text.
    pub(super) fn text(&mut self, path: &str, text: &str) {
        self.add(path, Entry::Bytes { bytes: text.as_bytes().to_vec(), mode: 0o644 });
    }

    /// A program that lies nowhere else.
    pub(super) fn program_bytes(&mut self, path: &str, bytes: Vec<u8>) {
        self.add(path, Entry::Bytes { bytes, mode: 0o755 });
    }

    /// A symbolic link, unless something is there.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        if !self.entries.contains_key(path.trim_start_matches('/')) {
            self.add(path, Entry::Link { to: to.to_owned() });
        }
    }

    fn layer(&self) -> Outcome<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory { mode } => {
                    let mut header = header(EntryType::Directory, *mode, 0);
                    layer.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Entry::File { from, mode } => {
                    let bytes = fs::read(from).map_err(|error| Failure::new(format!("{}: {error}", from.display())))?;
                    append(&mut layer, path, *mode, &bytes)?;
                }
                Entry::Bytes { bytes, mode } => append(&mut layer, path, *mode, bytes)?,
                Entry::Link { to } => {
                    layer.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, to)?;
                }
            }
        }
        Ok(layer.into_inner()?)
    }

    fn config(&self, layer: &str) -> Value {
        let mut config = json!({"Entrypoint": self.entrypoint, "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]});
        if let Some(user) = &self.user {
            config["User"] = json!(user);
        }
        if !self.labels.is_empty() {
            config["Labels"] = json!(self.labels);
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        })
    }

    /// Writes the archive; an archive of the same name is replaced whole.
    ///
    /// # Errors
    /// A local file cannot be read, or the archive not be written.
    pub(super) fn write(&self, archive: &Path) -> Outcome<Written> {
        let layer = self.layer()?;
        let layer_digest = sha256(&layer);
        let config = serde_json::to_vec(&self.config(&layer_digest))?;
        let digest = sha256(&config);
        let names = (format!("{digest}.json"), format!("{layer_digest}/layer.tar"));
        let manifest = json!([{"Config": names.0, "RepoTags": [self.tag], "Layers": [names.1]}]);
        if let Some(folder) = archive.parent() {
            fs::create_dir_all(folder)?;
        }
        let aside = archive.with_extension("tar.new");
        let mut outer = Builder::new(BufWriter::new(File::create(&aside)?));
        append(&mut outer, &names.0, 0o644, &config)?;
        append(&mut outer, &names.1, 0o644, &layer)?;
        append(&mut outer, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
        outer.into_inner()?.flush()?;
        fs::rename(&aside, archive)?;
        Ok(Written { digest, bytes: fs::metadata(archive)?.len() })
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(archive: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Outcome {
    let size = u64::try_from(bytes.len())?;
    Ok(archive.append_data(&mut header(EntryType::Regular, mode, size), path, bytes)?)
}

/// As images write it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
