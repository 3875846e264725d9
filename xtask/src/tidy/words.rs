//! What no source may say: unbounded queues, `unsafe` outside `ebpf/`, silent exceptions, notes to oneself. Must never read generated code.

use super::{
    Finding,
    source::{Source, words},
};

/// Calls and types that queue without a bound.
const UNBOUNDED: [&str; 5] =
    ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::unbounded", "channel::unbounded"];
/// Said in comments by someone who is not done.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// The findings of one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.is_generated() {
        return findings;
    }
    let mut found = |at: usize, text: &str| findings.push(Finding::new(&source.path, source.line_at(at), text));
    for queue in UNBOUNDED {
        for at in words(&source.code, queue) {
            found(at, "a queue without a bound: take a bounded one, its bound and reason in the crate's limits.rs");
        }
    }
    for at in std_channels(&source.code) {
        found(at, "std's `channel()` has no bound: take `sync_channel` with a bound from the crate's limits.rs");
    }
    if !source.path.starts_with("ebpf/") {
        for at in words(&source.code, "unsafe") {
            found(at, "`unsafe` outside ebpf/: what needs it belongs into weir-ebpf-loader, behind a safe function");
        }
    }
    for opening in ["#[allow(", "#![allow("] {
        for (at, _) in source.code.match_indices(opening) {
            let attribute = source.text.get(at..).unwrap_or_default();
            let attribute = attribute.split_once(")]").map_or(attribute, |(inside, _)| inside);
            if !attribute.contains("reason = \"generated\"") {
                found(at, "`allow` outlives its cause: write `expect(lint, reason = \"…\")`");
            }
        }
    }
    // The rule's own list is the one place that may spell them.
    if !source.path.ends_with("xtask/src/tidy/words.rs") {
        for note in NOTES {
            for at in words(&source.text, note) {
                found(at, "a note to oneself: do it, or write an issue");
            }
        }
    }
    findings
}

/// How many lints the file excuses itself from.
pub(super) fn exceptions(source: &Source) -> usize {
    source.code.matches("#[expect(").count() + source.code.matches("#![expect(").count()
}

/// `mpsc::channel()` without an argument is std's and unbounded; tokio's takes its bound.
fn std_channels(code: &str) -> impl Iterator<Item = usize> + '_ {
    words(code, "channel").filter(|at| {
        let rest = code.get(at + "channel".len()..).unwrap_or_default();
        // `channel::<T>()` too.
        let rest = match rest.strip_prefix("::<") {
            Some(generic) => generic.split_once(">(").map_or("", |(_, after)| after),
            None => rest.strip_prefix('(').unwrap_or_default(),
        };
        let called = code.get(..*at).unwrap_or_default();
        let ours = called.ends_with("fn ") || called.ends_with('.') || called.ends_with("watch::");
        rest.trim_start().starts_with(')') && !ours && (called.ends_with("mpsc::") || code.contains("std::sync::mpsc"))
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unbounded_queues_are_found_where_they_are() {
        let text = "//! A.\nlet (a, b) = mpsc::channel();\nlet c = mpsc::channel(4);\nlet d = mpsc::unbounded_channel::<u8>();\n";
        assert_eq!(lines("a/src/a.rs", text), [4, 2]);
        assert_eq!(lines("a/src/a.rs", "let a = std::sync::mpsc::channel::<Vec<u8>>();\n"), [1]);
    }

    #[test]
    fn unsafe_is_for_the_kernel_side() {
        let text = "// unsafe\nlet a = unsafe { b() };\n";
        assert_eq!(lines("node-proxy/src/a.rs", text), [2]);
        assert!(lines("ebpf/loader/src/a.rs", text).is_empty());
    }

    #[test]
    fn silent_exceptions_and_notes_are_found() {
        assert_eq!(lines("a.rs", "#[allow(dead_code)]\nfn a() {}\n"), [1]);
        assert!(lines("a.rs", "#[allow(\n missing_docs,\n reason = \"generated\"\n)]\nmod a;\n").is_empty());
        assert_eq!(lines("a.rs", concat!("// TO", "DO: later\n")), [1]);
    }
}
