//! Everything that CI checks, step by step, with times. Must never skip what it cannot run: that is a failure.

use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    cache::Cache,
    child::{self, Failure, Outcome, say},
    cluster, ebpf, programs, tidy, tools,
};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only what needs neither root nor other programs: format, lints, house rules, unit tests.
    #[arg(long)]
    quick: bool,
    /// Also the suites on a real Kubernetes of two nodes, which is built where it is missing; needs Go.
    #[arg(long, conflicts_with = "quick")]
    kubernetes: bool,
    /// Only tests whose name contains this; format, lints and house rules are left out.
    filter: Option<String>,
}

/// Passed and failed.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
}

struct Report {
    name: &'static str,
    counts: Counts,
    took: Duration,
    why: Option<Failure>,
}

/// Runs the steps, all of them even when one fails, and prints a summary.
///
/// # Errors
/// What the steps need cannot be installed or built.
pub(crate) fn run(cache: &Cache, args: &TestArgs) -> Outcome<ExitCode> {
    let mut reports = Vec::new();
    let mut step = |name: &'static str, work: &mut dyn FnMut() -> Outcome<Counts>| {
        say(format_args!("\n== {name}"));
        let start = Instant::now();
        let (counts, why) = match work() {
            Ok(counts) => (counts, None),
            Err(failure) => (Counts { passed: 0, failed: 1 }, Some(failure)),
        };
        if let Some(failure) = &why {
            child::complain(failure);
        }
        reports.push(Report { name, counts, took: start.elapsed(), why });
    };
    if !args.quick {
        step("tools", &mut || tools::run(cache).map(|()| Counts::default()));
        step("ebpf", &mut || one(ebpf::run(cache)));
    }
    if args.filter.is_none() {
        step("format", &mut || one(format(cache)));
        step("lints", &mut || one(lints(cache)));
        step("house rules", &mut || one(tidy::run(cache)));
    }
    step("unit tests", &mut || cargo_test(cache, &["--workspace", "--exclude", "weir-tests"], args.filter.as_deref()));
    if !args.quick {
        step("suites with namespaces, eBPF and real programs", &mut || suites(cache, args.filter.as_deref()));
    }
    if args.kubernetes {
        step("suites on Kubernetes", &mut || {
            cluster::suites(cache, args.filter.as_deref(), |cargo| ran(cargo, Shown::Output))
        });
    }
    Ok(summary(&reports))
}

fn one(outcome: Outcome) -> Outcome<Counts> {
    outcome.map(|()| Counts { passed: 1, failed: 0 })
}

fn format(cache: &Cache) -> Outcome {
    let hint = "Run `cargo fmt --all`.";
    child::run(cache.cargo().args(["fmt", "--all", "--check"]), "workspace", hint)?;
    child::run(cache.cargo().args(["fmt", "--check"]).current_dir("ebpf/programs"), "ebpf/programs", hint)
}

fn lints(cache: &Cache) -> Outcome {
    let mut cargo = cache.cargo();
    // The release profile: the same dependency build serves lints, tests and programs.
    cargo.args(["clippy", "--quiet", "--release", "--workspace", "--all-targets"]);
    cargo.args(["--features", "weir-tests/kubernetes", "--", "--deny", "warnings"]);
    child::run(&mut cargo, "clippy, no warning allowed", "Each message above says what to change.")
}

fn suites(cache: &Cache, filter: Option<&str>) -> Outcome<Counts> {
    if !child::is_root() {
        return Err(Failure::new(
            "network namespaces and eBPF need root: run this as root, or `cargo xtask test --quick` for the rest",
        ));
    }
    programs::product(cache, programs::Profile::Release)?;
    cargo_test(cache, &["--package", "weir-tests"], filter)
}

/// Runs `cargo test` and counts what its runners report, passing their output on.
fn cargo_test(cache: &Cache, packages: &[&str], filter: Option<&str>) -> Outcome<Counts> {
    let mut cargo = cache.cargo();
    cargo.args(["test", "--release", "--no-fail-fast"]).args(packages).args(filter);
    if packages.contains(&"weir-tests") {
        // One at a time: each suite brings up whole nodes, and measures some of them.
        cargo.args(["--", "--test-threads=1"]);
    }
    cargo.env("WEIR_BINARIES", cache.binaries()).env("WEIR_PYTHON", cache.python());
    ran(&mut cargo, Shown::Failures)
}

/// What of the runners' output is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Not the many lines of what went well: they say nothing.
    Failures,
    /// All: figures stand in it.
    Output,
}

fn ran(cargo: &mut Command, shown: Shown) -> Outcome<Counts> {
    let (counts, succeeded) = counted(cargo, shown)?;
    if !succeeded && counts.failed == 0 {
        return Err(Failure::new("cargo test failed before or between the tests: read its message above"));
    }
    Ok(counts)
}

fn counted(command: &mut Command, shown: Shown) -> Outcome<(Counts, bool)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(found) = result_line(&line) {
                counts.passed += found.passed;
                counts.failed += found.failed;
            }
            let is_dull = line.is_empty()
                || line.ends_with(" ... ok")
                || line.starts_with("running 0")
                || line.contains(" 0 passed; 0 failed");
            if shown == Shown::Output || !is_dull {
                say(line);
            }
        }
    }
    Ok((counts, child.wait()?.success()))
}

/// `test result: ok. 12 passed; 0 failed; …` as counts.
fn result_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number =
        |word: &str| rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some(Counts { passed: number(" passed")?, failed: number(" failed")? })
}

fn summary(reports: &[Report]) -> ExitCode {
    say("\n== summary");
    let mut total = Counts::default();
    for Report { name, counts, took, why } in reports {
        let verdict = if counts.failed > 0 { "FAILED" } else { "ok" };
        say(format_args!(
            "{verdict:>6} {:>6.1} s {:>5} passed {:>3} failed  {name}",
            took.as_secs_f64(),
            counts.passed,
            counts.failed
        ));
        if let Some(failure) = why {
            say(format_args!("       {}", failure.to_string().lines().next().unwrap_or_default()));
        }
        total.passed += counts.passed;
        total.failed += counts.failed;
    }
    say(format_args!("\n{} passed, {} failed", total.passed, total.failed));
    if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn counts_come_from_the_runners_closing_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let counts = result_line(line).expect("a result line");
        assert_eq!((counts.passed, counts.failed), (12, 3));
        assert!(result_line("test a::b ... ok").is_none());
    }
}
