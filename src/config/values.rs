//! Single values as users write them, in `config.ron` and on the command line alike.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use thiserror::Error;

use super::log::{JOURNALD, JOURNALD_SOCKET, SYSLOG, SYSLOG_SOCKET};
use super::reader::At;
use super::{
    AdminState, Backend, HistoryPlace, Key, LogSink, RecordFormat, Strategy, codec, foreign,
};
use crate::address::{Address, AddressError, kind_of_no_server};
use crate::peek::MEMBER_MAX;
use crate::wording::is_misleading;

mod backend;
mod check;
mod count;
mod duration;
mod meant;
mod memory;
mod names;
mod network;
mod units;

pub use super::load::strategy_of;
pub(super) use super::text::decimal;
pub use backend::backend;
pub use check::expect_regex;
pub(crate) use check::verify;
pub(super) use check::{
    CheckType, alpn, check_type, http_host, http_method, http_path, server_name, status,
};
pub use count::count;
pub(crate) use duration::written;
pub use duration::{
    BAN, Bounds, CHECK_INTERVAL, DEADLINE, DECAY, EJECTION, GRACE, HISTORY_KEPT, HORIZON, PROGRESS,
    QUEUE_WAIT, REFRESH, SECONDS_KEPT, TIME_WAIT, TTL,
};
pub(super) use duration::{DAY, HOUR, MINUTE, SECOND, between, duration_of};
pub(super) use meant::{binary_memory, plain_number, truth};
pub use memory::memory_text;
pub(super) use memory::{memory, memory_range};
pub use names::named;
pub(super) use names::nearest;
pub(crate) use names::{did_you_mean, known};
use names::{hint, listed};
pub(super) use names::{joined, name_of_kind, one_of};
pub(super) use network::{
    PREFIX, SOURCE_ADDRESS, consul_tag, consul_word, discovered_name, dns_label, endpoint,
    etcd_prefix, http_bind, origin, peer_address, peers_listen, resolver, webhook,
};
pub use network::{admin_socket, loopback, prefix, source, source_address};
pub(super) use units::{Units, split};

/// Why a value is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// It is none of these values, in words.
    #[error("expected {0}")]
    Unexpected(String),
    /// Nothing of its kind has this name.
    #[error("invalid {kind} `{name}`{hint}")]
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
    /// Another reason, in a sentence that names the value.
    #[error("{0}")]
    Refused(String),
}

impl ValueError {
    /// The sentence about the value of a setting, a flag or a variable.
    #[must_use]
    pub fn about(&self, name: &str, written: &str) -> String {
        if name.is_empty() {
            self.to_string()
        } else if let Self::Unexpected(_) = self {
            format!("invalid {name} `{written}`: {self}")
        } else if let Self::Unknown {
            name: unknown,
            hint,
            ..
        } = self
        {
            format!("invalid {name} `{unknown}`{hint}")
        } else {
            format!("{name}: {self}")
        }
    }

    /// The sentence about a value of a configuration. The name of its setting stands in quotes:
    /// `for` and `down` would read as words of the sentence.
    pub(super) fn about_setting(&self, at: At<'_>) -> String {
        let is_label = !matches!(self, Self::Unexpected(_) | Self::Unknown { .. });
        let name = match at.name {
            name if name.is_empty() || is_label => name.to_owned(),
            name if at.is_item => format!("item of `{name}`"),
            name => format!("`{name}`"),
        };
        self.about(&name, at.written)
    }

    /// This error about the value of a flag, where a shell would take away the quotes of a file.
    pub(super) fn of_flag(self) -> Self {
        match self {
            Self::Unexpected(words) => Self::Unexpected(as_flag(&words)),
            Self::Refused(sentence) => Self::Refused(as_flag(&sentence)),
            Self::Unknown { .. } | Self::Address(_) => self,
        }
    }

    /// This error, with `ours` as what an unknown name may have meant.
    pub(super) fn meaning(mut self, ours: Option<&str>) -> Self {
        if let (Self::Unknown { hint, .. }, Some(ours)) = (&mut self, ours) {
            *hint = format!(", did you mean `{ours}`?");
        }
        self
    }
}

/// A member's number, as a flag has it.
///
/// # Errors
/// It is none.
pub fn member(text: &str) -> Result<u32, ValueError> {
    codec::number(0..=MEMBER_MAX).flag(text)
}

