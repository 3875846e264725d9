//! The `weir` command: what people see of the mesh. It asks control's API only; must never read files of control or nodes.

mod args;
mod certificate;
mod check;
mod client;
mod duration;
mod edges;
mod endpoints;
mod error;
mod flows;
mod histogram;
mod identity;
mod limits;
mod output;
mod resource;
mod session;
mod stat;
mod units;
mod version;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Arguments, Command},
    error::CliError,
    session::{Outcome, Session},
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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

async fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let global = &arguments.global;
    let session = Session { settings: global.settings(), format: global.output, color: global.color.on() };
    match &arguments.command {
        Command::Stat(stat) => stat::run(stat, &session, out).await,
        Command::Edges(edges) => edges::run(edges, &session, out).await,
        Command::Identity(identity) => identity::run(identity, &session, out).await,
        Command::Endpoints(endpoints) => endpoints::run(endpoints, &session, out).await,
        Command::Check(check) => check::run(check, &session, out).await,
        Command::Version(version) => version::run(version, &session, out).await,
        Command::Completions { shell } => {
            // Into memory first: the generator panics when its reader leaves.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "weir", &mut script);
            out.write_all(&script)?;
            Ok(Outcome::Good)
        }
    }
}
