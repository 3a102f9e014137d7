//! RON's own complaints in sentences for the author of a configuration.

use ron::error::{Error, SpannedError};

use super::error::Mistake;
use super::source::Source;
use super::spans::{Kind, Span, Token, tokens};
use super::values::{did_you_mean, one_of};

/// The mistake that stopped the RON parser.
pub(super) fn mistake(source: &Source, error: &SpannedError) -> Mistake {
    // RON's span starts with what was read last, which is not what is wrong where something lacks.
    let lacks = lacks_comma(&error.code);
    let position = if lacks {
        error.span.end
    } else {
        error.span.start
    };
    let at = source.offset(position.line, position.col);
    let tokens = tokens(source.text());
    let next = tokens.partition_point(|token| token.span.end <= at);
    let context = Context {
        source,
        at,
        next,
        tokens,
    };
    let (span, sentence) = context.explain(&error.code);
    Mistake::new(source, &span, &sentence)
}

/// Where the parser stopped.
struct Context<'a> {
    source: &'a Source,
    /// The byte.
    at: usize,
    tokens: Vec<Token>,
    /// The token that holds or follows that byte.
    next: usize,
}

impl Context<'_> {
    fn explain(&self, error: &Error) -> (Span, String) {
        let here = |sentence: &str| (self.here(), sentence.to_owned());
        if let Error::NoSuchStructField {
            expected, found, ..
        } = error
        {
            return (self.here(), unknown_field(found, expected));
        }
        if matches!(error, Error::UnclosedBlockComment) {
            let start = self.source.text()[..self.at].rfind("/*").unwrap_or(self.at);
            return (start..start + 2, "this comment is never closed".to_owned());
        }
        if self.tokens.is_empty() {
            return here("the file is empty: it needs listeners and pools");
        }
        let unclosed = self.unclosed();
        if let Some(open) = unclosed.filter(|_| self.next == self.tokens.len()) {
            return (
                open.span.clone(),
                format!("this `{}` is never closed", self.text(open)),
            );
        }
        if matches!(error, Error::ExpectedStringEnd) {
            return here("this string is never closed");
        }
        if let Some(found) = self.bare_duration() {
            let value = &self.source.text()[found.clone()];
            let sentence = format!("{value} must be written in double quotes: \"{value}\"");
            return (found, sentence);
        }
        (self.here(), self.sentence(error, unclosed))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "RON's errors are open; the rest speak well"
    )]
    fn sentence(&self, error: &Error, unclosed: Option<&Token>) -> String {
        match error {
            Error::DuplicateStructField { field, .. } => {
                format!("the field `{field}` is given twice")
            }
            lacks if lacks_comma(lacks) => {
                let closing = match unclosed.map(|open| open.kind) {
                    Some(Kind::Open('[')) => ']',
                    Some(Kind::Open('{')) => '}',
                    _ => ')',
                };
                format!("a comma or `{closing}` is missing before this")
            }
            Error::ExpectedMapColon => "a `:` is missing before this".to_owned(),
            Error::ExpectedIdentifier => "the name of a field is wanted here".to_owned(),
            Error::ExpectedArray => "a list in `[` and `]` is wanted here".to_owned(),
            Error::ExpectedStructLike
            | Error::ExpectedNamedStructLike(_)
            | Error::ExpectedDifferentStructName { .. } => {
                "fields in `(` and `)` are wanted here".to_owned()
            }
            Error::UnexpectedChar(_) => "a value is wanted here".to_owned(),
            Error::TrailingCharacters => "nothing may follow the closing bracket".to_owned(),
            Error::InvalidEscape(_) => {
                "this escape is unknown: a backslash is written \\\\".to_owned()
            }
            Error::ExceededRecursionLimit => "brackets are nested too deeply here".to_owned(),
            other => {
                let text = other.to_string();
                let mut chars = text.chars();
                let first = chars.next().map(|c| c.to_ascii_lowercase());
                first.into_iter().chain(chars).collect()
            }
        }
    }

    /// The token at the byte, or the byte alone.
    fn here(&self) -> Span {
        match self.tokens.get(self.next) {
            Some(token) if token.span.start <= self.at => token.span.clone(),
            Some(token)
                if self.source.text()[self.at..token.span.start]
                    .trim()
                    .is_empty() =>
            {
                token.span.clone()
            }
            _ => self.at..self.at + 1,
        }
    }

    fn text(&self, token: &Token) -> &str {
        &self.source.text()[token.span.clone()]
    }

    /// The innermost bracket that is open where the parser stopped.
    fn unclosed(&self) -> Option<&Token> {
        let mut open = Vec::new();
        for token in self.tokens.get(..self.next)? {
            match token.kind {
                Kind::Open(_) => open.push(token),
                Kind::Close(_) => drop(open.pop()),
                Kind::Colon | Kind::Comma | Kind::Text | Kind::Word => {}
            }
        }
        open.pop()
    }

    /// A number with a unit outside of a string, which stops the parser at the unit.
    fn bare_duration(&self) -> Option<Span> {
        let token = self
            .tokens
            .get(self.next)
            .filter(|token| token.span.contains(&self.at))?;
        let text = self.text(token);
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let whole = unit.len() < text.len() && matches!(unit, "ms" | "s" | "m" | "h" | "d");
        whole.then(|| token.span.clone())
    }
}

fn lacks_comma(error: &Error) -> bool {
    matches!(
        error,
        Error::ExpectedComma
            | Error::ExpectedArrayEnd
            | Error::ExpectedMapEnd
            | Error::ExpectedStructLikeEnd
            | Error::ExpectedOptionEnd
    )
}

fn unknown_field(found: &str, expected: &[&str]) -> String {
    let hint = did_you_mean(found, expected.iter().copied());
    if hint.is_empty() {
        format!(
            "the field `{found}` is unknown: {} may stand here",
            one_of(expected)
        )
    } else {
        format!("the field `{found}` is unknown{hint}")
    }
}
