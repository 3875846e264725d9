//! The authority in the cluster: Secret `weir-identity-issuer` in cert-manager's layout, self-made when there is none.
//!
//! Must never replace a Secret that somebody else made, and never use half of one.

mod made;
mod parts;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::Either};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};

use self::parts::{EXTRA, ISSUER, Parts};
use super::{Backoff, CONTROL, Failure, NAMESPACE, election::Leadership, watch, within};
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
    #[error(
        "Secret {NAMESPACE}/{ISSUER} is gone, and no issuer that control could make would be trusted as ConfigMap {NAMESPACE}/{PUBLISHED} says: whoever made the Secret has to make it again; to begin with a new authority, which cuts off what the old one signed, delete that ConfigMap"
    )]
    Gone,
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
    let mut parts = Parts::default();
    parts.set_extra(within(maps.get_opt(EXTRA)).await?.as_ref());
    let published = within(maps.get_opt(PUBLISHED)).await?.map(|map| parts::bundle(&map));
    let secret = match within(secrets.get_opt(ISSUER)).await? {
        Some(secret) => secret,
        None => made::issuer(&secrets, trust_domain, published.as_deref(), parts.extra()).await?,
    };
    parts.set_issuer(Some(&secret));
    let given = |material: Result<_, CaError>| Authority::given(parts::origins(), material?, life);
    let authority = match given(parts.material()) {
        Ok(authority) => authority,
        // As a control that runs would go on. What is wrong is said, and shown, as soon as it is watched.
        Err(problem) => given(parts.material_with(&published.unwrap_or_default())).map_err(|_also| problem)?,
    };
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
        watch::object(secrets.clone(), ISSUER).map(Either::Left),
        watch::object(maps.clone(), EXTRA).map(Either::Right),
    ));
    let mut published = Published { maps, written: None };
    let mut renewal = tokio::time::interval(limits::ISSUER_RESCAN);
    let mut look = tokio::time::interval(limits::RESTORED_WITHIN);
    loop {
        tokio::select! {
            Some(changed) = news.next() => take(&mut parts, changed, &plane),
            () = leadership.changed() => {}
            _tick = look.tick() => {}
            _tick = renewal.tick() => if leadership.is_held() && let Err(error) = made::renew(&secrets, &trust_domain).await {
                tracing::error!(%error, "the self-made issuer cannot be renewed; it is tried again in an hour");
            }
        }
        if !leadership.is_held() {
            // Another replica may publish meanwhile.
            published.written = None;
            continue;
        }
        let bundle = ca::pem("CERTIFICATE", &plane.authority.current().anchors);
        if let Err(error) = published.update(bundle, Instant::now()).await {
            tracing::warn!(%error, "ConfigMap {NAMESPACE}/{PUBLISHED} cannot be written; it is tried again");
        }
    }
}

fn take(parts: &mut Parts, changed: Either<Option<Secret>, Option<ConfigMap>>, plane: &Plane) {
    match changed {
        Either::Left(secret) => parts.set_issuer(secret.as_ref()),
        Either::Right(extra) => parts.set_extra(extra.as_ref()),
    }
    let replaced = parts.material().and_then(|material| plane.authority.replace(material));
    plane.set_authority_problem(replaced.as_ref().err().map(ToString::to_string).or_else(|| parts.missing()));
    if matches!(replaced, Ok(true)) {
        plane.trust_changed();
    }
}

/// The bundle as everybody reads it.
struct Published {
    maps: Api<ConfigMap>,
    /// And when.
    written: Option<(String, Instant)>,
}

impl Published {
    /// Writes what was not written, and after a while what was: nobody watches whether it is still there.
    async fn update(&mut self, bundle: String, now: Instant) -> Result<(), Failure> {
        let is_fresh = |at: Instant| now.duration_since(at) < limits::RESTORED_WITHIN;
        if self.written.as_ref().is_some_and(|(written, at)| *written == bundle && is_fresh(*at)) {
            return Ok(());
        }
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": PUBLISHED, "labels": { "app.kubernetes.io/part-of": "weir" } },
            "data": { BUNDLE: bundle },
        });
        within(self.maps.patch(PUBLISHED, &PatchParams::apply(CONTROL).force(), &Patch::Apply(map))).await?;
        self.written = Some((bundle, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
