//! Our place in the node's CNI configuration: the plugin's binary, and its entry at the end of the chain. Must never lose an entry of
//! anybody else's, nor leave half a file where the container runtime reads.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio::{sync::oneshot, task::JoinError};

use super::directory;
use crate::{
    cni::{PLUGIN, PluginConfig},
    limits,
};

/// Bytes compared at once.
const COMPARED: usize = 64 * 1024;

/// Where the container runtime looks.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Directory of plugins' binaries.
    binaries: PathBuf,
    /// Directory of network configurations.
    configurations: PathBuf,
    /// The plugin's binary when it was last seen to be ours.
    copied: Option<Stamp>,
}

/// Tells one content of a file from another without reading it: inode, bytes, and time of the last change of either.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Why we are not in the chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    #[error("{} holds no network configuration yet; the CNI of this cluster writes one", .0.display())]
    None(PathBuf),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> ChainError {
    let path = path.to_owned();
    move |source| ChainError::File { path, source }
}

impl Chain {
    pub(crate) fn new(binaries: PathBuf, configurations: PathBuf) -> Chain {
        Chain { binaries, configurations, copied: None }
    }

    /// Puts binary and entry where they belong, if they are not there. Says whether anything was changed.
    fn join(&mut self, plugin: &PluginConfig) -> Result<bool, ChainError> {
        let binary = self.install_binary()?;
        let path = self.first()?.ok_or_else(|| ChainError::None(self.configurations.clone()))?;
        let entry = serde_json::to_value(plugin)
            .map_err(|error| ChainError::Content { path: path.clone(), reason: error.to_string() })?;
        let list = List::read(&path)?;
        let plugins = list.plugins().ok_or_else(|| ChainError::Content {
            path: path.clone(),
            reason: "is no list of plugins; turn it into a .conflist so that plugins can be chained".to_owned(),
        })?;
        // Ours once, and last: whatever comes before us has made the network by then.
        let joined: Vec<Value> = others(plugins).chain([entry]).collect();
        Ok(list.put(joined)? || binary)
    }

    /// Takes our entry out of every configuration, then the binary away. What fails is passed over, and told at the end.
    pub(crate) fn leave(&self) -> Result<bool, ChainError> {
        let (mut changed, mut failed) = (false, None);
        let mut note = |left: Result<bool, ChainError>| match left {
            Ok(left) => changed |= left,
            Err(error) => {
                failed.get_or_insert(error);
            }
        };
        match self.all() {
            Ok(paths) => paths.iter().for_each(|path| note(leave(path))),
            Err(error) => note(Err(error)),
        }
        let binary = self.binaries.join(PLUGIN);
        note(match fs::remove_file(&binary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true).map_err(file(&binary)),
        });
        failed.map_or(Ok(changed), Err)
    }

    /// Joins now, whenever the configurations change, and now and then, until `stopped`: then nothing is on its way any more.
    pub(super) async fn keep(
        mut self,
        plugin: PluginConfig,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<Chain, JoinError> {
        let plugin = Arc::new(plugin);
        let watcher = directory::watcher(&self.configurations);
        if let Err(error) = &watcher {
            tracing::warn!(directory = %self.configurations.display(), %error, "no news from the network configurations; they are read now and then");
        }
        let mut told = String::new();
        loop {
            let joining = Arc::clone(&plugin);
            // Tens of megabytes to read or to write, and the holder has one thread.
            let joined;
            (self, joined) = tokio::task::spawn_blocking(move || {
                let joined = self.join(&joining);
                (self, joined)
            })
            .await?;
            match joined {
                Ok(true) => tracing::info!(directory = %self.configurations.display(), "chained the CNI plugin"),
                Ok(false) => told.clear(),
                Err(error) if error.to_string() == told => {}
                Err(error) => {
                    told = error.to_string();
                    tracing::error!(%error, "the CNI plugin is not chained: new pods are captured only after they started");
                }
            }
            tokio::select! {
                () = directory::changed_or(watcher.as_ref().ok(), limits::CNI_RECHECK) => {}
                _told = &mut stopped => return Ok(self),
            }
        }
    }

    fn install_binary(&mut self) -> Result<bool, ChainError> {
        let own = Path::new("/proc/self/exe");
        let binary = self.binaries.join(PLUGIN);
        // Before it is read: what is changed while it is would not be seen again.
        let found = stamp(&binary).ok();
        if found.is_some() && found == self.copied {
            return Ok(false);
        }
        if is_copy(own, &binary).map_err(file(own))? {
            self.copied = found;
            return Ok(false);
        }
        fs::create_dir_all(&self.binaries).map_err(file(&self.binaries))?;
        replace(&binary, 0o755, |aside| io::copy(&mut fs::File::open(own)?, aside).map(drop))?;
        Ok(true)
    }

    /// The configuration that is in effect: the first by name, as container runtimes choose it.
    fn first(&self) -> Result<Option<PathBuf>, ChainError> {
        Ok(self.all()?.into_iter().next())
    }

    fn all(&self) -> Result<Vec<PathBuf>, ChainError> {
        let entries = fs::read_dir(&self.configurations).map_err(file(&self.configurations))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .and_then(|end| end.to_str())
                    .is_some_and(|end| matches!(end, "conf" | "conflist" | "json"))
            })
            .collect();
        paths.sort();
        // The first is the one that counts.
        paths.truncate(limits::CNI_CONFIGS);
        Ok(paths)
    }
}

