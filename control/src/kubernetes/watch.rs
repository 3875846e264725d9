//! One watch for each kind: paginated first lists, bookmarks, and pauses that grow while the API server is away.
//!
//! Must never keep an object of Kubernetes' own form beyond the moment in which it is read.

use std::pin::pin;

use futures_util::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{self, Config, Error, Event},
};
use tokio::sync::mpsc;

use super::{Backoff, Failure};
use crate::{
    limits,
    objects::{Kind, Name, ObjectName},
    parse::{Options, Read},
};

/// Kinds that are watched; of service accounts nothing is read.
pub(super) const KINDS: [Kind; 4] = [Kind::Namespace, Kind::Pod, Kind::Service, Kind::EndpointSlice];

/// What a watch says.
#[derive(Debug)]
pub(super) enum News {
    /// A list begins: what it does not name will be gone.
    Began,
    /// An object is there.
    Seen { name: ObjectName, read: Read },
    /// The list is complete.
    Listed,
    /// An object is gone.
    Gone(ObjectName),
}

/// News of one kind.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) news: News,
}

/// Starts all watches. They end when nobody takes their news.
pub(super) fn all(client: &Client, options: &Options, items: &mpsc::Sender<Item>) {
    for kind in KINDS {
        tokio::spawn(follow(kind, client.clone(), options.clone(), items.clone()));
    }
}

/// Where the API server has a kind.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let group = if kind == Kind::EndpointSlice { "discovery.k8s.io" } else { "" };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind.as_str()))
}

async fn follow(kind: Kind, client: Client, options: Options, items: mpsc::Sender<Item>) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
    let mut backoff = Backoff::new();
    let mut is_failing = false;
    loop {
        let config = Config::default().page_size(limits::LIST_PAGE);
        let mut events = pin!(watcher::watcher(api.clone(), config));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // A list begins anew before every attempt.
                    if is_failing && !matches!(event, Event::Init) {
                        is_failing = false;
                        tracing::info!(kind = kind.as_str(), "watched again");
                    }
                    if items.send(Item { kind, news: news(kind, event, &options) }).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let is_expired = is_expired(&error);
                    if !is_expired && !is_failing {
                        is_failing = true;
                        let reason = reason(error);
                        tracing::warn!(kind = kind.as_str(), %reason, "cannot be watched; what is known stays, and it is tried again");
                    }
                    if is_expired {
                        tracing::info!(
                            kind = kind.as_str(),
                            "what was seen last is too long ago for the API server; listed anew"
                        );
                    }
                    tokio::time::sleep(backoff.pause()).await;
                    if is_expired {
                        break;
                    }
                }
            }
        }
    }
}

/// The watch began too far back: only a new list helps.
fn is_expired(error: &Error) -> bool {
    match error {
        Error::WatchStartFailed(kube::Error::Api(status)) | Error::WatchError(status) => status.code == 410,
        _other => false,
    }
}

fn reason(error: Error) -> Failure {
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => error.into(),
        Error::WatchError(status) => kube::Error::Api(status).into(),
        Error::NoResourceVersion => Failure::Other(error.to_string()),
    }
}

fn news(kind: Kind, event: Event<DynamicObject>, options: &Options) -> News {
    match event {
        Event::Init => News::Began,
        Event::InitDone => News::Listed,
        Event::Delete(object) => {
            let name = Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.name_any());
            News::Gone(ObjectName { kind, name })
        }
        Event::InitApply(DynamicObject { metadata, data, .. }) | Event::Apply(DynamicObject { metadata, data, .. }) => {
            let (name, read) = Read::of(kind, &metadata, data, options);
            News::Seen { name, read }
        }
    }
}
