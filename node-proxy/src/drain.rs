//! Tells every connection that the proxy is leaving. Must never end a connection by itself.

use tokio::{sync::watch, time::Instant};

use crate::limits;

/// The side that says when.
pub struct Drainer(watch::Sender<Option<Instant>>);

/// The side that waits; cheap to clone.
#[derive(Clone)]
pub struct Drain(watch::Receiver<Option<Instant>>);

/// A pair.
pub fn channel() -> (Drainer, Drain) {
    let (sender, receiver) = watch::channel(None);
    (Drainer(sender), Drain(receiver))
}

impl Drainer {
    /// From now on connections end as soon as their protocol lets them.
    pub fn begin(&self) {
        self.0.send_replace(Some(Instant::now()));
    }

    /// Until every connection that held a [`Drain`] is gone.
    pub async fn finished(&self) {
        self.0.closed().await;
    }
}

impl Drain {
    /// Returns when draining has begun, also when it began before. Never returns if the drainer is gone.
    pub async fn wait(&self) {
        self.since().await;
    }

    async fn since(&self) -> Instant {
        let mut receiver = self.0.clone();
        loop {
            let begun = *receiver.borrow_and_update();
            if let Some(begun) = begun {
                return begun;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when draining has gone on for so long that connections without a request are closed.
    pub async fn idle(&self) {
        let begun = self.since().await;
        tokio::time::sleep_until(begun + limits::DRAIN_IDLE).await;
    }

    /// Whether draining has begun.
    pub fn begun(&self) -> bool {
        self.0.borrow().is_some()
    }
}
