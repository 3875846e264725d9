//! The directory of pods: one JSON file for each, written by whoever makes pods (CNI, demo). Must never let one bad file hide the others.

use std::{
    fs, io,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::Event;
use crate::{
    handover::{PodSpec, channel::watched},
    limits,
};

/// One file. With uid and netns alone it answers the question where a pod's namespace is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodFile {
    /// Pod uid.
    pub(super) uid: String,
    /// File of the pod's network namespace.
    pub(super) netns: PathBuf,
    /// Capture the pod without being asked by a proxy.
    #[serde(default)]
    pub(super) enrol: bool,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    skip_inbound_ports: Vec<(u16, u16)>,
    #[serde(default)]
    skip_outbound_ports: Vec<(u16, u16)>,
    #[serde(default)]
    skip_subnets: Vec<IpNet>,
    #[serde(default)]
    permissive: bool,
    #[serde(default)]
    direct_probe_ports: Vec<u16>,
    #[serde(default)]
    mark_node: bool,
}

impl PodFile {
    /// What it asks for, if it asks.
    pub(super) fn spec(&self) -> PodSpec {
        PodSpec {
            uid: self.uid.clone(),
            addresses: self.addresses.clone(),
            netns: Some(self.netns.clone()),
            skip_inbound_ports: self.skip_inbound_ports.clone(),
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_subnets: self.skip_subnets.clone(),
            permissive: self.permissive,
            direct_probe_ports: self.direct_probe_ports.clone(),
            mark_node: self.mark_node,
        }
    }
}

/// All files that can be read. The others are named in the log.
pub(super) fn read(directory: &Path) -> Vec<PodFile> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "the directory of pods cannot be read");
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    if paths.len() > limits::POD_FILES {
        tracing::error!(
            found = paths.len(),
            limit = limits::POD_FILES,
            "too many files in the directory of pods; the last are ignored"
        );
    }
    let mut found = Vec::new();
    for path in paths.iter().take(limits::POD_FILES) {
        match read_file(path) {
            Ok(file) => found.push(file),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a pod's file cannot be used"),
        }
    }
    found
}

fn read_file(path: &Path) -> io::Result<PodFile> {
    if fs::metadata(path)?.len() > limits::POD_FILE_BYTES {
        return Err(io::Error::other("larger than any pod's file"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Reads the directory now, whenever it changes, and now and then, until the holder ends.
pub(super) async fn watch(directory: PathBuf, events: mpsc::Sender<Event>) {
    let watcher = watcher(&directory);
    if let Err(error) = &watcher {
        tracing::warn!(directory = %directory.display(), %error, "no news from the directory of pods; it is read now and then");
    }
    let mut last = None;
    loop {
        let files = read(&directory);
        if last.as_ref() != Some(&files) {
            last = Some(files.clone());
            if events.send(Event::Files { files }).await.is_err() {
                return;
            }
        }
        changed_or(watcher.as_ref().ok(), limits::PODS_RESCAN).await;
    }
}

/// Until a directory changes, at most for so long.
pub(super) async fn changed_or(watcher: Option<&AsyncFd<OwnedFd>>, longest: Duration) {
    let rescan = tokio::time::sleep(longest);
    match watcher {
        Some(watcher) => tokio::select! {
            () = changed(watcher) => {}
            () = rescan => {}
        },
        None => rescan.await,
    }
}

/// Tells of files that come, change and go.
pub(super) fn watcher(directory: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let changes = inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::MOVED_FROM
        | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watcher, directory, changes)?;
    watched(watcher)
}

async fn changed(watcher: &AsyncFd<OwnedFd>) {
    let Ok(mut guard) = watcher.readable().await else { return std::future::pending().await };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher.get_ref(), &mut buffer);
    // What changed does not matter: the directory is read whole.
    while reader.next().is_ok() {}
    guard.clear_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_file_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("a.json", r#"{"uid": "a", "netns": "/run/netns/a"}"#);
        write("b.json", r#"{"uid": "b""#);
        write(
            "c.json",
            r#"{"uid": "c", "netns": "/n", "enrol": true, "skip_subnets": ["10.0.0.0/8"], "permissive": true}"#,
        );
        write("d.json", r#"{"uid": "d", "netns": "/n", "unknown": 1}"#);
        write("e.txt", "not ours");
        let found = read(directory.path());
        assert_eq!(found.iter().map(|file| file.uid.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(!found[0].enrol);
        let spec = found[1].spec();
        assert!(found[1].enrol && spec.permissive && spec.skip_subnets.len() == 1);
    }
}
