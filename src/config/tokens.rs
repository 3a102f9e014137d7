//! Splits a RON text into tokens with their places. It never fails: anything that is no token of
//! RON becomes a word, which [`tree`](super::tree) refuses.

use std::ops::Range;

/// A piece of the text, in bytes.
pub(super) type Span = Range<usize>;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// `(`, `[` or `{`.
    Open(char),
    /// `)`, `]` or `}`.
    Close(char),
    /// `:`.
    Colon,
    /// `,`.
    Comma,
    /// A string, a byte string or a character.
    Text,
    /// Anything else: a name, a number.
    Word,
    /// A comment that is never closed.
    Comment,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

/// The tokens of a text, without white space and comments.
pub(super) fn tokens(text: &str) -> Vec<Lexeme> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let blank = blank_bytes(rest);
        if blank > 0 {
            at += blank;
            continue;
        }
        let (kind, bytes) = match first {
            '/' if rest.starts_with("/*") => (TokenKind::Comment, rest.len()),
            '(' | '[' | '{' => (TokenKind::Open(first), 1),
            ')' | ']' | '}' => (TokenKind::Close(first), 1),
            ':' => (TokenKind::Colon, 1),
            ',' => (TokenKind::Comma, 1),
            _ => match text_bytes(rest) {
                Some(bytes) => (TokenKind::Text, bytes),
                None => (TokenKind::Word, word_bytes(rest)),
            },
        };
        tokens.push(Lexeme {
            kind,
            span: at..at + bytes,
        });
        at += bytes;
    }
    tokens
}

fn is_blank(c: char) -> bool {
    // RON skips Pattern_White_Space, which has these two marks beside the white space proper.
    c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}')
}

/// The length of the white space or the closed comment that a text starts with.
fn blank_bytes(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if !text.starts_with("/*") {
        return text.len() - text.trim_start_matches(is_blank).len();
    }
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    0
}

/// The length of the string or character literal that a text starts with.
fn text_bytes(text: &str) -> Option<usize> {
    let plain = text.strip_prefix('b').unwrap_or(text);
    if let Some(raw) = plain.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let closing = format!("\"{}", &raw[..raw.len() - body.len()]);
        let body = body.strip_prefix('"')?;
        let end = body
            .find(&closing)
            .map_or(body.len(), |end| end + closing.len());
        return Some(text.len() - body.len() + end);
    }
    let quote = plain.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    let end = plain[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.map_or(text.len(), |end| text.len() - plain.len() + end + 2))
}

fn word_bytes(text: &str) -> usize {
    let ends = |at: usize, c: char| {
        is_blank(c)
            || "()[]{}:,\"'".contains(c)
            || text[at..].starts_with("//")
            || text[at..].starts_with("/*")
    };
    // The first character belongs to the word whatever it is: a scan always moves on.
    let end = text.char_indices().skip(1).find(|(at, c)| ends(*at, *c));
    end.map_or(text.len(), |(at, _)| at)
}
