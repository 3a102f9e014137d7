//! Single values as users write them, in `config.ron` and on the command line alike.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;

use log::LevelFilter;
use thiserror::Error;

use super::{AdminState, Backend, Key, LogFormat, LogSink, RecordFormat, Strategy};
use crate::address::{Address, AddressError};

mod backend;
mod check;
mod duration;
mod memory;
mod names;
mod network;

pub use super::load::{check_of, queue_of, strategy_of};
pub use backend::{BackendError, backend};
pub use check::expect_regex;
pub(super) use check::{
    CheckType, PROXY_HEADERS, alpn, check_type, http_host, http_method, http_path, server_name,
    status, verify,
};
pub(crate) use duration::written;
pub use duration::{
    Bounds, CHECK_INTERVAL, CHECK_TIMEOUT, CONNECT, COOL_DOWN, DEADLINE, DECAY, EJECTION, GRACE,
    HORIZON, PEEK, QUEUE_WAIT, REFRESH, SCALING_WINDOW, SEASON, SLOW_START, TTL, duration,
    duration_or_off,
};
pub use memory::{memory, memory_text};
pub(crate) use names::did_you_mean;
pub use names::named;
use names::{foreign, hint, listed};
pub(super) use names::{name_of_kind, one_of};
pub use network::admin_socket;
pub(super) use network::{
    discovered_name, loopback, resolver, source_address, source_ports, webhook,
};

/// Why a value is refused. Each names the value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// It has the wrong type, or is none of the expected words.
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
    #[error("invalid duration `{0}`: expected a whole number with ms, s, m, h or d, such as 5s")]
    NoDuration(String),
    /// Too small or too large to make sense.
    #[error("`{value}` is out of range: expected {range}")]
    OutOfRange {
        /// The value as it was written.
        value: String,
        /// The range in words.
        range: String,
    },
    /// Nothing of its kind has this name.
    #[error("no {kind} is called `{name}`{hint}")]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// An address that can't be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A name that does not fit into a log line.
    #[error("invalid name `{0}`: expected 1 to 64 characters, and no control character")]
    BadName(String),
    /// A path that is not valid for a file.
    #[error("invalid path `{0}`: expected the path of a file")]
    BadPath(String),
    /// Another reason, in a sentence.
    #[error("{0}")]
    Refused(String),
}

impl ValueError {
    /// The error for a value of the wrong kind.
    pub(super) fn not(value: &str, wanted: &str) -> Self {
        Self::Not {
            value: value.to_owned(),
            wanted: wanted.to_owned(),
        }
    }

    /// A value out of range.
    pub(super) fn out_of_range(value: &str, range: &RangeInclusive<u32>) -> Self {
        Self::OutOfRange {
            value: value.to_owned(),
            range: format!("{} to {}", range.start(), range.end()),
        }
    }

    /// The same of an unknown name that is another's for this one of ours, if it is.
    pub(super) fn meaning(mut self, ours: Option<&str>) -> Self {
        if let (Self::Unknown { hint, .. }, Some(ours)) = (&mut self, ours) {
            *hint = format!(", did you mean `{ours}`?");
        }
        self
    }

    /// The same where a word may stand there too.
    pub(super) fn or(mut self, word: &str) -> Self {
        if let Self::Not { wanted, .. } = &mut self {
            let comma = if wanted.contains(',') { "," } else { "" };
            *wanted = format!("{wanted}{comma} or \"{word}\"");
        } else if let Self::OutOfRange { range, .. } = &mut self {
            *range = format!("{}, or \"{word}\"", range);
        }
        self
    }
}

/// Worker threads; cpu_set_t of sched.h holds as many CPUs.
pub const WORKERS: RangeInclusive<u32> = 1..=1024;
/// Client connections at a time.
pub const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 24;
/// Connect attempts of a session.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=16;
/// Weights of a backend.
pub const WEIGHT: RangeInclusive<u32> = 0..=256;
/// Weights of a group.
pub const GROUP_WEIGHT: RangeInclusive<u32> = 1..=1 << 16;
/// Backends of a subset.
pub const SUBSET: RangeInclusive<u32> = 1..=16;
/// Clients that persistence remembers.
pub const CLIENTS: RangeInclusive<u32> = 1..=1 << 24;
/// Clients that wait for a pool; 0: none.
pub const QUEUE: RangeInclusive<u32> = 0..=1 << 24;
/// Shares of a whole, in percent.
pub const PERCENT: RangeInclusive<u32> = 0..=100;
/// Failures in a row that eject a backend.
pub const FAILURES: RangeInclusive<u32> = 1..=1000;
/// Probes in a row that bring a backend back or take it down.
pub const PROBES: RangeInclusive<u32> = 1..=100;
/// Ports that can be connected to.
pub const PORT: RangeInclusive<u32> = 1..=65_535;
/// Backends that scaling never goes below.
pub const SCALING_MIN: RangeInclusive<u32> = 1..=1 << 16;

/// Reads a whole number above 0, or `auto` as none.
pub fn number_or_auto(
    text: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<NonZeroU32>, ValueError> {
    if text == "auto" {
        return Ok(None);
    }
    let number = number(text, range).map_err(|error| error.or("auto"));
    number.map(NonZeroU32::new)
}

/// Reads a whole number.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, ValueError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::not(text, "a whole number"));
    }
    in_range(text.parse().ok(), &range, text)
}

/// Refuses a number out of range, and none: a number that no `u32` holds.
pub(super) fn in_range(
    number: Option<u32>,
    range: &RangeInclusive<u32>,
    written: &str,
) -> Result<u32, ValueError> {
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| ValueError::out_of_range(written, range))
}

