//! From a Secret and a ConfigMap to the authority's material. Must never let one part stand for a missing other one.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{BUNDLE, NAMESPACE};
use crate::{
    ca::{CaError, Material, Origins},
    limits,
};

/// The issuer, in the layout of kubernetes.io/tls with the anchors beside it.
pub(super) const ISSUER: &str = "weir-identity-issuer";
/// Anchors that people add, for the time in which two are in use.
pub(super) const EXTRA: &str = "weir-trust-anchors-extra";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";

/// What was seen last of each.
#[derive(Default)]
pub(super) struct Parts {
    anchors: Option<Vec<u8>>,
    issuer: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    extra: Vec<u8>,
    is_gone: bool,
}

/// What errors call them.
pub(super) fn origins() -> Origins {
    Origins {
        anchors: format!("Secret {NAMESPACE}/{ISSUER} {BUNDLE}, ConfigMap {NAMESPACE}/{EXTRA}"),
        issuer: format!("Secret {NAMESPACE}/{ISSUER}"),
    }
}

/// The anchors in a ConfigMap.
pub(super) fn bundle(map: &ConfigMap) -> Vec<u8> {
    map.data.as_ref().and_then(|data| data.get(BUNDLE)).map(|text| text.clone().into_bytes()).unwrap_or_default()
}

impl Parts {
    /// Takes the Secret's content, whatever it is. Of one that is gone, what it held stays.
    pub(super) fn set_issuer(&mut self, secret: Option<&Secret>) {
        self.is_gone = secret.is_none();
        let Some(secret) = secret else { return };
        let value = |key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.clone());
        self.anchors = value(BUNDLE);
        self.issuer = value(CERTIFICATE);
        self.key = value(KEY);
    }

    /// Takes the ConfigMap's content, or that there is none.
    pub(super) fn set_extra(&mut self, map: Option<&ConfigMap>) {
        self.extra = map.map(bundle).unwrap_or_default();
    }

    /// Anchors that people add.
    pub(super) fn extra(&self) -> &[u8] {
        &self.extra
    }

    /// What should be there and is not.
    pub(super) fn missing(&self) -> Option<String> {
        self.is_gone
            .then(|| format!("Secret {NAMESPACE}/{ISSUER} is gone; what it held stays in use until control restarts"))
    }

    /// All together.
    ///
    /// # Errors
    /// A key of the Secret is missing, or too large to be what it should be.
    pub(super) fn material(&self) -> Result<Material, CaError> {
        self.material_with(&self.extra)
    }

    /// With these anchors instead of those that people add.
    ///
    /// # Errors
    /// As of `material`.
    pub(super) fn material_with(&self, extra: &[u8]) -> Result<Material, CaError> {
        let origin = || format!("Secret {NAMESPACE}/{ISSUER}");
        let needed = |part: &Option<Vec<u8>>, key: &str| {
            let found = part.clone().filter(|value| !value.is_empty());
            found.ok_or_else(|| CaError::Content { origin: origin(), reason: format!("key {key} is missing or empty") })
        };
        let (issuer, key) = (needed(&self.issuer, CERTIFICATE)?, needed(&self.key, KEY)?);
        // An external issuer may keep its anchors elsewhere: then people add them.
        let mut anchors = match &self.anchors {
            Some(anchors) => anchors.clone(),
            None if extra.is_empty() => needed(&self.anchors, BUNDLE)?,
            None => Vec::new(),
        };
        anchors.push(b'\n');
        anchors.extend_from_slice(extra);
        let length = anchors.len().max(issuer.len()).max(key.len());
        if u64::try_from(length).unwrap_or(u64::MAX) > limits::PEM_BYTES {
            let reason = format!("{length} bytes; at most {} are read", limits::PEM_BYTES);
            return Err(CaError::Content { origin: origin(), reason });
        }
        Ok(Material { anchors, issuer, key })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use k8s_openapi::ByteString;

    use super::*;
    use crate::ca::{self, Authority, Made};

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<String, ByteString> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn extra(text: &str) -> ConfigMap {
        ConfigMap { data: Some(BTreeMap::from([(BUNDLE.to_owned(), text.to_owned())])), ..ConfigMap::default() }
    }

    fn made() -> (Made, Made) {
        let anchor = Made::anchor("cluster.local").unwrap();
        let issuer = anchor.issuer("test", "cluster.local").unwrap();
        (anchor, issuer)
    }

    fn full(anchor: &Made, issuer: &Made) -> Secret {
        secret(&[(BUNDLE, &anchor.certificate), (CERTIFICATE, &issuer.certificate), (KEY, &issuer.key)])
    }

    #[test]
    fn the_bundle_is_the_union_and_names_none_twice() {
        let (anchor, issuer) = made();
        let (other, _) = made();
        let mut parts = Parts::default();
        parts.set_issuer(Some(&full(&anchor, &issuer)));
        // Without the line break that most editors would leave at the end.
        parts.set_extra(Some(&extra(format!("{}{}", anchor.certificate, other.certificate).trim_end())));
        let authority = Authority::given(origins(), parts.material().unwrap(), Duration::from_secs(3_600)).unwrap();
        assert_eq!(authority.current().anchors.len(), 2);
        let published = ca::pem("CERTIFICATE", &authority.current().anchors);
        let lines = |text: &str| {
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(&published), lines(&format!("{}{}", anchor.certificate, other.certificate)));
    }

    #[test]
    fn half_a_secret_is_refused_by_name_and_changes_nothing() {
        let (anchor, issuer) = made();
        let mut parts = Parts::default();
        parts.set_issuer(Some(&full(&anchor, &issuer)));
        let authority = Authority::given(origins(), parts.material().unwrap(), Duration::from_secs(3_600)).unwrap();
        let before = authority.current();
        parts.set_issuer(Some(&secret(&[(BUNDLE, &anchor.certificate), (CERTIFICATE, &issuer.certificate)])));
        let error = parts.material().unwrap_err().to_string();
        assert!(error.contains("weir-identity-issuer") && error.contains("tls.key"), "{error}");
        // A new certificate beside the old key, as between two writes.
        let (_, second) = made();
        parts.set_issuer(Some(&secret(&[
            (BUNDLE, &anchor.certificate),
            (CERTIFICATE, &second.certificate),
            (KEY, &issuer.key),
        ])));
        let error = authority.replace(parts.material().unwrap()).unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
        // An issuer of another anchor would cut off every workload.
        let (_, foreign) = made();
        parts.set_issuer(Some(&full(&anchor, &foreign)));
        let error = authority.replace(parts.material().unwrap()).unwrap_err().to_string();
        assert!(error.contains("does not verify"), "{error}");
        assert!(Arc::ptr_eq(&before, &authority.current()));
        parts.set_issuer(Some(&full(&anchor, &anchor.issuer("test", "cluster.local").unwrap())));
        assert!(authority.replace(parts.material().unwrap()).unwrap());
    }

    #[test]
    fn a_secret_that_is_gone_stays_named_whatever_else_changes() {
        let (anchor, issuer) = made();
        let mut parts = Parts::default();
        parts.set_issuer(Some(&full(&anchor, &issuer)));
        assert_eq!(parts.missing(), None);
        parts.set_issuer(None);
        parts.set_extra(Some(&extra(&anchor.certificate)));
        assert!(parts.missing().unwrap().contains("weir-identity-issuer is gone"));
        assert!(parts.material().is_ok(), "what it held stays");
        parts.set_issuer(Some(&full(&anchor, &issuer)));
        assert_eq!(parts.missing(), None);
    }

    use std::sync::Arc;
}
