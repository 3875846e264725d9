//! What the demo prints: headings, aligned tables, one part that is drawn again. Must never print a control code where no terminal reads it.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

/// Meaning of a text, shown as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// No colour.
    Plain,
    /// Green.
    Good,
    /// Red.
    Bad,
    /// Grey.
    Faint,
}

/// A piece of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell(String, Tone);

/// A cell without colour.
pub(super) fn cell(text: impl Into<String>) -> Cell {
    Cell(text.into(), Tone::Plain)
}

/// A cell that is good or bad.
pub(super) fn verdict(text: impl Into<String>, good: bool) -> Cell {
    Cell(text.into(), if good { Tone::Good } else { Tone::Bad })
}

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    color: bool,
    /// Lines of the part that is drawn again.
    drawn: usize,
}

impl Default for Screen {
    fn default() -> Screen {
        Screen::new()
    }
}

impl Screen {
    /// Looks at standard output and NO_COLOR.
    pub(super) fn new() -> Screen {
        let terminal = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Screen { terminal, color: terminal && !unwanted, drawn: 0 }
    }

    /// Whether tables can be drawn again in place.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Value of `--color` for programs whose output is shown here.
    pub(super) fn color(&self) -> &'static str {
        if self.color { "always" } else { "never" }
    }

    /// A heading, with space before it.
    pub(super) fn heading(&mut self, text: &str) {
        let text = self.code("1", text);
        self.put(&format!("\n{text}\n"));
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) {
        self.put(&format!("  {text}\n"));
    }

    /// One line in a colour.
    pub(super) fn toned(&mut self, text: &str, tone: Tone) {
        let text = self.paint(text, tone);
        self.line(&text);
    }

    /// A step that took some time.
    pub(super) fn done(&mut self, text: &str, detail: &str) {
        let mark = self.paint("√", Tone::Good);
        let detail = self.paint(detail, Tone::Faint);
        self.line(format!("{mark} {text}  {detail}").trim_end());
    }

    /// Columns under titles; numbers (columns from `right` on) are aligned to the right.
    pub(super) fn table(&mut self, titles: &[&str], right: usize, rows: &[Vec<Cell>]) {
        let text = self.columns(titles, right, rows);
        self.put(&text);
    }

    /// Text of others, indented.
    pub(super) fn block(&mut self, text: &str) {
        let text: String = text.lines().map(|line| format!("  {line}\n")).collect();
        self.put(&text);
    }

    /// Draws a part again over what it was before. Lines that are too long are cut by the terminal.
    pub(super) fn redraw(&mut self, text: &str) {
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        let body: String = text.lines().map(|line| format!("  {line}\n")).collect();
        self.put(&format!("{up}\x1b[J\x1b[?7l{body}\x1b[?7h"));
        self.drawn = text.lines().count();
    }

    /// What was drawn last stays.
    pub(super) fn keep(&mut self) {
        self.drawn = 0;
    }

    fn columns(&self, titles: &[&str], right: usize, rows: &[Vec<Cell>]) -> String {
        let length = |text: &str| text.chars().count();
        let header: Vec<Cell> = titles.iter().map(|title| Cell((*title).to_owned(), Tone::Faint)).collect();
        let all: Vec<&Vec<Cell>> = std::iter::once(&header).chain(rows).collect();
        let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| length(&cell.0)).max();
        let mut text = String::new();
        for row in &all {
            let mut line = String::from("  ");
            for (column, Cell(cell, tone)) in row.iter().enumerate() {
                let blank = " ".repeat(width(column).unwrap_or(0) - length(cell));
                let cell = self.paint(cell, *tone);
                let cell = if column >= right { format!("{blank}{cell}   ") } else { format!("{cell}{blank}   ") };
                line += &cell;
            }
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn paint(&self, text: &str, tone: Tone) -> String {
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Good => self.code("32", text),
            Tone::Bad => self.code("31", text),
            Tone::Faint => self.code("2", text),
        }
    }

    fn code(&self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn put(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that left must not keep us from cleaning up.
        let _written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colours_stay_away_from_files() {
        let screen = Screen { terminal: false, color: false, drawn: 0 };
        let rows = [vec![cell("web"), cell("7")], vec![verdict("longer", true), verdict("120", false)]];
        assert_eq!(screen.columns(&["NAME", "N"], 1, &rows), "  NAME       N\n  web        7\n  longer   120\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let screen = Screen { terminal: true, color: true, drawn: 0 };
        let text = screen.columns(&["A", "N"], 1, &[vec![cell("x"), verdict("1", true)]]);
        assert!(text.ends_with("  x   \x1b[32m1\x1b[0m\n"), "{text:?}");
    }
}
