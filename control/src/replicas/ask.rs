//! One question to one other replica. Must never wait longer than its bound, nor believe a server that is not control.

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use weir_api::v1::{self, replicas_client::ReplicasClient};
use weir_core::identity::Identity;

use super::peers::Peer;
use crate::{
    ca::{self, CaError},
    kubernetes::chain,
    limits,
    plane::Plane,
};

/// Why a replica did not say what it knows.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no certificate to ask with: {0}")]
    Ca(#[from] CaError),
    #[error("{}", chain(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("it refuses: {}", .0.message())]
    Refused(Box<tonic::Status>),
}

/// What it alone knows, or why not.
pub(super) async fn share(
    plane: &Plane,
    identity: &Identity,
    peer: &Peer,
    question: v1::ShareRequest,
) -> Result<v1::ShareResponse, String> {
    let asked = async {
        let channel = connect(plane, identity, peer).await?;
        let mut client = ReplicasClient::new(channel).max_decoding_message_size(limits::SHARE_BYTES);
        let answer = client.share(question).await;
        answer.map(tonic::Response::into_inner).map_err(|status| AskError::Refused(Box::new(status)))
    };
    match tokio::time::timeout(limits::SHARE_WITHIN, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {:?}", limits::SHARE_WITHIN)),
    }
}

/// A connection of its own for each question: pods of control come and go, and questions are people's.
async fn connect(plane: &Plane, identity: &Identity, peer: &Peer) -> Result<Channel, AskError> {
    let (issued, key) = plane.authority.own(identity)?;
    let own =
        tonic::transport::Identity::from_pem(ca::pem("CERTIFICATE", &issued.chain), ca::pem("PRIVATE KEY", &[key]));
    let anchors = ca::pem("CERTIFICATE", &plane.authority.current().anchors);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(anchors))
        .identity(own)
        .domain_name(identity.as_str());
    let endpoint = Endpoint::from_shared(format!("https://{}", peer.address))?.tls_config(tls)?;
    Ok(endpoint.connect().await?)
}
