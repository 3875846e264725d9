//! Every bound says why. Must never look at other files than `limits.rs`.

use super::{Finding, source::Source};

/// The findings of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.path.ends_with("/limits.rs") || source.path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut said = false;
    for (index, line) in source.text.lines().map(str::trim_start).enumerate() {
        if line.starts_with("///") {
            said = true;
        } else if !line.starts_with("#[") {
            let public = ["pub const ", "pub(crate) const "].iter().any(|start| line.starts_with(start));
            if public && !said {
                findings.push(Finding::new(
                    &source.path,
                    index + 1,
                    "a bound without `///`: say its unit and its reason",
                ));
            }
            said = false;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    #[test]
    fn a_bound_needs_its_own_reason() {
        let text = "//! A.\n/// Why.\n#[cfg(unix)]\npub const A: u8 = 1;\npub const B: u8 = 2;\n";
        let lines: Vec<usize> =
            check(&Source::new("a/src/limits.rs", text)).into_iter().map(|found| found.line).collect();
        assert_eq!(lines, [5]);
        assert!(check(&Source::new("a/src/other.rs", text)).is_empty());
    }
}
