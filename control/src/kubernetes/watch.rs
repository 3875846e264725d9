//! Everything that is watched, by one mechanism: paginated first lists, bookmarks, and pauses that grow while the API server is away.
//!
//! Must never keep an object of Kubernetes' own form beyond the moment in which it is read.

use std::{fmt::Debug, pin::pin};

use futures_util::{
    Stream, StreamExt as _, future,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{self, Config, Error, Event},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Backoff, Failure};
use crate::{
    limits,
    objects::{Kind, Name, ObjectName},
    parse::{Options, Read},
};

/// Kinds that are watched; of service accounts nothing is read.
pub(super) const KINDS: [Kind; 9] = [
    Kind::Namespace,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::PolicyHttpRoute,
    Kind::ServiceProfile,
    Kind::TrafficSplit,
];

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
    ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), kind.version(), kind.as_str()))
}

async fn follow(kind: Kind, client: Client, options: Options, items: mpsc::Sender<Item>) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
    let mut events = pin!(events(api, Config::default(), kind.shown(), kind.is_optional()));
    while let Some(event) = events.next().await {
        if items.send(Item { kind, news: news(kind, event, &options) }).await.is_err() {
            return;
        }
    }
}

/// One object by name: as it is after each change, or that it is gone.
pub(super) fn object<K>(api: Api<K>, name: &'static str) -> impl Stream<Item = Option<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut was_listed = false;
    let config = Config::default().fields(&format!("metadata.name={name}"));
    events(api, config, name, false).filter_map(move |event| future::ready(found(event, &mut was_listed)))
}

/// What an event says of the only object that it can be about.
fn found<K>(event: Event<K>, was_listed: &mut bool) -> Option<Option<K>> {
    match event {
        Event::Init => *was_listed = false,
        Event::InitApply(object) | Event::Apply(object) => {
            *was_listed = true;
            return Some(Some(object));
        }
        Event::InitDone if *was_listed => {}
        Event::InitDone | Event::Delete(_) => return Some(None),
    }
    None
}

/// All events of what `config` selects, without an end: what fails is tried again, what is too long ago is listed anew.
///
/// `is_optional`: that the API server does not know the kind is as good as that there are none, for as long as it is so.
fn events<K>(api: Api<K>, config: Config, what: &'static str, is_optional: bool) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = config.page_size(limits::LIST_PAGE).timeout(limits::WATCH_SECONDS);
    let begin = move || watcher::watcher(api.clone(), config.clone()).boxed();
    let (events, backoff) = (begin(), Backoff::new());
    let watch = Watch { events, begin, what, is_optional, backoff, is_failing: false, is_absent: false };
    stream::unfold(watch, |mut watch| async {
        let event = watch.next().await;
        Some((event, watch))
    })
}

struct Watch<K, B> {
    events: BoxStream<'static, Result<Event<K>, Error>>,
    begin: B,
    what: &'static str,
    is_optional: bool,
    backoff: Backoff,
    is_failing: bool,
    is_absent: bool,
}

impl<K, B> Watch<K, B>
where
    B: Fn() -> BoxStream<'static, Result<Event<K>, Error>>,
{
    async fn next(&mut self) -> Event<K> {
        let what = self.what;
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    // A list begins anew before every attempt.
                    if !matches!(event, Event::Init) {
                        if self.is_failing || self.is_absent {
                            tracing::info!(what, "watched again");
                        }
                        (self.is_failing, self.is_absent) = (false, false);
                    }
                    return event;
                }
                // The list that began holds nothing.
                Some(Err(Error::InitialListFailed(kube::Error::Api(status))))
                    if self.is_optional && status.code == 404 =>
                {
                    if self.is_absent {
                        tokio::time::sleep(limits::API_ABSENT).await;
                    } else {
                        tracing::info!(what, "not known to the API server; looked for now and then");
                    }
                    self.is_absent = true;
                    return Event::InitDone;
                }
                Some(Err(error)) if is_expired(&error) => {
                    tracing::info!(what, "what was seen last is too long ago for the API server; listed anew");
                    tokio::time::sleep(self.backoff.pause()).await;
                    self.events = (self.begin)();
                }
                Some(Err(error)) => {
                    if !self.is_failing {
                        self.is_failing = true;
                        let reason = reason(error);
                        tracing::warn!(what, %reason, "cannot be watched; what is known stays, and it is tried again");
                    }
                    tokio::time::sleep(self.backoff.pause()).await;
                }
                // A watcher has no end of its own.
                None => self.events = (self.begin)(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kind_that_the_api_server_does_not_know_has_no_objects() {
        let begin = || {
            let status = kube::core::Status { code: 404, ..kube::core::Status::default() };
            let unknown = Err(Error::InitialListFailed(kube::Error::Api(Box::new(status))));
            let said = vec![Ok(Event::Init), unknown, Ok(Event::Init), Ok(Event::InitApply(1_u8)), Ok(Event::InitDone)];
            stream::iter(said).boxed()
        };
        let (events, backoff) = (begin(), Backoff::new());
        let mut watch =
            Watch { events, begin, what: "x", is_optional: true, backoff, is_failing: false, is_absent: false };
        assert!(matches!(watch.next().await, Event::Init));
        assert!(matches!(watch.next().await, Event::InitDone) && watch.is_absent);
        assert!(matches!(watch.next().await, Event::Init) && watch.is_absent);
        assert!(matches!(watch.next().await, Event::InitApply(1)) && !watch.is_absent);
    }

    #[test]
    fn one_object_is_gone_when_it_is_deleted_or_when_a_list_does_not_have_it() {
        let mut was_listed = false;
        let mut said = |event: Event<u8>| found(event, &mut was_listed);
        let list = [Event::Init, Event::InitApply(1), Event::InitDone].map(&mut said);
        assert_eq!(list, [None, Some(Some(1)), None]);
        assert_eq!([Event::Apply(2), Event::Delete(2)].map(&mut said), [Some(Some(2)), Some(None)]);
        assert_eq!([Event::Init, Event::InitDone].map(&mut said), [None, Some(None)]);
    }
}
