//! Function sizes, for what clippy does not see (the kernel programs) too. Must never count comments or empty lines.

use super::{
    Finding,
    source::{Source, item_end, words},
};

/// As in `.clippy.toml`.
const LINES: usize = 70;

/// The findings of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.is_generated() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for at in words(&source.code, "fn") {
        let Some((name, lines)) = function(&source.code, at) else { continue };
        if lines > LINES && !exempt(source, at) {
            let text = format!("function `{name}` has {lines} lines of code, at most {LINES}: give its steps names");
            findings.push(Finding::new(&source.path, source.line_at(at), text));
        }
    }
    findings
}

/// The name, and how many lines of code lie between the braces; none for a function pointer's type.
fn function(code: &str, at: usize) -> Option<(&str, usize)> {
    let rest = code.get(at + 2..)?;
    let name = rest.trim_start();
    let length = name.find(|character: char| !character.is_alphanumeric() && character != '_')?;
    let name = name.get(..length).filter(|name| !name.is_empty())?;
    let whole = code.get(at..item_end(code, at))?;
    let body = whole.get(whole.find('{')? + 1..whole.len() - 1)?;
    Some((name, body.lines().filter(|line| !line.trim().is_empty()).count()))
}

/// Is it excused with a reason, as clippy knows it, in the ten lines above?
fn exempt(source: &Source, at: usize) -> bool {
    let before = source.text.get(..at).unwrap_or_default();
    let above = before.get(..before.rfind('\n').unwrap_or_default()).unwrap_or_default().lines().rev().take(10);
    above.take_while(|line| !line.trim().is_empty()).any(|line| line.contains("too_many_lines"))
}

#[cfg(test)]
mod tests {
    use super::{LINES, check};
    use crate::tidy::source::Source;

    #[test]
    fn clippy_has_the_same_bound() {
        let clippy = include_str!("../../../.clippy.toml");
        assert!(clippy.contains(&format!("too-many-lines-threshold = {LINES}\n")));
    }

    fn findings(lines: usize, above: &str) -> usize {
        let body = "    step();\n    // why\n\n".repeat(lines);
        let text = format!("//! A.\n\n{above}fn a(b: fn(u8) -> u8) {{\n{body}}}\nfn c() {{}}\n");
        check(&Source::new("a/src/a.rs", text)).len()
    }

    #[test]
    fn only_lines_of_code_count() {
        assert_eq!(findings(LINES, ""), 0);
        assert_eq!(findings(LINES + 1, ""), 1);
    }

    #[test]
    fn a_reason_excuses() {
        assert_eq!(findings(LINES + 1, "#[expect(clippy::too_many_lines, reason = \"a table\")]\n"), 0);
    }
}
