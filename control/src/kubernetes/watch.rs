//! Everything that is watched, by one mechanism: paginated first lists, bookmarks, and pauses that grow while the API server is away.
//!
//! Must never keep an object of Kubernetes' own form beyond the moment in which it is read.

use std::{
    fmt::Debug,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

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
pub(super) const KINDS: [Kind; 16] = [
    Kind::Namespace,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::PolicyHttpRoute,
    Kind::ServiceProfile,
    Kind::TrafficSplit,
    Kind::Server,
    Kind::ServerAuthorization,
    Kind::AuthorizationPolicy,
    Kind::MeshTlsAuthentication,
    Kind::NetworkAuthentication,
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

/// Which of its versions each kind is served as, as far as it was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<[AtomicUsize; Kind::ALL.len()]>);

impl Served {
    fn place(&self, kind: Kind) -> Option<&AtomicUsize> {
        self.0.get(Kind::ALL.iter().position(|one| *one == kind)?)
    }

    fn found(&self, kind: Kind, version: usize) {
        if let Some(place) = self.place(kind) {
            place.store(version, Relaxed);
        }
    }

    /// Where the API server has a kind.
    pub(super) fn resource(&self, kind: Kind) -> ApiResource {
        let version = self.place(kind).map_or(0, |place| place.load(Relaxed));
        resource(kind, kind.versions().get(version).copied().unwrap_or("v1"))
    }
}

pub(super) fn resource(kind: Kind, version: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), version, kind.as_str()))
}

/// Starts all watches. They end when nobody takes their news.
pub(super) fn all(client: &Client, options: &Options, items: &mpsc::Sender<Item>) -> Served {
    let served = Served::default();
    for kind in KINDS {
        tokio::spawn(follow(kind, client.clone(), options.clone(), served.clone(), items.clone()));
    }
    served
}

