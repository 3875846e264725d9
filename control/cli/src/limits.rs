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
/// A file of values: the chart's own has 4 KiB.
pub(crate) const VALUES_BYTES: u64 = 256 * 1024;
/// Objects of one kind with the mesh's label, or replicas of control: a handful, and what a bad day leaves.
pub(crate) const OBJECTS_OF_A_KIND: u32 = 500;
/// Life of the token that a command asks for: the shortest that Kubernetes gives.
pub(crate) const TOKEN_SECONDS: i64 = 600;
/// Clocks further apart than this deserve a word (dates of HTTP are whole seconds, answers take some).
pub(crate) const SKEW_WARNING: Duration = Duration::from_secs(5);
/// Clocks further apart than this break certificates that were just issued.
pub(crate) const SKEW_ERROR: Duration = Duration::from_secs(60);
/// Anchors read of one bundle: rotation needs two or three (the proxy has the same bound).
pub(crate) const ANCHORS: usize = 32;
/// An anchor that ends within 60 days is worth a word (Linkerd's).
pub(crate) const ANCHOR_SECONDS: i64 = 60 * 86_400;
/// Longest `check --wait`.
pub(crate) const CHECK_WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3_600));
/// `check` without `--wait`: for what comes by itself after an installation, pulling images included (Linkerd's default).
pub(crate) const CHECK_WAIT_DEFAULT: Duration = Duration::from_secs(300);
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
