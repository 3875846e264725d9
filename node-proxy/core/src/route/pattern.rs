//! Regular expressions of routes: the whole text, bytes, no look-around, linear time. Must never match a part of a text.

use regex::bytes::{Regex, RegexBuilder};

use super::Invalid;
use crate::limits;

/// RE2's syntax over bytes: classes such as `\d` are ASCII, as a path and a header are.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    text: Box<str>,
}

impl Pattern {
    /// Compiles it; `field` names it in the error.
    ///
    /// # Errors
    /// Not a regular expression, or one whose program would be too large.
    pub fn new(field: &'static str, text: &str) -> Result<Pattern, Invalid> {
        if text.len() > limits::PATTERN_BYTES {
            let reason = format!("{} bytes of regular expression, at most {}", text.len(), limits::PATTERN_BYTES);
            return Err(Invalid::new(field, reason));
        }
        // On its own first: `a)(b` must not be repaired by what is put around it.
        let alone = RegexBuilder::new(text).unicode(false).size_limit(limits::PATTERN_PROGRAM_BYTES).build();
        let whole = alone.and_then(|_fine| {
            RegexBuilder::new(&anchored(text)).unicode(false).size_limit(limits::PATTERN_PROGRAM_BYTES).build()
        });
        match whole {
            Ok(regex) => Ok(Pattern { regex, text: text.into() }),
            Err(error) => {
                // Of its several lines the last says what is wrong.
                let said = error.to_string();
                let line = said.lines().next_back().unwrap_or_default().trim_start_matches("error: ");
                Err(Invalid::new(field, format!("{text:?} is no regular expression: {line}")))
            }
        }
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// The pattern for the whole text. A comment of verbose mode would swallow the end: such a pattern does not compile.
pub(super) fn anchored(text: &str) -> String {
    format!("^(?:{text})$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_has_to_match() {
        let pattern = Pattern::new("value", r"/v\d+|/latest").unwrap();
        for (text, matches) in
            [("/v1", true), ("/v12", true), ("/latest", true), ("/v", false), ("/v1/x", false), ("x/v1", false)]
        {
            assert_eq!(pattern.matches(text.as_bytes()), matches, "{text}");
        }
        assert!(!pattern.matches("/v\u{0663}".as_bytes()), "digits are ASCII");
    }

    #[test]
    fn what_is_none_is_refused_by_field() {
        for bad in [
            "a)(b",
            "(",
            "[",
            "(?=a)",
            "(?x) /a # a comment",
            r"(a)\1",
            &"a".repeat(5000),
            "(?:(?:a{1000}){1000}){1000}",
        ] {
            let error = Pattern::new("path.value", bad).unwrap_err();
            assert_eq!(error.field, "path.value", "{bad:.20}");
            assert!(!error.reason.contains('\n'), "{error}");
        }
    }
}
