//! HTTP connections of one worker to applications and to other nodes, kept for the next request.
//!
//! Must never be shared between workers, and never hand out a connection made for another client identity,
//! another endpoint or another incarnation of an endpoint.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use weir_core::identity::Identity;

use crate::{body::Body, interim::Heard, limits};

/// What a pooled connection was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Uid of the local pod in whose namespace the connection was dialled.
    pub from: Arc<str>,
    /// Address dialled.
    pub to: SocketAddr,
    /// How the far side was reached and proved itself.
    pub via: Via,
    /// For copies of requests (mirrors) alone: one that is not read must not fill the window of a connection that requests use.
    pub is_copy: bool,
}

/// How the far side of a pooled connection was reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// To the pod's own application, with this client's address as source.
    App {
        /// Source address that the application sees.
        client: IpAddr,
    },
    /// Mutual TLS between these two identities.
    MutualTls {
        /// Whose certificate was presented.
        client: Identity,
        /// Who was proved.
        server: Identity,
        /// Pod uid of the endpoint: a reused address is another endpoint.
        uid: Arc<str>,
    },
    /// Plain, to an endpoint (its uid) or to an address that control does not know (empty).
    Plain {
        /// Pod uid or empty.
        uid: Arc<str>,
    },
}

impl PoolKey {
    /// The same for copies of requests.
    pub fn of_copies(&self) -> Arc<PoolKey> {
        Arc::new(PoolKey { is_copy: true, ..self.clone() })
    }

    /// How long an idle connection of this kind is worth keeping.
    fn idle(&self) -> Duration {
        match self.via {
            Via::App { .. } | Via::Plain { .. } => limits::APP_IDLE,
            Via::MutualTls { .. } => limits::PEER_IDLE,
        }
    }
}

/// One HTTP/1 connection.
pub struct Http1 {
    /// Sends requests, one at a time.
    pub sender: http1::SendRequest<Body>,
    /// Who hears interim responses.
    pub heard: Arc<Heard>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// One HTTP/2 connection with the streams that are open on it.
#[derive(Clone)]
pub struct Http2 {
    /// Sends requests; cheap to clone.
    pub sender: http2::SendRequest<Body>,
    shared: Arc<Http2State>,
}

struct Http2State {
    streams: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// The server takes no more streams on it; hyper says so only once the connection's own task has run.
    leaving: AtomicBool,
}

impl Http2 {
    /// A new connection without streams.
    pub fn new(sender: http2::SendRequest<Body>) -> Http2 {
        let state = Http2State {
            streams: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
        };
        Http2 { sender, shared: Arc::new(state) }
    }

    /// Hands this connection out no more; the streams that are open on it go on.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.shared.leaving.load(Ordering::Relaxed)
    }

    fn is_idle_for(&self, now: Instant, over: Duration) -> bool {
        self.shared.streams.load(Ordering::Relaxed) == 0 && now.duration_since(*self.shared.idle_since.lock()) >= over
    }

    /// Counts one stream until the guard is dropped.
    pub fn stream(&self) -> StreamGuard {
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        StreamGuard(self.clone())
    }
}

/// One open stream of an HTTP/2 connection.
pub struct StreamGuard(Http2);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        if self.0.shared.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.shared.idle_since.lock() = Instant::now();
        }
    }
}

#[derive(Default)]
struct Inner {
    http1: HashMap<Arc<PoolKey>, Vec<Idle>, RandomState>,
    idle: usize,
    http2: HashMap<Arc<PoolKey>, Vec<Http2>, RandomState>,
    dialling: HashMap<Arc<PoolKey>, Arc<tokio::sync::Mutex<()>>, RandomState>,
}

/// The pool of one worker.
#[derive(Default)]
pub struct Pool {
    inner: Mutex<Inner>,
    adopted: AtomicUsize,
}

/// A dial that goes on for the pool, its request being over.
pub struct Adopted<'a>(&'a AtomicUsize);

impl Drop for Adopted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// An idle HTTP/1 connection that was open when last looked at; the most recently used first.
    pub fn take_http1(&self, key: &PoolKey) -> Option<Http1> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let idle = inner.http1.get_mut(key)?;
        while let Some(candidate) = idle.pop() {
            inner.idle -= 1;
            if !candidate.connection.sender.is_closed() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless it is closed or there are enough.
    pub fn put_http1(&self, key: &Arc<PoolKey>, connection: Http1) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if connection.sender.is_closed() || inner.idle >= limits::IDLE_PER_WORKER {
            return;
        }
        let idle = inner.http1.entry(Arc::clone(key)).or_default();
        if idle.len() < limits::IDLE_PER_ENDPOINT {
            idle.push(Idle { connection, since: Instant::now() });
            inner.idle += 1;
        }
    }

    /// An open HTTP/2 connection with room for a stream, or the least loaded one when no more may be opened.
    pub fn http2(&self, key: &PoolKey) -> Option<Http2> {
        let mut guard = self.inner.lock();
        let open = guard.http2.get_mut(key)?;
        open.retain(Http2::is_open);
        let load = |connection: &Http2| connection.shared.streams.load(Ordering::Relaxed);
        let least = open.iter().min_by_key(|connection| load(connection))?;
        let room = limits::HTTP2_STREAMS as usize;
        (load(least) < room || open.len() >= limits::HTTP2_PER_ENDPOINT).then(|| least.clone())
    }

    /// Shares a new HTTP/2 connection, unless there are enough.
    pub fn put_http2(&self, key: &Arc<PoolKey>, connection: Http2) {
        let mut inner = self.inner.lock();
        let open = inner.http2.entry(Arc::clone(key)).or_default();
        if open.len() < limits::HTTP2_PER_ENDPOINT {
            open.push(connection);
        }
    }

    /// Whoever holds this lock dials for all that wait: a burst of requests opens one connection, not one each.
    pub fn dialling(&self, key: &Arc<PoolKey>) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.inner.lock().dialling.entry(Arc::clone(key)).or_default())
    }

    /// A place for a dial whose request is over; none where there are enough of them.
    pub fn adopt(&self) -> Option<Adopted<'_>> {
        let place = Adopted(&self.adopted);
        (self.adopted.fetch_add(1, Ordering::Relaxed) < limits::DIALS_ADOPTED).then_some(place)
    }

    /// Drops connections that closed or were idle for too long.
    pub fn sweep(&self) {
        let mut dropped = Vec::new();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let now = Instant::now();
        inner.http1.retain(|key, idle| {
            let over = key.idle();
            let before = idle.len();
            let (keep, drop): (Vec<_>, Vec<_>) = std::mem::take(idle)
                .into_iter()
                .partition(|entry| !entry.connection.sender.is_closed() && now.duration_since(entry.since) < over);
            *idle = keep;
            dropped.extend(drop);
            inner.idle -= before - idle.len();
            !idle.is_empty()
        });
        inner.http2.retain(|key, open| {
            let over = key.idle();
            open.retain(|connection| connection.is_open() && !connection.is_idle_for(now, over));
            !open.is_empty()
        });
        inner.dialling.retain(|_key, lock| Arc::strong_count(lock) > 1);
        drop(guard);
        // Dropping a sender wakes its connection's task: not under the lock.
        drop(dropped);
    }

    /// Closes everything that is idle.
    pub fn clear(&self) {
        let inner = std::mem::take(&mut *self.inner.lock());
        drop(inner);
    }
}
