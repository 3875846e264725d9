//! Why a pod is not captured, in words for its owner. Must never be a bare errno.

use std::{io, path::PathBuf};

use weir_ebpf_loader::LoadError;

/// Why a pod is not captured.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    /// Nobody said which namespace.
    #[error(
        "no network namespace is known for this pod: give `netns`, or put a file with its uid into the holder's --pods directory"
    )]
    NamespaceUnknown,
    /// The namespace cannot be opened.
    #[error("network namespace {path}: {source}; the pod's sandbox may be gone")]
    Namespace {
        /// File.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A hostNetwork pod.
    #[error("the pod lives in the node's own network namespace (hostNetwork): it is not captured")]
    HostNetwork,
    /// Two uids, one namespace.
    #[error("its network namespace is captured as pod {0} already")]
    SameNamespace(String),
    /// Somebody else steers traffic in the namespace.
    #[error("{0}; remove it, or leave this pod out of the mesh")]
    Conflict(String),
    /// A specification beyond a bound.
    #[error("{what}: {found}, at most {limit} are supported")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No address to capture.
    #[error("the pod has no address yet")]
    NoAddress,
    /// An uid that is not one.
    #[error("{0:?} is no usable pod uid: 1 to 128 bytes are expected")]
    Uid(String),
    /// A step inside the namespace failed.
    #[error("{step}: {source}")]
    Step {
        /// Which.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel side refused.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl PodError {
    pub(super) fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> PodError {
        let step = step.into();
        move |source| PodError::Step { step, source }
    }
}
