//! Control's admin server: health and metrics. Must never change anything.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{limits, plane::Plane};

/// How far control has come.
#[derive(Debug, Default)]
pub struct Health {
    plane: OnceLock<Arc<Plane>>,
    waits_for: Mutex<String>,
}

impl Health {
    /// Why there is nothing to serve yet.
    pub fn wait_for(&self, what: String) {
        *self.waits_for.lock() = what;
    }

    /// There is.
    pub fn set_plane(&self, plane: Arc<Plane>) {
        if self.plane.set(plane).is_err() {
            tracing::error!("control has its state already");
        }
    }

    /// Why control is not ready, if it is not.
    fn missing(&self) -> Option<String> {
        match self.plane.get() {
            Some(plane) if plane.is_loaded() => None,
            Some(_) => Some("not all objects were read yet".to_owned()),
            None => Some(self.waits_for.lock().clone()),
        }
    }
}

/// Serves for ever; drop the future to stop.
pub async fn serve(listener: TcpListener, health: Arc<Health>) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
    loop {
        // Who finds no place waits in the accept queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let tcp = match listener.accept().await {
            Ok((tcp, _peer)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "admin server cannot accept; descriptors or memory may be short");
                tokio::time::sleep(limits::CA_RESCAN).await;
                continue;
            }
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = respond(&health, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            let served = server
                .timer(TokioTimer::new())
                .header_read_timeout(limits::ADMIN_WITHIN)
                .serve_connection(TokioIo::new(tcp), service);
            // Whoever is too slow or broken loses the connection.
            let _ended = tokio::time::timeout(limits::ADMIN_WITHIN, served).await;
        });
    }
}

fn respond(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/live") => (StatusCode::OK, "live\n".to_owned()),
        (&Method::GET, "/ready") => match health.missing() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
        },
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, health.plane.get().map(|plane| plane.metrics.scrape()).unwrap_or_default())
        }
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "there are /live, /ready and /metrics\n".to_owned()),
        _other => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
