//! Tokens in files: one for each node, one for people's programs. Must never compare one byte by byte.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tonic::Status;

use super::{Digest, digest};
use crate::limits;

/// Files, looked at again and again.
#[derive(Debug)]
pub struct Files {
    nodes: PathBuf,
    api: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    read: Instant,
    // By digest: looking one up tells nothing about the others.
    nodes: HashMap<Digest, Arc<str>>,
    api: Option<Digest>,
}

impl Files {
    /// `nodes`: a folder with one file for each node, named as the node. `api`: a file.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn open(nodes: PathBuf, api: PathBuf) -> io::Result<Files> {
        let known = read(&nodes, &api)?;
        Ok(Files { nodes, api, known: Mutex::new(known) })
    }

    /// The node that a call comes from.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check.
    pub fn node(&self, token: &str) -> Result<Arc<str>, Status> {
        let token = digest(token);
        let known = self.fresh(|known| known.nodes.contains_key(&token));
        let found = known.nodes.get(&token).map(Arc::clone);
        found.ok_or_else(|| {
            Status::unauthenticated(
                "no node has this token; compare the node's --token-file with control's --node-tokens",
            )
        })
    }

    /// Lets people's programs in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check.
    pub fn api(&self, token: &str) -> Result<(), Status> {
        let token = digest(token);
        let known = self.fresh(|known| known.api == Some(token));
        if known.api == Some(token) {
            return Ok(());
        }
        Err(Status::unauthenticated("this is not the API token; compare --token-file with control's --api-token"))
    }

    /// A token that is not known is looked for on disk, but not more often than every few seconds.
    fn fresh(&self, knows: impl Fn(&Known) -> bool) -> parking_lot::MutexGuard<'_, Known> {
        let mut known = self.known.lock();
        let old = known.read.elapsed() > limits::TOKEN_RESCAN;
        if old || (!knows(&known) && known.read.elapsed() > limits::TOKEN_RESCAN / 4) {
            match read(&self.nodes, &self.api) {
                Ok(read) => *known = read,
                Err(error) => {
                    known.read = Instant::now();
                    tracing::warn!(%error, "tokens cannot be read; the known ones stay");
                }
            }
        }
        known
    }
}

fn read(nodes: &Path, api: &Path) -> io::Result<Known> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut found = HashMap::new();
    for entry in fs::read_dir(nodes).map_err(|error| named(nodes, error))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        match token(&entry.path()) {
            Ok(token) => {
                if let Some(other) = found.insert(digest(&token), Arc::from(name)) {
                    tracing::warn!(node = name, %other, "two nodes have one token");
                }
            }
            Err(error) => tracing::warn!(node = name, %error, "the token of a node cannot be used"),
        }
    }
    let api = token(api).map_err(|error| named(api, error))?;
    Ok(Known { read: Instant::now(), nodes: found, api: Some(digest(&api)) })
}

fn token(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > limits::TOKEN_BYTES {
        return Err(io::Error::other("larger than any token"));
    }
    let token = fs::read_to_string(path)?.trim().to_owned();
    if token.len() < limits::TOKEN_LEAST {
        return Err(io::Error::other(format!("a token needs at least {} characters", limits::TOKEN_LEAST)));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_opens_its_own_door_only() {
        let folder = tempfile::tempdir().unwrap();
        let (nodes, api) = (folder.path().join("nodes"), folder.path().join("api"));
        fs::create_dir(&nodes).unwrap();
        fs::write(nodes.join("a"), "0123456789abcdef-a\n").unwrap();
        fs::write(nodes.join("b"), "0123456789abcdef-b").unwrap();
        fs::write(nodes.join("weak"), "").unwrap();
        fs::write(&api, "0123456789abcdef-api").unwrap();
        let tokens = Files::open(nodes, api).unwrap();
        assert_eq!(&*tokens.node("0123456789abcdef-b").unwrap(), "b");
        assert!(tokens.node("0123456789abcdef-api").is_err());
        assert!(tokens.node("").is_err());
        assert!(tokens.api("0123456789abcdef-a").is_err());
        assert!(tokens.api("0123456789abcdef-api").is_ok());
        assert!(tokens.api("").is_err());
    }
}
