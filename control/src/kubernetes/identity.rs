//! The authority in the cluster: Secret `weir-identity-issuer` in cert-manager's layout, self-made when there is none.
//!
//! Must never replace a Secret that somebody else made, and never use half of one.

mod made;
mod parts;

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, future::Either};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::watcher::{self, Config, Event},
};
use serde::de::DeserializeOwned;

use self::parts::{EXTRA, ISSUER, Parts};
use super::{Backoff, CONTROL, Failure, NAMESPACE, election::Leadership, within};
use crate::{
    admin::Health,
    ca::{self, Authority, CaError},
    limits,
    plane::Plane,
};

/// What everybody who talks to control verifies it against.
const PUBLISHED: &str = "weir-trust-anchors";
/// Key of the bundle in ConfigMaps and Secrets.
const BUNDLE: &str = "ca.crt";

/// Why there is no authority yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("Secret {NAMESPACE}/{ISSUER}: {0}")]
    Api(#[from] Failure),
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// The first authority, however long it takes, and the parts that it was made of.
pub(super) async fn first(
    client: &Client,
    trust_domain: &str,
    life: Duration,
    health: &Health,
) -> (Authority, Followed) {
    let mut backoff = Backoff::new();
    let mut told = String::new();
    loop {
        match attempt(client, trust_domain, life).await {
            Ok((authority, parts)) => return (authority, Followed { parts, trust_domain: trust_domain.to_owned() }),
            Err(error) => {
                let error = error.to_string();
                health.wait_for(format!("there is no authority yet: {error}"));
                if error != told {
                    tracing::error!(error, "there is no authority yet; it is tried again");
                    told = error;
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn attempt(client: &Client, trust_domain: &str, life: Duration) -> Result<(Authority, Parts), NotYet> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = match within(secrets.get_opt(ISSUER)).await? {
        Some(secret) => secret,
        None => made::issuer(&secrets, trust_domain).await?,
    };
    let mut parts = Parts::default();
    parts.set_issuer(&secret);
    parts.set_extra(within(maps.get_opt(EXTRA)).await?.as_ref());
    let authority = Authority::given(parts::origins(), parts.material()?, life)?;
    Ok((authority, parts))
}

/// What is watched from now on.
pub(super) struct Followed {
    parts: Parts,
    trust_domain: String,
}

/// Takes changes of Secret and ConfigMap at once, publishes the bundle, and renews a self-made issuer in time.
pub(super) async fn follow(client: Client, followed: Followed, plane: Arc<Plane>, mut leadership: Leadership) {
    let Followed { mut parts, trust_domain } = followed;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut news = pin!(futures_util::stream::select(
        watched(secrets.clone(), ISSUER).map(Either::Left),
        watched(maps.clone(), EXTRA).map(Either::Right),
    ));
    let mut published = String::new();
    let mut renewal = tokio::time::interval(limits::ISSUER_RESCAN);
    let mut backoff = Backoff::new();
    let mut retry: Option<tokio::time::Instant> = None;
    loop {
        let again = retry.unwrap_or_else(|| tokio::time::Instant::now() + limits::ISSUER_RESCAN);
        tokio::select! {
            Some(changed) = news.next() => take(&mut parts, changed, &plane),
            () = leadership.changed() => {}
            () = tokio::time::sleep_until(again) => {}
            _tick = renewal.tick() => if leadership.is_held() && let Err(error) = made::renew(&secrets, &trust_domain).await {
                tracing::error!(%error, "the self-made issuer cannot be renewed; it is tried again in an hour");
            }
        }
        retry = None;
        let bundle = ca::pem("CERTIFICATE", &plane.authority.current().anchors);
        if leadership.is_held() && bundle != published {
            match publish(&maps, &bundle).await {
                Ok(()) => published = bundle,
                Err(error) => {
                    tracing::warn!(%error, "ConfigMap {NAMESPACE}/{PUBLISHED} cannot be written; it is tried again");
                    retry = Some(tokio::time::Instant::now() + backoff.pause());
                }
            }
        } else if !leadership.is_held() {
            // Another replica may publish meanwhile.
            published.clear();
        }
    }
}

fn take(parts: &mut Parts, changed: Either<Option<Secret>, Option<ConfigMap>>, plane: &Plane) {
    match changed {
        Either::Left(Some(secret)) => parts.set_issuer(&secret),
        Either::Left(None) => {
            let problem =
                format!("Secret {NAMESPACE}/{ISSUER} is gone; what it held stays in use until control restarts");
            plane.set_authority_problem(Some(problem));
            return;
        }
        Either::Right(extra) => parts.set_extra(extra.as_ref()),
    }
    let replaced = parts.material().and_then(|material| plane.authority.replace(material));
    plane.set_authority_problem(replaced.as_ref().err().map(ToString::to_string));
    if matches!(replaced, Ok(true)) {
        plane.trust_changed();
    }
}

async fn publish(maps: &Api<ConfigMap>, bundle: &str) -> Result<(), Failure> {
    let map = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": PUBLISHED, "labels": { "app.kubernetes.io/part-of": "weir" } },
        "data": { BUNDLE: bundle },
    });
    within(maps.patch(PUBLISHED, &PatchParams::apply(CONTROL).force(), &Patch::Apply(map))).await?;
    Ok(())
}

/// One object by name: as it is after each change, or that it is gone.
fn watched<K>(api: Api<K>, name: &'static str) -> impl Stream<Item = Option<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let state = (Box::pin(watcher::watcher(api, config)), Backoff::new(), false, false);
    futures_util::stream::unfold(state, move |(mut events, mut backoff, mut was_listed, mut is_failing)| async move {
        loop {
            let said = match events.next().await? {
                Ok(event) => event,
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, name, "cannot be watched; what is known stays, and it is tried again");
                    }
                    is_failing = true;
                    tokio::time::sleep(backoff.pause()).await;
                    continue;
                }
            };
            let found = match said {
                Event::Init => {
                    was_listed = false;
                    continue;
                }
                Event::InitApply(object) | Event::Apply(object) => {
                    was_listed = true;
                    Some(object)
                }
                Event::InitDone if was_listed => {
                    is_failing = false;
                    continue;
                }
                Event::InitDone | Event::Delete(_) => None,
            };
            return Some((found, (events, backoff, was_listed, is_failing)));
        }
    })
}