/// Worker threads; cpu_set_t of sched.h holds as many CPUs.
pub const WORKERS: RangeInclusive<u32> = 1..=1024;
/// Client connections at a time.
pub const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 24;
/// New connections in a second, or at once.
pub const RATE: RangeInclusive<u32> = 1..=1_000_000;
/// Offences that ban a source.
pub const OFFENCES: RangeInclusive<u32> = 1..=1_000_000;
/// Connect attempts of a session.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=16;
/// Weights of a backend.
pub const WEIGHT: RangeInclusive<u32> = 0..=256;
/// Sessions of which one is logged.
pub const SAMPLE: RangeInclusive<u32> = 1..=1_000_000;
/// Clients that persistence remembers.
pub const CLIENTS: RangeInclusive<u32> = 1..=1 << 24;
/// Clients that wait for a pool; 0: none.
pub const QUEUE: RangeInclusive<u32> = 0..=1 << 24;
/// Shares of a whole, in percent.
pub const PERCENT: RangeInclusive<u32> = 0..=100;
/// Probes in a row that bring a backend back or take it down.
pub const PROBES: RangeInclusive<u32> = 1..=100;
/// Ports that can be connected to.
pub const PORT: RangeInclusive<u32> = 1..=65_535;

/// A sentence with values as a file has them, for a shell: words without quotes, and groups in
/// single quotes. What stands in `` ` `` stays as it is.
fn as_flag(sentence: &str) -> String {
    let begins_group = |rest: &str| {
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = word.into_iter().next().unwrap_or_default();
        !word.is_empty() && rest[word.len()..].starts_with(':')
    };
    let mut flag = String::with_capacity(sentence.len());
    // Brackets that are open, of a group.
    let (mut depth, mut is_code) = (0_u32, false);
    for (at, c) in sentence.char_indices() {
        match c {
            '`' if depth == 0 => is_code = !is_code,
            '"' if depth == 0 && !is_code => continue,
            '(' if depth > 0 => depth += 1,
            '(' if !is_code && begins_group(&sentence[at + 1..]) => {
                depth = 1;
                flag.push('\'');
            }
            ')' if depth == 1 => {
                depth = 0;
                flag.push_str(")'");
                continue;
            }
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        flag.push(c);
    }
    flag
}

/// Reads a whole number.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, ValueError> {
    codec::number(range).flag(text)
}

/// Reads a duration.
pub fn duration(text: &str, bounds: Bounds) -> Result<Duration, ValueError> {
    codec::duration(bounds).flag(text)
}

/// Reads an amount of memory, in bytes.
pub fn memory_amount(text: &str) -> Result<u64, ValueError> {
    codec::memory().flag(text)
}

/// Reads a duration, or `off` as none.
pub fn duration_or_off(text: &str, bounds: Bounds) -> Result<Option<Duration>, ValueError> {
    codec::duration(bounds).or("off").flag(text)
}

/// Reads the reason of a ban.
pub fn reason(text: &str) -> Result<String, ValueError> {
    let is_shown = !text.chars().any(is_misleading);
    let fits = (1..=REASON_MAX).contains(&text.chars().count()) && is_shown;
    let expected = || ValueError::Unexpected(REASON.to_owned());
    fits.then(|| text.to_owned()).ok_or_else(expected)
}

/// The reason of a ban that others wrote, as it may be shown: the beginning of what it says.
pub(crate) fn shown_reason(text: &str) -> String {
    let shown = text.trim().chars().filter(|c| !is_misleading(*c));
    let shown: String = shown.take(REASON_MAX).collect();
    shown.trim().to_owned()
}

/// The reasons of bans that are expected, in words.
pub(super) const REASON: &str = "1 to 200 characters on one line, and no control character";
/// Characters of a reason.
const REASON_MAX: usize = 200;

/// Reads a decimal as percent, from its digits: no float comes near it.
pub(super) fn percent(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = !whole.is_empty() && is_digits(whole) && is_digits(fraction) && fraction.len() <= 2;
    format!("{whole}{fraction:0<2}")
        .parse()
        .ok()
        .filter(|_| fits)
}

/// Reads the name of a strategy.
pub fn strategy(name: &str) -> Result<Strategy, ValueError> {
    let strategy = named("strategy", name, &Strategy::all());
    strategy.map_err(|error| error.meaning(foreign::strategy(name)))
}

