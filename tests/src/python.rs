//! The Python that has grpcio and Envoy, made by `cargo xtask test`. Must never be the machine's own.

use std::{env, path::PathBuf};

/// Its interpreter.
///
/// # Panics
/// When it is not there.
pub fn interpreter() -> PathBuf {
    let given = env::var_os("WEIR_PYTHON").map(PathBuf::from);
    let home = env::var_os("HOME").expect("HOME");
    let path = given.unwrap_or_else(|| PathBuf::from(home).join(".cache/weir/python/bin/python3"));
    assert!(path.is_file(), "{} is not there: `cargo xtask test` makes it", path.display());
    path
}
