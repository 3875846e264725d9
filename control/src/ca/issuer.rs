//! Signs. Must never take anything but the public key from a request.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::{RootCertStore, client::WebPkiServerVerifier, client::danger::ServerCertVerifier as _, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, UnixTime};
use weir_core::identity::Identity;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::CaError;
use crate::limits;

/// The issuer's key and certificates.
pub struct Issuer {
    signer: rcgen::Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    not_after: i64,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issuer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER, leaf first, up to but without the anchor.
    pub chain: Vec<Vec<u8>>,
    /// Unix seconds.
    pub not_after: i64,
}

impl Issuer {
    /// Puts certificate and key together.
    ///
    /// # Errors
    /// They do not fit each other or the anchors; in words.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &[u8],
        anchors: &[CertificateDer<'static>],
    ) -> Result<Issuer, String> {
        let text = std::str::from_utf8(key).map_err(|_bytes| "the issuer's key is not PEM".to_owned())?;
        let key = KeyPair::from_pem(text).map_err(|error| format!("the issuer's key cannot be used: {error}"))?;
        let first = chain.first().ok_or("no issuer certificate")?;
        let (_rest, parsed) = X509Certificate::from_der(first).map_err(|error| error.to_string())?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the issuer's certificate is for another key".to_owned());
        }
        let not_after = parsed.validity().not_after.timestamp();
        // An issuer that is its own anchor is not sent along.
        let certificate = first.clone();
        let chain: Vec<_> = chain.iter().filter(|der| !anchors.contains(der)).cloned().collect();
        let signer = rcgen::Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| format!("not an issuer's certificate: {error}"))?;
        let issuer = Issuer { signer, certificate, chain, not_after };
        issuer.try_out(anchors)?;
        Ok(issuer)
    }

    /// Signs something and verifies it as a node would: a wrong anchor must be found here, not on a thousand nodes.
    fn try_out(&self, anchors: &[CertificateDer<'static>]) -> Result<(), String> {
        let identity = Identity::of("weir", "try-out", "cluster.local").map_err(|error| error.to_string())?;
        let (issued, _key) = self.own(&identity, Duration::from_secs(60)).map_err(|error| error.to_string())?;
        verify(&issued.chain, identity.as_str(), anchors)
            .map_err(|error| format!("what the issuer signs does not verify against the trust anchors: {error}"))
    }

    /// DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Whether a chain, leaf first, is as this issuer signs it now.
    pub fn has_signed(&self, chain: &[Vec<u8>], identity: &str) -> bool {
        // An issuer that is an anchor itself is not sent along: its key says it.
        let is_sent = self.chain.first() == Some(&self.certificate);
        match chain {
            [_leaf, issuer, ..] => is_sent && issuer[..] == self.certificate[..],
            alone => !is_sent && verify(alone, identity, std::slice::from_ref(&self.certificate)).is_ok(),
        }
    }

    /// Expiry of the issuer itself, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    pub(super) fn certify(&self, identity: &Identity, request: &[u8], life: Duration) -> Result<Issued, CaError> {
        if request.len() > limits::CSR_BYTES {
            return Err(CaError::Request(format!("{} bytes; at most {} are read", request.len(), limits::CSR_BYTES)));
        }
        // Parsing verifies that the asker holds the key.
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| CaError::Request(error.to_string()))?;
        let asked = request.params.subject_alt_names.iter().filter_map(|name| match name {
            SanType::DnsName(name) => Some(name.as_str()),
            _other => None,
        });
        if asked.clone().count() != 1 || asked.clone().any(|name| name != identity.as_str()) {
            return Err(CaError::Request(format!("its DNS name is not {identity}")));
        }
        self.sign(identity, &request.public_key, life)
    }

    pub(super) fn own(&self, identity: &Identity, life: Duration) -> Result<(Issued, Vec<u8>), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok((self.sign(identity, &key, life)?, key.serialize_der()))
    }

    fn sign(&self, identity: &Identity, key: &impl PublicKeyData, life: Duration) -> Result<Issued, CaError> {
        let mut params = CertificateParams::new(vec![identity.as_str().to_owned()])?;
        params.subject_alt_names.push(SanType::URI(identity.spiffe_uri().try_into()?));
        params.distinguished_name = DistinguishedName::new();
        // A common name holds 64 characters at most (RFC 5280, ub-common-name); the names that count are the alternatives.
        if identity.as_str().len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, identity.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        // A leaf that outlives its issuer would be refused after that, without a word.
        let not_after = unix(now + life).min(self.not_after);
        params.not_before = (now - limits::CLOCK_SKEW).into();
        params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after).unwrap_or(0))).into();
        let leaf = params.signed_by(key, &self.signer)?;
        let mut chain = vec![leaf.der().to_vec()];
        chain.extend(self.chain.iter().map(|der| der.to_vec()));
        Ok(Issued { chain, not_after })
    }
}

/// Unix seconds.
pub(crate) fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// As a node would.
fn verify(chain: &[Vec<u8>], identity: &str, anchors: &[CertificateDer<'static>]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.iter().cloned());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), aws_lc_rs::default_provider().into())
        .build()
        .map_err(|error| format!("the trust anchors cannot be used: {error}"))?;
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, intermediates) = chain.split_first().ok_or("no certificate")?;
    let name = ServerName::try_from(identity).map_err(|error| error.to_string())?;
    let verified = verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now());
    verified.map(drop).map_err(|error| error.to_string())
}
