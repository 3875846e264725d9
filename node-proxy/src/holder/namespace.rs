//! Work inside another network namespace. Must never let a thread come back from there: it ends instead.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

// What runs there is shallow; the default of 2 MiB would only be address space, but there may be many.
const STACK_BYTES: usize = 256 * 1024;

/// An open network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    path: PathBuf,
    file: File,
    inode: u64,
}

impl Namespace {
    pub(crate) fn open(path: &Path) -> io::Result<Namespace> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Namespace { path: path.to_owned(), file, inode })
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its name still leads to it. We hold it open, so that it would never go away by itself.
    pub(super) fn is_named(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Runs `job` on a thread inside.
    pub(crate) fn inside<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = self.file.as_fd();
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("weir-netns".to_owned()).stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, move || -> io::Result<T> {
                move_into_link_name_space(file, Some(LinkNameSpaceType::Network))?;
                Ok(job())
            })?;
            thread.join().unwrap_or_else(|_panic| Err(io::Error::other("a thread in the pod's namespace panicked")))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Inode of the network namespace that this process lives in: what tells nodes apart that share a kernel.
pub(crate) fn own_inode() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/net")?.ino())
}
