//! Work that may take a processor for a while: few at a time, and never where nodes are served.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

use crate::{limits, plane::Plane};

/// Places of those who have something worked out.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    plane: Arc<Plane>,
    places: Arc<Semaphore>,
}

impl Turns {
    /// All of them free.
    pub(crate) fn new(plane: Arc<Plane>) -> Turns {
        Turns { plane, places: Arc::new(Semaphore::new(limits::EXPLANATIONS)) }
    }

    /// Does the work when it is its turn.
    ///
    /// # Errors
    /// Those of the work; that control ends.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Plane) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.places).acquire_owned().await;
        let turn = turn.map_err(|_closed| Status::unavailable("control ends"))?;
        let plane = Arc::clone(&self.plane);
        let answer = tokio::task::spawn_blocking(move || {
            // Also of a caller that has left: the work goes on.
            let _turn = turn;
            work(&plane)
        });
        answer.await.map_err(|error| Status::internal(error.to_string()))?
    }
}
