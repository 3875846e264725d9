//! One key with its certificate, and the TLS configurations made from it.
//!
//! Must never be made from a certificate that does not fit the key, the identity and the anchors.

use std::{sync::Arc, time::SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use weir_core::{identity::Identity, transport_header};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{limits, vault::KeyRecord};

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making a key or request failed.
    #[error("key or certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// Control's answer cannot be used.
    #[error("the certificate that control sent is refused: {0}")]
    Answer(String),
    /// rustls does not take it.
    #[error("the certificate that control sent is refused: {0}")]
    Tls(#[from] rustls::Error),
    /// No anchors yet.
    #[error("no usable trust anchor from control: {0}")]
    Anchors(String),
    /// The kept name is no identity.
    #[error(transparent)]
    Identity(#[from] weir_core::identity::InvalidIdentity),
    /// Control refused or was away.
    #[error("control did not sign: {0}")]
    Refused(String),
}

/// aws-lc-rs with the post-quantum hybrid first. Passed explicitly: no process-wide choice.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    // AES-128 first: no weaker than the P-256 keys beside it, and a quarter cheaper per byte than AES-256.
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// A key that waits for its certificate.
pub(super) struct Request {
    key: KeyPair,
    /// PKCS#10, DER.
    pub(super) der: Vec<u8>,
}

impl Request {
    pub(super) fn new(identity: &Identity) -> Result<Request, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![identity.as_str().to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names.push(SanType::URI(identity.spiffe_uri().try_into()?));
        let der = params.serialize_request(&key)?.der().to_vec();
        Ok(Request { key, der })
    }

    pub(super) fn certified(
        self,
        identity: &Identity,
        chain: Vec<Vec<u8>>,
        anchors: &[Vec<u8>],
    ) -> Result<Certified, CertificateError> {
        Certified::new(identity, self.key.serialize_der(), chain, anchors)
    }
}

/// A key with its certificate.
pub(super) struct Certified {
    key: PrivatePkcs8KeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    /// Unix seconds.
    pub(super) not_before: i64,
    /// Unix seconds.
    pub(super) not_after: i64,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Certified {
    pub(super) fn new(
        identity: &Identity,
        key: Vec<u8>,
        chain: Vec<Vec<u8>>,
        anchors: &[Vec<u8>],
    ) -> Result<Certified, CertificateError> {
        let refuse = |reason: String| CertificateError::Answer(reason);
        if chain.is_empty() || chain.len() > limits::CHAIN {
            return Err(refuse(format!("{} certificates in the chain", chain.len())));
        }
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let pair = KeyPair::try_from(key.as_slice())?;
        let (_rest, leaf) =
            X509Certificate::from_der(&chain[0]).map_err(|error| refuse(format!("not a certificate: {error}")))?;
        if leaf.public_key().raw != pair.subject_public_key_info() {
            return Err(refuse("it is for another key".into()));
        }
        if super::peer::identity(&chain[0]).as_ref() != Some(identity) {
            return Err(refuse(format!("its names are not {identity}")));
        }
        let (not_before, not_after) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let key = PrivatePkcs8KeyDer::from(key);
        let roots = roots(anchors)?;
        verify(identity, &chain, Arc::clone(&roots))?;
        let client = Arc::new(client(&chain, &key, Arc::clone(&roots))?);
        let server = Arc::new(server(&chain, &key, roots)?);
        Ok(Certified { key, chain, not_before, not_after, client, server })
    }

    pub(super) fn from_record(
        record: &KeyRecord,
        anchors: &[Vec<u8>],
    ) -> Result<(Identity, Certified), CertificateError> {
        let identity: Identity = record.identity.parse()?;
        let certified = Certified::new(&identity, record.key.clone(), record.chain.clone(), anchors)?;
        Ok((identity, certified))
    }

    /// The same key and certificate with other anchors.
    pub(super) fn with_anchors(&self, identity: &Identity, anchors: &[Vec<u8>]) -> Result<Certified, CertificateError> {
        Certified::new(identity, self.key.secret_pkcs8_der().to_vec(), self.chain(), anchors)
    }

    /// Whether it is as this issuer, DER, signs now: sent along after the leaf, or an anchor itself, which is not sent.
    pub(super) fn is_signed_by(&self, identity: &Identity, issuer: &[u8]) -> bool {
        match self.chain.as_slice() {
            [_leaf, sent, ..] => sent[..] == *issuer,
            alone => roots(&[issuer.to_vec()]).and_then(|roots| verify(identity, alone, roots)).is_ok(),
        }
    }

    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|certificate| certificate.to_vec()).collect()
    }

    pub(super) fn record(&self, identity: &Identity) -> KeyRecord {
        KeyRecord {
            identity: identity.as_str().to_owned(),
            key: self.key.secret_pkcs8_der().to_vec(),
            chain: self.chain(),
        }
    }

    /// Seconds from now until it should be renewed: part of its life, with jitter; not negative.
    pub(super) fn renew_in(&self, now: i64, jitter: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a certificate's life are far below 2^52")]
        let life = (self.not_after - self.not_before).max(0) as f64;
        let part = limits::RENEW_AT + limits::RENEW_JITTER * (jitter * 2.0 - 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "a part of the life above")]
        let at = self.not_before + (life * part).round() as i64;
        u64::try_from(at - now).unwrap_or(0)
    }
}

/// Now, Unix seconds.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn roots(anchors: &[Vec<u8>]) -> Result<Arc<RootCertStore>, CertificateError> {
    let mut roots = RootCertStore::empty();
    let (taken, refused) =
        roots.add_parsable_certificates(anchors.iter().map(|der| CertificateDer::from(der.as_slice())));
    if taken == 0 {
        return Err(CertificateError::Anchors(format!("{refused} of {} do not parse", anchors.len())));
    }
    Ok(Arc::new(roots))
}

fn verify(
    identity: &Identity,
    chain: &[CertificateDer<'static>],
    roots: Arc<RootCertStore>,
) -> Result<(), CertificateError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| CertificateError::Anchors(error.to_string()))?;
    let name = ServerName::try_from(identity.as_str())
        .map_err(|error| CertificateError::Answer(format!("{identity}: {error}")))?;
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())?;
    Ok(())
}

fn client(
    chain: &[CertificateDer<'static>],
    key: &PrivatePkcs8KeyDer<'static>,
    roots: Arc<RootCertStore>,
) -> Result<ClientConfig, CertificateError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), PrivateKeyDer::Pkcs8(key.clone_key()))?;
    config.alpn_protocols = vec![transport_header::ALPN.to_vec()];
    // A resumed session would outlive a change of anchors and skip the certificate.
    config.resumption = rustls::client::Resumption::disabled();
    // For the record layer in `tls`.
    config.enable_secret_extraction = true;
    Ok(config)
}

fn server(
    chain: &[CertificateDer<'static>],
    key: &PrivatePkcs8KeyDer<'static>,
    roots: Arc<RootCertStore>,
) -> Result<ServerConfig, CertificateError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| CertificateError::Anchors(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), PrivateKeyDer::Pkcs8(key.clone_key()))?;
    config.alpn_protocols = vec![transport_header::ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}
