//! Tells every connection that the proxy is leaving. Must never end a connection by itself.

use tokio::sync::watch;

/// The side that says when.
pub struct Drainer(watch::Sender<bool>);

/// The side that waits; cheap to clone.
#[derive(Clone)]
pub struct Drain(watch::Receiver<bool>);

/// A pair.
pub fn channel() -> (Drainer, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Drainer(sender), Drain(receiver))
}

impl Drainer {
    /// From now on connections end as soon as their protocol lets them.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Until every connection that held a [`Drain`] is gone.
    pub async fn finished(&self) {
        self.0.closed().await;
    }
}

impl Drain {
    /// Returns when draining has begun, also when it began before. Never returns if the drainer is gone.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|begun| *begun).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether draining has begun.
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }
}
