//! Where our pins live in the BPF file system. Must never touch a directory that is not named after us.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use crate::{LoadError, sys};

const PREFIX: &str = "weir-";
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of one node. Nodes that share a kernel are told apart by the inode of their network namespace.
#[derive(Clone, Debug)]
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// Mounts a BPF file system at `root` if there is none, and makes this node's directories in it.
    ///
    /// # Errors
    /// [`LoadError::Bpffs`].
    pub fn prepare(root: &Path, node: u64) -> Result<Place, LoadError> {
        let failed = |source| LoadError::Bpffs { path: root.to_owned(), source };
        fs::create_dir_all(root).map_err(failed)?;
        let mounted = rustix::fs::statfs(root).map_err(|error| failed(error.into()))?.f_type as u64 == BPF_FS_MAGIC;
        if !mounted {
            let flags = rustix::mount::MountFlags::NOSUID
                | rustix::mount::MountFlags::NODEV
                | rustix::mount::MountFlags::NOEXEC;
            rustix::mount::mount("bpf", root, "bpf", flags, None).map_err(|error| failed(error.into()))?;
            tracing::info!(path = %root.display(), "mounted a BPF file system");
        }
        let place = Place::of(root, node);
        for directory in [place.directory.clone(), place.pods()] {
            fs::create_dir_all(&directory).map_err(|source| LoadError::Bpffs { path: directory, source })?;
        }
        Ok(place)
    }

    /// Where this node's pins are or would be.
    pub fn of(root: &Path, node: u64) -> Place {
        Place { directory: root.join(format!("{PREFIX}{node}")) }
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.directory.join("pods")
    }

    /// Pin of a pod's link. `key` must be a plain file name without dots, which bpffs refuses.
    pub(crate) fn pod(&self, key: &str) -> PathBuf {
        self.pods().join(key)
    }

    /// Keys of the pods that have a pinned link.
    ///
    /// # Errors
    /// [`LoadError::Bpffs`]; a directory that is not there holds none.
    pub fn pinned_pods(&self) -> Result<Vec<String>, LoadError> {
        names(&self.pods()).map_err(|source| LoadError::Bpffs { path: self.pods(), source })
    }

    /// Removes every pin. With the last pin the programs leave the kernel, and the maps when nobody holds them open.
    ///
    /// # Errors
    /// [`LoadError::Bpffs`] for the first file that will not go.
    pub fn remove(&self) -> Result<(), LoadError> {
        // While its listeners and settings go, a lookup that is still there refuses connections.
        for key in self.pinned_pods()? {
            unlink(&self.pod(&key))?;
        }
        remove(&self.directory).map_err(|source| LoadError::Bpffs { path: self.directory.clone(), source })
    }
}

/// Directories of all nodes that have pins under `root`.
///
/// # Errors
/// [`LoadError::Bpffs`]; a root that is not there holds none.
pub fn directories(root: &Path) -> Result<Vec<Place>, LoadError> {
    let names = names(root).map_err(|source| LoadError::Bpffs { path: root.to_owned(), source })?;
    let ours = names.into_iter().filter(|name| {
        name.strip_prefix(PREFIX).is_some_and(|node| !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Ok(ours.map(|name| Place { directory: root.join(name) }).collect())
}

/// Ends a pinned link and removes its name. Without one, does nothing.
pub(crate) fn unlink(path: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Bpffs { path: path.to_owned(), source };
    let link = match sys::get(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link.map_err(failed)?,
    };
    let detached = sys::detach(link.as_fd());
    // Also where that failed: with its name the link goes as well, if later.
    fs::remove_file(path).map_err(failed)?;
    detached.map_err(failed)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

// The standard library's remove_dir_all opens entries, which bpffs refuses.
fn remove(directory: &Path) -> io::Result<()> {
    for name in names(directory)? {
        let path = directory.join(name);
        if fs::symlink_metadata(&path)?.is_dir() {
            remove(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Inode of the network namespace that `link` is attached to; 0 when that namespace is gone.
pub(crate) fn namespace_of(link: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let value = text.lines().find_map(|line| line.strip_prefix("netns_ino:"));
    Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}

/// Inode of an open file.
pub(crate) fn inode_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(fs::File::from(fd.try_clone_to_owned()?).metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_directories_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["weir-4026531840", "weir-", "weir-x", "other", "weirdo-1"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = directories(root.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].directory(), root.path().join("weir-4026531840"));
        assert!(directories(&root.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn removal_takes_nested_entries_and_can_be_repeated() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::of(root.path(), 7);
        fs::create_dir_all(place.directory().join("nested")).unwrap();
        fs::write(place.directory().join("nested/a"), "").unwrap();
        place.remove().unwrap();
        place.remove().unwrap();
        assert!(!place.directory().exists());
    }
}
