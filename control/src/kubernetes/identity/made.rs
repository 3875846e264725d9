//! A self-made authority in Secrets: made once by whoever is first, renewed before its end.
//!
//! Must never touch an issuer that control did not make.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::{
    BUNDLE, NotYet, PUBLISHED,
    parts::{CERTIFICATE, EXTRA, ISSUER, KEY},
};
use crate::{
    ca::{self, CaError, Made},
    kubernetes::{CONTROL, Failure, NAMESPACE, within},
};

/// The self-made anchor and its key.
const ROOT: &str = "weir-trust-root";
/// Says who made an issuer.
const MADE_BY: &str = "weir.mesh/made-by";

/// Makes an issuer where there is none, and an anchor below which it stands, unless `published` says that the mesh trusts others.
pub(super) async fn issuer(
    secrets: &Api<Secret>,
    trust_domain: &str,
    published: Option<&[u8]>,
    extra: &[u8],
) -> Result<Secret, NotYet> {
    let root = within(secrets.get_opt(ROOT)).await?;
    if let Some(published) = published
        && !is_trusted(root.as_ref(), published, extra)?
    {
        return Err(NotYet::Gone);
    }
    let root = match root {
        Some(root) => root,
        None => {
            let made = Made::anchor(trust_domain)?;
            create(secrets, secret(ROOT, &made, &made.certificate)).await?
        }
    };
    let (anchor, certificate) = anchor(&root)?;
    let made = anchor.issuer(&format!("Secret {NAMESPACE}/{ROOT}"), trust_domain)?;
    Ok(create(secrets, secret(ISSUER, &made, &certificate)).await?)
}

/// Whether an issuer below `root` changes nothing about whom the mesh trusts.
fn is_trusted(root: Option<&Secret>, published: &[u8], extra: &[u8]) -> Result<bool, CaError> {
    let Some(root) = root else { return Ok(false) };
    let published = ca::certificates(&format!("ConfigMap {NAMESPACE}/{PUBLISHED}"), published)?;
    let mut kept = ca::certificates(&format!("Secret {NAMESPACE}/{ROOT}"), &value(root, CERTIFICATE))?;
    if !kept.iter().all(|anchor| published.contains(anchor)) {
        return Ok(false);
    }
    // None at all, or none that can be read, keeps none.
    kept.extend(ca::certificates(EXTRA, extra).unwrap_or_default());
    Ok(published.iter().all(|anchor| kept.contains(anchor)))
}

/// Creates a Secret, or takes the one of whoever was first.
async fn create(secrets: &Api<Secret>, secret: Secret) -> Result<Secret, Failure> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    match within(secrets.create(&PostParams::default(), &secret)).await {
        Ok(created) => {
            tracing::info!(secret = name, "made");
            Ok(created)
        }
        Err(Failure::Conflict) => within(secrets.get(&name)).await,
        Err(error) => Err(error),
    }
}

/// Replaces a self-made issuer that is about to end.
pub(super) async fn renew(secrets: &Api<Secret>, trust_domain: &str) -> Result<(), NotYet> {
    let Some(before) = within(secrets.get_opt(ISSUER)).await?.filter(is_ours) else { return Ok(()) };
    if !ca::is_ending(&format!("Secret {NAMESPACE}/{ISSUER}"), &value(&before, CERTIFICATE))? {
        return Ok(());
    }
    let (anchor, certificate) = anchor(&within(secrets.get(ROOT)).await?)?;
    // `kubectl apply` puts another authority into the Secret and leaves our annotation at it.
    if value(&before, BUNDLE) != certificate.as_bytes() {
        return Ok(());
    }
    let made = anchor.issuer(&format!("Secret {NAMESPACE}/{ROOT}"), trust_domain)?;
    // With its resource version: whoever wrote in between wins.
    let next = Secret { metadata: before.metadata.clone(), ..secret(ISSUER, &made, &certificate) };
    match within(secrets.replace(ISSUER, &PostParams::default(), &next)).await {
        Ok(_) => tracing::info!(secret = ISSUER, "the self-made issuer was renewed"),
        Err(Failure::Conflict) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn is_ours(secret: &Secret) -> bool {
    secret
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(MADE_BY))
        .is_some_and(|by| by == CONTROL)
}

fn value(secret: &Secret, key: &str) -> Vec<u8> {
    secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.clone()).unwrap_or_default()
}

fn anchor(root: &Secret) -> Result<(Made, String), CaError> {
    let text = |key: &str| {
        String::from_utf8(value(root, key)).ok().filter(|text| !text.is_empty()).ok_or_else(|| CaError::Content {
            origin: format!("Secret {NAMESPACE}/{ROOT}"),
            reason: format!("key {key} is missing or not PEM"),
        })
    };
    let certificate = text(CERTIFICATE)?;
    Ok((Made { certificate: certificate.clone(), key: text(KEY)? }, certificate))
}

fn secret(name: &str, made: &Made, bundle: &str) -> Secret {
    let entry = |key: &str, text: &str| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "weir".to_owned())])),
            annotations: Some(BTreeMap::from([(MADE_BY.to_owned(), CONTROL.to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from([
            entry(CERTIFICATE, &made.certificate),
            entry(KEY, &made.key),
            entry(BUNDLE, bundle),
        ])),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_control_made_is_its_own() {
        let made = Made::anchor("cluster.local").unwrap();
        let own = secret(ISSUER, &made, &made.certificate);
        assert!(is_ours(&own));
        let foreign = Secret { metadata: ObjectMeta::default(), ..own.clone() };
        assert!(!is_ours(&foreign));
        let (anchor, certificate) = anchor(&own).unwrap();
        assert_eq!((anchor.key, certificate), (made.key, made.certificate));
        assert!(super::anchor(&Secret::default()).is_err());
    }
}
