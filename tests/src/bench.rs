//! Measures Weir beside a direct path, nginx and HAProxy, in one run on one machine.
//!
//! Must never compare figures of different runs, and never count the processor time of clients or origins.

mod beside;
mod document;
mod generate;
mod hops;
mod idle;
mod load;
mod process;
mod report;
mod rules;
mod scenario;
mod serve;
mod stage;
mod trouble;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use self::{
    report::Row,
    scenario::{SCENARIOS, Scenario},
    stage::{Stage, Subject},
};
use crate::stop::Stop;

/// Fewest rounds of which a median says something.
const ROUNDS: usize = 3;
/// Length of one round of one subject unless said otherwise.
const ROUND: Duration = Duration::from_secs(2);
/// The same with `--quick`: the shortest that wrk knows.
const QUICK_ROUND: Duration = Duration::from_secs(1);
/// Where the result of a whole run goes.
const DOCUMENT: &str = "docs/measurements.md";

/// Measures processor time per request, rates, latencies and memory of Weir beside nginx and HAProxy. Needs root.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", bin_name = "cargo xtask bench --")]
pub struct Options {
    /// Rounds of one second; nothing is written
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains one of these texts; nothing is written
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these subjects: direct, nginx, haproxy, nghttpx, two, same; nothing is written
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    subjects: Vec<String>,
    /// Seconds of one round of one subject [default: 2]
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: Option<u64>,
    /// Rounds, the order of subjects reversed each time
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Write the result to this file, also of a part of a run
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the names of scenarios and end
    #[arg(long)]
    list: bool,
}

impl Options {
    fn round(&self) -> Duration {
        let standard = if self.quick { QUICK_ROUND } else { ROUND };
        self.seconds.map_or(standard, Duration::from_secs)
    }

    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|pattern| scenario.contains(pattern))
    }

    fn subjects(&self, scenario: &Scenario) -> Vec<Subject> {
        let wanted =
            |subject: &Subject| self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject.name());
        scenario.subjects().into_iter().filter(wanted).collect()
    }

    /// The file to write, if any: a part of a run must not replace the whole.
    fn target(&self) -> Option<PathBuf> {
        let whole = !self.quick && self.only.is_empty() && self.subjects.is_empty();
        self.output.clone().or_else(|| whole.then(|| PathBuf::from(DOCUMENT)))
    }
}

/// Runs what was asked for; fails when a round had an error.
///
/// # Panics
/// When nodes, pods or programs cannot be started.
pub fn run(options: &Options) -> ExitCode {
    if options.list {
        SCENARIOS
            .iter()
            .map(|scenario| scenario.name)
            .chain([idle::NAME, beside::NAME, rules::NAME, trouble::NAME])
            .for_each(say);
        return ExitCode::SUCCESS;
    }
    let stop = match Stop::install() {
        Ok(stop) => stop,
        Err(error) => {
            say(&format!("signals cannot be caught, so that nothing could be taken down after one: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| options.wants(scenario.name)).collect();
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    let mut programs = hops::versions();
    if !scenarios.is_empty() {
        say("starting two nodes, their pods, nginx, HAProxy and nghttpx");
        let stage = Stage::start();
        programs.push(format!("congestion control {}", stage.congestion_control()));
        let idle = stage.memory();
        for scenario in scenarios {
            rows.extend(measure(scenario, options, &stage, &stop));
        }
        memory.extend(idle::load_rows(&idle, &stage.memory()));
    }
    if options.wants(idle::NAME) && stop.asked().is_none() {
        memory.extend(idle::run());
    }
    let mut attacks = Vec::new();
    if options.wants(beside::NAME) && stop.asked().is_none() {
        attacks = beside::run(options.rounds, options.round(), &stop);
    }
    let mut routes = Vec::new();
    if options.wants(rules::NAME) && stop.asked().is_none() {
        // Differences of some hundredths need more of them.
        routes = rules::run(options.rounds * 3, options.round(), &stop);
    }
    let mut troubles = Vec::new();
    if options.wants(trouble::NAME) && stop.asked().is_none() {
        // Breakers and budgets look at ten seconds.
        troubles = trouble::run(options.rounds, options.round() * 5, &stop);
    }
    if let Some(signal) = stop.asked() {
        say(&format!("{signal}: everything is taken down, nothing is written"));
        return ExitCode::FAILURE;
    }
    let text = report::table(&rows, &memory, &attacks, &routes, &troubles);
    say("");
    say(&text);
    if let Some(path) = options.target() {
        let document = document::render(&text, &programs, options.round(), options.rounds);
        match fs::write(&path, document) {
            Ok(()) => say(&format!("written: {}", path.display())),
            Err(error) => {
                say(&format!("{}: {error}: run this in the checkout, or name a file with --output", path.display()));
                return ExitCode::FAILURE;
            }
        }
    }
    let failed = rows.iter().any(Row::failed)
        || memory.iter().any(|row| row.failed)
        || attacks.iter().any(|row| row.failed)
        || routes.iter().any(|row| row.failed)
        || troubles.iter().any(|row| row.failed);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All rounds of one scenario.
fn measure<'a>(scenario: &'a Scenario, options: &Options, stage: &Stage, stop: &Stop) -> Vec<Row<'a>> {
    let subjects = options.subjects(scenario);
    let mut rows: Vec<Row<'_>> = subjects.iter().map(|subject| Row::new(scenario, *subject)).collect();
    for round in 0..options.rounds.max(1) {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            if stop.asked().is_some() {
                return rows;
            }
            let subject = subjects[index];
            let what = format!("{:<14} round {} {:<8}", scenario.name, round + 1, subject.name());
            match scenario.measure(stage, subject, options.round()) {
                Ok(sample) => {
                    say(&format!("{what} {}", sample.line(scenario.unit)));
                    rows[index].rounds.push(Some(sample));
                }
                Err(error) => {
                    say(&format!("{what} FAILED: {error}"));
                    rows[index].rounds.push(None);
                }
            }
        }
    }
    rows
}

/// One line on the terminal.
fn say(line: &str) {
    // A closed terminal is no reason to stop a measurement.
    let _closed = writeln!(io::stdout(), "{line}");
}
