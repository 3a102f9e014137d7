//! Patterns of host names.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Name, NameRegex};

/// A host name, all names below one, or those that match a regular expression: `a.example`,
/// `*.example`, `~api-[0-9]+\.example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// That name, as [`Name`] writes it.
    Exact(String),
    /// All names below it, and not itself.
    Below(String),
    /// All names that match.
    Matching(NameRegex),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// It is no name at all.
    #[error("expected a host name such as \"a.example\", or \"*.example\" for all below a name")]
    NoName,
    /// A star stands for something else than all names below one.
    #[error(
        "a `*` stands for all names below one, as in \"*.example\": write it first, once, or a \
         regular expression behind a `~`"
    )]
    Star,
    /// An international name is not written as it comes.
    #[error(
        "an international name comes as A-labels: write them, such as \"xn--bcher-kva.example\""
    )]
    International,
    /// Clients' names come without a port.
    #[error("a name is compared without its port: leave the port out")]
    Port,
    /// What stands behind the `~`.
    #[error("invalid regular expression: {0}")]
    Regex(String),
}

impl NamePattern {
    /// Whether it stands for a name, as [`Name`] writes it.
    #[must_use]
    pub fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(own) => name == own.as_bytes(),
            Self::Below(own) => above(name).any(|parent| parent == own.as_bytes()),
            Self::Matching(regex) => regex.matches(name),
        }
    }
}

/// The names that a name is below, the nearest first.
pub fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    dots.filter_map(|(at, _)| name.get(at + 1..))
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Some(regex) = text.strip_prefix('~') {
            let regex = NameRegex::new(regex).map_err(PatternError::Regex)?;
            return Ok(Self::Matching(regex));
        }
        let (is_below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(PatternError::Star);
        }
        if !name.is_ascii() {
            return Err(PatternError::International);
        }
        let port = name.rsplit_once(':');
        if port.is_some_and(|(host, port)| {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            is_number && (!host.contains(':') || host.ends_with(']'))
        }) {
            return Err(PatternError::Port);
        }
        let read = Name::read(name.bytes()).ok_or(PatternError::NoName)?;
        let name = String::from_utf8_lossy(read.as_bytes()).into_owned();
        let labels = name.split('.').all(|label| !label.is_empty());
        if !labels || name.contains(['/', '@', '?', '#', '\\', '"', ',']) {
            return Err(PatternError::NoName);
        }
        Ok(match is_below {
            true => Self::Below(name),
            false => Self::Exact(name),
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Matching(regex) => write!(f, "~{regex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_read_as_names_are_compared() {
        for (text, written) in [
            ("A.Example.", "a.example"),
            ("*.Example", "*.example"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[::1]", "[::1]"),
            (r"~A[0-9]+\.example", r"~A[0-9]+\.example"),
        ] {
            assert_eq!(pattern(text).to_string(), written);
        }
        for (text, error) in [
            ("", PatternError::NoName),
            (".", PatternError::NoName),
            ("*.", PatternError::NoName),
            ("a..example", PatternError::NoName),
            (".example", PatternError::NoName),
            ("a b", PatternError::NoName),
            ("a/b", PatternError::NoName),
            ("*", PatternError::Star),
            ("a.*.example", PatternError::Star),
            ("*a.example", PatternError::Star),
            ("*.*.example", PatternError::Star),
            ("bücher.example", PatternError::International),
            ("a.example:443", PatternError::Port),
            ("[::1]:443", PatternError::Port),
            ("~a(", PatternError::Regex("unclosed group".to_owned())),
        ] {
            assert_eq!(text.parse::<NamePattern>(), Err(error), "{text}");
        }
    }
}
