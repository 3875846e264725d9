//! `weir-node`: holder, proxy and cleanup of one node. Must never do more than parse arguments and dispatch.

use std::process::ExitCode;

use clap::Parser as _;
use weir_node::{
    args::{Args, Command},
    cleanup, holder, proxy, supervisor,
};

// Thousands of connections come and go with buffers of many sizes: of the same build the C library's allocator kept 11 KiB for each
// idle HTTP connection, this 7 (tests/tests/limits.rs).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Holder(args) => holder::run(args).map_err(|error| error.to_string()),
        Command::Proxy(args) if args.worker => proxy::run(args).map_err(|error| error.to_string()),
        Command::Proxy(args) => supervisor::run(&args).map_err(|error| error.to_string()),
        Command::Cleanup(args) => cleanup::run(args).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of the process, also when logging never began")]
            {
                eprintln!("weir-node: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
