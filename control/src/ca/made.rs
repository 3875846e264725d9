//! A self-made authority: an anchor, and issuers below it. Must never keep a key anywhere but in what it returns.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, files, issuer};
use crate::limits;

/// A certificate and its key, PEM.
pub struct Made {
    /// One certificate.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

impl Made {
    /// A new trust anchor.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn anchor(trust_domain: &str) -> Result<Made, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority(&format!("root.linkerd.{trust_domain}"), limits::ANCHOR_LIFETIME, 1);
        Ok(Made { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// A new issuer below this anchor, which errors call `origin`.
    ///
    /// # Errors
    /// The anchor or its key cannot be used.
    pub fn issuer(&self, origin: &str, trust_domain: &str) -> Result<Made, CaError> {
        let wrong = |reason: String| CaError::Content { origin: origin.to_owned(), reason };
        let anchor_key =
            KeyPair::from_pem(&self.key).map_err(|error| wrong(format!("its key cannot be used: {error}")))?;
        let anchors = files::certificates(origin, self.certificate.as_bytes())?;
        let anchor = rcgen::Issuer::from_ca_cert_der(&anchors[0], anchor_key)
            .map_err(|error| wrong(format!("not an authority's certificate: {error}")))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority(&format!("identity.linkerd.{trust_domain}"), limits::ISSUER_LIFETIME, 0);
        Ok(Made { certificate: params.signed_by(&key, &anchor)?.pem(), key: key.serialize_pem() })
    }
}

fn authority(name: &str, life: Duration, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - limits::CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    params
}

/// Whether a self-made issuer has to be replaced soon.
///
/// # Errors
/// It is no certificate.
pub fn is_ending(origin: &str, pem: &[u8]) -> Result<bool, CaError> {
    let certificates = files::certificates(origin, pem)?;
    let soon = issuer::unix(SystemTime::now() + limits::ISSUER_RENEWAL);
    Ok(X509Certificate::from_der(&certificates[0])
        .is_ok_and(|(_, parsed)| parsed.validity().not_after.timestamp() < soon))
}
