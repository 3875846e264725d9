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
pub fn until<T>(what: &str, within: Duration, condition: impl FnMut() -> Option<T>) -> T {
    let value = self::within(within, condition);
    value.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// The same, for a caller who has more to say about a failure.
pub fn within<T>(within: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= deadline {
            return value;
        }
        thread::park_timeout(STEP);
    }
}

/// As [`until`], for a condition that asks somebody.
///
/// # Panics
/// When it has not after `within`.
pub async fn eventually<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(5 * STEP).await;
    }
}

/// Lets time pass: for what happens after a time and tells nobody, and for pacing.
pub fn until_instant(due: Instant) {
    // Parking may end early, for one when a scoped thread ended before.
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
