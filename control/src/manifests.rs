//! Kubernetes objects from a folder of YAML files, watched for change.
//!
//! Must never forget an object because its file cannot be read or understood: the last good version stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::{
    limits,
    objects::{Event, Object, ObjectName},
    parse::{self, Finding, Options},
};

#[cfg(test)]
mod tests;

/// What one scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Differences to the scan before.
    pub events: Vec<Event>,
    /// Everything that is refused at this moment.
    pub findings: Vec<Finding>,
}

/// The folder, and what is known of it.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    options: Options,
    files: BTreeMap<String, File>,
    // What the index was told.
    told: HashMap<ObjectName, Object>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    objects: HashMap<ObjectName, Object>,
    findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Manifests {
    /// A folder that was not read yet.
    pub fn new(folder: PathBuf, options: Options) -> Manifests {
        Manifests { folder, options, files: BTreeMap::new(), told: HashMap::new(), findings: Vec::new() }
    }

    /// Reads what changed. `None` when nothing did.
    pub fn scan(&mut self) -> Option<Scan> {
        let mut found = BTreeSet::new();
        let mut findings = Vec::new();
        list(&self.folder, &self.folder, limits::MANIFEST_DEPTH, &mut found, &mut findings);
        // A folder that cannot be listed says nothing about the files in it.
        if findings.is_empty() {
            self.files.retain(|name, _| found.contains(name));
        }
        for name in found {
            self.read(name);
        }
        let (objects, twice) = self.merged();
        findings.extend(self.files.values().flat_map(|file| file.findings.iter().cloned()));
        findings.extend(twice);
        let events = differences(&self.told, &objects);
        if events.is_empty() && findings == self.findings {
            return None;
        }
        self.told = objects;
        self.findings.clone_from(&findings);
        Some(Scan { events, findings })
    }

    fn read(&mut self, name: String) {
        let path = self.folder.join(&name);
        let file = self.files.entry(name.clone()).or_default();
        let text = match changed_text(&path, &mut file.stamp) {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => {
                file.stamp = None;
                file.findings = vec![finding(name, format!("{error}; its last good content stays"))];
                return;
            }
        };
        let parsed = parse::manifest(&name, &text, &self.options);
        for kind in &parsed.ignored {
            tracing::debug!(file = name, kind, "this kind is not read");
        }
        let mut objects: HashMap<ObjectName, Object> = parsed.objects.into_iter().collect();
        for (object, last_good) in std::mem::take(&mut file.objects) {
            if parsed.unnamed_refusal || parsed.refused.contains(&object) {
                objects.entry(object).or_insert(last_good);
            }
        }
        file.objects = objects;
        file.findings = parsed.findings;
    }

    /// The first file in alphabetical order that defines an object wins.
    fn merged(&self) -> (HashMap<ObjectName, Object>, Vec<Finding>) {
        let mut merged = HashMap::new();
        let mut owner: HashMap<&ObjectName, &str> = HashMap::new();
        let mut twice = Vec::new();
        for (name, file) in &self.files {
            for (object, value) in &file.objects {
                if let Some(first) = owner.get(object) {
                    let reason = format!("is defined in {first} already; that one is used");
                    twice.push(Finding { object: Some(object.to_string()), ..finding(name.clone(), reason) });
                    continue;
                }
                owner.insert(object, name);
                merged.insert(object.clone(), value.clone());
            }
        }
        twice.sort_by(|a, b| (&a.file, &a.object).cmp(&(&b.file, &b.object)));
        (merged, twice)
    }

    /// Scans now and after each change, until nobody listens. Blocks: to be run on a thread of its own.
    pub fn follow(mut self, scans: &mpsc::Sender<Scan>) {
        let (news, changes) = std::sync::mpsc::sync_channel(1);
        let told = move |_event: notify::Result<notify::Event>| {
            // One waiting word of change is as good as many.
            let _full = news.try_send(());
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, folder = %self.folder.display(), "no notifications of changes; the folder is read every few seconds");
        }
        loop {
            if let Some(scan) = self.scan() {
                for finding in &scan.findings {
                    tracing::warn!(%finding, "manifest refused");
                }
                if scans.blocking_send(scan).is_err() {
                    return;
                }
            }
            let changed = changes.recv_timeout(limits::RESCAN).is_ok();
            let began = Instant::now();
            while changed
                && began.elapsed() < limits::DEBOUNCE_LONGEST
                && changes.recv_timeout(limits::DEBOUNCE).is_ok()
            {}
            if scans.is_closed() {
                return;
            }
        }
    }
}

fn finding(file: String, reason: String) -> Finding {
    Finding { file, line: 0, object: None, field: String::new(), reason }
}

fn list(root: &Path, folder: &Path, depth: usize, found: &mut BTreeSet<String>, findings: &mut Vec<Finding>) {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(finding(shown(folder), format!("cannot list the folder: {error}")));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // ConfigMap volumes keep their files in hidden folders beside links to them.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                list(root, &path, depth - 1, found, findings);
            }
        } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json") {
            found.insert(shown(&path));
        }
    }
}

/// The file's text, unless it is as it was.
fn changed_text(path: &Path, stamp: &mut Option<Stamp>) -> io::Result<Option<String>> {
    let metadata = fs::metadata(path)?;
    let now = Stamp { modified: metadata.modified()?, length: metadata.len() };
    if now.length > limits::MANIFEST_BYTES {
        return Err(io::Error::other(format!("{} bytes; at most {} are read", now.length, limits::MANIFEST_BYTES)));
    }
    let settled = now.modified.elapsed().unwrap_or(Duration::ZERO) > limits::MTIME_UNSURE;
    if *stamp == Some(now) && settled {
        return Ok(None);
    }
    let text = fs::read_to_string(path)?;
    *stamp = Some(now);
    Ok(Some(text))
}

fn differences(before: &HashMap<ObjectName, Object>, after: &HashMap<ObjectName, Object>) -> Vec<Event> {
    let removed = before.keys().filter(|name| !after.contains_key(*name)).map(|name| Event::Remove(name.clone()));
    let changed = after.iter().filter(|(name, object)| before.get(*name) != Some(*object));
    let mut events: Vec<Event> = removed.collect();
    events.extend(changed.map(|(name, object)| Event::Upsert(name.clone(), object.clone())));
    events
}
