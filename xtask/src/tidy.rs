//! The house rules that a program can check. Must never change a file: each finding says where and what to do.

mod arrows;
mod dependencies;
mod files;
mod functions;
mod limits;
mod manifests;
mod source;
mod words;

use std::{fmt, fs};

use crate::{
    cache::Cache,
    child::{Failure, Outcome, say},
    codegen,
};

/// A rule broken at one place.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    path: String,
    /// From 1; 0 stands for the whole file.
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.into(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}

/// Checks every rule and prints every finding.
///
/// # Errors
/// There are findings, or the checkout cannot be read.
pub(crate) fn run(cache: &Cache) -> Outcome {
    let sources = source::all()?;
    let manifests = manifests::all(cache)?;
    let limits_page = fs::read_to_string("docs/limits.md")?;
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(files::check(source));
        findings.extend(functions::check(source));
        findings.extend(words::check(source));
        findings.extend(limits::check(source));
        findings.extend(limits::check_listed(source, &limits_page));
    }
    findings.extend(arrows::check(&manifests));
    findings.extend(arrows::check_core(cache)?);
    findings.extend(dependencies::check(&manifests, &sources)?);
    if let Err(failure) = codegen::run(true) {
        findings.push(Finding::new("control/api/src/gen", 0, failure.to_string()));
    }
    findings.sort();
    for finding in &findings {
        say(finding);
    }
    if findings.is_empty() {
        let exceptions: usize = sources.iter().map(words::exceptions).sum();
        let (files, packages) = (sources.len(), manifests.len());
        say(format_args!("  · house rules: {files} files, {packages} packages, {exceptions} exceptions with a reason"));
        return Ok(());
    }
    Err(Failure::new(format!("{} findings against the house rules (CONTRIBUTING.md), listed above", findings.len())))
}