/// A ratio that is written as a decimal and kept in percent.
#[derive(Clone, Debug)]
pub(super) struct Ratio {
    percent: RangeInclusive<u16>,
    pub(super) range: &'static str,
    /// How it is written.
    wanted: &'static str,
}

/// Loads relative to the average.
pub(super) const MAX_LOAD: Ratio = Ratio {
    percent: 101..=1000,
    range: "1.01 to 10",
    wanted: "a number with at most two decimals, such as 1.25",
};
/// Latencies relative to the median.
pub(super) const LATENCY: Ratio = Ratio {
    percent: 150..=10_000,
    range: "1.5 to 100",
    wanted: "a number with at most two decimals, such as 5.0",
};

/// Reads a load relative to the average in percent, written as a decimal, or `off` as none.
pub fn max_load(text: &str) -> Result<Option<u16>, ValueError> {
    if text == "off" {
        Ok(None)
    } else {
        let load = percent(text, &MAX_LOAD);
        load.map(Some).map_err(|error| error.or("off"))
    }
}

/// Reads a decimal as percent, from its digits: no float comes near it.
pub(super) fn percent(text: &str, ratio: &Ratio) -> Result<u16, ValueError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 2 {
        return Err(ValueError::not(text, ratio.wanted));
    }
    let percent = format!("{whole}{fraction:0<2}").parse().ok();
    percent
        .filter(|percent| ratio.percent.contains(percent))
        .ok_or_else(|| ValueError::OutOfRange {
            value: text.to_owned(),
            range: ratio.range.to_owned(),
        })
}

/// Reads the name of a strategy.
pub fn strategy(name: &str) -> Result<Strategy, ValueError> {
    let strategy = named("strategy", name, &Strategy::all());
    strategy.map_err(|error| error.meaning(foreign(name)))
}

/// Refuses a setting that the strategy does not have.
pub fn setting_of(strategy: &Strategy, setting: &str) -> Result<(), ValueError> {
    if strategy.settings().contains(&setting) {
        return Ok(());
    }
    let all = Strategy::all();
    let owners = all
        .iter()
        .filter(|(_, other)| other.settings().contains(&setting));
    let owners: Vec<&str> = owners.map(|(name, _)| *name).collect();
    Err(not_its_setting(("strategy", strategy.name()), &owners))
}

pub(super) fn not_its_setting(
    (kind, name): (&'static str, &'static str),
    owners: &[&str],
) -> ValueError {
    let owners = listed(owners, "and");
    ValueError::Refused(format!(
        "the {kind} `{name}` has no such setting: it belongs to {owners}"
    ))
}

/// Persistence is set twice: by the strategy and by the pool.
pub fn persists_already() -> ValueError {
    let sentence = "`sticky_round_robin` persists already: use `round_robin` with persist";
    ValueError::Refused(sentence.to_owned())
}

/// Reads a key for persistence.
pub fn persist_key(text: &str) -> Result<Key, ValueError> {
    lasting(text.parse()?)
}

/// Refuses a key that differs with every connection.
pub fn lasting(key: Key) -> Result<Key, ValueError> {
    match key {
        Key::SourceIpPort => Err(ValueError::Refused(format!(
            "`{key}` is another with each connection: no client would be known again"
        ))),
        key @ (Key::SourceIp { .. } | Key::Peeked(_)) => Ok(key),
    }
}

/// Reads the administrative state of a backend.
pub fn admin_state(name: &str) -> Result<AdminState, ValueError> {
    named("state", name, &AdminState::ALL)
}

/// Reads the name of a log format.
pub fn log_format(name: &str) -> Result<LogFormat, ValueError> {
    named("log format", name, &LogFormat::ALL)
}

/// Reads the name of a format of the operational log.
pub fn record_format(name: &OsStr) -> Result<RecordFormat, ValueError> {
    named("log format", &name.to_string_lossy(), &RecordFormat::ALL)
}

/// Reads the name of a level of the operational log, in letters of either case.
pub fn log_level(name: &OsStr) -> Result<LevelFilter, ValueError> {
    let name = name.to_string_lossy();
    let lower = name.to_ascii_lowercase();
    let found = LOG_LEVELS.iter().find(|(known, _)| *known == lower);
    found.map(|(_, level)| *level).ok_or_else(|| {
        let names = LOG_LEVELS.map(|(known, _)| known);
        ValueError::Unknown {
            kind: "level",
            hint: hint(&lower, &names),
            name: name.into_owned(),
        }
    })
}

/// Reads the seed of random numbers.
pub fn seed(text: &OsStr) -> Result<u64, ValueError> {
    let text = text.to_string_lossy();
    text.parse().map_err(|_| ValueError::Not {
        value: text.into_owned(),
        wanted: "a number from 0 to 2^64 - 1".to_owned(),
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

/// Reads the address of a backend, or a host name and a port. The backend has defaults for all
/// else.
pub fn backend_at(text: &str) -> Result<Backend, ValueError> {
    let backend = Backend::written(text.parse()?);
    if matches!(&backend.address, Address::Tcp(address) if address.port() == 0) {
        let name = backend.name;
        return Err(ValueError::Refused(format!(
            "`{name}` can't be connected to: its port is 0"
        )));
    }
    Ok(backend)
}

/// Reads the name of a listener, a pool or a backend.
pub fn name(text: &str) -> Result<String, ValueError> {
    let length = text.chars().count();
    if (1..=NAME_CHARS_MAX).contains(&length) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(ValueError::BadName(text.to_owned()))
    }
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
