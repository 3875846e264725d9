//! Connection to control: TLS to the mesh's trust anchors, a bearer token, bounded time.
//!
//! Must never send the token to a server that has not proven to be control, nor in plain text off this machine.

#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    fs::File,
    future::Future,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use weir_api::v1::{self, mesh_client::MeshClient};

use crate::{
    cluster::{self, Access, Route, VIEWER},
    error::{CliError, deepest},
    limits,
    output::note,
    session::{Direct, Reach, Session},
};

/// What control's certificate names where nothing else is said.
const IDENTITY: &str = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local";

/// Metadata with the caller's own token for the API server.
const OWN_TOKEN: &str = "kubernetes-authorization";

/// A connection to control.
pub(crate) struct Client {
    mesh: MeshClient<InterceptedService<Channel, Bearer>>,
    url: String,
    within: Duration,
    /// What to do when the token is refused.
    advice: String,
}

/// Adds the token to each call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects, so that what is wrong with the address or the certificate shows at once.
    pub(crate) async fn connect(session: &Session) -> Result<Client, CliError> {
        match &session.reach {
            Reach::Direct(direct) => Client::direct(direct, session).await,
            Reach::Kubernetes(access) => Client::through(access, session).await,
        }
    }

    async fn direct(direct: &Direct, session: &Session) -> Result<Client, CliError> {
        let url = direct.url.clone().ok_or(CliError::NoControl)?;
        let identity = session.control_identity.as_deref().unwrap_or(IDENTITY);
        let secure = is_secure(&url)?;
        let token = direct.token_file.as_deref().map(token).transpose()?;
        let mut endpoint = endpoint(&url, session.within)?;
        if secure {
            let anchors = direct.trust_anchors.as_deref().ok_or(CliError::NoTrustAnchors)?;
            let tls = tls(trust_anchors(anchors)?, identity);
            endpoint = endpoint.tls_config(tls).map_err(|error| CliError::File {
                what: "trust anchors",
                path: anchors.to_owned(),
                reason: format!("{}; or --control-identity is no DNS name", deepest(&error)),
            })?;
        }
        let channel = within(session.within, &url, identity, endpoint.connect()).await?;
        let advice = match &direct.token_file {
            Some(path) => format!("check that {} holds the API token of this control, not a node's", path.display()),
            None => "give --token-file FILE, or set WEIR_TOKEN_FILE, to a file with control's API token".to_owned(),
        };
        Ok(Client::new(channel, token, url, session.within, advice))
    }

    async fn through(access: &Access, session: &Session) -> Result<Client, CliError> {
        let cluster = access.connect().await?;
        let route = cluster::route(&cluster).await?;
        let domain = route.trust_domain.as_deref().unwrap_or("cluster.local");
        let default = format!("weir-control.{}.serviceaccount.identity.linkerd.{domain}", cluster.mesh);
        let identity = session.control_identity.as_deref().unwrap_or(&default);
        let token = header(route.token.as_bytes()).map_err(|reason| CliError::Kubernetes {
            doing: format!("asking for a token of service account {VIEWER}"),
            reason: reason.to_owned(),
        })?;
        let shown = format!("pod {}/{}", cluster.mesh, route.pod);
        // The name is for HTTP only: the connection is the forwarded one, and the certificate must be control's.
        let endpoint = endpoint(&format!("https://weir-control.{}", cluster.mesh), session.within)?
            .tls_config(tls(route.anchors.clone().into_bytes(), identity))
            .map_err(|error| {
                CliError::Argument(format!("the cluster's trust anchors, or --control-identity: {}", deepest(&error)))
            })?;
        let connector = tower::service_fn(move |_uri: Uri| open(route.clone()));
        let channel = within(session.within, &shown, identity, endpoint.connect_with_connector(connector)).await?;
        let advice =
            format!("check that weir-control of namespace {} and this program are of one version", cluster.mesh);
        Ok(Client::new(channel, Some(token), shown, session.within, advice))
    }

    fn new(
        channel: Channel,
        token: Option<MetadataValue<Ascii>>,
        url: String,
        within: Duration,
        advice: String,
    ) -> Client {
        let mesh =
            MeshClient::with_interceptor(channel, Bearer(token)).max_decoding_message_size(limits::MESSAGE_BYTES);
        Client { mesh, url, within, advice }
    }

    /// Versions of control and of its nodes.
    pub(crate) async fn version(&self) -> Result<v1::VersionResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.version(v1::VersionRequest {})).await
    }

    /// Reports of all nodes over a window (1 to 300 s).
    pub(crate) async fn observe(&self, window: Duration) -> Result<v1::ObserveResponse, CliError> {
        self.observed(window, v1::ObserveRequest::default()).await
    }

    /// Reports of all nodes with what they know of endpoints.
    pub(crate) async fn observe_endpoints(&self, asked: v1::EndpointsQuery) -> Result<v1::ObserveResponse, CliError> {
        let (least, _most) = limits::WINDOW_SECONDS;
        let request = v1::ObserveRequest { endpoints: Some(asked), ..v1::ObserveRequest::default() };
        self.observed(Duration::from_secs(least), request).await
    }

    /// Reports of all nodes over a window with requests by route.
    pub(crate) async fn observe_routes(
        &self,
        window: Duration,
        asked: v1::RoutesQuery,
    ) -> Result<v1::ObserveResponse, CliError> {
        self.observed(window, v1::ObserveRequest { routes: Some(asked), ..v1::ObserveRequest::default() }).await
    }

    async fn observed(&self, window: Duration, request: v1::ObserveRequest) -> Result<v1::ObserveResponse, CliError> {
        let (least, most) = limits::WINDOW_SECONDS;
        let seconds = window.as_secs().clamp(least, most);
        let window_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let mut mesh = self.mesh.clone();
        self.answer(mesh.observe(v1::ObserveRequest { window_seconds, ..request })).await
    }

    /// Pods of a namespace; of all when it is empty.
    pub(crate) async fn workloads(&self, namespace: &str) -> Result<v1::WorkloadsResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.workloads(v1::WorkloadsRequest { namespace: namespace.to_owned() })).await
    }

    /// Endpoints of an authority, `name.namespace:port`.
    pub(crate) async fn endpoints(&self, authority: &str) -> Result<v1::EndpointsResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.endpoints(v1::EndpointsRequest { authority: authority.to_owned() })).await
    }

    /// What becomes of one request.
    pub(crate) async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.explain(request)).await
    }

    /// What is in force for a Service.
    pub(crate) async fn policy(&self, request: v1::PolicyRequest) -> Result<v1::PolicyResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.policy(request)).await
    }

    /// What nodes are told of a port of a Service.
    pub(crate) async fn resource(&self, request: v1::ResourceRequest) -> Result<v1::ResourceResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.resource(request)).await
    }

    /// Log levels of nodes; set with the rights of `own`, a token for the API server, where there is one.
    pub(crate) async fn log_levels(
        &self,
        request: v1::LogLevelsRequest,
        own: Option<MetadataValue<Ascii>>,
    ) -> Result<v1::LogLevelsResponse, CliError> {
        let mut mesh = self.mesh.clone();
        let mut request = Request::new(request);
        if let Some(own) = own {
            request.metadata_mut().insert(OWN_TOKEN, own);
        }
        self.answer(mesh.log_levels(request)).await
    }

    /// Findings of control and of all nodes.
    pub(crate) async fn check(&self) -> Result<v1::CheckResponse, CliError> {
        let mut mesh = self.mesh.clone();
        self.answer(mesh.check(v1::CheckRequest {})).await
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        match tokio::time::timeout(self.within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_elapsed) => Err(CliError::Slow { url: self.url.clone(), within: self.within }),
        }
    }

    fn refusal(&self, status: &Status) -> CliError {
        let message =
            || if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
        match status.code() {
            // What the caller's own token may not, on the API server, is said by its name.
            Code::PermissionDenied => CliError::Refused(message()),
            Code::Unauthenticated => CliError::Token { reason: message(), advice: self.advice.clone() },
            Code::Unimplemented => CliError::OldControl { client: env!("CARGO_PKG_VERSION") },
            Code::DeadlineExceeded => CliError::Slow { url: self.url.clone(), within: self.within },
            Code::Unavailable | Code::Unknown if status.source().is_some() => {
                CliError::Unreachable { url: self.url.clone(), reason: deepest(status) }
            }
            _ => CliError::Refused(message()),
        }
    }
}

