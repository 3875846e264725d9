//! `weir-node`: holder, proxy and cleanup of one node; `weir-cni` when called by that name. Must never do more than parse arguments and dispatch.

use std::{path::Path, process::ExitCode};

use clap::Parser as _;
use weir_node::{
    args::{Args, Command},
    cleanup, cni, holder, installed, proxy, supervisor,
};

// Thousands of connections come and go with buffers of many sizes: of the same build the C library's allocator kept 11 KiB for each
// idle HTTP connection, this 7 (tests/tests/limits.rs).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // How container runtimes call their plugins: by name, with everything in the environment.
    let called = std::env::args_os().next();
    if called.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == cni::PLUGIN)) {
        return cni::run();
    }
    let result = match Args::parse().command {
        Command::Installed(args) => return answer(installed::run(&args)),
        Command::Holder(args) => holder::run(args).map_err(|error| error.to_string()),
        Command::Proxy(args) if args.worker => proxy::run(args).map_err(|error| error.to_string()),
        Command::Proxy(args) => supervisor::run(&args).map_err(|error| error.to_string()),
        Command::Cleanup(args) => cleanup::run(args).map_err(|error| error.to_string()),
    };
    answer(result.map(|()| ExitCode::SUCCESS))
}

fn answer(result: Result<ExitCode, impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of the process, also when logging never began")]
            {
                eprintln!("weir-node: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
