//! Errors and warnings about a configuration.

use std::fmt;

use thiserror::Error;

use super::source::{Place, Source, visible};
use super::tokens::Span;

/// Mistakes, or warnings, that are shown one by one.
pub(super) const SHOWN_MAX: usize = 50;
/// The most characters of a sentence, which may quote a value of any length.
const SENTENCE_CHARS_MAX: usize = 400;

/// Why a configuration could not be loaded. Its text is ready to print.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{file}: {why}")]
    Unreadable {
        /// The file's name as it was given.
        file: String,
        /// The reason.
        why: String,
    },
    /// The text is wrong, in source order; never empty.
    #[error("{}", listed(.0))]
    Mistakes(Vec<Mistake>),
}

/// One thing that must be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What, in one sentence.
    pub sentence: String,
}

impl Mistake {
    pub(super) fn new(source: &Source, span: &Span, sentence: &str) -> Self {
        let sentence = sentence
            .chars()
            .take(SENTENCE_CHARS_MAX)
            .map(visible)
            .collect();
        Self {
            place: source.place(span),
            sentence,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n{}",
            self.place, self.sentence, self.place.excerpt
        )
    }
}

fn listed(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}

/// Keeps as many as are shown, and counts the others: each is shown with its line, which may be the
/// whole file.
pub(super) fn cap(found: &mut Vec<(Span, String)>, what: &str) {
    let more = found.len().saturating_sub(SHOWN_MAX);
    if more > 1 {
        found.truncate(SHOWN_MAX + 1);
        found[SHOWN_MAX].1 = format!("{more} more {what} follow from here on");
    }
}

/// A setting that is valid but likely to cause harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where, when it comes from a file.
    pub place: Option<Place>,
    /// What, in one sentence.
    pub sentence: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: warning: {}\n{}", self.sentence, place.excerpt),
            None => write!(f, "warning: {}", self.sentence),
        }
    }
}