/// A network configuration, as read.
struct List {
    path: PathBuf,
    content: Value,
    mode: u32,
}

impl List {
    fn read(path: &Path) -> Result<List, ChainError> {
        let wrong = |reason: String| ChainError::Content { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(file(path))?;
        if metadata.len() > limits::CNI_CONFIG_BYTES {
            return Err(wrong("larger than any network configuration".to_owned()));
        }
        let text = fs::read(path).map_err(file(path))?;
        let content = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(List { path: path.to_owned(), content, mode: metadata.permissions().mode() & 0o777 })
    }

    /// None for the configuration of a single plugin.
    fn plugins(&self) -> Option<&[Value]> {
        self.content.get("plugins").and_then(Value::as_array).map(Vec::as_slice)
    }

    /// Writes the list with these plugins. False: they are what it has.
    fn put(mut self, plugins: Vec<Value>) -> Result<bool, ChainError> {
        if self.plugins() == Some(&plugins) {
            return Ok(false);
        }
        self.content["plugins"] = plugins.into();
        let wrong = |reason: String| ChainError::Content { path: self.path.clone(), reason };
        let text = serde_json::to_vec_pretty(&self.content).map_err(|error| wrong(error.to_string()))?;
        replace(&self.path, self.mode, |aside| aside.write_all(&text))?;
        Ok(true)
    }
}

fn leave(path: &Path) -> Result<bool, ChainError> {
    let list = List::read(path)?;
    match list.plugins().map(|plugins| others(plugins).collect()) {
        Some(others) => list.put(others),
        // Nothing of ours can be in it.
        None => Ok(false),
    }
}

fn is_ours(entry: &Value) -> bool {
    entry.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

/// The plugins that are not ours.
fn others(plugins: &[Value]) -> impl Iterator<Item = Value> {
    plugins.iter().filter(|entry| !is_ours(entry)).cloned()
}

/// Whole or not at all, also when the power fails.
fn replace(path: &Path, mode: u32, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), ChainError> {
    let aside = aside(path);
    let put = || {
        let mut new = fs::File::create(&aside)?;
        write(&mut new)?;
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.sync_all()?;
        drop(new);
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    put().map_err(|error| {
        // Half of a file that nobody reads.
        let _absent = fs::remove_file(&aside);
        file(path)(error)
    })
}

/// No name that a container runtime reads.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".weir-new");
    path.with_file_name(name)
}

/// Compares in pieces: the holder is to stay small.
fn is_copy(own: &Path, copy: &Path) -> io::Result<bool> {
    let Ok(mut copy) = fs::File::open(copy) else { return Ok(false) };
    let mut own = fs::File::open(own)?;
    if own.metadata()?.len() != copy.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; COMPARED], vec![0; COMPARED]);
    loop {
        let read = own.read(&mut one)?;
        if read == 0 {
            return Ok(true);
        }
        if copy.read_exact(&mut other[..read]).is_err() || one[..read] != other[..read] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(folder: &Path) -> Chain {
        let chain = Chain::new(folder.join("bin"), folder.join("net.d"));
        fs::create_dir(&chain.configurations).unwrap();
        chain
    }

    fn plugin() -> PluginConfig {
        PluginConfig::new(Path::new("/run/weir/holder.sock"), vec!["kube-system".to_owned()])
    }

    #[test]
    fn joins_at_the_end_once_and_leaves_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let mut chain = chain(folder.path());
        let path = chain.configurations.join("10-pods.conflist");
        let before = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}, {"type": "portmap"}]});
        fs::write(&path, before.to_string()).unwrap();
        fs::write(chain.configurations.join("20-other.conflist"), "not read").unwrap();
        assert!(chain.join(&plugin()).unwrap());
        assert!(!chain.join(&plugin()).unwrap(), "nothing left to change");
        let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
        let types: Vec<Value> =
            read()["plugins"].as_array().unwrap().iter().map(|entry| entry["type"].clone()).collect();
        assert_eq!(types, ["ptp", "portmap", PLUGIN]);
        assert_eq!(fs::metadata(chain.binaries.join(PLUGIN)).unwrap().permissions().mode() & 0o777, 0o755);
        // The cluster's CNI writes its file anew.
        fs::write(&path, before.to_string()).unwrap();
        assert!(chain.join(&plugin()).unwrap());
        fs::remove_file(chain.configurations.join("20-other.conflist")).unwrap();
        assert!(chain.leave().unwrap());
        assert_eq!(read(), before);
        assert!(!chain.binaries.join(PLUGIN).exists() && !chain.leave().unwrap());
    }

    // Seen to fail when `leave` ended at the first file that it could not read, and looked at `.conflist` alone.
    #[test]
    fn one_bad_file_keeps_no_other_from_being_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut chain = chain(folder.path());
        let before = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]});
        let path = chain.configurations.join("10-pods.json");
        fs::write(&path, before.to_string()).unwrap();
        assert!(chain.join(&plugin()).unwrap());
        for (name, content) in [("05-bad.conflist", "not read"), ("06-single.conf", r#"{"type": "bridge"}"#)] {
            fs::write(chain.configurations.join(name), content).unwrap();
        }
        let error = chain.leave().unwrap_err();
        assert!(error.to_string().contains("05-bad.conflist"), "{error}");
        assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), before);
        assert!(!chain.binaries.join(PLUGIN).exists());
    }

    // Seen to fail with the bound before the order, and with a comparison of the content each time.
    #[test]
    fn the_first_of_many_counts_and_an_unchanged_binary_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut chain = chain(folder.path());
        for index in (0..limits::CNI_CONFIGS * 4).rev() {
            fs::write(chain.configurations.join(format!("{index:04}.conflist")), r#"{"plugins": []}"#).unwrap();
        }
        assert_eq!(chain.first().unwrap(), Some(chain.configurations.join("0000.conflist")));
        assert!(chain.join(&plugin()).unwrap() && chain.copied.is_none());
        assert!(!chain.join(&plugin()).unwrap());
        let binary = chain.binaries.join(PLUGIN);
        assert_eq!(chain.copied, Some(stamp(&binary).unwrap()));
        let bytes = fs::metadata(&binary).unwrap().len();
        // Other bytes, as many: seen by the time of the change alone.
        fs::write(&binary, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        assert!(chain.join(&plugin()).unwrap(), "put back");
        assert!(is_copy(Path::new("/proc/self/exe"), &binary).unwrap());
    }

    #[test]
    fn nothing_is_left_aside_when_writing_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10-pods.conflist");
        let failed = replace(&path, 0o644, |_aside| Err(io::Error::other("full"))).unwrap_err();
        assert!(failed.to_string().contains("full"), "{failed}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_chained_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut chain = chain(folder.path());
        assert!(matches!(chain.join(&plugin()).unwrap_err(), ChainError::None(_)));
        for (name, content) in [("5-a.conf", r#"{"type": "bridge"}"#), ("4-b.conflist", "{")] {
            let path = chain.configurations.join(name);
            fs::write(&path, content).unwrap();
            let error = chain.join(&plugin()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
