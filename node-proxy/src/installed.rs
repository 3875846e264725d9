//! `weir-node installed`: is this node's holder being replaced, or is Weir being uninstalled? Asks the API server for the holder's
//! DaemonSet. Runs without privileges, apart from the holder: must never do more with what the network says than choose an exit code.

use std::{
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;

use crate::{limits, tls};

/// What the API server says, as exit codes that no shell, panic or signal gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Installed {
    /// The DaemonSet is there.
    Yes = 40,
    /// It is being deleted, or gone.
    No = 42,
    /// Our token is valid no more: the ServiceAccount was deleted, or our own pod, or one of them could not be looked up.
    Unknown = 43,
}

impl Installed {
    /// From an exit code.
    pub fn of(code: i32) -> Option<Installed> {
        [Installed::Yes, Installed::No, Installed::Unknown].into_iter().find(|known| i32::from(*known as u8) == code)
    }
}

/// Arguments of `weir-node installed`. The token comes on standard input: its file is root's alone.
#[derive(Clone, Debug, clap::Args)]
pub struct InstalledArgs {
    /// Namespace of the DaemonSet
    #[arg(long)]
    pub namespace: String,
    /// Name of the DaemonSet
    #[arg(long)]
    pub daemonset: String,
    /// PEM file with the API server's authority
    #[arg(long)]
    pub authority: PathBuf,
    /// Address of the API server
    #[arg(long, env = "KUBERNETES_SERVICE_HOST")]
    pub api_host: IpAddr,
    /// Port of the API server
    #[arg(long, env = "KUBERNETES_SERVICE_PORT")]
    pub api_port: u16,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// Authority, token or connection.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What came of it.
        source: io::Error,
    },
    /// The authority or the TLS configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP.
    #[error("the API server: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be made.
    #[error("the request: {0}")]
    Request(#[from] http::Error),
    /// An answer that says nothing.
    #[error("the API server answered {0}; check the Role of weir-holder")]
    Answer(StatusCode),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> InstalledError {
    let what = what.into();
    move |source| InstalledError::Io { what, source }
}

/// Exits with an [`Installed`].
///
/// # Errors
/// See [`InstalledError`]: nothing may be concluded.
pub fn run(args: &InstalledArgs) -> Result<ExitCode, InstalledError> {
    drop_privileges().map_err(failed("dropping privileges"))?;
    let mut token = String::new();
    io::stdin().take(limits::TOKEN_BYTES).read_to_string(&mut token).map_err(failed("the token"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("event loop"))?;
    let asked = async { tokio::time::timeout(limits::INSTALLED_WITHIN, is_installed(args, token.trim())).await };
    let timeout = |_elapsed| failed("the API server")(io::ErrorKind::TimedOut.into());
    let installed = runtime.block_on(asked).map_err(timeout)??;
    Ok(ExitCode::from(installed as u8))
}

/// The holder's capabilities are not for a process that reads from the network.
fn drop_privileges() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
    let none = CapabilitySet::empty();
    set_no_new_privs(true)?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

async fn is_installed(args: &InstalledArgs, token: &str) -> Result<Installed, InstalledError> {
    let place = format!("https://{}:{}", args.api_host, args.api_port);
    let tcp = TcpStream::connect((args.api_host, args.api_port)).await.map_err(failed(place.clone()))?;
    let name = ServerName::IpAddress(args.api_host.into());
    let secured = tls::connect(config(&args.authority)?, name, tcp).await.map_err(failed(place))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(secured.stream)).await?;
    tokio::spawn(connection);
    let path = format!("/apis/apps/v1/namespaces/{}/daemonsets/{}", args.namespace, args.daemonset);
    let request = Request::get(path)
        .header(header::HOST, "kubernetes.default.svc")
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), limits::INSTALLED_BYTES).collect().await;
    verdict(status, &body.map(|body| body.to_bytes()).unwrap_or_default())
}

fn verdict(status: StatusCode, body: &[u8]) -> Result<Installed, InstalledError> {
    match status {
        StatusCode::OK => {
            let daemonset: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let is_leaving = daemonset.pointer("/metadata/deletionTimestamp").is_some();
            Ok(if is_leaving { Installed::No } else { Installed::Yes })
        }
        StatusCode::NOT_FOUND => Ok(Installed::No),
        StatusCode::UNAUTHORIZED => Ok(Installed::Unknown),
        other => Err(InstalledError::Answer(other)),
    }
}

fn config(authority: &Path) -> Result<Arc<ClientConfig>, InstalledError> {
    let named = || format!("authority {}", authority.display());
    let pem = std::fs::read(authority).map_err(failed(named()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| failed(named())(io::Error::other(error)))?)?;
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = config;
    // What our own record layer needs to take over after the handshake.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_means_uninstalled() {
        let living = br#"{"metadata": {"name": "weir-holder"}}"#;
        let leaving = br#"{"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}"#;
        assert_eq!(verdict(StatusCode::OK, living).unwrap(), Installed::Yes);
        assert_eq!(verdict(StatusCode::OK, b"not JSON").unwrap(), Installed::Yes);
        assert_eq!(verdict(StatusCode::OK, leaving).unwrap(), Installed::No);
        assert_eq!(verdict(StatusCode::NOT_FOUND, b"").unwrap(), Installed::No);
        assert_eq!(verdict(StatusCode::UNAUTHORIZED, b"").unwrap(), Installed::Unknown);
        for known in [Installed::Yes, Installed::No, Installed::Unknown] {
            assert_eq!(Installed::of(i32::from(known as u8)), Some(known));
        }
        assert_eq!((Installed::of(0), Installed::of(1)), (None, None));
        for unclear in [StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TOO_MANY_REQUESTS] {
            assert!(verdict(unclear, b"").is_err());
        }
    }
}
