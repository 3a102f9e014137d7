//! Error messages for texts that are not valid RON.

use ron::error::{Error, SpannedError};

use super::foreign;
use super::tokens::{Lexeme, TokenKind};
use super::tree::Wrong;
use super::values;

/// Where a group must stand.
pub(super) const GROUP: &str = "expected fields in `(` and `)` here";
/// Where a file holds another value than a group.
pub(super) fn whole_group() -> String {
    format!("{GROUP}: the smallest file is {}", foreign::SMALLEST)
}

/// Where fields stand in a list.
pub(super) const IN_PARENTHESES: &str =
    "expected fields in `(` and `)` here, and not in `[` and `]`";
/// Where a value stands in a group without the name of its field.
pub(super) const NAMELESS: &str =
    "this value needs the name of its field before it, as in `address: \"127.0.0.1:9001\"`";
/// Where a list must stand.
pub(super) const LIST: &str = "expected a list in `[` and `]` here";

/// Whether a word may be the name of a field.
pub(super) fn is_name(word: &str) -> bool {
    let word = word.strip_prefix("r#").unwrap_or(word);
    let starts = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
    starts && word.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// What is wrong with a string, a number or a word.
pub(super) fn of_leaf(written: &str, error: &SpannedError) -> String {
    let is_string = written.contains('"');
    if let Error::InvalidEscape(_) = error.code {
        "this escape is unknown: a backslash is written \\\\".to_owned()
    } else if written.starts_with('\'') {
        single_quoted(written)
    } else if is_string
        && (!written.ends_with(['"', '#']) || error.code == Error::ExpectedStringEnd)
    {
        UNCLOSED.to_owned()
    } else if is_string {
        format!("invalid string: {}", error.code.to_string().to_lowercase())
    } else {
        quotes(written)
    }
}

/// A better sentence for what stopped the parser, where the tokens around it show what was meant.
pub(super) fn explained(text: &str, tokens: &[Lexeme], (span, sentence): Wrong) -> Wrong {
    let written = |token: &Lexeme| &text[token.span.clone()];
    if let Some(comment) = tokens.iter().find(|token| token.kind == TokenKind::Comment)
        && comment.span.start <= span.start
    {
        let start = comment.span.start;
        return (start..start + 2, "this comment is never closed".to_owned());
    }
    let next = tokens.partition_point(|token| token.span.end <= span.start);
    let before = &tokens[..next];
    if let Some(word) = tokens.get(next).filter(|word| word.kind == TokenKind::Word)
        && let Some(at) = written(word).find(';')
    {
        let at = word.span.start + at;
        return (at..at + 1, SEMICOLON.to_owned());
    }
    // A string that lacks its end goes on up to the next string, which is then a word.
    if let Some(long) = before.iter().rfind(|token| token.kind == TokenKind::Text)
        && written(long).starts_with('"')
        && (written(long).contains('\n') || long.span.end == span.start)
        && tokens
            .get(next)
            .is_some_and(|token| token.kind == TokenKind::Word)
    {
        return (long.span.clone(), UNCLOSED.to_owned());
    }
    if let Some(found) = tokens.get(next)
        && let Some(better) = misread(text, before, found)
    {
        return better;
    }
    (span, sentence)
}

/// What is written as in other formats.
fn misread(text: &str, before: &[Lexeme], found: &Lexeme) -> Option<Wrong> {
    let written = &text[found.span.clone()];
    if written.starts_with('#') && found.kind == TokenKind::Word {
        let sentence = "a comment begins with `//`, and not with `#`";
        return Some((found.span.clone(), sentence.to_owned()));
    }
    if written.starts_with('\'') {
        return Some((found.span.clone(), single_quoted(written)));
    }
    let last = before.last()?;
    let assigns = |token: &&Lexeme| {
        let name = text[token.span.clone()]
            .split_once('=')
            .map(|(name, _)| name);
        token.kind == TokenKind::Word && name.is_some_and(|name| name.is_empty() || is_name(name))
    };
    let token = [found, last].into_iter().find(assigns)?;
    let sentence = "write `:` between a field's name and its value, and not `=`";
    Some((token.span.clone(), sentence.to_owned()))
}

/// Explains how to quote a word in place of a string.
pub(super) fn quotes(bare: &str) -> String {
    if bare.starts_with(['“', '”', '„', '‘', '’', '«']) {
        return "strings stand in plain double quotes, as in \"text\"".to_owned();
    }
    // A value that is refused in quotes too is not proposed in them.
    if let Some(ratio) = bare.strip_suffix('%').and_then(|text| text.parse().ok()) {
        let decimal = values::decimal(ratio);
        return format!("invalid number {bare}: write {ratio}, or {decimal} for a decimal");
    }
    if let Some(number) = values::plain_number(bare) {
        return format!("invalid number {bare}: write {number}");
    }
    // `10m` is minutes.
    let memory = values::binary_memory(bare).filter(|_| values::duration_of(bare).is_none());
    let quoted = memory.unwrap_or_else(|| bare.to_owned());
    format!("{bare} must be written in double quotes: \"{quoted}\"")
}

fn single_quoted(written: &str) -> String {
    let inner = written.trim_matches('\'');
    format!("strings stand in double quotes: \"{inner}\"")
}

const SEMICOLON: &str = "write `,` between fields, and between the items of a list, and not `;`";
const UNCLOSED: &str = "this string is never closed";
