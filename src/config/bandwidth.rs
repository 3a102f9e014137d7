//! Limits of bandwidth: bytes per second in each direction.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::Config;
use super::codec::{Leaf, group_or_none, parsed};
use super::table::settings;
use super::values::{Units, ValueError, split};
use crate::guard::ByteRate;

settings! {
    /// How many bytes sessions of a listener may move in a second. Beyond it they wait.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Bandwidth {
        /// What each session may move. Off: no limit.
        pub session: Rates = Rates::default() => group_or_none();
        /// What all sessions of a source may move together, over all workers. Off: no limit.
        pub source: Rates = Rates::default() => group_or_none();
        /// What all sessions of the listener may move together. Off: no limit.
        pub all: Rates = Rates::default() => group_or_none();
    }
}

settings! {
    /// Bytes per second in each direction.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rates {
        /// From clients to backends. Off: no limit.
        pub up: Option<ByteRate> = None => rate().or("off");
        /// From backends to clients. Off: no limit.
        pub down: Option<ByteRate> = None => rate().or("off");
    }
}

super::table::defaults!(Bandwidth, Rates);

impl Config {
    /// Whether a setting limits bandwidth.
    #[must_use]
    pub fn limits_bandwidth(&self) -> bool {
        let mut listeners = self.listeners.iter();
        let mut backends = self.pools.iter().flat_map(|pool| &pool.backends);
        self.bandwidth != Rates::default()
            || listeners.any(|listener| listener.bandwidth != Bandwidth::default())
            || backends.any(|backend| backend.bandwidth != Rates::default())
    }
}

impl Bandwidth {
    /// Whether sessions of a source share a limit.
    #[must_use]
    pub fn limits_sources(&self) -> bool {
        self.source != Rates::default()
    }
}

impl Rates {
    /// What workers apply: [from clients, from backends].
    #[must_use]
    pub fn by_way(&self) -> [Option<ByteRate>; 2] {
        [self.up, self.down]
    }
}

fn rate() -> Leaf<ByteRate> {
    parsed(EXPECTED, read, |rate| UNITS.write(rate.per_second()))
}

fn read(text: &str) -> Result<ByteRate, ValueError> {
    let rate = |text: &str| {
        let bytes = UNITS.read(text).filter(|bytes| RANGE.contains(bytes))?;
        NonZeroU64::new(bytes).map(ByteRate::new)
    };
    rate(text).ok_or_else(|| {
        let meant = meant(text).filter(|meant| rate(meant).is_some());
        let hint = meant.map(|meant| format!(": write \"{meant}\""));
        ValueError::Unexpected(format!("{EXPECTED}{}", hint.unwrap_or_default()))
    })
}

/// The rate that a text means which lacks the time, has a unit in other letters, or is in bits.
fn meant(text: &str) -> Option<String> {
    let (number, unit) = split(text);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("/s")
        .or_else(|| unit.strip_suffix("ps"))
        .unwrap_or(&unit);
    if let Some(unit) = unit
        .strip_suffix("bit")
        .or_else(|| unit.strip_suffix("bits"))
    {
        let (_, unit) = BITS.iter().find(|(name, _)| *name == unit)?;
        let bits = number.parse::<u64>().ok()?.checked_mul(*unit)?;
        return Some(format!("{}kB/s", bits / 8_000));
    }
    let is_it = |name: &str| {
        let name = name.trim_end_matches("/s").to_ascii_lowercase();
        name == unit || name.trim_end_matches('b') == unit
    };
    let (name, _) = UNITS.0.iter().rev().find(|(name, _)| is_it(name))?;
    Some(format!("{number}{name}"))
}

const EXPECTED: &str = "bytes per second such as \"10MiB/s\" or \"10MB/s\", 1KiB/s to 100GiB/s";
const RANGE: RangeInclusive<u64> = 1 << 10..=100 << 30;
const UNITS: Units = Units(&[
    ("B/s", 1),
    ("kB/s", 1_000),
    ("KiB/s", 1 << 10),
    ("MB/s", 1_000_000),
    ("MiB/s", 1 << 20),
    ("GB/s", 1_000 * 1_000_000),
    ("GiB/s", 1 << 30),
]);
const BITS: [(&str, u64); 3] = [("k", 1_000), ("m", 1_000_000), ("g", 1_000 * 1_000_000)];

#[cfg(test)]
impl Bandwidth {
    /// Any limits, or none; of sources only where clients have addresses.
    pub(super) fn any(random: &mut fastrand::Rng, has_sources: bool) -> Self {
        Self {
            session: Rates::any(random),
            source: match has_sources {
                true => Rates::any(random),
                false => Rates::default(),
            },
            all: Rates::any(random),
        }
    }
}

#[cfg(test)]
impl Rates {
    pub(super) fn any(random: &mut fastrand::Rng) -> Self {
        let mut rate = || {
            let rate = NonZeroU64::new(random.u64(RANGE)).map(ByteRate::new);
            rate.filter(|_| random.bool())
        };
        Self {
            up: rate(),
            down: rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (written, bytes) in [
            ("1KiB/s", 1 << 10),
            ("1025B/s", 1_025),
            ("250kB/s", 250_000),
            ("10MB/s", 10_000_000),
            ("10MiB/s", 10 << 20),
            ("100GiB/s", 100 << 30),
            ("2GB/s", 2_000_000_000),
        ] {
            let rate = read(written).unwrap();
            assert_eq!(rate.per_second(), bytes);
            assert_eq!(UNITS.write(bytes), written);
        }
        for bad in [
            "",
            "MB/s",
            "-5MB/s",
            "1.5MB/s",
            "1023B/s",
            "101GiB/s",
            "99999999999GiB/s",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_meant_is_proposed() {
        for (written, meant) in [
            ("10MB", "10MB/s"),
            ("10 mb/s", "10MB/s"),
            ("512KiBps", "512KiB/s"),
            ("5000", "5000B/s"),
            ("3M", "3MB/s"),
            ("100Mbit/s", "12500kB/s"),
            ("1gbit", "125000kB/s"),
        ] {
            let error = read(written).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!(": write \"{meant}\"")),
                "{written}: {error}"
            );
        }
        for far in ["10 apples/s", "1B/s", "fast"] {
            let error = read(far).unwrap_err().to_string();
            assert_eq!(error, format!("expected {EXPECTED}"), "{far}");
        }
    }
}
