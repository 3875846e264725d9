//! Opens HTTP connections to servers, each in a task of its own.
//!
//! Must never give up a connection because the request that it was opened for is over: a time limit that is shorter than a handshake
//! would never get one. It waits in the pool for the next request.

use std::{pin::Pin, sync::Arc};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;
use weir_core::{snapshot::Workload, transport_header::SessionProtocol};

use crate::{
    dial::{self, DialError},
    fair::Fair,
    interim::{Heard, Listened},
    io::{Prefixed, Transport},
    limits,
    metered::{Meter, Metered},
    pool::{Http1, Http2, PoolKey, Via},
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

/// How one is opened.
type Open<T> = for<'a> fn(&'a Opening) -> Pin<Box<dyn Future<Output = Result<T, DialError>> + Send + 'a>>;

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
    pub(super) async fn http1(self) -> Result<Http1, DialError> {
        let keep = |opening: &Opening, unwanted| opening.worker.pool.put_http1(&opening.key, unwanted);
        self.apart(|opening| Box::pin(opening.open_http1()), keep).await
    }

    /// An HTTP/2 connection for one request.
    pub(super) async fn http2(self) -> Result<Http2, DialError> {
        let keep = |opening: &Opening, unwanted| opening.worker.pool.put_http2(&opening.key, unwanted);
        self.apart(|opening| Box::pin(opening.open_http2()), keep).await
    }

    /// An HTTP/2 connection that others use as well: a burst of requests dials one.
    pub(super) async fn shared_http2(self) -> Result<Http2, DialError> {
        self.apart(|opening| Box::pin(opening.open_shared_http2()), |_opening, _in_the_pool| ()).await
    }

    /// In a task of its own. `keep`: what becomes of a connection whose request is over.
    async fn apart<T: Send + 'static>(self, open: Open<T>, keep: fn(&Opening, T)) -> Result<T, DialError> {
        let to = self.key.to;
        let (mut waiter, opened) = oneshot::channel();
        tokio::spawn(async move {
            let mut opening = open(&self);
            let opened = tokio::select! {
                opened = &mut opening => opened,
                () = waiter.closed() => match self.worker.pool.adopt() {
                    Some(_adopted) => opening.await,
                    None => return,
                },
            };
            if let Err(Ok(unwanted)) = waiter.send(opened) {
                keep(&self, unwanted);
            }
        });
        let left = |_left| DialError::Connect { to, source: std::io::Error::other("the worker is leaving") };
        opened.await.map_err(left).and_then(|opened| opened)
    }

    async fn open_shared_http2(&self) -> Result<Http2, DialError> {
        let pool = &self.worker.pool;
        let lock = pool.dialling(&self.key);
        let _dialling = lock.lock().await;
        // Somebody else may have dialled while we waited.
        if let Some(connection) = pool.http2(&self.key) {
            return Ok(connection);
        }
        let opened = self.open_http2().await?;
        pool.put_http2(&self.key, opened.clone());
        Ok(opened)
    }

    async fn open_http1(&self) -> Result<Http1, DialError> {
        let heard = Arc::<Heard>::default();
        let io = Listened::new(self.connect(SessionProtocol::Http1).await?, Arc::clone(&heard));
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
        Ok(Http1 { sender, heard })
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
