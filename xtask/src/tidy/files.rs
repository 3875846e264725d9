//! File sizes, and what stands at the top. Must never count tests or generated code.

use super::{
    Finding,
    source::{Source, item_end},
};

/// More than this and a file has two jobs. 250 is what to aim at.
const LINES: usize = 500;

/// The findings of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.is_generated() {
        return findings;
    }
    let lines = production_lines(source);
    if !source.is_test() && lines > LINES {
        let text = format!("{lines} lines without tests, at most {LINES}: split it by what its parts do");
        findings.push(Finding::new(&source.path, 0, text));
    }
    // A module's own `tests.rs` needs no introduction; a suite of its own does.
    if !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs") {
        let text = "no `//!` at the top: say what this module is and what it must never do";
        findings.push(Finding::new(&source.path, 1, text));
    }
    findings
}

/// All lines but those of items under `#[cfg(test)]`.
fn production_lines(source: &Source) -> usize {
    let mut tests = 0;
    let mut from = 0;
    while let Some(found) = source.code.get(from..).and_then(|code| code.find("#[cfg(test)]")) {
        let start = from + found;
        // From behind the attribute: its own bracket is no item.
        let end = item_end(&source.code, start + "#[cfg(test)]".len());
        tests += 1 + source.line_at(end) - source.line_at(start);
        from = end;
    }
    source.text.lines().count().saturating_sub(tests)
}

#[cfg(test)]
mod tests {
    use super::{LINES, check, production_lines};
    use crate::tidy::source::Source;

    #[test]
    fn tests_do_not_count() {
        let text = "//! A.\n#[cfg(test)]\nmod tests;\nfn a() {}\n#[cfg(test)]\nmod more {\n  fn b() {}\n}\nfn c() {}\n";
        assert_eq!(production_lines(&Source::new("a/src/a.rs", text)), 3);
    }

    #[test]
    fn long_files_and_silent_modules_are_found() {
        let long = format!("//! A.\n{}", "const A: () = ();\n".repeat(LINES));
        assert_eq!(check(&Source::new("a/src/a.rs", &long)).len(), 1);
        assert!(check(&Source::new("a/src/tests.rs", &long)).is_empty());
        assert_eq!(check(&Source::new("a/src/a.rs", "fn a() {}\n")).len(), 1);
        assert_eq!(check(&Source::new("a/tests/suite.rs", "fn a() {}\n")).len(), 1);
        assert!(check(&Source::new("a/src/b/tests.rs", "fn a() {}\n")).is_empty());
        assert!(check(&Source::new("a/src/a.rs", "// @generated\nfn a() {}\n")).is_empty());
    }
}
