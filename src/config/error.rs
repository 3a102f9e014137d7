//! Errors and warnings about a configuration.

use std::fmt;

use thiserror::Error;

use super::source::{Place, Source, visible};
use super::tokens::Span;
use super::values::ValueError;
use crate::wording::plural;

/// Mistakes, or warnings, that are shown one by one.
pub(super) const SHOWN_MAX: usize = 50;
/// The most characters of a sentence that quotes an input, which may have any length.
const SENTENCE_CHARS_MAX: usize = 400;

/// A sentence that quotes an input, without its middle where it is too long: the value begins at
/// the front, and what was expected instead stands at the end.
pub(crate) fn bounded(sentence: String) -> String {
    // So many bytes are not more characters.
    if sentence.len() <= SENTENCE_CHARS_MAX {
        return sentence;
    }
    let half = SENTENCE_CHARS_MAX / 2;
    let after = |count| sentence.char_indices().nth(count).map(|(at, _)| at);
    let before = |count| sentence.char_indices().nth_back(count).map(|(at, _)| at);
    match (after(SENTENCE_CHARS_MAX), after(half), before(half - 2)) {
        (Some(_), Some(front), Some(end)) => {
            format!("{}…{}", &sentence[..front], &sentence[end..])
        }
        _ => sentence,
    }
}

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
        let sentence = bounded(sentence.to_owned());
        Self {
            place: source.place(span),
            sentence: sentence.chars().map(visible).collect(),
        }
    }
}

impl From<Mistake> for ValueError {
    fn from(mistake: Mistake) -> Self {
        Self::Refused(mistake.sentence)
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

/// Where the mistakes are that a text shows, without what stands there: a value may be a secret. A
/// text that shows no place is told by its first line.
#[must_use]
pub fn outline(text: &str) -> String {
    let place = |line: &str| {
        let (place, _) = line.split_once(": ")?;
        let mut numbers = place.rsplit(':').take(2);
        let is_place = !line.starts_with(' ') && place.matches(':').count() >= 2;
        let is_place = is_place && numbers.all(|number| number.parse::<u32>().is_ok());
        is_place.then(|| place.to_owned())
    };
    let places: Vec<_> = text.lines().filter_map(place).collect();
    match &places[..] {
        [] => text.lines().next().unwrap_or_default().to_owned(),
        [one] => format!("a mistake at {one}"),
        [first, others @ ..] => {
            format!(
                "mistakes at {first} and {}",
                plural(others.len() as u64, "more place")
            )
        }
    }
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

#[cfg(test)]
mod tests {
    use super::{bounded, outline};

    #[test]
    fn an_outline_has_places_and_no_value() {
        let text = "c.ron:4:9: invalid `send` `\"secret\"`: expected text\n  | send: \"secret\"\n  \
                    |       ^\nc.ron:7:1: unknown field `x`\n  | a:1:2: b";
        assert_eq!(outline(text), "mistakes at c.ron:4:9 and 1 more place");
        let (first, _) = text.split_once("\nc.ron:7").unwrap();
        assert_eq!(outline(first), "a mistake at c.ron:4:9");
        let other = "cannot read c.ron: No such file or directory";
        assert_eq!(outline(other), other);
        assert_eq!(outline(""), "");
    }

    #[test]
    fn a_long_sentence_keeps_its_ends() {
        for quoted in ["x".repeat(60_000_000), "é".repeat(1_000)] {
            let sentence = bounded(format!("invalid port `{quoted}`: expected 0 to 65535"));
            assert_eq!(sentence.chars().count(), 400);
            assert!(sentence.starts_with("invalid port `"), "{sentence}");
            assert!(sentence.ends_with("`: expected 0 to 65535"), "{sentence}");
        }
        for short in ["x".repeat(400), "é".repeat(400)] {
            assert_eq!(bounded(short.clone()), short);
        }
    }
}