/// A setting that only these other kinds have.
pub(super) fn not_its_setting(
    (kind, name): (&'static str, &'static str),
    owners: &[&str],
) -> ValueError {
    let owners = listed(owners, "and");
    ValueError::Refused(format!(
        "the {kind} `{name}` has no such setting: it belongs to {owners}"
    ))
}

/// Reads a key for persistence.
pub(super) fn persist_key(text: &str) -> Result<Key, ValueError> {
    lasting(text.parse()?)
}

/// Refuses a key that differs with every connection.
pub(super) fn lasting(key: Key) -> Result<Key, ValueError> {
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
    let seed = text.to_string_lossy().parse();
    seed.map_err(|_| ValueError::Unexpected("a number from 0 to 2^64 - 1".to_owned()))
}

/// Reads where a log goes: `-` is standard output, all else a file.
pub(super) fn log_sink(text: &str) -> Option<LogSink> {
    if let Some(path) = server_socket(text, SYSLOG, SYSLOG_SOCKET) {
        return path.map(LogSink::Syslog);
    }
    if let Some(path) = server_socket(text, JOURNALD, JOURNALD_SOCKET) {
        return path.map(LogSink::Journald);
    }
    match text {
        "-" => Some(LogSink::Stdout),
        path => is_file(Path::new(path)).then(|| LogSink::File(path.into())),
    }
}

/// The socket of a log server, where the text names one: its word alone, or with `:PATH`. `None`
/// inside: no socket can have that path.
fn server_socket(text: &str, word: &str, default: &str) -> Option<Option<PathBuf>> {
    let rest = text.strip_prefix(word)?;
    if rest.is_empty() {
        return Some(Some(default.into()));
    }
    let path = Path::new(rest.strip_prefix(':')?);
    // sun_path of unix(7), with its closing NUL.
    let fits = is_file(path) && path.as_os_str().len() < 108;
    Some(fits.then(|| path.into()))
}

/// Reads where the history is kept.
pub(super) fn history_place(text: &str) -> Option<HistoryPlace> {
    match text {
        "auto" => Some(HistoryPlace::Auto),
        "memory" => Some(HistoryPlace::Memory),
        path => is_file(Path::new(path)).then(|| HistoryPlace::File(path.into())),
    }
}

/// Whether a path may be that of a file.
pub(super) fn is_file(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    // PATH_MAX of limits.h, with its closing NUL.
    (1..4096).contains(&bytes.len()) && !bytes.contains(&0) && !bytes.ends_with(b"/")
}

/// Reads the address of a backend, or a host name and a port. The backend has defaults for all
/// else.
pub fn backend_at(text: &str) -> Result<Backend, ValueError> {
    let backend = Backend::written(text.parse().map_err(to_connect_to)?);
    let Address::Tcp(address) = &backend.address else {
        return Ok(backend);
    };
    let name = &backend.name;
    if address.port() == 0 {
        let sentence = format!("invalid port `0` of `{name}`: expected 1 to 65535");
        return Err(ValueError::Refused(sentence));
    }
    // The address of a host name is not known yet.
    let kind = kind_of_no_server(address).filter(|_| backend.host.is_none());
    let Some(kind) = kind else {
        return Ok(backend);
    };
    let mut sentence =
        format!("invalid address `{name}`: expected the address of a server, not {kind}");
    let port = address.port();
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => sentence += &format!("; write 127.0.0.1:{port} for this machine"),
        IpAddr::V6(_) => sentence += &format!("; write [::1]:{port} for this machine"),
    }
    Err(ValueError::Refused(sentence))
}

/// The same error for an address to connect to: its port is not 0, and it is none of all
/// interfaces.
fn to_connect_to(error: AddressError) -> ValueError {
    let sentence = if let AddressError::BadPort(port) = &error {
        format!("invalid port `{port}`: expected 1 to 65535")
    } else if let AddressError::NoHost { text, port } = &error {
        format!("`{text}` has no host: write 127.0.0.1:{port} for this machine")
    } else {
        return error.into();
    };
    ValueError::Refused(sentence)
}

/// Reads the name of a listener, a pool or a backend.
pub fn name(text: &str) -> Result<String, ValueError> {
    codec::name().flag(text)
}

/// Whether a text may be such a name: it must fit into a log line.
pub(crate) fn is_name(text: &str) -> bool {
    let length = text.chars().count();
    (1..=NAME_CHARS_MAX).contains(&length) && !text.chars().any(char::is_control)
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
