//! Keys, certificates and the last good state in a memfd, so that a restarted worker serves without control.
//!
//! Must never be written to a disk, and never be trusted unchecked: whoever hands it back may be another version.

pub mod frame;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::OwnedFd,
};

use prost::Message as _;
use rustix::fs::{MemfdFlags, SealFlags};
use weir_api::v1;

use self::frame::FrameError;
use crate::limits;

/// One identity's key and certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyRecord {
    /// Whose.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// PKCS#8, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// DER, leaf first.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub chain: Vec<Vec<u8>>,
}

/// What the vault holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VaultContents {
    /// Control's resources.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<v1::Resource>,
    /// Keys with their certificates.
    #[prost(message, repeated, tag = "2")]
    pub keys: Vec<KeyRecord>,
}

/// Why a vault cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The kernel refused.
    #[error("vault: {0}")]
    Io(#[from] io::Error),
    /// Not ours, or damaged.
    #[error("vault: {0}")]
    Frame(#[from] FrameError),
    /// Not the message.
    #[error("vault: {0}")]
    Contents(#[from] prost::DecodeError),
}

/// Makes and reads vaults.
pub struct Vault;

impl Vault {
    /// A sealed memfd with `contents`.
    ///
    /// # Errors
    /// The kernel refused a memfd.
    pub fn seal(contents: &VaultContents) -> Result<OwnedFd, VaultError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
        let memfd = rustix::fs::memfd_create("weir-vault", flags).map_err(io::Error::from)?;
        let mut file = File::from(memfd);
        file.write_all(&frame::seal(&contents.encode_to_vec()))?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
        Ok(file.into())
    }

    /// What a vault holds.
    ///
    /// # Errors
    /// Not a vault, or damaged; the worker then starts without it.
    pub fn open(memfd: OwnedFd) -> Result<VaultContents, VaultError> {
        let mut file = File::from(memfd);
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(limits::VAULT_BYTES).read_to_end(&mut bytes)?;
        Ok(VaultContents::decode(frame::open(&bytes)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_nothing_can_be_changed_inside() {
        let key = KeyRecord { identity: "a".into(), key: vec![1, 2], chain: vec![vec![3]] };
        let contents = VaultContents { resources: vec![v1::Resource::default()], keys: vec![key] };
        let memfd = Vault::seal(&contents).unwrap();
        let mut file = File::from(memfd.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err(), "sealed");
        assert_eq!(Vault::open(memfd).unwrap(), contents);
    }

    #[test]
    fn something_else_is_no_vault() {
        let memfd = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(memfd);
        file.write_all(b"not a vault at all, whatever its length may be").unwrap();
        assert!(matches!(Vault::open(file.into()), Err(VaultError::Frame(_))));
    }
}
