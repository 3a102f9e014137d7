//! Single values as users write them, in `config.ron` and on the command line alike.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use log::LevelFilter;
use thiserror::Error;

use super::{LogFormat, LogSink, Strategy};
use crate::address::{Address, AddressError};

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

/// The durations that make sense for a setting.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    min: Duration,
    max: Duration,
    words: &'static str,
}

/// Connect timeouts.
pub const CONNECT: Bounds = Bounds {
    min: Duration::from_millis(1),
    max: Duration::from_secs(3600),
    words: "1ms to 1h",
};
/// Deadlines that can't be switched off.
pub const DEADLINE: Bounds = Bounds {
    min: Duration::from_millis(1),
    max: Duration::from_secs(30 * 86_400),
    words: "1ms to 30d",
};
/// Deadlines that can be switched off.
pub const DEADLINE_OR_OFF: Bounds = Bounds {
    words: "1ms to 30d, or \"off\",",
    ..DEADLINE
};
/// Graces; none is a grace too.
pub const GRACE: Bounds = Bounds {
    min: Duration::ZERO,
    max: Duration::from_secs(86_400),
    words: "0s to 1d",
};

/// Reads a whole number with a unit, such as `250ms`.
pub fn duration(text: &str, bounds: Bounds) -> Result<Duration, ValueError> {
    let out_of_range = || ValueError::OutOfRange {
        value: text.to_owned(),
        range: bounds.words.to_owned(),
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits);
    let known = UNITS.iter().find(|(known, _)| *known == unit);
    let unit_ms = match known {
        Some((_, unit_ms)) if !digits.is_empty() => *unit_ms,
        None if unit.is_empty() && !digits.is_empty() => {
            return Err(ValueError::NoUnit(text.to_owned()));
        }
        _ => return Err(ValueError::NoDuration(text.to_owned())),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .filter(|duration| (bounds.min..=bounds.max).contains(duration))
        .ok_or_else(out_of_range)
}

/// Reads a duration, or `off` as none.
pub fn duration_or_off(text: &str) -> Result<Option<Duration>, ValueError> {
    if text == "off" {
        Ok(None)
    } else {
        duration(text, DEADLINE_OR_OFF).map(Some)
    }
}

/// A duration as it may be written, in the largest unit that leaves no fraction.
pub(super) fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    let whole = |(_, unit_ms): &&(&str, u64)| ms.is_multiple_of(u128::from(*unit_ms));
    let (unit, unit_ms) = UNITS.iter().rfind(whole).unwrap_or(&UNITS[0]);
    format!("{}{unit}", ms / u128::from(*unit_ms))
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

/// The units of durations in milliseconds, smallest first.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

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
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let read = |text: &str| duration(text, DEADLINE);
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(read("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(read("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(read("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(read("5"), Err(ValueError::NoUnit("5".into())));
        for bad in ["", "s", "-1s", "1.5s", "5 s", "5sec", "1h30m", "５s"] {
            assert_eq!(read(bad), Err(ValueError::NoDuration(bad.into())), "{bad}");
        }
        for bad in [
            "0s",
            "31d",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(
                matches!(read(bad), Err(ValueError::OutOfRange { .. })),
                "{bad}"
            );
        }
        assert_eq!(duration("0s", GRACE), Ok(Duration::ZERO));
        assert_eq!(duration_or_off("off"), Ok(None));
        for text in ["1ms", "1500ms", "90s", "10m", "36h", "30d"] {
            assert_eq!(written(read(text).unwrap()), text);
        }
        assert_eq!(written(Duration::from_secs(7200)), "2h");
    }

    #[test]
    fn numbers_may_be_left_open() {
        let read = |text: &str| number_or_auto(text, WORKERS);
        assert_eq!(read("auto"), Ok(None));
        assert_eq!(read("1024"), Ok(NonZeroU32::new(1024)));
        let error = |text: &str| read(text).unwrap_err().to_string();
        for bad in ["0", "1025", "-1", "99999999999999999999"] {
            let want = format!("`{bad}` is out of range: 1 to 1024 is wanted");
            assert_eq!(error(bad), want);
        }
        for bad in ["", "-", "+1", "1.5", "Auto", "1_000"] {
            let want = format!("`{bad}` is not a whole number or \"auto\"");
            assert_eq!(error(bad), want);
        }
    }

    #[test]
    fn words_have_neighbours() {
        assert_eq!(strategy("round_robin"), Ok(Strategy::RoundRobin));
        let error = |name| strategy(name).unwrap_err().to_string();
        let want = "no strategy is called `roundrobin`, did you mean `round_robin`?";
        assert_eq!(error("roundrobin"), want);
        let want = "no strategy is called `x`: `round_robin`, `sticky_round_robin`, `hash`, ";
        assert!(error("x").starts_with(want));
        let error = log_format("xml").unwrap_err().to_string();
        assert_eq!(
            error,
            "no log format is called `xml`: `key_value` or `json` is wanted"
        );
    }

    #[test]
    fn levels_of_the_operational_log() {
        let read = |name: &str| log_level(OsStr::new(name)).map_err(|error| error.to_string());
        assert_eq!(read("debug"), Ok(LevelFilter::Debug));
        assert_eq!(read("INFO"), Ok(LevelFilter::Info));
        assert_eq!(read("off"), Ok(LevelFilter::Off));
        let want = "no level is called `Inof`, did you mean `info`?";
        assert_eq!(read("Inof"), Err(want.to_owned()));
        for other in ["", "mahoraga=debug", "4"] {
            let want = format!(
                "no level is called `{other}`: `error`, `warn`, `info`, `debug` or `off` is wanted"
            );
            assert_eq!(read(other), Err(want));
        }
    }

    #[test]
    fn sinks() {
        let sink = |text: &str| log_sink(Path::new(text));
        assert_eq!(sink("-"), Ok(Some(LogSink::Stdout)));
        assert_eq!(sink("off"), Ok(None));
        assert_eq!(sink("./off"), Ok(Some(LogSink::File("./off".into()))));
        assert_eq!(sink("logs/"), Err(ValueError::BadPath("logs/".into())));
        assert_eq!(sink(""), Err(ValueError::BadPath(String::new())));
    }

    #[test]
    fn names_are_short_and_printable() {
        assert_eq!(name("web 1"), Ok("web 1".into()));
        for bad in ["", "a\nb", &"a".repeat(65)] {
            assert_eq!(name(bad), Err(ValueError::BadName(bad.into())));
        }
    }
}
