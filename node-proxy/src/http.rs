//! HTTP/1 and HTTP/2 server connections, as both directions use them: limits, drain, and idle connections parked.
//!
//! Must never decide where a request goes.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};

use crate::{
    body::Body,
    drain::Drain,
    interim::{Interims, Interjected, Waiting},
    io::Io,
    limits,
    metered::{Meter, Metered},
    telemetry::TcpGuard,
};

/// Requests of one connection: one that serves is not idle.
#[derive(Default)]
struct Activity {
    requests: AtomicU32,
    open: AtomicU32,
}

/// Counts one message of a connection for as long as its body lives.
pub struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Open {
        activity.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(activity))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers one request; both directions implement it.
pub trait Handle: Send + Sync + 'static {
    /// The response, whatever happened: failures are responses too.
    fn handle(self: Arc<Self>, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

struct Counted<H> {
    handler: Arc<H>,
    activity: Arc<Activity>,
    /// Of HTTP/1: once it begins, each response is the connection's last.
    drain: Option<Drain>,
    /// Of HTTP/1: hyper's half of HTTP/2 hears and says none.
    interims: Option<Arc<Interims>>,
}

impl<H: Handle> Counted<H> {
    fn service(
        &self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static + use<H>,
    > + Unpin
    + use<H> {
        let (handler, activity, drain) = (Arc::clone(&self.handler), Arc::clone(&self.activity), self.drain.clone());
        let interims = self.interims.clone();
        hyper::service::service_fn(move |request: Request<Incoming>| {
            activity.requests.fetch_add(1, Ordering::Relaxed);
            // Both bodies count: a connection whose upload or download still runs is not idle.
            let is_coming = !request.headers().contains_key(header::EXPECT);
            let mut request = request.map(|incoming| Body::incoming(incoming, Open::new(&activity), is_coming));
            let (handler, open) = (Arc::clone(&handler), Open::new(&activity));
            let ambiguous = has_two_hosts(request.headers());
            let drain = drain.clone().filter(|_| request.method() != Method::CONNECT);
            // HTTP/1.0 knows none.
            let mut waiting = interims.as_ref().filter(|_| request.version() == Version::HTTP_11).map(Waiting::begin);
            in_own_version(&mut request);
            async move {
                let response = if ambiguous {
                    bad_request()
                } else {
                    // Never moved: it is some kilobytes.
                    let mut handling = pin!(handler.handle(request));
                    poll_fn(|cx| match &mut waiting {
                        Some(waiting) => waiting.poll(cx, handling.as_mut()),
                        None => handling.as_mut().poll(cx),
                    })
                    .await
                };
                if let Some(waiting) = &waiting {
                    poll_fn(|cx| waiting.poll_end(cx)).await;
                }
                let mut response = response.map(|body| body.hold(open));
                // hyper says HTTP/1.0, and keep-alive, to a client that does.
                *response.version_mut() = Version::HTTP_11;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS && drain.is_some_and(|drain| drain.begun()) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response)
            }
        })
    }
}

/// How one turn of an HTTP/1 connection ended.
enum Turn {
    Over,
    /// Idle: hyper and its buffers are gone, the socket waits.
    Parked(Io),
}

/// Serves HTTP/1 until the connection ends.
///
/// When the proxy leaves, the next response is the last; an idle connection is closed only after [`limits::DRAIN_IDLE`]: its client's next
/// request may be on its way.
///
/// A connection without a request for [`limits::HTTP_PARK`] gives hyper's buffers (16 KiB) back and waits as a bare socket.
pub async fn serve_http1<H: Handle>(mut io: Io, handler: Arc<H>, drain: Drain, meter: TcpGuard) {
    let meter = Meter::new(meter);
    loop {
        match Box::pin(turn_http1(io, Arc::clone(&handler), drain.clone(), Arc::clone(&meter))).await {
            Turn::Over => return,
            Turn::Parked(parked) => io = parked,
        }
        let woken = tokio::select! {
            biased;
            read = io.read_ahead() => read,
            () = drain.idle() => return,
        };
        if !matches!(woken, Ok(count) if count > 0) {
            return;
        }
    }
}

async fn turn_http1<H: Handle>(io: Io, handler: Arc<H>, drain: Drain, meter: Arc<Meter>) -> Turn {
    let activity = Arc::new(Activity::default());
    let interims = Arc::<Interims>::default();
    let service = Counted {
        handler,
        activity: Arc::clone(&activity),
        drain: Some(drain.clone()),
        interims: Some(Arc::clone(&interims)),
    };
    let io = Interjected::new(Metered { io, meter: Arc::clone(&meter) }, interims);
    let mut connection = http1_builder().serve_connection(TokioIo::new(io), service.service()).with_upgrades();
    let mut draining = false;
    let mut seen = 0;
    let park = sleep_until(Instant::now() + limits::HTTP_PARK);
    tokio::pin!(park);
    loop {
        tokio::select! {
            biased;
            // How it ended was counted with the request it ended in, or there was none.
            _over = &mut connection => return Turn::Over,
            () = drain.idle(), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut park => {
                let requests = activity.requests.load(Ordering::Relaxed);
                let idle = requests == seen
                    && activity.open.load(Ordering::Relaxed) == 0
                    && !meter.is_stuck();
                if idle && !drain.begun() && requests > 0 {
                    break;
                }
                seen = requests;
                park.as_mut().reset(Instant::now() + limits::HTTP_PARK);
            }
        }
    }
    match connection.into_parts() {
        Some(parts) => Turn::Parked(parts.io.into_inner().io.io.with_more(parts.read_buf)),
        None => Turn::Over,
    }
}

/// Serves HTTP/2 until the connection ends.
pub async fn serve_http2<H: Handle>(io: Io, handler: Arc<H>, drain: Drain, meter: TcpGuard) {
    let activity = Arc::<Activity>::default();
    let service = Counted { handler, activity, drain: None, interims: None }.service();
    let metered = Metered { io, meter: Meter::new(meter) };
    let connection = http2_builder().serve_connection(TokioIo::new(metered), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _over = connection.as_mut() => return,
        () = drain.wait() => connection.as_mut().graceful_shutdown(),
    }
    let _over = connection.await;
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `limits::HTTP_HEADERS` is hyper's own bound: said explicitly it costs 2,000 instructions per message, for slots filled one by one.
    builder
        // A client may close its write half after the last request and still wants the answer.
        .half_close(true)
        .max_buf_size(limits::HTTP1_HEAD_BYTES)
        .header_read_timeout(limits::HTTP1_HEAD_TIMEOUT)
        // The application's own Date, or none: a proxy is not the origin.
        .auto_date_header(false)
        .timer(TokioTimer::new());
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(limits::HTTP2_ERROR_RESETS)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(limits::HTTP2_HEAD_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER)
        .keep_alive_interval(limits::HTTP2_PING)
        .keep_alive_timeout(limits::HTTP2_PING_TIMEOUT)
        .auto_date_header(false)
        .timer(TokioTimer::new());
    builder
}

/// Fields that concern one connection only (RFC 9110 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Two programs could route such a request differently (RFC 9112 3.2).
fn has_two_hosts(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_some()
}

fn bad_request() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What goes on from here is HTTP/1.1 whatever came (RFC 9110 2.5), and names its host once (RFC 9112 3.2.2).
fn in_own_version<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_2 || request.method() == Method::CONNECT {
        return;
    }
    if request.version() == Version::HTTP_10 {
        request.headers_mut().remove(header::UPGRADE);
        // Without a Host it can only go on as it is.
        if request.headers().contains_key(header::HOST) {
            *request.version_mut() = Version::HTTP_11;
        }
    }
    let named = request.uri().authority().map(|authority| authority.as_str());
    let host = named.map(|authority| authority.rsplit_once('@').map_or(authority, |(_user, host)| host));
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Removes what concerns the connection that the message came over. An upgrade is end to end here and stays.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    if upgrade {
        return;
    }
    // More than one line is rare; each names fields.
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
        headers.remove(header::CONNECTION);
        for name in named.iter().flat_map(|line| line.to_str().unwrap_or_default().split(',')) {
            let name = name.trim();
            // `close` and `keep-alive` name no field; TE is rewritten below.
            if !name.eq_ignore_ascii_case("te") && !name.is_empty() {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// Whether this request asks to leave HTTP (RFC 9110 7.8, 9.3.6).
pub fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        || (request.version() == Version::HTTP_11 && request.headers().contains_key(header::UPGRADE))
}
