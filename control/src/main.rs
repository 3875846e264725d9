//! `weir-control`. Must never hold logic.

use std::{io, process::ExitCode};

use clap::Parser as _;

fn main() -> ExitCode {
    let args = weir_control::Args::parse();
    let filter = match tracing_subscriber::EnvFilter::try_new(&args.log) {
        Ok(filter) => filter,
        Err(error) => weir_control::Args::command_error(&format!("--log {:?}: {error}", args.log)).exit(),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match weir_control::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "control ends");
            ExitCode::FAILURE
        }
    }
}
