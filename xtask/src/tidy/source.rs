//! The checkout's Rust files, and their text without comments and literals. Must never parse more of Rust than the rules need.

#[cfg(test)]
mod tests;

use std::{fs, path::Path};

use crate::child::{Failure, Outcome};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the top of the checkout.
    pub(super) path: String,
    /// As it is.
    pub(super) text: String,
    /// The same lines with comments and the insides of literals blanked.
    pub(super) code: String,
}

impl Source {
    /// A file with this text.
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { path: path.into(), code: code_of(&text), text }
    }

    /// Written by `cargo xtask codegen`?
    pub(super) fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// Nothing but tests?
    pub(super) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        let name = parts.next_back().unwrap_or_default();
        // The package `tests` is a program like any other: only its `tests/tests/` holds tests.
        name == "tests.rs" || parts.skip(1).any(|part| part == "tests")
    }

    /// The line, from 1, that a byte of `code` or `text` is on.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// Every `.rs` file of the checkout.
///
/// # Errors
/// A folder or file cannot be read.
pub(super) fn all() -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    walk(Path::new("."), &mut sources)?;
    if sources.is_empty() {
        return Err(Failure::new("no Rust file found: is this the checkout?"));
    }
    Ok(sources)
}

fn walk(folder: &Path, sources: &mut Vec<Source>) -> Outcome {
    let unreadable = |path: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(folder, error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().map_err(|error| unreadable(&path, error))?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                walk(&path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            sources.push(Source::new(path.strip_prefix(".").unwrap_or(&path).to_string_lossy(), text));
        }
    }
    Ok(())
}

/// The text with comments and literals as spaces: same length, same lines.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match skipped(bytes, at) {
            Some(end) => end.min(bytes.len()),
            None => {
                at += 1;
                continue;
            }
        };
        for byte in code.iter_mut().take(end).skip(at) {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole characters were blanked: literals and comments begin and end with ASCII.
    String::from_utf8_lossy(&code).into_owned()
}

/// The end of the comment or literal that begins here, if one does.
fn skipped(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => raw_string(rest).map(|length| at + length),
        // A character, not a lifetime: `'a'`, `'\n'`, `'é'`.
        [b'\'', b'\\', ..] => Some(at + quoted(rest, b'\'')),
        [b'\'', first, ..] => {
            let width = std::str::from_utf8(rest.get(1..5.min(rest.len()))?)
                .map_or_else(|error| error.valid_up_to(), str::len)
                .max(1);
            let length = match first {
                byte if byte.is_ascii() => 1,
                byte if *byte >= 0xf0 => 4,
                byte if *byte >= 0xe0 => 3,
                _ => 2,
            };
            (length <= width && rest.get(1 + length) == Some(&b'\'')).then_some(at + length + 2)
        }
        _ => None,
    }
}

/// Is the byte before part of a word (then `r` is no raw string's prefix)? `br"…"` is one.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let word = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    match at.checked_sub(1) {
        Some(before) if matches!(bytes.get(before), Some(b'b' | b'c')) => before.checked_sub(1).is_some_and(word),
        Some(before) => word(before),
        None => false,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth.saturating_sub(1), at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a literal with escapes, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `r#"…"#`, if it is one and not a raw identifier.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().skip(1).take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let body = rest.get(2 + hashes..)?;
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| 2 + hashes + end + close.len()))
}

/// Where this word occurs: not as part of a longer one.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code.get(..*at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// The byte after the item that begins at `from`: after its `;` or after its closing brace.
pub(super) fn item_end(code: &str, from: usize) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}
