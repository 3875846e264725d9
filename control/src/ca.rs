//! The mesh's certificate authority: trust anchors, an issuer, short-lived certificates for workloads.
//!
//! Must never sign a name that the caller did not decide on, and never write a key that others can read.

mod files;
mod issuer;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::RwLock;
use weir_core::identity::Identity;

pub use self::files::write as write_private;
use self::files::{Given, Paths};
pub use self::issuer::{Issued, Issuer};

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
    /// A file's content.
    #[error("{path}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
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

/// The authority in use; its files are looked at again and again.
#[derive(Debug)]
pub struct Authority {
    paths: Paths,
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
    given: Given,
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
        let current = RwLock::new(Arc::new(load(&paths)?));
        Ok(Authority { paths, life: Duration::from_secs(u64::from(args.certificate_hours) * 3_600), current })
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
        let given = self.paths.read()?;
        if given == self.current.read().given {
            return Ok(false);
        }
        let new = Arc::new(load(&self.paths)?);
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

/// Now, Unix seconds.
pub fn unix_now() -> i64 {
    issuer::unix(std::time::SystemTime::now())
}

fn load(paths: &Paths) -> Result<Current, CaError> {
    let given = paths.read()?;
    let anchors = files::certificates(&paths.anchors, &given.anchors)?;
    let chain = files::certificates(&paths.issuer, &given.issuer)?;
    let issuer = Issuer::new(chain, &given.key, &anchors)
        .map_err(|reason| CaError::Content { path: paths.issuer.clone(), reason })?;
    let anchors = anchors.into_iter().map(|der| der.to_vec()).collect();
    Ok(Current { anchors, issuer, given })
}
