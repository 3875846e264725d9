//! Our place in the node's CNI configuration: the plugin's binary, and its entry at the end of the chain. Must never lose an entry of
//! anybody else's, nor leave half a file where the container runtime reads.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::directory;
use crate::{
    cni::{PLUGIN, PluginConfig},
    limits,
};

/// Bytes compared at once.
const COMPARED: usize = 64 * 1024;

/// Where the container runtime looks.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Directory of plugins' binaries.
    pub(crate) binaries: PathBuf,
    /// Directory of network configurations.
    pub(crate) configurations: PathBuf,
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
    /// Puts binary and entry where they belong, if they are not there. Says whether anything was changed.
    pub(crate) fn join(&self, plugin: &PluginConfig) -> Result<bool, ChainError> {
        let binary = self.install_binary()?;
        let path = self.first()?.ok_or_else(|| ChainError::None(self.configurations.clone()))?;
        let entry = serde_json::to_value(plugin)
            .map_err(|error| ChainError::Content { path: path.clone(), reason: error.to_string() })?;
        Ok(self.edit(&path, |plugins| joined(plugins, entry))? || binary)
    }

    /// Takes our entry out of every configuration, then the binary away.
    pub(crate) fn leave(&self) -> Result<bool, ChainError> {
        let mut changed = false;
        for path in self.all()? {
            if path.extension().is_some_and(|extension| extension == "conflist") {
                changed |=
                    self.edit(&path, |plugins| plugins.iter().filter(|entry| !is_ours(entry)).cloned().collect())?;
            }
        }
        let binary = self.binaries.join(PLUGIN);
        match fs::remove_file(&binary) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(changed),
            Err(error) => Err(file(&binary)(error)),
        }
    }

    /// Joins now, whenever the configurations change, and now and then, until the holder ends.
    pub(super) async fn keep(self, plugin: PluginConfig) {
        let watcher = directory::watcher(&self.configurations);
        if let Err(error) = &watcher {
            tracing::warn!(directory = %self.configurations.display(), %error, "no news from the network configurations; they are read now and then");
        }
        let mut told = String::new();
        loop {
            match self.join(&plugin) {
                Ok(true) => tracing::info!(directory = %self.configurations.display(), "chained the CNI plugin"),
                Ok(false) => told.clear(),
                Err(error) if error.to_string() == told => {}
                Err(error) => {
                    told = error.to_string();
                    tracing::error!(%error, "the CNI plugin is not chained: new pods are captured only after they started");
                }
            }
            directory::changed_or(watcher.as_ref().ok(), limits::CNI_RECHECK).await;
        }
    }

    fn install_binary(&self) -> Result<bool, ChainError> {
        let own = Path::new("/proc/self/exe");
        let binary = self.binaries.join(PLUGIN);
        if is_copy(own, &binary).map_err(file(own))? {
            return Ok(false);
        }
        fs::create_dir_all(&self.binaries).map_err(file(&self.binaries))?;
        let aside = aside(&binary);
        fs::copy(own, &aside).map_err(file(&aside))?;
        put(&aside, &binary, 0o755)?;
        Ok(true)
    }

    fn edit(&self, path: &Path, change: impl FnOnce(&[Value]) -> Vec<Value>) -> Result<bool, ChainError> {
        let wrong = |reason: String| ChainError::Content { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(file(path))?;
        if metadata.len() > limits::CNI_CONFIG_BYTES {
            return Err(wrong("larger than any network configuration".to_owned()));
        }
        let text = fs::read(path).map_err(file(path))?;
        let mut list: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) else {
            let hint = "is no list of plugins; turn it into a .conflist so that plugins can be chained".to_owned();
            return Err(wrong(hint));
        };
        let changed = change(plugins);
        if *plugins == changed {
            return Ok(false);
        }
        *plugins = changed;
        let text = serde_json::to_vec_pretty(&list).map_err(|error| wrong(error.to_string()))?;
        replace(path, &text, metadata.permissions().mode() & 0o777)?;
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
            .take(limits::CNI_CONFIGS)
            .collect();
        paths.sort();
        Ok(paths)
    }
}

fn is_ours(entry: &Value) -> bool {
    entry.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

/// Ours once, and last: whatever comes before us has made the network by then.
fn joined(plugins: &[Value], entry: Value) -> Vec<Value> {
    plugins.iter().filter(|entry| !is_ours(entry)).cloned().chain([entry]).collect()
}

/// Whole or not at all.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), ChainError> {
    let aside = aside(path);
    fs::write(&aside, content).map_err(file(&aside))?;
    put(&aside, path, mode)
}

/// No name that a container runtime reads.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".weir-new");
    path.with_file_name(name)
}

fn put(aside: &Path, path: &Path, mode: u32) -> Result<(), ChainError> {
    fs::set_permissions(aside, fs::Permissions::from_mode(mode)).map_err(file(aside))?;
    fs::rename(aside, path).map_err(file(path))
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
        let chain = Chain { binaries: folder.join("bin"), configurations: folder.join("net.d") };
        fs::create_dir(&chain.configurations).unwrap();
        chain
    }

    fn plugin() -> PluginConfig {
        PluginConfig::new(Path::new("/run/weir/holder.sock"), vec!["kube-system".to_owned()])
    }

    #[test]
    fn joins_at_the_end_once_and_leaves_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let chain = chain(folder.path());
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

    #[test]
    fn what_cannot_be_chained_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let chain = chain(folder.path());
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
