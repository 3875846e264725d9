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

/// The bounds of one file that the page of limits does not name.
pub(super) fn check_listed(source: &Source, page: &str) -> Vec<Finding> {
    if !source.path.ends_with("/limits.rs") || source.path.starts_with("xtask/") {
        return Vec::new();
    }
    let name = |line: &str| Some(line.strip_prefix("pub const ")?.split(':').next()?.to_owned());
    let names = source.text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, name(line)?)));
    names
        .filter(|(_, name)| !page.contains(&format!("`{name}`")))
        .map(|(line, name)| Finding::new(&source.path, line, format!("{name} is missing in docs/limits.md")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{check, check_listed};
    use crate::tidy::source::Source;

    #[test]
    fn a_bound_is_listed_by_its_whole_name() {
        let source = Source::new("a/src/limits.rs", "pub const A: u8 = 1;\npub const AB: u8 = 1;\n");
        let lines: Vec<usize> = check_listed(&source, "| `AB` |").into_iter().map(|found| found.line).collect();
        assert_eq!(lines, [1]);
    }

    #[test]
    fn a_bound_needs_its_own_reason() {
        let text = "//! A.\n/// Why.\n#[cfg(unix)]\npub const A: u8 = 1;\npub const B: u8 = 2;\n";
        let lines: Vec<usize> =
            check(&Source::new("a/src/limits.rs", text)).into_iter().map(|found| found.line).collect();
        assert_eq!(lines, [5]);
        assert!(check(&Source::new("a/src/other.rs", text)).is_empty());
    }
}