async fn follow(kind: Kind, client: Client, options: Options, served: Served, items: mpsc::Sender<Item>) {
    let of_version = |version: &&str| Api::<DynamicObject>::all_with(client.clone(), &resource(kind, version));
    let apis: Vec<_> = kind.versions().iter().map(of_version).collect();
    let found = move |version| served.found(kind, version);
    let mut events = pin!(events(apis, Config::default(), kind.shown(), kind.is_optional(), found));
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
    events(vec![api], config, name, false, |_only| ())
        .filter_map(move |event| future::ready(found(event, &mut was_listed)))
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
/// `is_optional`: that the API server does not know the kind is as good as that there are none, for as long as it is so. Of the versions of a
/// kind, `apis`, the first one that is served is watched; `found` is told which.
fn events<K>(
    apis: Vec<Api<K>>,
    config: Config,
    what: &'static str,
    is_optional: bool,
    found: impl Fn(usize) + Send,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = config.page_size(limits::LIST_PAGE).timeout(limits::WATCH_SECONDS);
    let versions = apis.len();
    let begin = move |version: usize| match apis.get(version) {
        Some(api) => watcher::watcher(api.clone(), config.clone()).boxed(),
        None => stream::pending().boxed(),
    };
    let watch = Watch::new(begin, found, versions, what, is_optional);
    stream::unfold(watch, |mut watch| async {
        let event = watch.next().await;
        Some((event, watch))
    })
}

struct Watch<K, B, F> {
    events: BoxStream<'static, Result<Event<K>, Error>>,
    begin: B,
    found: F,
    versions: usize,
    /// The one that is asked for.
    version: usize,
    /// Versions in a row that were not there.
    missing: usize,
    what: &'static str,
    is_optional: bool,
    backoff: Backoff,
    is_failing: bool,
    is_absent: bool,
}

impl<K, B, F> Watch<K, B, F>
where
    B: Fn(usize) -> BoxStream<'static, Result<Event<K>, Error>>,
    F: Fn(usize),
{
    fn new(begin: B, found: F, versions: usize, what: &'static str, is_optional: bool) -> Watch<K, B, F> {
        let (events, backoff) = (begin(0), Backoff::new());
        let (version, missing) = (0, 0);
        Watch {
            events,
            begin,
            found,
            versions,
            version,
            missing,
            what,
            is_optional,
            backoff,
            is_failing: false,
            is_absent: false,
        }
    }

    fn begin(&mut self) {
        self.events = (self.begin)(self.version);
    }

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
                        self.missing = 0;
                        (self.found)(self.version);
                    }
                    return event;
                }
                // The list that began holds nothing, once no version is there.
                Some(Err(Error::InitialListFailed(kube::Error::Api(status))))
                    if self.is_optional && status.code == 404 =>
                {
                    self.missing += 1;
                    self.version = (self.version + 1) % self.versions.max(1);
                    self.begin();
                    if self.missing < self.versions {
                        continue;
                    }
                    self.missing = 0;
                    if self.is_absent {
                        tokio::time::sleep(limits::API_ABSENT).await;
                    } else {
                        tracing::info!(what, "not known to the API server; looked for now and then");
                    }
                    self.is_absent = true;
                    return Event::InitDone;
                }
                // Its definition is gone, or serves another version from now on: a list finds out which.
                Some(Err(Error::WatchStartFailed(kube::Error::Api(status))))
                    if self.is_optional && status.code == 404 =>
                {
                    tokio::time::sleep(self.backoff.pause()).await;
                    self.begin();
                }
                Some(Err(error)) if is_expired(&error) => {
                    tracing::info!(what, "what was seen last is too long ago for the API server; listed anew");
                    tokio::time::sleep(self.backoff.pause()).await;
                    self.begin();
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
                None => self.begin(),
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
        let lists = AtomicUsize::new(0);
        let begin = |_only| {
            let said = match lists.fetch_add(1, Relaxed) {
                0 => vec![Ok(Event::Init), Err(unknown())],
                _there => vec![Ok(Event::Init), Ok(Event::InitApply(1_u8)), Ok(Event::InitDone)],
            };
            stream::iter(said).boxed()
        };
        let mut watch = Watch::new(begin, |_only| (), 1, "x", true);
        assert!(matches!(watch.next().await, Event::Init));
        assert!(matches!(watch.next().await, Event::InitDone) && watch.is_absent);
        assert!(matches!(watch.next().await, Event::Init) && watch.is_absent);
        assert!(matches!(watch.next().await, Event::InitApply(1)) && !watch.is_absent);
    }

    fn unknown() -> Error {
        Error::InitialListFailed(not_found())
    }

    fn not_found() -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status { code: 404, ..kube::core::Status::default() }))
    }

    /// Seen to fail with a kind that is said to be gone as soon as one version is.
    #[tokio::test]
    async fn the_first_version_that_is_served_is_watched() {
        let found = AtomicUsize::new(9);
        let served = AtomicUsize::new(1);
        let begin = |version: usize| {
            let said = if served.load(Relaxed) == version {
                // What was watched ends when the definition changes.
                let over = if version == 1 { Error::WatchStartFailed(not_found()) } else { unknown() };
                vec![Ok(Event::Init), Ok(Event::InitApply(version)), Ok(Event::InitDone), Err(over)]
            } else {
                vec![Ok(Event::Init), Err(unknown())]
            };
            // Whoever asks again in vain is not told anything else.
            stream::iter(said).chain(stream::pending()).boxed()
        };
        let mut watch = Watch::new(begin, |version| found.store(version, Relaxed), 3, "x", true);
        let mut applied = Vec::new();
        let mut was_gone = false;
        while applied.len() < 4 {
            match watch.next().await {
                Event::InitApply(version) => {
                    applied.push((version, found.load(Relaxed)));
                    served.store((version + 1) % 3, Relaxed);
                }
                Event::InitDone => was_gone |= watch.is_absent,
                _other => {}
            }
        }
        assert_eq!(applied, [(1, 1), (2, 2), (0, 0), (1, 1)]);
        assert!(!was_gone, "an object of another version is the same object");
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
