//! What was found, and how it is shown. Must never show a hint for what is well.

use std::fmt::Write as _;

use serde::Serialize;

use crate::output::{Tone, name, sentence};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Success,
    Warning,
    Error,
}

/// Field names are Linkerd's where Linkerd has one.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) description: String,
    pub(super) result: Verdict,
    /// What is wrong and what to do; empty on success. May have several lines.
    pub(super) hint: String,
    /// How many said exactly this: nodes that are alike make one line.
    pub(super) count: u64,
    /// Whether it comes by itself after an installation, given time.
    #[serde(skip)]
    pub(super) patience: bool,
}

impl Finding {
    /// The same, but worth waiting for.
    pub(super) fn worth_waiting(self) -> Finding {
        Finding { patience: true, ..self }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Category {
    #[serde(rename = "categoryName")]
    pub(super) name: String,
    pub(super) checks: Vec<Finding>,
}

impl Category {
    fn add(&mut self, finding: Finding) {
        let same = |held: &&mut Finding| {
            (&held.description, held.result, &held.hint) == (&finding.description, finding.result, &finding.hint)
        };
        match self.checks.iter_mut().find(same) {
            Some(held) => held.count += finding.count,
            None => self.checks.push(finding),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) success: bool,
    pub(super) categories: Vec<Category>,
}

impl Summary {
    /// What is not so.
    pub(super) fn first_error(&self) -> Option<&str> {
        let mut all = self.categories.iter().flat_map(|category| &category.checks);
        all.find(|finding| finding.result == Verdict::Error).map(|finding| finding.description.as_str())
    }

    /// Whether there is an error that time may heal.
    pub(super) fn may_heal(&self) -> bool {
        let mut all = self.categories.iter().flat_map(|category| &category.checks);
        all.any(|finding| finding.result == Verdict::Error && finding.patience)
    }

    pub(super) fn new(findings: Vec<(String, Finding)>) -> Summary {
        let success = findings.iter().all(|(_, finding)| finding.result != Verdict::Error);
        let mut categories: Vec<Category> = Vec::new();
        for (name, finding) in findings {
            match categories.iter_mut().find(|category| category.name == name) {
                Some(category) => category.add(finding),
                None => categories.push(Category { name, checks: vec![finding] }),
            }
        }
        Summary { success, categories }
    }
}

/// `None`: success.
pub(super) fn found(category: &str, description: &str, problem: Option<(Verdict, String)>) -> (String, Finding) {
    let (result, hint) = problem.unwrap_or((Verdict::Success, String::new()));
    (category.to_owned(), Finding { description: description.to_owned(), result, hint, count: 1, patience: false })
}

/// As text; `all`: what is well too.
pub(super) fn text(summary: &Summary, color: bool, all: bool) -> String {
    let mut text = String::new();
    let shown = |check: &&Finding| all || check.result != Verdict::Success;
    for category in summary.categories.iter().filter(|category| category.checks.iter().any(|check| shown(&check))) {
        let title = name(&category.name);
        let _ = writeln!(text, "{title}\n{}", "-".repeat(title.chars().count()));
        for check in category.checks.iter().filter(shown) {
            let mark = match check.result {
                Verdict::Success => Tone::Good.paint("√", color),
                Verdict::Warning => Tone::Warn.paint("‼", color),
                Verdict::Error => Tone::Bad.paint("×", color),
            };
            let times = if check.count > 1 { format!(" ({} times)", check.count) } else { String::new() };
            let _ = writeln!(text, "{mark} {}{times}", sentence(&check.description));
            if check.result != Verdict::Success {
                for line in check.hint.lines() {
                    let _ = writeln!(text, "    {}", sentence(line));
                }
            }
        }
        text.push('\n');
    }
    let mark = if summary.success { Tone::Good.paint("√", color) } else { Tone::Bad.paint("×", color) };
    let _ = writeln!(text, "Status check results are {mark}");
    text
}
