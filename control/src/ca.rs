//! The mesh's certificate authority: trust anchors, an issuer, short-lived certificates for workloads.
//!
//! Must never sign a name that the caller did not decide on, and never write a key that others can read.

mod files;
mod issuer;
mod made;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use weir_core::identity::Identity;

use self::files::Paths;
pub(crate) use self::files::certificates;
pub use self::files::write as write_private;
pub use self::{
    issuer::{Issued, Issuer},
    made::{Made, is_ending},
};

/// Where anchors and issuer come from.
#[derive(Clone, Debug, clap::Args)]
pub struct CaArgs {
    /// PEM file of trust anchors; default: self-made in the state directory (`ca.crt`)
    #[arg(long, requires = "issuer_certificate")]
    pub trust_anchors: Option<PathBuf>,
    /// PEM file of the issuer's certificate, then any intermediates up to but without the anchor
    #[arg(long, requires_all = ["trust_anchors", "issuer_key"])]
    pub issuer_certificate: Option<PathBuf>,
    /// PEM file of the issuer's key
    #[arg(long, requires = "issuer_certificate")]
    pub issuer_key: Option<PathBuf>,
    /// Life of workload certificates, hours
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=720))]
    pub certificate_hours: u16,
}

impl CaArgs {
    /// Life of workload certificates.
    pub fn life(&self) -> Duration {
        Duration::from_secs(u64::from(self.certificate_hours) * 3_600)
    }
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content of a file, Secret or ConfigMap.
    #[error("{origin}: {reason}")]
    Content {
        /// Which.
        origin: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A request that is not what was asked for; the caller's fault.
    #[error("certificate request: {0}")]
    Request(String),
    /// Making keys or certificates failed.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Anchors and issuer as they were given, all PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// Trust anchors.
    pub anchors: Vec<u8>,
    /// The issuer's certificate, then any intermediates.
    pub issuer: Vec<u8>,
    /// The issuer's key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Material").finish_non_exhaustive()
    }
}

/// What errors call anchors and issuer.
#[derive(Clone, Debug)]
pub struct Origins {
    /// Where the anchors are.
    pub anchors: String,
    /// Where the issuer's certificate and key are.
    pub issuer: String,
}

/// The authority in use. Its files are looked at again and again; without files, whoever made it replaces its material.
#[derive(Debug)]
pub struct Authority {
    paths: Option<Paths>,
    origins: Origins,
    life: Duration,
    current: RwLock<Arc<Current>>,
}

/// One generation of anchors and issuer.
#[derive(Debug)]
pub struct Current {
    /// DER, in the order of the file.
    pub anchors: Vec<Vec<u8>>,
    /// Signs.
    pub issuer: Issuer,
    given: Material,
}

impl Authority {
    /// Loads the authority, or makes one in `state` when `args` gives no files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn open(args: &CaArgs, state: &std::path::Path, trust_domain: &str) -> Result<Authority, CaError> {
        let paths = Paths::of(args, state);
        if args.trust_anchors.is_none() {
            files::ensure(&paths, trust_domain)?;
        }
        let given = paths.read()?;
        Authority::with(paths.origins(), Some(paths), given, args.life())
    }

    /// An authority from what somebody else keeps and watches.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn given(origins: Origins, given: Material, life: Duration) -> Result<Authority, CaError> {
        Authority::with(origins, None, given, life)
    }

    fn with(origins: Origins, paths: Option<Paths>, given: Material, life: Duration) -> Result<Authority, CaError> {
        let current = RwLock::new(Arc::new(load(&origins, given)?));
        Ok(Authority { paths, origins, life, current })
    }

    /// Life of workload certificates.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// What is in use now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// Reads the files again when they changed. Says whether something new is in use.
    ///
    /// # Errors
    /// The new content cannot be used; the old stays.
    pub fn reload(&self) -> Result<bool, CaError> {
        match &self.paths {
            Some(paths) => self.replace(paths.read()?),
            None => Ok(false),
        }
    }

    /// Takes new material. Says whether it is another one than before.
    ///
    /// # Errors
    /// It cannot be used; the old stays.
    pub fn replace(&self, given: Material) -> Result<bool, CaError> {
        if given == self.current.read().given {
            return Ok(false);
        }
        let new = Arc::new(load(&self.origins, given)?);
        *self.current.write() = new;
        Ok(true)
    }

    /// Signs a workload's request.
    ///
    /// # Errors
    /// [`CaError::Request`] when it does not ask for exactly `identity`.
    pub fn certify(&self, identity: &Identity, request: &[u8]) -> Result<Issued, CaError> {
        self.current().issuer.certify(identity, request, self.life)
    }

    /// A key and certificate for control itself.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn own(&self, identity: &Identity) -> Result<(Issued, Vec<u8>), CaError> {
        self.current().issuer.own(identity, self.life)
    }
}

/// DER as PEM.
pub fn pem(label: &str, all: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in all {
        let encoded = STANDARD.encode(der);
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}

/// Now, Unix seconds.
pub fn unix_now() -> i64 {
    issuer::unix(std::time::SystemTime::now())
}

fn load(origins: &Origins, given: Material) -> Result<Current, CaError> {
    let anchors = certificates(&origins.anchors, &given.anchors)?;
    let chain = certificates(&origins.issuer, &given.issuer)?;
    let issuer = Issuer::new(chain, &given.key, &anchors)
        .map_err(|reason| CaError::Content { origin: origins.issuer.clone(), reason })?;
    // A bundle that is the union of two may name one twice.
    let mut unique: Vec<Vec<u8>> = Vec::with_capacity(anchors.len());
    for anchor in anchors {
        if !unique.iter().any(|known| known[..] == anchor[..]) {
            unique.push(anchor.to_vec());
        }
    }
    Ok(Current { anchors: unique, issuer, given })
}
