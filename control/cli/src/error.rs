//! What can go wrong, in words that say what to do. Must never print a token.

use std::{error::Error as StdError, io, path::PathBuf, time::Duration};

use crate::{chart::ChartError, output::sentence};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(
        "no address of control: give --control https://HOST:PORT, or set WEIR_CONTROL to it (as in the nodes' settings)"
    )]
    NoControl,
    #[error("--control {url}: {reason}; expected https://HOST:PORT, or http://127.0.0.1:PORT on this machine only")]
    Url { url: String, reason: &'static str },
    #[error(
        "no trust anchors: give --trust-anchors FILE, or set WEIR_TRUST_ANCHORS, to the PEM file of the mesh's CA that control serves with"
    )]
    NoTrustAnchors,
    #[error("{what} {path:?}: {reason}", path = .path.display().to_string())]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error(
        "control at {url} cannot be reached: {reason}; check that weir-control runs and listens there, that this machine may connect (firewall, NetworkPolicy), and --control"
    )]
    Unreachable { url: String, reason: String },
    #[error(
        "{url} did not prove to be control: {reason}; check that --trust-anchors is the CA of this mesh and not an older one, that --control-identity ({identity}) is the name in control's certificate, and this machine's clock"
    )]
    NotOfMesh { url: String, identity: String, reason: String },
    #[error("control at {url} did not answer within {within:?}: try again, or give more time by --timeout")]
    Slow { url: String, within: Duration },
    #[error("control refused the token: {reason}; {advice}")]
    Token { reason: String, advice: String },
    #[error(
        "control does not know this call: it is older than this program ({client}); use the `weir` of control's version"
    )]
    OldControl { client: &'static str },
    #[error("control cannot answer: {0}")]
    Refused(String),
    #[error("kubeconfig: {reason}; {advice}")]
    Kubeconfig { reason: String, advice: &'static str },
    #[error(
        "the API server at {url} cannot be reached: {reason}; check --context and --kubeconfig, and that this machine may connect there"
    )]
    ApiServer { url: String, reason: String },
    #[error(
        "{doing}: Kubernetes forbids it: {reason}; ask for the rule it names, or for Role weir-user in namespace {namespace}, which has all that looking at the mesh takes"
    )]
    Forbidden { doing: String, reason: String, namespace: String },
    #[error(
        "{doing}: not there: {reason}; is the mesh installed in namespace {namespace}? (`weir check`, `weir install`, --weir-namespace)"
    )]
    Missing { doing: String, reason: String, namespace: String },
    #[error("{doing}: Kubernetes says: {reason}")]
    Kubernetes { doing: String, reason: String },
    #[error(
        "no mesh is installed in namespace {namespace} of this cluster: run `weir install`, or give another --context or --weir-namespace"
    )]
    NotInstalled { namespace: String },
    #[error(
        "no replica of weir-control is ready ({pods} pods): see `weir check`, and `kubectl -n {namespace} describe pods -l app.kubernetes.io/name=weir-control`"
    )]
    NoReadyControl { pods: usize, namespace: String },
    #[error(
        "control has published no trust anchors yet (ConfigMap weir-trust-anchors in namespace {namespace}): it does when it is ready; see `kubectl -n {namespace} logs deploy/weir-control`"
    )]
    NoAnchors { namespace: String },
    #[error(transparent)]
    Chart(#[from] ChartError),
    #[error("{0}")]
    Argument(String),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// Whether nobody reads the answer any more (`weir stat | head -1`): no failure.
    pub(crate) fn reader_left(&self) -> bool {
        match self {
            CliError::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            CliError::Json(error) => error.io_error_kind() == Some(io::ErrorKind::BrokenPipe),
            _ => false,
        }
    }

    /// One line for people, safe for a terminal.
    pub(crate) fn line(&self) -> String {
        sentence(&self.to_string())
    }
}

/// What caused an error in the first place: the outermost of a client says only that there was one.
pub(crate) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
