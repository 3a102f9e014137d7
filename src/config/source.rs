//! The text of a configuration, and excerpts that show a place in it.

use std::fmt;

use unicode_width::UnicodeWidthChar;
use xxhash_rust::xxh3::xxh3_128;

use super::error::Mistake;
use super::tokens::Span;
use super::tree::Value;
use crate::wording::harmless;

/// A configuration's text with the position of every value.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
    /// The values; empty until the text has been parsed.
    root: Value,
}

impl Source {
    pub(super) fn new(name: String, text: String) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after).collect();
        Self {
            name,
            text,
            lines,
            root: Value::default(),
        }
    }

    /// A text whose values are known.
    pub(super) fn of(text: String, root: Value) -> Self {
        Self {
            root,
            ..Self::new(String::new(), text)
        }
    }

    /// Parses the values of the text.
    pub(super) fn parsed(mut self) -> Result<Self, Mistake> {
        match Value::parse(&self.text) {
            Ok(root) => {
                self.root = root;
                Ok(self)
            }
            Err((span, sentence)) => Err(Mistake::new(&self, &span, &sentence)),
        }
    }

    /// A digest that identifies this text.
    #[must_use]
    pub fn digest(&self) -> u128 {
        xxh3_128(self.text.as_bytes())
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// The number of the line, from 1, that holds a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub(super) fn place(&self, span: &Span) -> Place {
        let line = self.line(span.start);
        let start = self.lines[line - 1];
        let text = self.text[start..].split('\n').next().unwrap_or_default();
        let text = text.strip_suffix('\r').unwrap_or(text);
        let from = text.floor_char_boundary(span.start - start);
        let to = text
            .ceil_char_boundary(span.end.saturating_sub(start))
            .max(from);
        Place {
            file: self.name.clone(),
            line,
            column: 1 + text[..from].chars().count(),
            excerpt: excerpt(text, from, to),
        }
    }
}

/// A line and column of a file, with the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, with carets under the marked part.
    pub excerpt: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Characters of a long line shown before the mark, and the most that are marked.
const PART_CHARS_MAX: usize = 80;

fn excerpt(line: &str, from: usize, to: usize) -> String {
    let skipped = line[..from].chars().count().saturating_sub(PART_CHARS_MAX);
    let more = if skipped > 0 { "…" } else { "" };
    let before: String = line[..from].chars().skip(skipped).map(visible).collect();
    let mut rest = line[from..].chars();
    let shown: String = rest
        .by_ref()
        .take(2 * PART_CHARS_MAX)
        .map(visible)
        .collect();
    let cut = if rest.next().is_some() { "…" } else { "" };
    let pad: String = more.chars().chain(before.chars()).map(blank).collect();
    let marked = line[from..to].chars().take(PART_CHARS_MAX).map(visible);
    let carets = "^".repeat(marked.map(columns).sum::<usize>().max(1));
    format!("  | {more}{before}{shown}{cut}\n  | {pad}{carets}")
}

/// A character that is safe for a terminal.
pub(super) fn visible(c: char) -> char {
    if c == '\t' { c } else { harmless(c) }
}

/// White space as wide as a character.
fn blank(c: char) -> &'static str {
    match columns(c) {
        _ if c == '\t' => "\t",
        0 => "",
        1 => " ",
        _ => "  ",
    }
}

/// The columns that a terminal gives to a character.
fn columns(c: char) -> usize {
    // A tab, the only control character that is shown, is marked as one column.
    c.width().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, mark: &str) -> String {
        let source = Source::new("f".into(), text.into());
        let at = text.find(mark).unwrap();
        let place = source.place(&(at..at + mark.len()));
        format!("{place}\n{}", place.excerpt)
    }

    #[test]
    fn the_caret_stands_under_the_mark() {
        assert_eq!(
            shown("a\n b: xyz,\n", "xyz"),
            "f:2:5\n  |  b: xyz,\n  |     ^^^"
        );
        assert_eq!(
            shown("\t\tb:\tx", "x"),
            "f:1:6\n  | \t\tb:\tx\n  | \t\t  \t^"
        );
        assert_eq!(shown("é: x\r\n", "x"), "f:1:4\n  | é: x\n  |    ^");
        assert_eq!(
            shown("日本: é日", "é日"),
            "f:1:5\n  | 日本: é日\n  |       ^^^"
        );
        assert_eq!(
            shown("\u{202e}a\u{200b}b: x", "\u{202e}a\u{200b}b"),
            "f:1:1\n  | \u{fffd}a\u{fffd}b: x\n  | ^^^^"
        );
        assert_eq!(
            shown("e\u{301}: x", "x"),
            "f:1:5\n  | e\u{301}: x\n  |    ^"
        );
    }

    #[test]
    fn a_long_line_is_clipped_and_made_harmless() {
        let text = format!("{}\u{1b}X{}", "a".repeat(1000), "b".repeat(1000));
        let (a, b) = ("a".repeat(79), "b".repeat(159));
        let want = format!("f:1:1002\n  | …{a}\u{fffd}X{b}…\n  | {}^", " ".repeat(81));
        assert_eq!(shown(&text, "X"), want);
    }

    #[test]
    fn a_mark_over_many_lines_ends_with_the_first() {
        assert_eq!(shown("(a\nb)", "(a\nb)"), "f:1:1\n  | (a\n  | ^^");
    }

    #[test]
    fn a_mark_may_cut_characters() {
        let source = Source::new("f".into(), "(日".into());
        assert_eq!(source.place(&(2..3)).excerpt, "  | (日\n  |  ^^");
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let source = Source::new("f".into(), "ab\n".into());
        assert_eq!(source.place(&(3..4)).to_string(), "f:2:1");
    }
}