/// Says whose part of an answer is missing: `what`, in words.
pub(crate) fn note_missing(answer: &v1::ObserveResponse, what: &str) {
    for node in &answer.missing_nodes {
        note(&format!("node {node} did not answer in time: its {what} missing here"));
    }
    for v1::Replica { name, problem, .. } in &answer.missing_replicas {
        note(&format!("replica {name} of control did not answer ({problem}): its nodes' {what} missing here"));
    }
}

fn endpoint(url: &str, within: Duration) -> Result<Endpoint, CliError> {
    let unusable =
        |_: tonic::transport::Error| CliError::Url { url: url.to_owned(), reason: "not usable as an address" };
    Ok(Endpoint::from_shared(url.to_owned()).map_err(unusable)?.connect_timeout(within))
}

fn tls(anchors: Vec<u8>, identity: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(anchors)).domain_name(identity)
}

async fn within(
    within: Duration,
    url: &str,
    identity: &str,
    connecting: impl Future<Output = Result<Channel, tonic::transport::Error>>,
) -> Result<Channel, CliError> {
    let slow =
        |_elapsed| CliError::Unreachable { url: url.to_owned(), reason: format!("no connection within {within:?}") };
    tokio::time::timeout(within, connecting).await.map_err(slow)?.map_err(|error| unreachable(&error, url, identity))
}

