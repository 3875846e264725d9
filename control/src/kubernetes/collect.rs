//! From the news of all watches to the events that the index takes. Must never remove an object that only a broken list left out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::watch::{Item, KINDS, News};
use crate::{
    limits,
    manifests::Scan,
    objects::{Event, Kind, Name, ObjectName},
    parse::{Finding, Read},
    plane::Plane,
};

#[cfg(test)]
mod tests;

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    kinds: HashMap<Kind, Known>,
    findings: BTreeMap<ObjectName, Vec<Finding>>,
    // The last of each object: until every kind was listed, nobody takes them. In the order of kinds: what opts pods in comes first.
    events: BTreeMap<ObjectName, Event>,
    changed: bool,
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Known {
    told: HashSet<Name>,
    // Names of the list in progress.
    seen: Option<HashSet<Name>>,
    was_listed: bool,
}

impl Collector {
    /// Takes news in order.
    pub(super) fn take(&mut self, item: Item) {
        let known = self.kinds.entry(item.kind).or_default();
        match item.news {
            News::Began => known.seen = Some(HashSet::new()),
            News::Seen { name, read } => {
                if let Some(seen) = &mut known.seen {
                    seen.insert(name.name.clone());
                }
                self.see(name, read);
            }
            News::Gone(name) => self.forget(&name),
            News::Listed => {
                known.was_listed = true;
                let seen = known.seen.take().unwrap_or_default();
                let found = self.findings.keys().filter(|name| name.kind == item.kind).map(|name| &name.name);
                let gone: HashSet<Name> =
                    known.told.iter().chain(found).filter(|name| !seen.contains(*name)).cloned().collect();
                for name in gone {
                    self.forget(&ObjectName { kind: item.kind, name });
                }
            }
        }
    }

    fn see(&mut self, name: ObjectName, read: Read) {
        match read {
            Read::Object(object, findings) => {
                if let Some(known) = self.kinds.get_mut(&name.kind) {
                    known.told.insert(name.name.clone());
                }
                self.find(&name, findings, "not understood");
                self.events.insert(name.clone(), Event::Upsert(name, object));
            }
            Read::Unneeded => self.forget(&name),
            Read::Refused(findings) => self.find(&name, findings, "object refused; its last good version stays"),
        }
    }

    fn find(&mut self, name: &ObjectName, findings: Vec<Finding>, what: &str) {
        if findings.is_empty() {
            self.changed |= self.findings.remove(name).is_some();
        } else if self.findings.get(name) != Some(&findings) {
            for finding in &findings {
                tracing::warn!(%finding, "{what}");
            }
            self.changed = true;
            self.findings.insert(name.clone(), findings);
        }
    }

    fn forget(&mut self, name: &ObjectName) {
        self.changed |= self.findings.remove(name).is_some();
        if self.kinds.get_mut(&name.kind).is_some_and(|known| known.told.remove(&name.name)) {
            self.events.insert(name.clone(), Event::Remove(name.clone()));
        }
    }

    /// What is new for the index; nothing before each kind was listed once.
    pub(super) fn scan(&mut self) -> Option<Scan> {
        if !self.is_complete {
            if !KINDS.iter().all(|kind| self.kinds.get(kind).is_some_and(|known| known.was_listed)) {
                return None;
            }
            self.is_complete = true;
            self.changed = true;
        }
        if self.events.is_empty() && !self.changed {
            return None;
        }
        self.changed = false;
        // One of each object first: one with many must not hide the others.
        let first = self.findings.values().filter_map(|found| found.first());
        let others = self.findings.values().flat_map(|found| found.iter().skip(1));
        let findings = first.chain(others).take(limits::FINDINGS_IN_CLUSTER).cloned().collect();
        Some(Scan { events: std::mem::take(&mut self.events).into_values().collect(), findings })
    }
}

/// Takes news until there is nobody who has any.
pub(super) async fn follow(mut items: mpsc::Receiver<Item>, plane: Arc<Plane>) {
    let mut collector = Collector::default();
    let mut batch = Vec::new();
    while items.recv_many(&mut batch, limits::WATCHED_QUEUE).await > 0 {
        batch.drain(..).for_each(|item| collector.take(item));
        let was_loaded = plane.is_loaded();
        if let Some(scan) = collector.scan() {
            plane.take(scan);
        }
        if !was_loaded && plane.is_loaded() {
            tracing::info!("all objects were read; nodes are served");
        }
    }
}
