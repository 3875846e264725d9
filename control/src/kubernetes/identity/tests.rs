use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::*;
use crate::{ca::Made, fixtures::api::Api as Server};

const DOMAIN: &str = "cluster.local";
const SECRETS: &str = "/api/v1/namespaces/weir/secrets";
const MAPS: &str = "/api/v1/namespaces/weir/configmaps";
const LIFE: Duration = Duration::from_secs(3_600);

fn map(bundle: &str) -> ConfigMap {
    ConfigMap { data: Some(BTreeMap::from([(BUNDLE.to_owned(), bundle.to_owned())])), ..ConfigMap::default() }
}

/// A Secret of somebody else's issuer, and the anchor above it.
fn foreign() -> (Secret, String) {
    let anchor = Made::anchor(DOMAIN).unwrap();
    let issuer = anchor.issuer("test", DOMAIN).unwrap();
    let entries = [("tls.crt", &issuer.certificate), ("tls.key", &issuer.key), (BUNDLE, &anchor.certificate)];
    let data = entries.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())));
    (Secret { data: Some(BTreeMap::from(data)), ..Secret::default() }, anchor.certificate)
}

fn published(authority: &Authority) -> ConfigMap {
    map(&ca::pem("CERTIFICATE", &authority.current().anchors))
}

#[tokio::test]
async fn an_authority_is_made_where_there_is_none_and_an_issuer_again_below_the_same_anchor() {
    let (server, client) = Server::start().await;
    let (first, _) = attempt(&client, DOMAIN, LIFE).await.unwrap();
    // A crash before anything was published, and then as it is ever after.
    server.remove(&format!("{SECRETS}/{ISSUER}"));
    let (second, _) = attempt(&client, DOMAIN, LIFE).await.unwrap();
    server.put(&format!("{MAPS}/{PUBLISHED}"), &published(&second));
    server.remove(&format!("{SECRETS}/{ISSUER}"));
    let (third, _) = attempt(&client, DOMAIN, LIFE).await.unwrap();
    assert_eq!(
        (&first.current().anchors, &second.current().anchors),
        (&third.current().anchors, &third.current().anchors)
    );
    assert_eq!(server.asked(&format!("POST {SECRETS}")), 4, "one anchor and three issuers");
}

#[tokio::test]
async fn no_other_authority_is_made_while_the_issuers_secret_is_gone() {
    let (server, client) = Server::start().await;
    let (secret, anchor) = foreign();
    server.put(&format!("{MAPS}/{PUBLISHED}"), &map(&anchor));
    let waits = async || {
        let error = attempt(&client, DOMAIN, LIFE).await.err().unwrap();
        assert!(matches!(error, NotYet::Gone), "{error}");
        assert_eq!(server.asked("POST"), 0);
    };
    waits().await;
    // The self-made anchor of before somebody else's, once beside it and once alone.
    let root = made_root();
    server.put(&format!("{SECRETS}/weir-trust-root"), &root);
    waits().await;
    let root = String::from_utf8(root.data.unwrap()["tls.crt"].0.clone()).unwrap();
    server.put(&format!("{MAPS}/{PUBLISHED}"), &map(&format!("{root}{anchor}")));
    waits().await;
    server.put(&format!("{SECRETS}/{ISSUER}"), &secret);
    assert!(attempt(&client, DOMAIN, LIFE).await.is_ok(), "whoever made it has made it again");
}

fn made_root() -> Secret {
    let (mut root, anchor) = foreign();
    root.data.as_mut().unwrap().insert("tls.crt".to_owned(), ByteString(anchor.into_bytes()));
    root
}

#[tokio::test]
async fn extra_anchors_that_cannot_be_read_do_not_keep_control_from_starting() {
    let (server, client) = Server::start().await;
    let (secret, anchor) = foreign();
    let (_, other) = foreign();
    server.put(&format!("{SECRETS}/{ISSUER}"), &secret);
    server.put(&format!("{MAPS}/{EXTRA}"), &map("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"));
    let (alone, parts) = attempt(&client, DOMAIN, LIFE).await.unwrap();
    assert_eq!(alone.current().anchors.len(), 1);
    assert!(parts.material().and_then(|material| alone.replace(material)).is_err(), "it is said when it is watched");
    server.put(&format!("{MAPS}/{PUBLISHED}"), &map(&format!("{anchor}{other}")));
    let (beside, _) = attempt(&client, DOMAIN, LIFE).await.unwrap();
    assert_eq!(beside.current().anchors.len(), 2, "what nodes trust stays");
}

#[tokio::test]
async fn a_bundle_that_somebody_deleted_is_published_again() {
    let (server, client) = Server::start().await;
    let path = format!("{MAPS}/{PUBLISHED}");
    let mut published = Published { maps: Api::namespaced(client, NAMESPACE), written: None };
    let begin = Instant::now();
    let mut update = async |bundle: &str, after: Duration| {
        published.update(bundle.to_owned(), begin + after).await.unwrap();
        server.asked("PATCH")
    };
    assert_eq!(update("a", Duration::ZERO).await, 1);
    assert_eq!(update("b", Duration::ZERO).await, 2);
    server.remove(&path);
    assert_eq!(update("b", limits::RESTORED_WITHIN / 2).await, 2);
    assert_eq!(update("b", limits::RESTORED_WITHIN).await, 3);
    assert_eq!(server.get(&path).unwrap()["data"][BUNDLE], "b");
}
