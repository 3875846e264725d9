//! Waiting for a condition with a deadline. Must never be used where there is an event to wait for.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time between two looks at a condition that announces itself to nobody.
const STEP: Duration = Duration::from_millis(10);

/// Looks again and again until `condition` gives a value.
///
/// # Panics
/// When it has not after `within`.
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::park_timeout(STEP);
    }
}
