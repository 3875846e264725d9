//! Connections to control: TLS to its identity, this node's token. Must never log the token.

use std::{path::PathBuf, time::Duration};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use weir_api::v1::nodes_client::NodesClient;

use super::{ConfigArgs, ConfigError};
use crate::limits;

/// How to reach control.
pub struct Control {
    endpoint: Endpoint,
    server_identity: String,
    trust_anchors: PathBuf,
    token_file: PathBuf,
}

/// Why control cannot be talked to right now.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that is read at each connect cannot be.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token cannot be sent.
    #[error("{0}: not a token: it must be one line of visible ASCII")]
    Token(PathBuf),
    /// No connection.
    #[error("control: {0}; check that weir-control runs and that --trust-anchors are its anchors")]
    Transport(String),
}

/// Attaches the token to each call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// An authenticated client.
pub(crate) type Client = NodesClient<tonic::service::interceptor::InterceptedService<Channel, Token>>;

impl Control {
    /// Checks what can be checked without connecting.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn new(args: &ConfigArgs) -> Result<Control, ConfigError> {
        let invalid = |reason: String| ConfigError::Url { url: args.control.clone(), reason };
        if !args.control.starts_with("https://") {
            return Err(invalid("not https".into()));
        }
        let endpoint = Endpoint::from_shared(args.control.clone())
            .map_err(|error| invalid(error.to_string()))?
            .connect_timeout(limits::CONTROL_CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        Ok(Control {
            endpoint,
            server_identity: args.server_identity.clone(),
            trust_anchors: args.trust_anchors.clone(),
            token_file: args.token_file.clone(),
        })
    }

    /// Connects, believing in the anchors of the file and in those that control `told`: a mounted file is a minute late.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, told: &[Vec<u8>]) -> Result<Client, ConnectError> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|source| ConnectError::File { path: path.clone(), source });
        let token = String::from_utf8(read(&self.token_file)?).unwrap_or_default();
        let mut token = MetadataValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_secret| ConnectError::Token(self.token_file.clone()))?;
        token.set_sensitive(true);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(told.iter().map(|der| CertificateDer::from(der.as_slice())));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.trust_anchors)?))
            .trust_anchors(roots.roots)
            .domain_name(self.server_identity.clone());
        let transport = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            ConnectError::Transport(format!("{error}: {cause}"))
        };
        let channel = self.endpoint.clone().tls_config(tls).map_err(transport)?.connect().await.map_err(transport)?;
        Ok(NodesClient::with_interceptor(channel, Token(token)).max_decoding_message_size(limits::CONTROL_MESSAGE))
    }
}