async fn open(route: Route) -> io::Result<TokioIo<DuplexStream>> {
    route.open().await.map(TokioIo::new).map_err(|error| io::Error::other(error.line()))
}

/// Whether the URL asks for TLS. Plain text only towards this machine: the token would be readable on the way.
fn is_secure(url: &str) -> Result<bool, CliError> {
    let wrong = |reason| CliError::Url { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_invalid| wrong("not a URL"))?;
    let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(true),
        Some("http") if local => Ok(false),
        Some("http") => Err(wrong("plain text would show the token to the network")),
        _ => Err(wrong("the scheme is missing")),
    }
}

fn read(what: &'static str, path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let failed = |reason: String| CliError::File { what, path: path.to_owned(), reason };
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(most + 1).read_to_end(&mut content).map_err(|error| failed(error.to_string()))?;
    if content.len() as u64 > most {
        return Err(failed(format!("longer than {most} bytes: is this the right file?")));
    }
    Ok(content)
}

fn trust_anchors(path: &Path) -> Result<Vec<u8>, CliError> {
    let pem = read("trust anchors", path, limits::PEM_BYTES)?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|part| part == begin) {
        let reason = "no PEM certificate in it (-----BEGIN CERTIFICATE-----)".to_owned();
        return Err(CliError::File { what: "trust anchors", path: path.to_owned(), reason });
    }
    Ok(pem)
}

/// The token that a file holds, as the header that carries it.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn token(path: &Path) -> Result<MetadataValue<Ascii>, CliError> {
    let failed = |reason: &str| CliError::File { what: "token file", path: path.to_owned(), reason: reason.to_owned() };
    let content = read("token file", path, limits::TOKEN_BYTES)?;
    header(content.trim_ascii()).map_err(failed)
}

/// A token as the header that carries it.
fn header(token: &[u8]) -> Result<MetadataValue<Ascii>, &'static str> {
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err("not one line of printable characters: is this the right file?");
    }
    let header = [b"Bearer ", token].concat();
    let mut value = MetadataValue::try_from(header.as_slice()).map_err(|_invalid| "not usable as a token")?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(error: &(dyn StdError + 'static), url: &str, identity: &str) -> CliError {
    let url = url.to_owned();
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(certificate)) => CliError::NotOfMesh {
            url,
            identity: identity.to_owned(),
            reason: match certificate {
                // The latter: signed by another CA that has the same name.
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature => {
                    "its certificate is not signed by the given trust anchors".to_owned()
                }
                other => format!("its certificate is refused: {other}"),
            },
        },
        Some(other) => CliError::Unreachable { url, reason: format!("TLS failed: {other}") },
        None => CliError::Unreachable { url, reason: deepest(error) },
    }
}

/// The TLS error in a chain of causes. `io::Error` hides its inner error from `source`.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        current = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}
