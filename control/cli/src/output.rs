//! Tables, colours and safe text. Must never pass a control character of a foreign name to a terminal.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{error::CliError, limits};

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    Table,
    /// For programs: stable field names.
    Json,
    /// A table with more columns.
    Wide,
    /// Manifests, with their comments.
    Yaml,
    /// Only what is wrong.
    Short,
}

impl Format {
    /// As it is written after `-o`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Wide => "wide",
            Format::Yaml => "yaml",
            Format::Short => "short",
        }
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On terminals, unless NO_COLOR is set or TERM is `dumb`.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether standard output gets colours.
    pub(crate) fn on(self) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        self.decide(io::stdout().is_terminal(), set("NO_COLOR").is_some() || dumb)
    }

    fn decide(self, terminal: bool, unwanted: bool) -> bool {
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !unwanted,
        }
    }
}

/// Meaning of a cell, shown as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// No colour.
    Plain,
    /// Green.
    Good,
    /// Yellow.
    Warn,
    /// Red.
    Bad,
}

impl Tone {
    /// `text` in the colour of this tone, if colours are on.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Unprintable, invisible and text-reordering characters.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn safe(text: &str, most: usize) -> String {
    let mut escaped = String::with_capacity(text.len().min(most));
    for (index, character) in text.chars().enumerate() {
        if index == most {
            escaped.push('…');
            break;
        }
        if is_harmful(character) { escaped.extend(character.escape_default()) } else { escaped.push(character) }
    }
    escaped
}

/// A foreign name for a terminal: harmful characters escaped, length bounded.
pub(crate) fn name(text: &str) -> String {
    safe(text, limits::CELL_CHARS)
}

/// A foreign sentence for a terminal.
pub(crate) fn sentence(text: &str) -> String {
    safe(text, limits::SENTENCE_CHARS)
}

/// `-` for nothing.
pub(crate) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Columns of text, aligned. Cells are escaped here, so that no caller can forget it.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(String, Tone)>>,
}

/// Side to which a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl Into<Vec<(&'static str, Align)>>) -> Table {
        Table { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, surplus ones are dropped.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        let mut cells: Vec<_> = cells.into_iter().map(|(text, tone)| (name(&text), tone)).collect();
        cells.resize(self.columns.len(), (String::new(), Tone::Plain));
        self.rows.push(cells);
    }

    /// The text, three spaces between columns, no blanks at line ends.
    pub(crate) fn text(&self, color: bool) -> String {
        let length = |text: &str| text.chars().count();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| length(text));
            cells.chain([length(self.columns[column].0)]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let header = self.columns.iter().map(|(title, _)| ((*title).to_owned(), Tone::Plain)).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let row: &Vec<(String, Tone)> = row;
            let mut line = String::new();
            for (((cell, tone), width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let blank = " ".repeat(width.saturating_sub(length(cell)));
                let cell = tone.paint(cell, color);
                let _ = match align {
                    Align::Left => write!(line, "{cell}{blank}   "),
                    Align::Right => write!(line, "{blank}{cell}   "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes a value as indented JSON and a line end.
pub(crate) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), CliError> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// A line on standard error, that does not fail when there is nobody to read it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", sentence(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> (String, Tone) {
        (text.to_owned(), Tone::Plain)
    }

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let mut table = Table::new([("NAME", Align::Left), ("RPS", Align::Right), ("OK", Align::Left)]);
        table.row([plain("web"), plain("1.0rps"), ("√".to_owned(), Tone::Good)]);
        table.row([plain("longer"), plain("10.0rps")]);
        let expected = "NAME         RPS   OK\nweb       1.0rps   √\nlonger   10.0rps\n";
        assert_eq!(table.text(false), expected);
        assert_eq!(table.text(true).replace("\x1b[32m", "").replace("\x1b[0m", ""), expected);
        assert!(table.text(true).contains("\x1b[32m√\x1b[0m"));
    }

    #[test]
    fn foreign_names_cannot_drive_the_terminal() {
        let mut table = Table::new([("NAME", Align::Left)]);
        table.row([plain("a\x1b[2J\nb\u{202e}c\u{7f}\u{9b}")]);
        let text = table.text(false);
        assert_eq!(text, "NAME\na\\u{1b}[2J\\nb\\u{202e}c\\u{7f}\\u{9b}\n");
        assert_eq!(name(&"x".repeat(5_000)).chars().count(), limits::CELL_CHARS + 1);
    }

    #[test]
    fn colours_only_where_wanted() {
        assert!(ColorChoice::Auto.decide(true, false));
        assert!(!ColorChoice::Auto.decide(false, false));
        assert!(!ColorChoice::Auto.decide(true, true));
        assert!(ColorChoice::Always.decide(false, true));
        assert!(!ColorChoice::Never.decide(true, false));
    }
}
