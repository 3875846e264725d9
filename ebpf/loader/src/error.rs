//! What can go wrong between us and the kernel. Must never hide the kernel's own words.

use std::{io, path::PathBuf};

/// Why the kernel side is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Built without the kernel programs.
    #[error(
        "this binary was built without the kernel programs: run `cargo xtask ebpf`, then build again with WEIR_EBPF_OBJECT set to the path that it prints"
    )]
    NoObject,
    /// The BPF file system is not usable.
    #[error(
        "{path}: {source}; a bpffs must be mounted there (`mount -t bpf bpf /sys/fs/bpf`) and the holder needs CAP_BPF and CAP_SYS_ADMIN"
    )]
    Bpffs {
        /// What was touched.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The cgroup to attach to is not there.
    #[error("cgroup {path}: {source}; give the mount point of the cgroup v2 hierarchy with --cgroup")]
    Cgroup {
        /// What was opened.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("loading the kernel programs: {0}; `weir check` lists what this kernel lacks")]
    Object(#[from] aya::EbpfError),
    /// The verifier or the kernel refused a program.
    #[error("loading program {name}: {source}; `weir check` lists what this kernel lacks")]
    Program {
        /// Program.
        name: &'static str,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// The object is not ours.
    #[error("the embedded object lacks {0}: it was built from another version; run `cargo xtask ebpf` and build again")]
    Missing(&'static str),
    /// The kernel is too old.
    #[error("this needs {0}")]
    Kernel(&'static str),
    /// A map refused an operation.
    #[error("map {name}: {source}")]
    Map {
        /// Map.
        name: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// A pinned map was made by an incompatible version.
    #[error(
        "pinned map {path} has values of {found} bytes, not {expected}: an older version made it; run `weir-node cleanup` and start again"
    )]
    Shape {
        /// Pin.
        path: PathBuf,
        /// Bytes in the kernel.
        found: u32,
        /// Bytes that this version uses.
        expected: usize,
    },
    /// No such slot.
    #[error("slot {0} is beyond the maps' size")]
    Slot(u32),
    /// A link could not be made, replaced or pinned.
    #[error("{what}: {source}")]
    Link {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    pub(crate) fn link(what: impl Into<String>) -> impl FnOnce(io::Error) -> LoadError {
        let what = what.into();
        move |source| LoadError::Link { what, source }
    }
}
