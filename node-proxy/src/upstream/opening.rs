//! Opens HTTP connections to servers, each in a task of its own.
//!
//! Must never give up a connection because the request that it was opened for is over: a time limit that is shorter than a handshake
//! would never get one. It waits in the pool for the next request.

use std::sync::Arc;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;
use weir_core::{snapshot::Workload, transport_header::SessionProtocol};

use crate::{
    body::Body,
    dial::{self, DialError},
    fair::Fair,
    io::{Prefixed, Transport},
    limits,
    metered::{Meter, Metered},
    pool::{Http2, PoolKey, Via},
    proxy::Worker,
    telemetry::TcpLabels,
};

/// A connection that is to be.
pub(super) struct Opening {
    worker: Arc<Worker>,
    workload: Arc<Workload>,
    key: Arc<PoolKey>,
    labels: TcpLabels,
}

/// Who waits for a connection, if still anybody does.
type Waiter<T> = oneshot::Sender<Result<T, DialError>>;

impl Opening {
    /// To `key.to`, on behalf of a workload; its bytes are counted under `labels`.
    pub(super) fn new(
        worker: &Arc<Worker>,
        workload: &Arc<Workload>,
        key: &Arc<PoolKey>,
        labels: TcpLabels,
    ) -> Opening {
        Opening { worker: Arc::clone(worker), workload: Arc::clone(workload), key: Arc::clone(key), labels }
    }

    /// An HTTP/1 connection.
    pub(super) async fn http1(self) -> Result<http1::SendRequest<Body>, DialError> {
        self.apart(|opening, waiter: Waiter<_>| async move {
            if let Err(Ok(unwanted)) = waiter.send(opening.open_http1().await) {
                opening.worker.pool.put_http1(&opening.key, unwanted);
            }
        })
        .await
    }

    /// An HTTP/2 connection for one request.
    pub(super) async fn http2(self) -> Result<Http2, DialError> {
        self.apart(|opening, waiter: Waiter<_>| async move {
            if let Err(Ok(unwanted)) = waiter.send(opening.open_http2().await) {
                opening.worker.pool.put_http2(&opening.key, unwanted);
            }
        })
        .await
    }

    /// An HTTP/2 connection that others use as well: a burst of requests dials one.
    pub(super) async fn shared_http2(self) -> Result<Http2, DialError> {
        self.apart(|opening, waiter: Waiter<_>| async move {
            let pool = &opening.worker.pool;
            let lock = pool.dialling(&opening.key);
            let _dialling = lock.lock().await;
            // Somebody else may have dialled meanwhile; or all have given up, one after the other.
            if waiter.is_closed() {
                return;
            }
            let opened = match pool.http2(&opening.key) {
                Some(connection) => Ok(connection),
                None => opening.open_http2().await.inspect(|opened| pool.put_http2(&opening.key, opened.clone())),
            };
            // Who waits no more leaves it in the pool.
            let _gone = waiter.send(opened);
        })
        .await
    }

    async fn apart<T, F>(self, open: impl FnOnce(Opening, Waiter<T>) -> F) -> Result<T, DialError>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let to = self.key.to;
        let (waiter, opened) = oneshot::channel();
        tokio::spawn(open(self, waiter));
        let left = |_left| DialError::Connect { to, source: std::io::Error::other("the worker is leaving") };
        opened.await.map_err(left).and_then(|opened| opened)
    }

    async fn open_http1(&self) -> Result<http1::SendRequest<Body>, DialError> {
        let io = self.connect(SessionProtocol::Http1).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HTTP1_HEAD_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.failed(error))?;
        tokio::spawn(Fair::new(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "HTTP/1 connection to a server ended");
            }
        }));
        Ok(sender)
    }

    async fn open_http2(&self) -> Result<Http2, DialError> {
        let io = self.connect(SessionProtocol::Http2).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
            .max_header_list_size(limits::HTTP2_HEAD_BYTES)
            .max_send_buf_size(limits::HTTP2_SEND_BUFFER)
            .max_concurrent_reset_streams(limits::HTTP2_OWN_RESETS)
            .max_local_error_reset_streams(None)
            .keep_alive_interval(limits::HTTP2_PING)
            .keep_alive_timeout(limits::HTTP2_PING_TIMEOUT)
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.failed(error))?;
        tokio::spawn(Fair::new(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to a server ended");
            }
        }));
        Ok(Http2::new(sender))
    }

    fn failed(&self, error: hyper::Error) -> DialError {
        DialError::Connect { to: self.key.to, source: std::io::Error::other(error) }
    }

    async fn connect(&self, session: SessionProtocol) -> Result<Metered, DialError> {
        let Opening { worker, workload, key, labels } = self;
        let tcp = |tcp| Prefixed::new(Transport::Tcp(tcp));
        let io = match &key.via {
            Via::App { client } => tcp(dial::app(&worker.shared, workload, *client, key.to).await?),
            Via::Plain { .. } => tcp(dial::plain(&worker.shared, workload, key.to).await?),
            Via::MutualTls { server, .. } => {
                dial::mutual_tls(&worker.shared, workload, key.to, server, Some(session)).await?
            }
        };
        Ok(Metered { io, meter: Meter::new(worker.shared.telemetry.tcp(labels).open()) })
    }
}
