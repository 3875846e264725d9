//! The gRPC server: TLS with control's own identity, nodes' and people's services. Must never serve without TLS.

mod clients;
mod reflection;

use std::{io, sync::Arc, time::Duration};

use futures_util::TryFutureExt as _;
use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use weir_api::v1::{mesh_server::MeshServer, nodes_server::NodesServer, replicas_server::ReplicasServer};
use weir_core::identity::Identity;

use crate::{
    ca::{self, CaError},
    limits, mesh, nodes,
    plane::Plane,
    replicas::{self, Replicas},
    tokens::Tokens,
    writes::Writes,
};

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Control's own certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS.
    #[error("TLS of control: {0}")]
    Tls(#[from] rustls::Error),
    /// gRPC.
    #[error("gRPC server: {0}")]
    Server(#[from] tonic::transport::Error),
    /// What the API says of itself.
    #[error("descriptors of the API: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// Control's own certificate, replaced while serving.
#[derive(Debug)]
struct Own {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn certified(plane: &Plane, identity: &Identity) -> Result<(CertifiedKey, Duration), ServeError> {
    let (issued, key) = plane.authority.own(identity)?;
    let chain: Vec<CertificateDer<'static>> = issued.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
    let life = Duration::from_secs(u64::try_from(issued.not_after - ca::unix_now()).unwrap_or(0));
    Ok((certified, life))
}

/// Renews at half of its life, and when anchors or issuer change.
async fn renew(plane: Arc<Plane>, identity: Identity, own: Arc<Own>, mut life: Duration) {
    let mut anchors = plane.authority.current();
    let mut made = tokio::time::Instant::now();
    let mut changes = plane.changes();
    loop {
        // Who trusts only the new anchor must not meet what the old issuer signed.
        let _something = tokio::time::timeout(limits::CA_RESCAN, changes.changed()).await;
        let now = plane.authority.current();
        if Arc::ptr_eq(&now, &anchors) && made.elapsed() < life / 2 {
            continue;
        }
        match certified(&plane, &identity) {
            Ok((new, new_life)) => {
                *own.current.write() = Arc::new(new);
                (anchors, life, made) = (now, new_life, tokio::time::Instant::now());
            }
            Err(error) => tracing::error!(%error, "control's own certificate cannot be renewed"),
        }
    }
}

/// Serves until `stop` resolves.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    plane: Arc<Plane>,
    tokens: Arc<Tokens>,
    replicas: Arc<Replicas>,
    writes: Writes,
    identity: Identity,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (first, life) = certified(&plane, &identity)?;
    let own = Arc::new(Own { current: RwLock::new(Arc::new(first)) });
    tokio::spawn(renew(Arc::clone(&plane), identity, Arc::clone(&own), life));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = Arc::new(clients::Anchored { plane: Arc::clone(&plane), provider: Arc::clone(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of a changed certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let (accepted, connections) = mpsc::channel(limits::ACCEPTED_QUEUE);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), accepted));
    let nodes = NodesServer::new(nodes::Service::new(Arc::clone(&plane), Arc::clone(&tokens)))
        .max_decoding_message_size(limits::NODE_MESSAGE_BYTES);
    let shares = ReplicasServer::new(replicas::Service(Arc::clone(&replicas)));
    let (reflection, old_reflection) = (reflection::current(&tokens)?, reflection::old(&tokens)?);
    let mesh = MeshServer::new(mesh::Service::new(plane, tokens, replicas, writes));
    Server::builder()
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(limits::KEEPALIVE))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE))
        .add_service(nodes)
        .add_service(mesh)
        .add_service(reflection)
        .add_service(old_reflection)
        .add_service(shares)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop)
        .err_into()
        .await
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES));
    while !accepted.is_closed() {
        let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (tcp, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept; descriptors or memory may be short");
                tokio::time::sleep(limits::CA_RESCAN).await;
                continue;
            }
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%peer, %error, "TCP_NODELAY");
            }
            match tokio::time::timeout(limits::HANDSHAKE_WITHIN, acceptor.accept(tcp)).await {
                // The server may have ended meanwhile.
                Ok(Ok(tls)) => drop(accepted.send(Ok(tls)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_elapsed) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}
