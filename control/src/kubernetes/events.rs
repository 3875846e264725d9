//! Notices as Events on pods. Must never ask more of the API server than its bound, nor say the same news twice.

use std::{collections::HashSet, hash::BuildHasher as _, time::Instant};

use foldhash::quality::FixedState;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::mpsc;

use super::{CONTROL, Failure, within};
use crate::{allowance::Allowance, limits, notices::Notice};

// Replicas and restarts must come to the same names.
const NAME_SEED: u64 = 0x6576_656e;

/// Writes until there are no more notices.
pub(super) async fn publish(client: Client, mut notices: mpsc::Receiver<Notice>, instance: String) {
    let mut allowance = Allowance::full(limits::EVENTS_BURST, limits::EVENTS_PER_SECOND, Instant::now());
    let mut told: HashSet<String> = HashSet::new();
    while let Some(notice) = notices.recv().await {
        let event = event(&notice, &instance);
        let name = event.metadata.name.clone().unwrap_or_default();
        if told.contains(&name) {
            continue;
        }
        tokio::time::sleep(allowance.take(Instant::now())).await;
        let api: Api<Event> = Api::namespaced(client.clone(), &notice.namespace);
        match within(api.create(&PostParams::default(), &event)).await {
            // Another replica, or this one before its restart, said it already.
            Ok(_) | Err(Failure::Conflict) => {
                if told.len() >= limits::EVENTS_REMEMBERED {
                    told.clear();
                }
                told.insert(name);
            }
            Err(Failure::NotFound) => tracing::debug!(?notice, "the namespace of this event is gone"),
            Err(error) => tracing::warn!(%error, ?notice, "an event could not be written"),
        }
    }
}

fn event(notice: &Notice, instance: &str) -> Event {
    let hash = FixedState::with_seed(NAME_SEED).hash_one(notice);
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(notice.namespace.clone()),
        name: Some(notice.name.clone()),
        uid: Some(notice.uid.to_string()),
        ..ObjectReference::default()
    };
    let note = notice.note[..notice.note.floor_char_boundary(limits::EVENT_NOTE_BYTES)].to_owned();
    // A name of 253 characters at most, of which the hash takes 17.
    let short: String = notice.name.chars().take(230).collect();
    Event {
        metadata: ObjectMeta {
            namespace: Some(notice.namespace.clone()),
            name: Some(format!("{}.{:016x}", short.trim_end_matches(['.', '-']), hash)),
            ..ObjectMeta::default()
        },
        action: Some("Mesh".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        note: Some(note),
        reason: Some(notice.reason.as_str().to_owned()),
        regarding: Some(pod),
        reporting_controller: Some(CONTROL.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(if notice.reason.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::notices::Reason;

    fn notice(uid: &str, note: &str) -> Notice {
        Notice {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: Arc::from(uid),
            reason: Reason::MeshRefused,
            note: note.to_owned(),
            occasion: Arc::from(""),
        }
    }

    #[test]
    fn the_same_news_has_the_same_name_on_every_replica() {
        let name = |notice: &Notice, by: &str| event(notice, by).metadata.name.unwrap();
        assert_eq!(name(&notice("u", "n"), "a"), name(&notice("u", "n"), "b"));
        assert_ne!(name(&notice("u", "n"), "a"), name(&notice("v", "n"), "a"));
        assert_ne!(name(&notice("u", "n"), "a"), name(&notice("u", "n").on("later"), "a"));
        let long = Notice { name: "w".repeat(253), ..notice("u", &"é".repeat(5_000)) };
        let event = event(&long, "a");
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert!(event.note.unwrap().len() <= 1024, "the API server's bound, in bytes");
    }
}
