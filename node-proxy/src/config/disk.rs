//! The last good configuration on disk, for a restart of the node. Must never hold a key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use prost::Message as _;
use weir_api::v1;

use super::{ConfigError, Store};
use crate::{limits, vault::frame};

/// The state folder.
pub(super) struct Disk {
    file: PathBuf,
}

impl Disk {
    pub(super) fn open(folder: &Path) -> Result<Disk, ConfigError> {
        fs::create_dir_all(folder).map_err(|source| ConfigError::StateDir { path: folder.to_owned(), source })?;
        Ok(Disk { file: folder.join("state.bin") })
    }

    /// What was written last; nothing if that cannot be used.
    pub(super) fn load(&self) -> Vec<v1::Resource> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, file = %self.file.display(), "remembered state cannot be read; starting without it");
                return Vec::new();
            }
        };
        let update = frame::open(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|body| v1::Update::decode(body).map_err(|error| error.to_string()));
        match update {
            Ok(update) => update.upserts,
            Err(error) => {
                tracing::warn!(error, file = %self.file.display(), "remembered state is damaged; starting without it");
                Vec::new()
            }
        }
    }

    /// Writes what changed, some time after it did.
    pub(super) async fn follow(self, store: Store) {
        let mut changes = store.subscribe();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(limits::STATE_PAUSE).await;
            changes.mark_unchanged();
            let update = v1::Update { upserts: store.remembered(), ..Default::default() };
            let file = self.file.clone();
            let written =
                tokio::task::spawn_blocking(move || write(&file, &frame::seal(&update.encode_to_vec()))).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, file = %self.file.display(), "state could not be written; a restart of the node begins without it");
            }
        }
    }
}

/// Whole or not at all: a power failure leaves the file of before.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = file.with_extension("new");
    let mut handle = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    fs::rename(&aside, file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
