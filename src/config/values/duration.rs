//! Durations: a whole number with a unit.

use std::time::Duration;

use super::ValueError;

/// The durations that make sense for a setting.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    min: Duration,
    max: Duration,
    /// What a duration is a multiple of.
    step: Duration,
    words: &'static str,
}

/// Connect timeouts.
pub const CONNECT: Bounds = Bounds {
    min: Duration::from_millis(1),
    max: Duration::from_secs(3600),
    step: MILLISECOND,
    words: "1ms to 1h",
};
/// Deadlines.
pub const DEADLINE: Bounds = Bounds {
    min: Duration::from_millis(1),
    max: Duration::from_secs(30 * 86_400),
    step: MILLISECOND,
    words: "1ms to 30d",
};
/// Graces; none is a grace too.
pub const GRACE: Bounds = Bounds {
    min: Duration::ZERO,
    max: Duration::from_secs(86_400),
    step: MILLISECOND,
    words: "0s to 1d",
};

/// Waits for a client's first bytes.
pub const PEEK: Bounds = Bounds {
    min: Duration::from_millis(1),
    max: Duration::from_secs(60),
    step: MILLISECOND,
    words: "1ms to 1m",
};
/// How long clients persist.
pub const TTL: Bounds = Bounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(30 * 86_400),
    step: MILLISECOND,
    words: "1s to 30d",
};
/// Time constants of averages.
pub const DECAY: Bounds = Bounds {
    min: Duration::from_millis(100),
    max: Duration::from_secs(3600),
    step: MILLISECOND,
    words: "100ms to 1h",
};
/// How far predictions look ahead, in the seconds that forecasts count in.
pub const HORIZON: Bounds = Bounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(600),
    step: Duration::from_secs(1),
    words: "1s to 10m, in whole seconds",
};
/// Periods that load repeats with.
pub const SEASON: Bounds = Bounds {
    min: Duration::from_secs(600),
    max: Duration::from_secs(30 * 86_400),
    step: MILLISECOND,
    words: "10m to 30d",
};
/// Waits in a pool's queue, of which a twentieth is still a time.
pub const QUEUE_WAIT: Bounds = Bounds {
    min: Duration::from_millis(20),
    max: Duration::from_secs(3600),
    step: MILLISECOND,
    words: "20ms to 1h",
};
/// Times from probe to probe.
pub const CHECK_INTERVAL: Bounds = DECAY;
/// Times from one screen of `mahoraga top` to the next.
pub const REFRESH: Bounds = DECAY;
/// Whole probes.
pub const CHECK_TIMEOUT: Bounds = Bounds {
    min: Duration::from_millis(10),
    max: Duration::from_secs(60),
    step: MILLISECOND,
    words: "10ms to 1m",
};
/// Ejections.
pub const EJECTION: Bounds = Bounds {
    min: Duration::from_millis(100),
    max: Duration::from_secs(86_400),
    step: MILLISECOND,
    words: "100ms to 1d",
};
/// Ways of backends to their full share.
pub const SLOW_START: Bounds = DECAY;
/// How long a load stays beyond a mark of scaling.
pub const SCALING_WINDOW: Bounds = Bounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(3600),
    step: MILLISECOND,
    words: "1s to 1h",
};
/// Times from one decision of scaling to the next.
pub const COOL_DOWN: Bounds = Bounds {
    min: Duration::from_secs(1),
    max: Duration::from_secs(86_400),
    step: MILLISECOND,
    words: "1s to 1d",
};

impl Bounds {
    /// The range in words.
    pub(in crate::config) fn words(&self) -> &'static str {
        self.words.trim_end_matches(',')
    }
}

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
        .filter(|duration| duration.as_millis().is_multiple_of(bounds.step.as_millis()))
        .ok_or_else(out_of_range)
}

/// Reads a duration, or `off` as none.
pub fn duration_or_off(text: &str, bounds: Bounds) -> Result<Option<Duration>, ValueError> {
    if text == "off" {
        Ok(None)
    } else {
        let duration = duration(text, bounds);
        duration.map(Some).map_err(|error| error.or("off"))
    }
}

/// A duration as it may be written, in the largest unit that leaves no fraction.
pub(crate) fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    let whole = |(_, unit_ms): &&(&str, u64)| ms.is_multiple_of(u128::from(*unit_ms));
    let (unit, unit_ms) = UNITS.iter().rfind(whole).unwrap_or(&UNITS[0]);
    format!("{}{unit}", ms / u128::from(*unit_ms))
}

/// What durations are counted in.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The units of durations in milliseconds, smallest first.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
