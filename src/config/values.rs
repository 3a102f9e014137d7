//! Single values as users write them, in `config.ron` and on the command line alike.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;

use log::LevelFilter;
use thiserror::Error;

use super::{LogFormat, LogSink, Strategy};
use crate::address::{Address, AddressError};

mod duration;

pub(super) use duration::written;
pub use duration::{Bounds, CONNECT, DEADLINE, DEADLINE_OR_OFF, GRACE, duration, duration_or_off};

/// Why a value is refused. Each names the value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// Of the wrong type, or none of the words that may stand there.
    #[error("`{value}` is not {wanted}")]
    Not {
        /// The value as it was written.
        value: String,
        /// What may be written.
        wanted: String,
    },
    /// A duration without its unit.
    #[error("`{0}` has no unit: write {0}ms, {0}s, {0}m or {0}h")]
    NoUnit(String),
    /// A duration that can't be read.
    #[error("`{0}` is no duration: write a whole number with ms, s, m, h or d, such as 5s")]
    NoDuration(String),
    /// Too small or too large to make sense.
    #[error("`{value}` is out of range: {range} is wanted")]
    OutOfRange {
        /// The value as it was written.
        value: String,
        /// The range in words.
        range: String,
    },
    /// No strategy has this name.
    #[error("no strategy is called `{name}`{hint}")]
    UnknownStrategy {
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// No log format has this name.
    #[error("no log format is called `{name}`{hint}")]
    UnknownFormat {
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// No level of the operational log has this name.
    #[error("no level is called `{name}`{hint}")]
    UnknownLevel {
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// An address that can't be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address that can't be connected to.
    #[error("`{0}` can't be connected to: its port is 0")]
    PortZero(Address),
    /// A name that no log line could show.
    #[error("`{0}` is no name: 1 to 64 characters, none of them a control character, are wanted")]
    BadName(String),
    /// A path that no file can have.
    #[error("`{0}` is no path of a file")]
    BadPath(String),
}

/// Worker threads; cpu_set_t of sched.h holds as many CPUs.
pub const WORKERS: RangeInclusive<u32> = 1..=1024;
/// Client connections at a time.
pub const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 24;
/// Connect attempts of a session.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=16;
/// Weights of a backend.
pub const WEIGHT: RangeInclusive<u32> = 0..=256;

/// Reads a whole number above 0, or `auto` as none.
pub fn number_or_auto(
    text: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<NonZeroU32>, ValueError> {
    if text == "auto" {
        return Ok(None);
    }
    number_wanted(text, &range, "a whole number or \"auto\"").map(NonZeroU32::new)
}

/// Reads a whole number.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, ValueError> {
    number_wanted(text, &range, "a whole number")
}

fn number_wanted(text: &str, range: &RangeInclusive<u32>, wanted: &str) -> Result<u32, ValueError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::Not {
            value: text.to_owned(),
            wanted: wanted.to_owned(),
        });
    }
    in_range(text.parse().ok(), range, text)
}

/// Refuses a number out of range, and none: a number that no `u32` holds.
pub(super) fn in_range(
    number: Option<u32>,
    range: &RangeInclusive<u32>,
    written: &str,
) -> Result<u32, ValueError> {
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| ValueError::OutOfRange {
            value: written.to_owned(),
            range: format!("{} to {}", range.start(), range.end()),
        })
}

/// Reads the name of a strategy.
pub fn strategy(name: &str) -> Result<Strategy, ValueError> {
    named(name, &Strategy::all()).map_err(|hint| ValueError::UnknownStrategy {
        name: name.to_owned(),
        hint,
    })
}

/// Reads the name of a log format.
pub fn log_format(name: &str) -> Result<LogFormat, ValueError> {
    named(name, &LogFormat::ALL).map_err(|hint| ValueError::UnknownFormat {
        name: name.to_owned(),
        hint,
    })
}

/// Reads the name of a level of the operational log, in letters of either case.
pub fn log_level(name: &OsStr) -> Result<LevelFilter, ValueError> {
    let name = name.to_string_lossy();
    named(&name.to_ascii_lowercase(), &LOG_LEVELS).map_err(|hint| ValueError::UnknownLevel {
        name: name.into_owned(),
        hint,
    })
}

/// Reads where a log goes: `-` is standard output, `off` nowhere, all else a file.
pub fn log_sink(path: &Path) -> Result<Option<LogSink>, ValueError> {
    match path.to_str() {
        Some("-") => Ok(Some(LogSink::Stdout)),
        Some("off") => Ok(None),
        _ => file(path).map(|path| Some(LogSink::File(path.to_owned()))),
    }
}

/// Reads the path of a file.
pub fn file(path: &Path) -> Result<&Path, ValueError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    // PATH_MAX of limits.h, with its closing NUL.
    if bytes.is_empty() || bytes.len() >= 4096 || bytes.contains(&0) || bytes.ends_with(b"/") {
        return Err(ValueError::BadPath(path.display().to_string()));
    }
    Ok(path)
}

/// Reads the address of a backend.
pub fn backend_address(text: &str) -> Result<Address, ValueError> {
    let address: Address = text.parse()?;
    if matches!(&address, Address::Tcp(address) if address.port() == 0) {
        return Err(ValueError::PortZero(address));
    }
    Ok(address)
}

/// Reads the name of a listener, a pool or a backend.
pub(super) fn name(text: &str) -> Result<String, ValueError> {
    let length = text.chars().count();
    if (1..=NAME_CHARS_MAX).contains(&length) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(ValueError::BadName(text.to_owned()))
    }
}

/// The value of a name, or the end of a sentence that says what may have been meant.
fn named<T: Clone>(name: &str, all: &[(&'static str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        let hint = did_you_mean(name, names.iter().copied());
        if hint.is_empty() {
            format!(": {} is wanted", one_of(&names))
        } else {
            hint
        }
    })
}

/// `` `a`, `b` or `c` ``.
pub(super) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// `` , did you mean `near`? `` when one of the candidates is near, else nothing.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let length = |text: &str| text.chars().count();
    // One slip in three letters is a slip; more is another word.
    let slips_max = 1.max(length(word) / 3);
    // The distance takes time and memory by the product of the lengths.
    let comparable = |text: &str| text.len() <= 4 * NAME_CHARS_MAX;
    candidates
        .filter(|candidate| comparable(word) && comparable(candidate))
        .filter(|candidate| length(candidate).abs_diff(length(word)) <= slips_max)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| format!(", did you mean `{candidate}`?"))
        .unwrap_or_default()
}

const LOG_LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("off", LevelFilter::Off),
];

/// The longest name of a listener, a pool or a backend.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests;
