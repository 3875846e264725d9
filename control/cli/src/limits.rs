//! Bounds of the command line, each with its reason. Must never hold a number without one.

use std::time::Duration;

/// One answer of control: the reports of all nodes, at most 16 MiB each; 16 such nodes at once are past what a table can show.
pub(crate) const MESSAGE_BYTES: usize = 256 * 1024 * 1024;
/// Trust anchors: a handful of certificates of 1 KiB.
pub(crate) const PEM_BYTES: u64 = 256 * 1024;
/// Token file: 32 random bytes in hexadecimal, with room (control has the same bound).
pub(crate) const TOKEN_BYTES: u64 = 4_096;
/// Shortest and longest window of a query, seconds (the contract's).
pub(crate) const WINDOW_SECONDS: (u64, u64) = (1, 300);
/// Shortest and longest `--timeout`: nodes have 2 s to answer control, and nobody waits for ten minutes.
pub(crate) const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Longest `check --wait`.
pub(crate) const CHECK_WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3_600));
/// Between two attempts of `check --wait`.
pub(crate) const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// Between two drawings of `stat --watch`.
pub(crate) const REDRAW: Duration = Duration::from_secs(2);
/// Characters of one foreign value in a table: longer than any valid Kubernetes name (253) or address.
pub(crate) const CELL_CHARS: usize = 300;
/// Characters of a foreign sentence (a hint, an error of control).
pub(crate) const SENTENCE_CHARS: usize = 4_096;
/// Certificates shown of one chain: leaf, issuer and what a rotation adds.
pub(crate) const CHAIN: usize = 8;
/// Buckets of one histogram; nodes send 26.
pub(crate) const BUCKETS: usize = 1_024;
/// A shorter covered window would turn a few requests after a start into a huge rate.
pub(crate) const COVERED_SECONDS: f64 = 1.0;
