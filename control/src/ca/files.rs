//! The authority's files. Must never replace a file that somebody else gave, nor leave half of one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaArgs, CaError};
use crate::limits;

/// Where the files are.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) anchors: PathBuf,
    pub(super) issuer: PathBuf,
    pub(super) key: PathBuf,
    anchor_key: PathBuf,
}

/// Their content.
#[derive(PartialEq, Eq)]
pub(super) struct Given {
    pub(super) anchors: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Given").finish_non_exhaustive()
    }
}

impl Paths {
    pub(super) fn of(args: &CaArgs, state: &Path) -> Paths {
        let or = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| state.join(name));
        Paths {
            anchors: or(&args.trust_anchors, "ca.crt"),
            issuer: or(&args.issuer_certificate, "issuer.crt"),
            key: or(&args.issuer_key, "issuer.key"),
            anchor_key: state.join("ca.key"),
        }
    }

    pub(super) fn read(&self) -> Result<Given, CaError> {
        Ok(Given { anchors: bounded(&self.anchors)?, issuer: bounded(&self.issuer)?, key: bounded(&self.key)? })
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, CaError> {
    let failed = |source| CaError::File { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > limits::PEM_BYTES {
        return Err(failed(io::Error::other(format!("{length} bytes; at most {} are read", limits::PEM_BYTES))));
    }
    fs::read(path).map_err(failed)
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let wrong = |reason: String| CaError::Content { path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| wrong(format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    for der in &found {
        X509Certificate::from_der(der)
            .map_err(|error| wrong(format!("holds something that is no certificate: {error}")))?;
    }
    Ok(found)
}

/// Makes what is missing of a self-made authority, and a new issuer when the old one is about to end.
pub(super) fn ensure(paths: &Paths, trust_domain: &str) -> Result<(), CaError> {
    if !paths.anchors.exists() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority(&format!("root.linkerd.{trust_domain}"), limits::ANCHOR_LIFETIME, 1);
        let anchor = params.self_signed(&key)?;
        write(&paths.anchor_key, key.serialize_pem().as_bytes())?;
        write(&paths.anchors, anchor.pem().as_bytes())?;
    }
    if !paths.issuer.exists() || !paths.key.exists() || is_ending(&paths.issuer)? {
        let (key, issuer) = issuer(paths, trust_domain)?;
        write(&paths.key, key.serialize_pem().as_bytes())?;
        write(&paths.issuer, issuer.pem().as_bytes())?;
    }
    Ok(())
}

fn issuer(paths: &Paths, trust_domain: &str) -> Result<(KeyPair, Certificate), CaError> {
    let wrong = |path: &Path, reason: String| CaError::Content { path: path.to_owned(), reason };
    let anchor_key = String::from_utf8_lossy(&bounded(&paths.anchor_key)?).into_owned();
    let anchor_key =
        KeyPair::from_pem(&anchor_key).map_err(|error| wrong(&paths.anchor_key, format!("not a key: {error}")))?;
    let anchors = certificates(&paths.anchors, &bounded(&paths.anchors)?)?;
    let anchor = rcgen::Issuer::from_ca_cert_der(&anchors[0], anchor_key)
        .map_err(|error| wrong(&paths.anchors, format!("not an authority's certificate: {error}")))?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = authority(&format!("identity.linkerd.{trust_domain}"), limits::ISSUER_LIFETIME, 0);
    let certificate = params.signed_by(&key, &anchor)?;
    Ok((key, certificate))
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

fn is_ending(path: &Path) -> Result<bool, CaError> {
    let certificates = certificates(path, &bounded(path)?)?;
    let soon = super::issuer::unix(SystemTime::now() + limits::ISSUER_RENEWAL);
    Ok(X509Certificate::from_der(&certificates[0])
        .is_ok_and(|(_, parsed)| parsed.validity().not_after.timestamp() < soon))
}

/// Writes a file whole, readable by the owner alone.
///
/// # Errors
/// [`CaError::File`]; what was there before stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), CaError> {
    let failed = |source| CaError::File { path: path.to_owned(), source };
    let aside = path.with_extension("new");
    // What a crash left: its mode may be another.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _free => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)
}
