//! Tables of text: columns as wide as their widest cell, numbers on the right.

use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal};

use super::units::plain;

/// How a cell is coloured, where there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// The terminal's own colour.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// It needs attention.
    Warning,
    /// It does not work.
    Bad,
    /// Of less interest.
    Faint,
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: plain(&text.into()),
            tone,
        }
    }
}

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table with a line of headings.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(Cow<'static, str>, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|(head, at)| ((*head).into(), *at))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Gives a column a heading that is made at runtime.
    pub(super) fn rename(&mut self, nth: usize, head: String) {
        if let Some((its, _)) = self.columns.get_mut(nth) {
            *its = head.into();
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text, which ends in a newline. Columns with empty cells only are left out.
    pub(super) fn text(&self, paint: Paint) -> String {
        let cells = |nth: usize| self.rows.iter().filter_map(move |row| row.get(nth));
        let shown: Vec<_> = (0..)
            .zip(&self.columns)
            .filter(|(nth, _)| {
                self.rows.is_empty() || cells(*nth).any(|cell| !cell.text.is_empty())
            })
            .map(|(nth, (head, align))| {
                let widths = cells(nth).map(|cell| cell.text.chars().count());
                let width = widths.chain([head.chars().count()]).max().unwrap_or(0);
                (nth, head.as_ref(), *align, width)
            })
            .collect();
        let mut text = String::new();
        let heads = shown.iter().map(|(_, head, align, width)| {
            let head = Cell::toned(*head, Tone::Faint);
            paint.aligned(&head, *align, *width)
        });
        push_line(&mut text, &heads.collect::<Vec<_>>());
        for row in &self.rows {
            let cells = shown.iter().filter_map(|(nth, _, align, width)| {
                let cell = row.get(*nth)?;
                Some(paint.aligned(cell, *align, *width))
            });
            push_line(&mut text, &cells.collect::<Vec<_>>());
        }
        text
    }
}

fn push_line(text: &mut String, cells: &[String]) {
    text.push_str(cells.join("  ").trim_end());
    text.push('\n');
}

/// Whether to use colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    /// Colour on a terminal that has it, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb)
    }

    /// A text in its colour (SGR, ECMA-48).
    pub(super) fn toned(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Plain => return text.to_owned(),
        };
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn aligned(self, cell: &Cell, align: Align, width: usize) -> String {
        let blanks = " ".repeat(width.saturating_sub(cell.text.chars().count()));
        let text = self.toned(&cell.text, cell.tone);
        match align {
            Align::Left => text + &blanks,
            Align::Right => blanks + &text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let columns = [
            ("name", Align::Left),
            ("none", Align::Left),
            ("n", Align::Right),
        ];
        let mut table = Table::new(&columns);
        assert_eq!(table.text(Paint(true)).matches("\x1b[2m").count(), 3);
        table.row(["ä".into(), "".into(), "1.2k".into()]);
        table.row([Cell::toned("down", Tone::Bad), "".into(), "7".into()]);
        assert_eq!(
            table.text(Paint(false)),
            "name     n\nä     1.2k\ndown     7\n"
        );
        let painted = table.text(Paint(true));
        assert!(
            painted.ends_with("\x1b[31mdown\x1b[0m     7\n"),
            "{painted:?}"
        );
    }
}
