//! The authority's files. Must never replace a file that somebody else gave, nor leave half of one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaArgs, CaError, Made, Material, Origins};
use crate::limits;

/// Where the files are.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) anchors: PathBuf,
    pub(super) issuer: PathBuf,
    pub(super) key: PathBuf,
    anchor_key: PathBuf,
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

    /// What errors call them.
    pub(super) fn origins(&self) -> Origins {
        Origins { anchors: self.anchors.display().to_string(), issuer: self.issuer.display().to_string() }
    }

    pub(super) fn read(&self) -> Result<Material, CaError> {
        Ok(Material { anchors: bounded(&self.anchors)?, issuer: bounded(&self.issuer)?, key: bounded(&self.key)? })
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

/// All certificates of a PEM text, at least one.
pub(crate) fn certificates(origin: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let wrong = |reason: String| CaError::Content { origin: origin.to_owned(), reason };
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
        let anchor = Made::anchor(trust_domain)?;
        write(&paths.anchor_key, anchor.key.as_bytes())?;
        write(&paths.anchors, anchor.certificate.as_bytes())?;
    }
    if !paths.issuer.exists() || !paths.key.exists() || is_ending(&paths.issuer)? {
        let anchor = Made { certificate: text(&paths.anchors)?, key: text(&paths.anchor_key)? };
        let issuer = anchor.issuer(&paths.anchors.display().to_string(), trust_domain)?;
        write(&paths.key, issuer.key.as_bytes())?;
        write(&paths.issuer, issuer.certificate.as_bytes())?;
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, CaError> {
    Ok(String::from_utf8_lossy(&bounded(path)?).into_owned())
}

fn is_ending(path: &Path) -> Result<bool, CaError> {
    super::made::is_ending(&path.display().to_string(), &bounded(path)?)
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
