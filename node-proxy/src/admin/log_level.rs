//! The log filter, read and changed at run time. Must never take a filter that does not parse whole.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, reload};
use weir_api::v1;

type Apply = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// Why a filter was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogLevelError {
    /// Not a filter.
    #[error("not a log filter: {0}; write for instance `info,weir_node=debug`")]
    Syntax(#[from] tracing_subscriber::filter::ParseError),
    /// The subscriber is gone.
    #[error("the log filter cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Reads and changes the log filter.
#[derive(Clone)]
pub struct LogLevel {
    apply: Arc<Apply>,
    current: Arc<Mutex<String>>,
}

impl LogLevel {
    /// Over the filter that `handle` reloads; `current` is what it was made from.
    pub fn new<S: 'static>(handle: reload::Handle<EnvFilter, S>, current: impl Into<String>) -> LogLevel {
        let apply = Arc::new(move |filter| handle.reload(filter));
        LogLevel { apply, current: Arc::new(Mutex::new(current.into())) }
    }

    /// The filter in force.
    pub fn current(&self) -> String {
        self.current.lock().clone()
    }

    /// Changes the filter.
    ///
    /// # Errors
    /// The filter does not parse, or there is no subscriber any more. The one in force stays.
    pub fn set(&self, filter: &str) -> Result<(), LogLevelError> {
        let parsed = EnvFilter::builder().parse(filter)?;
        let mut current = self.current.lock();
        (self.apply)(parsed)?;
        filter.clone_into(&mut current);
        tracing::info!(filter, "log level changed");
        Ok(())
    }

    /// Does what control asks, and says what is in force then.
    pub fn answer(&self, asked: &v1::LogLevelQuery) -> v1::LogLevelReport {
        let set = asked.set.as_ref().map_or(Ok(()), |filter| self.set(filter.trim()));
        v1::LogLevelReport {
            filter: self.current(),
            problem: set.err().map(|error| error.to_string()).unwrap_or_default(),
        }
    }
}
