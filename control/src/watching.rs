//! One watch of the mesh API: what there is, then what becomes of it. Must never take the silence of a replica for the end of an item, and never
//! outlive the token that opened it.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Instant,
};

use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use weir_api::v1::{self, WatchEventType};

use crate::{
    items::{self, Asked, Page},
    limits,
    plane::Plane,
    replicas::{Gathered, Replicas},
    tokens::{Caller, Tokens},
    turns::Turns,
};

/// Who watches what.
pub(crate) struct Watch {
    pub(crate) plane: Arc<Plane>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) turns: Turns,
    pub(crate) caller: Caller,
    pub(crate) asked: Asked,
}

type Events = mpsc::Sender<Result<v1::WatchEvent, Status>>;

/// What the watcher was told of each item: a hash of it, by key.
#[derive(Debug, Default)]
struct Told {
    items: BTreeMap<String, u64>,
    missing: BTreeSet<String>,
    is_synced: bool,
}

impl Watch {
    /// Until nobody reads, or somebody must hear why it ends.
    pub(crate) async fn run(self, events: Events) {
        tokio::select! {
            () = events.closed() => {}
            ended = self.follow(&events) => if let Err(status) = ended {
                // Whoever stopped reading does not want to know.
                let _gone = events.send(Err(status)).await;
            }
        }
    }

    async fn follow(&self, events: &Events) -> Result<(), Status> {
        let mut changes = self.plane.item_changes();
        let mut told = Told::default();
        let mut vouched = Instant::now();
        loop {
            changes.mark_unchanged();
            self.look(&mut told, events).await?;
            if self.asked.is_of_nodes() {
                tokio::time::sleep(limits::WATCH_NODES_PAUSE).await;
            } else {
                tokio::time::sleep(limits::WATCH_PAUSE).await;
                // Without news it is only the token that is looked at.
                let _none = tokio::time::timeout(limits::REVIEW_KEPT, changes.changed()).await;
            }
            if vouched.elapsed() >= limits::REVIEW_KEPT {
                match self.tokens.api(&self.caller).await {
                    Err(status) if status.code() == Code::Unauthenticated => return Err(status),
                    // While nobody can be asked, it is believed on, as nodes' streams are.
                    Ok(()) | Err(_) => vouched = Instant::now(),
                }
            }
        }
    }

    async fn look(&self, told: &mut Told, events: &Events) -> Result<(), Status> {
        let gathered = if self.asked.is_of_nodes() { self.replicas.gather(None).await? } else { Gathered::default() };
        let missing_replicas = gathered.missing_replicas();
        let asked = self.asked.clone();
        let known = std::mem::take(&mut told.items);
        let listed = self.turns.take(move |plane| {
            let (most, bytes) = (limits::WATCHED_ITEMS, limits::WATCHED_BYTES);
            let page = Page { after: String::new(), most, bytes };
            let (items, has_more) = items::page(plane, &gathered, &asked, &page);
            if has_more {
                let text = format!("there are more than {most} items or {bytes} bytes of them: name a namespace");
                return Err(Status::resource_exhausted(text));
            }
            Ok(difference(known, items))
        });
        let (known, after, changed) = listed.await?;
        let missing: BTreeSet<String> = missing_replicas.iter().map(|replica| replica.name.clone()).collect();
        let is_news = missing != told.missing;
        told.missing = missing;
        if told.is_synced && !told.missing.is_empty() {
            // Items of nodes that nobody speaks for now would seem to be gone.
            told.items = known;
            return if is_news { say_of(events, WatchEventType::Gaps, None, missing_replicas).await } else { Ok(()) };
        }
        told.items = after;
        for (kind, item) in changed {
            say_of(events, kind, Some(item), Vec::new()).await?;
        }
        if !told.is_synced {
            told.is_synced = true;
            return say_of(events, WatchEventType::Synced, None, missing_replicas).await;
        }
        if is_news { say_of(events, WatchEventType::Gaps, None, missing_replicas).await } else { Ok(()) }
    }
}

async fn say_of(
    events: &Events,
    kind: WatchEventType,
    item: Option<v1::Item>,
    missing_replicas: Vec<v1::Replica>,
) -> Result<(), Status> {
    let event = v1::WatchEvent { r#type: kind.into(), item, missing_replicas };
    events.send(Ok(event)).await.map_err(|_closed| Status::cancelled("nobody reads"))
}

type Difference = (BTreeMap<String, u64>, BTreeMap<String, u64>, Vec<(WatchEventType, v1::Item)>);

/// What was known, what is known now, and what the watcher is to be told, by key.
fn difference(before: BTreeMap<String, u64>, items: Vec<v1::Item>) -> Difference {
    let mut after = BTreeMap::new();
    let mut changed = Vec::new();
    for item in items {
        let mut hasher = DefaultHasher::new();
        item.encode_to_vec().hash(&mut hasher);
        let hash = hasher.finish();
        after.insert(item.key.clone(), hash);
        match before.get(&item.key) {
            None => changed.push((WatchEventType::Added, item)),
            Some(known) if *known != hash => changed.push((WatchEventType::Modified, item)),
            Some(_same) => {}
        }
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| (WatchEventType::Deleted, v1::Item { key: key.clone(), item: None }));
    changed.extend(gone.collect::<Vec<_>>());
    (before, after, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, node: &str) -> v1::Item {
        let node = v1::NodeItem { node_name: node.to_owned(), ..v1::NodeItem::default() };
        v1::Item { key: key.to_owned(), item: Some(v1::item::Item::Node(node)) }
    }

    #[test]
    fn only_what_differs_is_told() {
        let (_before, known, first) = difference(BTreeMap::new(), vec![item("a", "1"), item("b", "1"), item("c", "1")]);
        assert!(first.iter().all(|(kind, _item)| *kind == WatchEventType::Added) && first.len() == 3);
        let (before, after, changed) = difference(known.clone(), vec![item("b", "2"), item("c", "1"), item("d", "1")]);
        let said: Vec<_> = changed.iter().map(|(kind, item)| (*kind, item.key.as_str(), item.item.is_some())).collect();
        let expected = [
            (WatchEventType::Modified, "b", true),
            (WatchEventType::Added, "d", true),
            (WatchEventType::Deleted, "a", false),
        ];
        assert_eq!(said, expected);
        assert_eq!(before, known);
        assert!(difference(after, vec![item("b", "2"), item("c", "1"), item("d", "1")]).2.is_empty());
    }
}
