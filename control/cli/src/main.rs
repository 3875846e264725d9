//! The `weir` command: what people install and see of the mesh. It asks the API server and control's API; must never read files of control or nodes.

mod args;
mod by_route;
mod certificate;
mod chart;
mod check;
mod client;
mod cluster;
mod complete;
mod diagnostics;
mod duration;
mod edges;
mod endpoints;
mod error;
mod explain;
mod flows;
mod histogram;
mod identity;
mod install;
mod limits;
mod log_level;
mod output;
mod policy;
mod resource;
mod routes;
mod session;
mod stat;
mod stat_outbound;
mod target;
mod units;
mod version;
mod wording;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::{
    args::{Arguments, Command, asked::Diagnostics},
    error::CliError,
    output::Format,
    session::{Outcome, Session},
};

fn main() -> ExitCode {
    let called = called();
    if called == "kubectl_complete-weir" {
        let words: Vec<String> = std::env::args().skip(1).collect();
        // A reader that leaves is no failure.
        let _left = complete::run(Arguments::command(), &words, &mut io::stdout().lock());
        return ExitCode::SUCCESS;
    }
    let arguments = arguments(&called);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments, &mut io::stdout().lock())),
        Err(error) => Err(CliError::Output(error)),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(error) if error.reader_left() => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("weir: {}", error.line()));
            ExitCode::FAILURE
        }
    }
}

/// The name that this program was called by.
fn called() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// By the name `kubectl-weir` this is a plugin of kubectl, and its help says so.
fn arguments(called: &str) -> Arguments {
    let mut command = Arguments::command();
    if called == "kubectl-weir" {
        command = command.bin_name("kubectl weir").display_name("kubectl weir");
    }
    let matches = command.get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

async fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let session = Session::new(&arguments.global, &arguments.command)?;
    let session = &session;
    match &arguments.command {
        Command::Install(chosen) => install::install(chosen, session, out),
        Command::Upgrade(chosen) => install::upgrade(chosen, session, out).await,
        Command::Uninstall(chosen) => install::uninstall(chosen, session, out).await,
        Command::Prune(_) => install::prune(session, out).await,
        Command::Stat(stat) => stat::run(stat, session, out).await,
        Command::Routes(chosen) => routes::run(chosen, session, out).await,
        Command::StatOutbound(chosen) => stat_outbound::run(chosen, session, out).await,
        Command::Edges(edges) => edges::run(edges, session, out).await,
        Command::Identity(identity) => identity::run(identity, session, out).await,
        Command::Endpoints(endpoints) => endpoints::run(endpoints, session, out).await,
        Command::Explain(chosen) => explain::run(chosen, session, out).await,
        Command::Policy(chosen) => policy::run(chosen, session, out).await,
        Command::Diagnostics(Diagnostics::Policy(chosen)) => diagnostics::policy(chosen, session, out).await,
        Command::Check(check) => check::run(check, session, out).await,
        Command::LogLevel(chosen) => log_level::run(chosen, session, out).await,
        Command::Version(version) => version::run(version, session, out).await,
        Command::Completions { shell } => {
            // Into memory first: the generator panics when its reader leaves.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "weir", &mut script);
            if session.format == Format::Json {
                let text = String::from_utf8_lossy(&script);
                output::json(out, &serde_json::json!({"shell": shell.to_string(), "script": text}))?;
            } else {
                out.write_all(&script)?;
            }
            Ok(Outcome::Good)
        }
    }
}
