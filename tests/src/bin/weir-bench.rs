//! `cargo xtask bench`. Must never hold more than the start of it.

use std::process::ExitCode;

use clap::Parser as _;
use weir_tests::bench::{self, Options};

fn main() -> ExitCode {
    bench::run(&Options::parse())
}
